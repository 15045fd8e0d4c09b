"""gated_scan, mingru_scan and rglru_scan: a state per channel, carried over frames elementwise, in float32."""

import torch

from rcv.ops import checks, registry
from rcv.ops.library import autocast_enabled, define, empty_like

DECAY_SHARPNESS = 8.0
"""Griffin's constant c (arXiv 2402.19427, equation 3): a = exp(-c softplus(decay) r)."""
INLET_FLOOR = 1e-7
"""Smallest 1 - a^2 of rglru_scan: keeps the root's slope finite where a gate closes to 0."""


def gated_scan(a, x, h0=None):
    """Return h_i = a_i h_{i-1} + x_i, elementwise, for all frames, and the last state.

    Parameters
    ----------
    a, x : Tensor [B, F, N, C]
        In one dtype.
    h0 : Tensor [B, N, C], optional
        State before the first frame, any floating dtype; zero by default.

    Returns
    -------
    h : Tensor [B, F, N, C]
        Contiguous, in x's dtype. The state itself is float32 (float64 for float64 inputs).
    h_last : Tensor [B, N, C]
        The last state in float32 (float64), not a view.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit; the message names the argument.
    BackendError
        If the backend that was asked for cannot run on these inputs.

    Notes
    -----
    Kept for the backward: a, h and h0. The gradient of `a` reads the states as returned, rounded to x's dtype.
    No second derivative.
    """
    op = "gated_scan"
    _check(op, h0, x=x, a=a)
    return _gated(a, x, h0, registry.requested())


def mingru_scan(gate, candidate, h0=None):
    """Return h_i = (1 - s(g_i)) h_{i-1} + s(g_i) c_i for all frames, s the sigmoid, and the last state.

    The recurrence of minGRU (arXiv 2410.01201), from what its two linear layers return.

    Parameters
    ----------
    gate, candidate : Tensor [B, F, N, C]
        g, before the sigmoid, and c. In one dtype.
    h0 : Tensor [B, N, C], optional
        State before the first frame, any floating dtype; zero by default.

    Returns
    -------
    h : Tensor [B, F, N, C]
        Contiguous, in the candidate's dtype. Gates and state are float32 inside (float64 for float64 inputs).
    h_last : Tensor [B, N, C]
        The last state in float32 (float64), not a view.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit; the message names the argument.
    BackendError
        If the backend that was asked for cannot run on these inputs.

    Notes
    -----
    Kept for the backward: gate, candidate, h and h0; the sigmoid is computed again. The gradient of `gate` reads the
    states as returned, rounded to the candidate's dtype. No second derivative.
    """
    _check("mingru_scan", h0, candidate=candidate, gate=gate)
    return _mingru(gate, candidate, h0, registry.requested())


def rglru_scan(forget, inlet, candidate, decay, h0=None):
    """Return the states of a real-gated linear recurrence (RG-LRU), and the last one.

    ``h_i = a_i h_{i-1} + sqrt(max(1 - a_i^2, 1e-7)) s(inlet_i) c_i``, ``a_i = exp(-8 softplus(decay) s(forget_i))``, s
    the sigmoid (Griffin, arXiv 2402.19427, section 2.4).

    Parameters
    ----------
    forget, inlet, candidate : Tensor [B, F, N, C]
        The two gates before their sigmoids, and c. In one dtype.
    decay : Tensor [C]
        Any floating dtype; in float32 (float64 for float64 inputs) inside.
    h0 : Tensor [B, N, C], optional
        State before the first frame, any floating dtype; zero by default.

    Returns
    -------
    h : Tensor [B, F, N, C]
        Contiguous, in the candidate's dtype. Gates and state are float32 inside (float64 for float64 inputs).
    h_last : Tensor [B, N, C]
        The last state in float32 (float64), not a view.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit; the message names the argument.
    BackendError
        If the backend that was asked for cannot run on these inputs.

    Notes
    -----
    Kept for the backward: forget, inlet, candidate, decay, h and h0; the gates are computed again. The gradients of
    `forget` and `decay` read the states as returned, rounded to the candidate's dtype. The gradient of `decay` is
    summed over B, F and N in float32, in an order that is the same in every run. No second derivative.
    """
    op = "rglru_scan"
    _check(op, h0, candidate=candidate, forget=forget, inlet=inlet)
    checks.shaped(op, "decay", decay, "C", C=candidate.shape[-1])
    checks.on_device(op, "decay", decay, "candidate", candidate)
    return _rglru(forget, inlet, candidate, decay, h0, registry.requested())


def _check(op, h0, **named):
    """Refuse unequal shapes, dtypes and devices; the first of `named` says what is expected of the others and of h0."""
    (first_name, first), *others = named.items()
    checks.shaped(op, first_name, first, "BFNC")
    checks.has_frames(op, first_name, first)
    videos, frames, tokens, width = first.shape
    alike = checks.on_device if autocast_enabled(first) else checks.like
    for name, t in others:
        checks.shaped(op, name, t, "BFNC", B=videos, F=frames, N=tokens, C=width)
        alike(op, name, t, first_name, first)
    if h0 is not None:
        checks.shaped(op, "h0", h0, "BNC", B=videos, N=tokens, C=width)
        checks.on_device(op, "h0", h0, first_name, first)


def _program(op, candidate, backend):
    return registry.program(op, registry.Inputs.of(candidate), backend)


def _states_of(candidate):
    """Fake results of a forward."""
    wide = torch.promote_types(candidate.dtype, torch.float32)
    return candidate.new_empty(candidate.shape), candidate.new_empty(
        (candidate.shape[0], *candidate.shape[2:]), dtype=wide
    )


