"""recurrent_scan: a state per token, carried over frames by a matrix and an activation."""

import difflib

import torch

from rcv.ops import checks, registry
from rcv.ops.library import autocast_enabled, define, empty_like

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
    checks.has_frames(op, "x", x)
    checks.shaped(op, "weight", weight, "CC", C=width)
    others = [("weight", weight)]
    if h0 is not None:
        checks.shaped(op, "h0", h0, "BNC", B=videos, N=tokens, C=width)
        others.append(("h0", h0))
    autocast = autocast_enabled(x)
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


_recurrent_backward = define(
    "recurrent_scan_backward(Tensor dh, Tensor weight, Tensor h, Tensor? h0, str activation, str backend) -> Tensor[]",
    _recurrent_backward_kernel,
    lambda dh, weight, h, h0, activation, backend: empty_like(h, weight, h0),
)
_recurrent = define(
    "recurrent_scan(Tensor x, Tensor weight, Tensor? h0, str activation, str backend) -> Tensor",
    _recurrent_kernel,
    lambda x, weight, h0, activation, backend: x.new_empty(x.shape),
    setup_context=_recurrent_context,
    backward=_recurrent_autograd,
    autocast=_recurrent_autocast,
)
