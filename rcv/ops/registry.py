"""Backends, what each can run as data, and the choice among them."""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import os
import warnings
from dataclasses import dataclass, field

import torch

OPERATIONS = (
    "frame_attention",
    "temporal_attention",
    "recurrent_scan",
    "gated_scan",
    "mingru_scan",
    "rglru_scan",
    "attention",
)
PRODUCTS = OPERATIONS[:3]
ATTENTION = ("frame_attention", "temporal_attention", "attention")
HALF = (torch.float16, torch.bfloat16)
AUTO = "auto"


class BackendError(ValueError):
    """A backend that was asked for cannot run an operation on these inputs."""


@dataclass(frozen=True)
class Limits:
    """What a backend can run of one operation.

    Attributes
    ----------
    devices : tuple of str, or None
        Device types; None for all.
    dtypes : tuple of torch.dtype
    capability : tuple of two int, or None
        Smallest compute capability of a CUDA device.
    widest : int or None
        Largest last dimension (head dim D, or channels C); None for any.
    """

    devices: tuple | None
    dtypes: tuple
    capability: tuple | None = None
    widest: int | None = None


@dataclass(frozen=True)
class Backend:
    """A set of kernels.

    Attributes
    ----------
    name : str
    limits : dict of str to Limits
        Operations it is meant for.
    programs : dict of str to str
        Operations whose kernels are in this version, and the module that runs each, forward and backward.
    requires : dict of str to str
        Modules that must be importable, and the distribution that brings each.
    declines : dict of str to str
        Operations that it leaves to others, and why.
    machine : str or None
        Module whose `obstacles()` says what this machine or build lacks.
    """

    name: str
    limits: dict
    programs: dict
    requires: dict = field(default_factory=dict)
    declines: dict = field(default_factory=dict)
    machine: str | None = None

    def why_not(self, op, inputs):
        """Return the reasons, as sentences, why this backend cannot run `op` on `inputs`: empty if it can.

        Parameters
        ----------
        op : str
            One of `OPERATIONS`.
        inputs : Inputs
        """
        limits = self.limits[_known(op)]
        reasons = []
        if op in self.declines:
            reasons.append(self.declines[op])
        elif op not in self.programs:
            reasons.append("this version of rcv holds no such kernel")
        if _stand_in is None:
            reasons += self._lacking()
        if limits.devices is not None and inputs.device not in limits.devices:
            reasons.append(f"inputs are on {inputs.device}, it runs on {_either(limits.devices)}")
            if "cuda" in limits.devices and not torch.cuda.is_available():
                reasons.append("there is no CUDA device")
        elif limits.capability is not None and inputs.capability < limits.capability:
            reasons.append(
                f"the device has compute capability {_dotted(inputs.capability)}, "
                f"it needs {_dotted(limits.capability)} or more"
            )
        if inputs.dtype not in limits.dtypes:
            reasons.append(f"dtype is {_short(inputs.dtype)}, it takes {_either(map(_short, limits.dtypes))}")
        if limits.widest is not None and inputs.width is not None and inputs.width > limits.widest:
            reasons.append(f"the last dimension is {inputs.width}, it takes {limits.widest} at most")
        return reasons

    def _lacking(self):
        """What this machine or build lacks, as sentences."""
        reasons = [
            f"the package {distribution} is not installed"
            for module, distribution in self.requires.items()
            if not _importable(module)
        ]
        return reasons + list(importlib.import_module(self.machine).obstacles() if self.machine else ())


@dataclass(frozen=True)
class Inputs:
    """What of an operation's inputs decides about backends: device type, its capability, dtype, last dimension."""

    device: str
    capability: tuple | None
    dtype: torch.dtype
    width: int | None = None

    @staticmethod
    def of(tensor):
        """Return the Inputs that stand for this tensor, the first of an operation's."""
        device, capability = tensor.device.type, None
        if device == "cuda":
            capability = _capability(tensor.device.index or 0)
        elif device == "meta" and _stand_in is not None:
            device, capability = "cuda", _stand_in
        return Inputs(device, capability, tensor.dtype, tensor.shape[-1] if tensor.ndim > 1 else None)


def _limits(products, elementwise, widest_head):
    """Limits of all operations; attention takes heads of `widest_head` channels at most."""
    heads = dataclasses.replace(products, widest=widest_head)
    limits = {op: products if op in PRODUCTS else elementwise for op in OPERATIONS}
    return {**limits, **dict.fromkeys(ATTENTION, heads)}


# The operations of one module; it has a forward and a backward, or, where it has several operations, one pair each.
_FILES = {
    "frame_attention": "attention",
    "attention": "attention",
    "temporal_attention": "temporal",
    "recurrent_scan": "scan",
    "gated_scan": "gated",
    "mingru_scan": "gated",
    "rglru_scan": "gated",
}


def _programs(package, *operations):
    return {op: f"{package}.{_FILES[op]}" for op in operations}


_ANY = Limits(None, (torch.float32, *HALF, torch.float64))
# In the order of automatic choice.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "triton",
            _limits(
                Limits(("cuda",), (torch.float32, *HALF), (8, 0)),
                Limits(("cuda",), (torch.float32, *HALF), (7, 0)),
                widest_head=160,
            ),
            _programs(
                "rcv.kernels",
                "frame_attention",
                "attention",
                "temporal_attention",
                "recurrent_scan",
                "gated_scan",
                "mingru_scan",
                "rglru_scan",
            ),
            {"triton": "triton"},
        ),
        Backend(
            "cuda",
            _limits(*[Limits(("cuda",), HALF, (7, 0))] * 2, widest_head=160),
            _programs(
                "rcv.ops.cuda_backend",
                "frame_attention",
                "attention",
                "temporal_attention",
                "recurrent_scan",
            ),
            {"cuda.bindings": "cuda-bindings"},
            dict.fromkeys(
                ("gated_scan", "mingru_scan", "rglru_scan"),
                "it has no matrix product to gain from; triton and torch run it",
            ),
            "rcv.ops.cuda_backend.driver",
        ),
        Backend("torch", dict.fromkeys(OPERATIONS, _ANY), _programs("rcv.ops.torch_backend", *OPERATIONS)),
    )
}

