"""temporal_attention by the kernels of csrc/temporal.cu and, for long sequences, csrc/temporal_long.cu."""

import ctypes

import torch

from rcv.ops.cuda_backend import driver
from rcv.ops.cuda_backend.parameters import View, address, head_dim_of, like, readable


class ForwardParameters(ctypes.Structure):
    _fields_ = (
        *((name, View) for name in ("q", "k", "v", "o")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("frames", "tokens", "heads", "causal")),
    )


class BackwardParameters(ctypes.Structure):
    _fields_ = (
        *((name, View) for name in ("q", "k", "v", "d_o", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in ("lse", "delta")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("frames", "tokens", "heads", "causal")),
    )


def forward(q, k, v, causal, scale):
    """Return o [B, F, N, H, D], contiguous."""
    if not q.numel():
        return q.new_empty(q.shape)
    dim = head_dim_of(q.shape[-1])
    halves = [readable(t, dim) for t in (q, k, v)]
    o = torch.empty((*q.shape[:-1], dim), dtype=torch.float16, device=q.device)
    tensors = [*halves, o]
    parameters = ForwardParameters(*map(View.of, tensors), scale, *q.shape[1:4], causal)
    _launch("fwd", parameters, tensors)
    return like(o, q)


def backward(do, q, k, v, causal, scale):
    """Return dq, dk, dv, contiguous. Nothing but the inputs is needed: the softmax is computed again."""
    if not q.numel():
        return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    dim = head_dim_of(q.shape[-1])
    halves = [readable(t, dim) for t in (q, k, v, do)]
    gradients = [torch.empty_like(halves[0], memory_format=torch.contiguous_format) for _ in "qkv"]
    lse, delta = None, None
    if _is_long(halves[0]):
        lse, delta = torch.empty(2, *q.shape[:-1], dtype=torch.float32, device=q.device)
    tensors = [*halves, *gradients]
    views = map(View.of, tensors)
    parameters = BackwardParameters(*views, address(lse), address(delta), scale, *q.shape[1:4], causal)
    for part in ("bwd",) if lse is None else ("bwd_dq", "bwd_dkv"):
        _launch(part, parameters, [*tensors, lse, delta])
    return tuple(like(gradient, t) for gradient, t in zip(gradients, (q, k, v), strict=True))


def _is_long(q):
    """Whether a sequence is more than the rows of a warp, for which there are kernels of their own."""
    return q.shape[1] > driver.tile(f"temporal_attention_fwd_kernel_d{q.shape[-1]}", q).rows


def _launch(part, parameters, tensors):
    q = tensors[0]
    videos, frames, tokens, heads, dim = q.shape
    long = _is_long(q)
    kernel = f"temporal_attention_{'long_' if long else ''}{part}_kernel_d{dim}"
    rows = driver.tile(kernel, q).rows
    blocks = tokens * -(-frames // rows) if long else -(-tokens // (rows // frames))
    driver.launch(kernel, videos * heads * blocks, parameters, tensors)
