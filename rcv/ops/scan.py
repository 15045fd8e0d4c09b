"""recurrent_scan and gated_scan: a state per token, carried over frames."""

import difflib

import torch

from rcv.ops import checks, registry
from rcv.ops.library import define

ACTIVATIONS = ("tanh", "relu")


def recurrent_scan(x, weight, h0=None, *, activation="tanh"):
    """Return h_i = f(W h_{i-1} + x_i) for all frames.

    Parameters
    ----------
    x : Tensor [B, F, N, C]
        The input's share, bias included, for all frames at once.
    weight : Tensor [C, C]
        W, in x's dtype.
    h0 : Tensor [B, N, C], optional
        State before the first frame, in x's dtype; zero by default.
    activation : str
        "tanh" or "relu".

    Returns
    -------
    Tensor [B, F, N, C]
        Contiguous. Every state is rounded to x's dtype before the next frame reads it.

    Raises
    ------
    ValueError
        If a shape, dtype, device or the activation does not fit; the message names the argument.
    BackendError
        If the backend that was asked for cannot run on these inputs.

    Notes
    -----
    Kept for the backward: h, weight and h0 (the slopes of tanh and relu are functions of h). No second derivative.
    """
    op = "recurrent_scan"
    checks.shaped(op, "x", x, "BFNC")
    videos, _, tokens, width = x.shape
    _has_frames(op, x)
    checks.shaped(op, "weight", weight, "CC", C=width)
    others = [("weight", weight)]
    if h0 is not None:
        checks.shaped(op, "h0", h0, "BNC", B=videos, N=tokens, C=width)
        others.append(("h0", h0))
    autocast = torch.is_autocast_enabled(x.device.type)
    for name, t in others:
        if autocast:
            checks.on_device(op, name, t, "x", x)
        else:
            checks.like(op, name, t, "x", x)
    if activation not in ACTIVATIONS:
        near = difflib.get_close_matches(str(activation), ACTIVATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{op}: activation is {activation!r}, expected 'tanh' or 'relu'{hint}")
    return _recurrent(x, weight, h0, activation, registry.requested())


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
    checks.shaped(op, "x", x, "BFNC")
    videos, frames, tokens, width = x.shape
    _has_frames(op, x)
    checks.shaped(op, "a", a, "BFNC", B=videos, F=frames, N=tokens, C=width)
    if torch.is_autocast_enabled(x.device.type):
        checks.on_device(op, "a", a, "x", x)
    else:
        checks.like(op, "a", a, "x", x)
    if h0 is not None:
        checks.shaped(op, "h0", h0, "BNC", B=videos, N=tokens, C=width)
        checks.on_device(op, "h0", h0, "x", x)
    return _gated(a, x, h0, registry.requested())


def _has_frames(op, x):
    if x.shape[1] == 0:
        raise ValueError(f"{op}: x has shape {list(x.shape)}, expected one frame or more")


def _recurrent_kernel(x, weight, h0, activation, backend):
    program = registry.program("recurrent_scan", registry.Inputs.of(x), backend)
    return program.recurrent_forward(x, weight, h0, activation)


def _recurrent_context(ctx, inputs, output):
    _, weight, h0, ctx.activation, ctx.backend = inputs
    ctx.save_for_backward(weight, output, h0)


def _recurrent_autograd(ctx, dh):
    weight, h, h0 = ctx.saved_tensors
    dx, dweight, *rest = _recurrent_backward(dh, weight, h, h0, ctx.activation, ctx.backend)
    return dx, dweight, rest[0] if rest else None, None, None


def _recurrent_backward_kernel(dh, weight, h, h0, activation, backend):
    program = registry.program("recurrent_scan", registry.Inputs.of(h), backend)
    dx, dweight, dh0 = program.recurrent_backward(dh, weight, h, h0, activation)
    return [dx, dweight] if h0 is None else [dx, dweight, dh0]


def _recurrent_autocast(dtype, x, weight, h0, *rest):
    cast = [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, weight, h0)]
    return *cast, *rest


def _gated_kernel(a, x, h0, backend):
    program = registry.program("gated_scan", registry.Inputs.of(x), backend)
    return program.gated_forward(a, x, h0)


def _gated_fake(a, x, h0, backend):
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape), x.new_empty((x.shape[0], *x.shape[2:]), dtype=wide)


def _gated_context(ctx, inputs, output):
    a, _, h0, ctx.backend = inputs
    ctx.save_for_backward(a, output[0], h0)


def _gated_autograd(ctx, dh, dh_last):
    a, h, h0 = ctx.saved_tensors
    da, dx, *rest = _gated_backward(dh, dh_last, a, h, h0, ctx.backend)
    return da, dx, rest[0] if rest else None, None


def _gated_backward_kernel(dh, dh_last, a, h, h0, backend):
    program = registry.program("gated_scan", registry.Inputs.of(h), backend)
    da, dx, dh0 = program.gated_backward(dh, dh_last, a, h, h0)
    return [da, dx] if h0 is None else [da, dx, dh0]


def _gated_autocast(dtype, a, x, h0, backend):
    # Nothing to gain from fewer bits: the gate and the input meet in the wider of their dtypes.
    wider = torch.promote_types(a.dtype, x.dtype)
    return a.to(wider), x.to(wider), h0, backend


def _empty_like(*tensors):
    return [t.new_empty(t.shape) for t in tensors if t is not None]


_recurrent_backward = define(
    "recurrent_scan_backward(Tensor dh, Tensor weight, Tensor h, Tensor? h0, str activation, str backend) -> Tensor[]",
    _recurrent_backward_kernel,
    lambda dh, weight, h, h0, activation, backend: _empty_like(h, weight, h0),
)
_recurrent = define(
    "recurrent_scan(Tensor x, Tensor weight, Tensor? h0, str activation, str backend) -> Tensor",
    _recurrent_kernel,
    lambda x, weight, h0, activation, backend: x.new_empty(x.shape),
    setup_context=_recurrent_context,
    backward=_recurrent_autograd,
    autocast=_recurrent_autocast,
)
_gated_backward = define(
    "gated_scan_backward(Tensor dh, Tensor dh_last, Tensor a, Tensor h, Tensor? h0, str backend) -> Tensor[]",
    _gated_backward_kernel,
    lambda dh, dh_last, a, h, h0, backend: _empty_like(a, h, h0),
)
_gated = define(
    "gated_scan(Tensor a, Tensor x, Tensor? h0, str backend) -> (Tensor, Tensor)",
    _gated_kernel,
    _gated_fake,
    setup_context=_gated_context,
    backward=_gated_autograd,
    autocast=_gated_autocast,
)