def _in_the_widest(*tensors):
    # Nothing to gain from fewer bits: under autocast the inputs meet in the widest of their dtypes.
    widest = tensors[0].dtype
    for t in tensors[1:]:
        widest = torch.promote_types(widest, t.dtype)
    return [t.to(widest) for t in tensors]


def _gradients(*gradients):
    """What a backward returns: that of h0, the last, is None without one."""
    return [g for g in gradients if g is not None]


def _gated_kernel(a, x, h0, backend):
    return _program("gated_scan", x, backend).gated_forward(a, x, h0)


def _gated_context(ctx, inputs, output):
    a, _, h0, ctx.backend = inputs
    ctx.save_for_backward(a, output[0], h0)


def _gated_autograd(ctx, dh, dh_last):
    a, h, h0 = ctx.saved_tensors
    da, dx, *rest = _gated_backward(dh, dh_last, a, h, h0, ctx.backend)
    return da, dx, rest[0] if rest else None, None


def _gated_backward_kernel(dh, dh_last, a, h, h0, backend):
    return _gradients(*_program("gated_scan", h, backend).gated_backward(dh, dh_last, a, h, h0))


def _mingru_kernel(gate, candidate, h0, backend):
    return _program("mingru_scan", candidate, backend).mingru_forward(gate, candidate, h0)


def _mingru_context(ctx, inputs, output):
    gate, candidate, h0, ctx.backend = inputs
    ctx.save_for_backward(gate, candidate, output[0], h0)


def _mingru_autograd(ctx, dh, dh_last):
    dgate, dcandidate, *rest = _mingru_backward(dh, dh_last, *ctx.saved_tensors, ctx.backend)
    return dgate, dcandidate, rest[0] if rest else None, None


def _mingru_backward_kernel(dh, dh_last, gate, candidate, h, h0, backend):
    program = _program("mingru_scan", candidate, backend)
    return _gradients(*program.mingru_backward(dh, dh_last, gate, candidate, h, h0))


def _rglru_kernel(forget, inlet, candidate, decay, h0, backend):
    return _program("rglru_scan", candidate, backend).rglru_forward(forget, inlet, candidate, decay, h0)


def _rglru_context(ctx, inputs, output):
    *gates_and_decay, h0, ctx.backend = inputs
    ctx.save_for_backward(*gates_and_decay, output[0], h0)


def _rglru_autograd(ctx, dh, dh_last):
    *gradients, ddecay_or_dh0 = _rglru_backward(dh, dh_last, *ctx.saved_tensors, ctx.backend)
    if len(gradients) == 3:
        return *gradients, ddecay_or_dh0, None, None
    return *gradients, ddecay_or_dh0, None


def _rglru_backward_kernel(dh, dh_last, forget, inlet, candidate, decay, h, h0, backend):
    program = _program("rglru_scan", candidate, backend)
    return _gradients(*program.rglru_backward(dh, dh_last, forget, inlet, candidate, decay, h, h0))


_gated_backward = define(
    "gated_scan_backward(Tensor dh, Tensor dh_last, Tensor a, Tensor h, Tensor? h0, str backend) -> Tensor[]",
    _gated_backward_kernel,
    lambda dh, dh_last, a, h, h0, backend: empty_like(a, h, h0),
)
_gated = define(
    "gated_scan(Tensor a, Tensor x, Tensor? h0, str backend) -> (Tensor, Tensor)",
    _gated_kernel,
    lambda a, x, h0, backend: _states_of(x),
    setup_context=_gated_context,
    backward=_gated_autograd,
    autocast=lambda dtype, a, x, h0, backend: (*_in_the_widest(a, x), h0, backend),
)
_mingru_backward = define(
    "mingru_scan_backward(Tensor dh, Tensor dh_last, Tensor gate, Tensor candidate, Tensor h, Tensor? h0, "
    "str backend) -> Tensor[]",
    _mingru_backward_kernel,
    lambda dh, dh_last, gate, candidate, h, h0, backend: empty_like(gate, candidate, h0),
)
_mingru = define(
    "mingru_scan(Tensor gate, Tensor candidate, Tensor? h0, str backend) -> (Tensor, Tensor)",
    _mingru_kernel,
    lambda gate, candidate, h0, backend: _states_of(candidate),
    setup_context=_mingru_context,
    backward=_mingru_autograd,
    autocast=lambda dtype, gate, candidate, *rest: (*_in_the_widest(gate, candidate), *rest),
)
_rglru_backward = define(
    "rglru_scan_backward(Tensor dh, Tensor dh_last, Tensor forget, Tensor inlet, Tensor candidate, Tensor decay, "
    "Tensor h, Tensor? h0, str backend) -> Tensor[]",
    _rglru_backward_kernel,
    lambda dh, dh_last, forget, inlet, candidate, decay, h, h0, backend: empty_like(
        forget, inlet, candidate, decay, h0
    ),
)
_rglru = define(
    "rglru_scan(Tensor forget, Tensor inlet, Tensor candidate, Tensor decay, Tensor? h0, str backend) "
    "-> (Tensor, Tensor)",
    _rglru_kernel,
    lambda forget, inlet, candidate, decay, h0, backend: _states_of(candidate),
    setup_context=_rglru_context,
    backward=_rglru_autograd,
    autocast=lambda dtype, *tensors: (*_in_the_widest(*tensors[:3]), *tensors[3:]),
)