# A plain name, so that torch.compile can guard on it. Checked where it is used: importing never fails on RCV_BACKEND.
_requested = os.environ.get("RCV_BACKEND") or AUTO
_stand_in = None


def requested():
    """Return the backend asked for by `set_backend`, `backend` or RCV_BACKEND, or "auto"."""
    return _requested


def set_backend(name):
    """Ask for a backend, process-wide: "torch", "triton", "cuda", or "auto" for the best that can run.

    Raises
    ------
    ValueError
        If there is no backend of this name.

    Notes
    -----
    Whether the backend can run is decided call by call: an operation on inputs that it cannot take raises
    `BackendError` with the reasons. A backward runs on the backend that was asked for at its forward.
    """
    global _requested
    _requested = _checked(name)


@contextlib.contextmanager
def backend(name):
    """Ask for a backend within a `with` block, process-wide; see `set_backend`."""
    former = requested()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(former)


@contextlib.contextmanager
def standing_for(capability):
    """Let meta tensors stand for a CUDA device of this compute capability, on a machine that lacks nothing.

    For planning, which launches nothing.
    """
    global _stand_in
    former, _stand_in = _stand_in, capability
    program.cache_clear()
    try:
        yield
    finally:
        _stand_in = former
        program.cache_clear()


def why_not(op, inputs=None, backend=None):
    """Return why backends would not run an operation.

    Parameters
    ----------
    op : str
        One of `OPERATIONS`, such as "frame_attention".
    inputs : Tensor, sequence of Tensor, or Inputs, optional
        The operation's inputs (the first tensor decides); without, a float32 tensor on the best device there is.
    backend : str, optional
        Name of a backend; without, all of them are asked.

    Returns
    -------
    list of str
        One line "backend: reason" each; empty if nothing stands in the way.
    """
    inputs = _inputs(inputs)
    names = BACKENDS if backend is None else [_checked(backend, BACKENDS)]
    return [f"{name}: {reason}" for name in names for reason in BACKENDS[name].why_not(op, inputs)]


def choose(op, inputs, request=AUTO):
    """Return the name of the backend that runs `op`: the one asked for, or the first that can.

    Raises
    ------
    BackendError
        If it cannot, with the reasons of every backend.
    """
    if request != AUTO:
        if BACKENDS[_checked(request)].why_not(op, inputs):
            raise BackendError(_refusal(op, inputs, request))
        return request
    chosen = next((name for name, b in BACKENDS.items() if not b.why_not(op, inputs)), None)
    if chosen is None:
        raise BackendError(_refusal(op, inputs, request))
    return chosen


@functools.lru_cache(maxsize=4096)
def program(op, inputs, request):
    """Return the module of the backend that `choose` names, remembered per kind of inputs.

    Warns, once each, when automatic choice falls back on a CUDA device.
    """
    chosen = choose(op, inputs, request)
    if request == AUTO and chosen == "torch" and inputs.device == "cuda":
        reasons = "; ".join(why_not(op, inputs))
        warnings.warn(
            f"rcv.{op} falls back to the torch backend ({reasons}). Ask for it by rcv.set_backend('torch') or "
            "RCV_BACKEND=torch to silence this.",
            stacklevel=2,
        )
    return importlib.import_module(BACKENDS[chosen].programs[op])


def _refusal(op, inputs, request):
    asked = "no backend can run" if request == AUTO else f"backend {request!r} cannot run"
    lines = [f"{asked} rcv.{op} on {_short(inputs.dtype)} tensors on {inputs.device}:"]
    for name, candidate in BACKENDS.items():
        lines.append(f"  {name}: {'; '.join(candidate.why_not(op, inputs)) or 'can run'}")
    return "\n".join(lines)


def _inputs(inputs):
    if isinstance(inputs, Inputs):
        return inputs
    if inputs is None:
        return Inputs.of(torch.empty(0, device="cuda" if torch.cuda.is_available() else "cpu"))
    return Inputs.of(inputs if isinstance(inputs, torch.Tensor) else _first_tensor(inputs))


def _first_tensor(inputs):
    for item in inputs:
        if isinstance(item, torch.Tensor):
            return item
    raise ValueError("inputs holds no tensor, expected the tensors of the operation")


def _checked(name, names=(AUTO, *BACKENDS)):
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        source = " (from RCV_BACKEND)" if name == os.environ.get("RCV_BACKEND") else ""
        raise ValueError(f"unknown backend {name!r}{source}, expected {_either(map(repr, names))}{hint}")
    return name


def _known(op):
    if op not in OPERATIONS:
        near = difflib.get_close_matches(str(op), OPERATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown operation {op!r}, expected {_either(map(repr, OPERATIONS))}{hint}")
    return op


@functools.cache
def _importable(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


@functools.cache
def _capability(index):
    return torch.cuda.get_device_capability(index)


def _either(names):
    names = list(names)
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _short(dtype):
    return str(dtype).removeprefix("torch.")


def _dotted(capability):
    return ".".join(map(str, capability))
