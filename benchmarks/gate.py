"""Correctness before speed: no figure is taken of what does not compute the operation."""

import math
from dataclasses import dataclass

import torch

from .cases import ELEMENTWISE, call, output_gradients
from .exact import in_float64, reference_results

OUTPUT_FACTOR, GRADIENT_FACTOR = 2, 3


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate computes the operation.

    Attributes
    ----------
    passed : bool
    error_ratio : float
        Largest error over the error allowed, over all outputs and gradients; at most 1 passes. NaN where no comparison
        was possible.
    reason : str
        What is wrong, empty if nothing is.
    """

    passed: bool
    error_ratio: float
    reason: str = ""


class Gate:
    """The exact results of a case in float64 and the error allowed of each tensor.

    Parameters
    ----------
    case : Case
    inputs : sequence of Tensor
        As `cases.inputs_of` returns them.

    Notes
    -----
    Allowed is twice (gradients: three times) the largest error of the reference in the inputs' own dtype, plus that
    dtype's rounding floor: a reference that happens to be exact must not ask for exactness. These are FlashAttention's
    bounds, and those of this repository's tests.
    """

    def __init__(self, case, inputs):
        self.case, self.inputs = case, inputs
        with torch.no_grad():
            outputs = [torch.empty_like(o) for o in _outputs_like(case, inputs)]
        self.gradients = output_gradients(outputs)
        exact = reference_results(case, in_float64(inputs), in_float64(self.gradients))
        same = reference_results(case, inputs, self.gradients)
        self.expected = []
        names = ("output", "gradient")
        factors = (OUTPUT_FACTOR, GRADIENT_FACTOR)
        for name, factor, truths, theirs in zip(names, factors, exact, same, strict=True):
            for i, (truth, their) in enumerate(zip(truths, theirs, strict=True)):
                floor = 2 * torch.finfo(their.dtype).eps * _largest(truth)
                allowed = factor * _largest(their.double() - truth) + floor
                self.expected.append((f"{name} {i}", truth, allowed))

    def results(self, function):
        """Return every output and gradient of `function` for the gate's gradients of the outputs."""
        return self._with_gradients(call(self.case, function, self.inputs))

    def _with_gradients(self, outputs):
        gradients = torch.autograd.grad(
            outputs, self.inputs, self.gradients, allow_unused=True, materialize_grads=True
        )
        return [*(o.detach() for o in outputs), *gradients]

    def verdict(self, function):
        """Return the Verdict on `function`; its exceptions are the caller's."""
        outputs = call(self.case, function, self.inputs)
        shapes, wanted = ([list(t.shape) for t in tensors] for tensors in (outputs, self.gradients))
        if shapes != wanted:
            return Verdict(False, math.nan, f"outputs have shapes {shapes}, expected {wanted}")
        worst, faults = 0.0, []
        results = self._with_gradients(outputs)
        for result, (name, truth, allowed) in zip(results, self.expected, strict=True):
            error = _largest(result.double() - truth)
            if not math.isfinite(error):
                return Verdict(False, math.inf, f"{name} is not finite")
            if allowed or error:
                worst = max(worst, error / allowed if allowed else math.inf)
            if error > allowed:
                faults.append(f"{name}: error {error:.3g}, allowed {allowed:.3g}")
        return Verdict(not faults, worst, "; ".join(faults))


def bitwise_reproducible(gate, function):
    """Return whether two calls of `function` give the same bits in every output and gradient."""
    first = [t.clone() for t in gate.results(function)]
    return all(torch.equal(a, b) for a, b in zip(first, gate.results(function), strict=True))


def _outputs_like(case, inputs):
    """Stand-ins with the shapes and dtypes of the outputs, which are those of the first input."""
    if case.operation not in ELEMENTWISE:
        return [inputs[0]]
    return [inputs[0], inputs[0][:, -1].to(torch.promote_types(inputs[0].dtype, torch.float32))]


def _largest(t):
    return t.abs().max().item() if t.numel() else 0.0
