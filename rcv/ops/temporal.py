"""temporal_attention: every token attends over its own frames."""

import torch

from rcv.ops import checks, registry
from rcv.ops.library import autocast_enabled, define


def temporal_attention(q, k, v, *, causal=False, scale=None):
    """Self-attention of every token over its own F frames, read by stride.

    Parameters
    ----------
    q, k, v : Tensor [B, F, N, H, D]
        Any strides.
    causal : bool
        Whether a frame attends to itself and to former frames only.
    scale : float, optional
        ``D ** -0.5`` by default.

    Returns
    -------
    Tensor [B, F, N, H, D]
        Contiguous, in q's dtype.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit; the message names the argument.
    BackendError
        If the backend that was asked for cannot run on these inputs.

    Notes
    -----
    Kept for the backward: q, k and v. No second derivative.
    """
    op = "temporal_attention"
    checks.shaped(op, "q", q, "BFNHD")
    sizes = dict(zip("BFNHD", q.shape, strict=True))
    autocast = autocast_enabled(q)
    for name, t in (("k", k), ("v", v)):
        checks.shaped(op, name, t, "BFNHD", **sizes)
        if autocast:
            checks.on_device(op, name, t, "q", q)
        else:
            checks.like(op, name, t, "q", q)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    return _forward(q, k, v, bool(causal), scale, registry.requested())


def _kernel(q, k, v, causal, scale, backend):
    program = registry.program("temporal_attention", registry.Inputs.of(q), backend)
    return program.forward(q, k, v, causal, scale)


def _setup_context(ctx, inputs, output):
    q, k, v, ctx.causal, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(q, k, v)


def _autograd(ctx, do):
    return *_backward(do, *ctx.saved_tensors, ctx.causal, ctx.scale, ctx.backend), None, None, None


def _backward_kernel(do, q, k, v, causal, scale, backend):
    program = registry.program("temporal_attention", registry.Inputs.of(q), backend)
    return tuple(program.backward(do, q, k, v, causal, scale))


def _autocast(dtype, q, k, v, *rest):
    return *(t if t.dtype == torch.float64 else t.to(dtype) for t in (q, k, v)), *rest


_backward = define(
    "temporal_attention_backward(Tensor do, Tensor q, Tensor k, Tensor v, bool causal, float scale, str backend) "
    "-> (Tensor, Tensor, Tensor)",
    _backward_kernel,
    lambda do, q, k, v, causal, scale, backend: tuple(t.new_empty(t.shape) for t in (q, k, v)),
)
_forward = define(
    "temporal_attention(Tensor q, Tensor k, Tensor v, bool causal, float scale, str backend) -> Tensor",
    _kernel,
    lambda q, k, v, causal, scale, backend: q.new_empty(q.shape),
    setup_context=_setup_context,
    backward=_autograd,
    autocast=_autocast,
)
