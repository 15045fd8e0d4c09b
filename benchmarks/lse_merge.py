"""frame_attention as xformers' merge_training does it: partial attentions of PyTorch's kernels, merged by log-sum-exp.

Each part's backward is called with the merged output and log-sum-exp, so that gradients are exact. Layout [b, n, H, D],
log-sum-exp [b, n, H] in float32 or wider.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import pad

from rcv.ops.torch_backend.parts import split

from .peers import HALF, Limits

_aten = torch.ops.aten
EFFICIENT_ROWS = 32  # PyTorch's memory-efficient kernels keep the log-sum-exp in rows of a multiple of this


class Kernels(NamedTuple):
    """forward(q, k, v, scale) -> o, lse, kept; backward(do, q, k, v, o, lse, kept, scale) -> dq, dk, dv."""

    forward: object
    backward: object


def merged(kernels, q, pools, table, *, scale=None):
    """frame_attention by partial attentions; `logit_bias` is not taken."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _Merged.apply(kernels, table.key, scale, q, *(t for pair in pools for t in pair))


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels, key, scale, q, *flat):
        wide = torch.promote_types(q.dtype, torch.float32)
        parts = split(key, q.shape[0], q.is_contiguous())
        o, lse, kept = None, None, []
        for part in parts:
            k, v = flat[2 * part.pool], flat[2 * part.pool + 1]
            o_part, lse_part, rest = kernels.forward(
                part.of_queries(q), part.of_keys(k), part.of_keys(v), scale
            )
            kept.append(rest)
            if o is None and o_part.shape[:2].numel() == q.shape[:3].numel():
                o, lse = o_part.reshape(q.shape).to(wide), lse_part.reshape(q.shape[:-1]).contiguous()
                continue
            if o is None:
                o = q.new_zeros(q.shape, dtype=wide)
                lse = q.new_full(q.shape[:-1], float("-inf"), dtype=wide)
            o_all, lse_all = part.of_queries(o), part.of_queries(lse)
            o_all.lerp_(o_part.to(wide), torch.sigmoid(lse_part - lse_all)[..., None])
            torch.logaddexp(lse_all, lse_part, out=lse_all)
        o = o.to(q.dtype)
        ctx.save_for_backward(q, o, lse, *flat)
        ctx.parts, ctx.kept, ctx.kernels, ctx.scale = parts, kept, kernels, scale
        return o

    @staticmethod
    def backward(ctx, do):
        q, o, lse, *flat = ctx.saved_tensors
        # Several parts add into one gradient: in float32, rounded once.
        sums = [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in (q, *flat)]
        for part, kept in zip(ctx.parts, ctx.kept, strict=True):
            k, v = flat[2 * part.pool], flat[2 * part.pool + 1]
            of_part = [part.of_queries(do), part.of_queries(q), part.of_keys(k), part.of_keys(v)]
            dq, dk, dv = ctx.kernels.backward(
                *of_part, part.of_queries(o), part.of_queries(lse), kept, ctx.scale
            )
            part.of_queries(sums[0]).add_(dq)
            part.of_keys(sums[1 + 2 * part.pool]).add_(dk)
            part.of_keys(sums[2 + 2 * part.pool]).add_(dv)
        gradients = (s.to(t.dtype) for s, t in zip(sums, (q, *flat), strict=True))
        return None, None, None, *gradients


def _heads_first(*tensors):
    return [t.transpose(1, 2) for t in tensors]


def _flash_forward(q, k, v, scale):
    o, lse, *rest = _aten._scaled_dot_product_flash_attention.default(*_heads_first(q, k, v), scale=scale)
    return o.transpose(1, 2), lse.transpose(1, 2), rest[:6]


def _flash_backward(do, q, k, v, o, lse, kept, scale):
    cum_q, cum_k, max_q, max_k, seed, offset = kept
    do, q, k, v, o = _heads_first(do, q, k, v, o)
    lse = lse.transpose(1, 2).contiguous()
    gradients = _aten._scaled_dot_product_flash_attention_backward.default(
        do, q, k, v, o, lse, cum_q, cum_k, max_q, max_k, 0.0, False, seed, offset, scale=scale
    )
    return _heads_first(*gradients)


def _efficient_forward(q, k, v, scale):
    o, lse, *rest = _aten._scaled_dot_product_efficient_attention.default(
        *_heads_first(q, k, v), None, True, scale=scale
    )
    return o.transpose(1, 2), lse[..., : q.shape[1]].transpose(1, 2), rest


def _efficient_backward(do, q, k, v, o, lse, kept, scale):
    n = q.shape[1]
    do, q, k, v, o = _heads_first(do, q, k, v, o)
    # Infinity in the rows beyond the queries, as the forward leaves them: their probabilities are 0.
    lse = pad(lse.transpose(1, 2), (0, -n % EFFICIENT_ROWS), value=float("inf")).contiguous()
    gradients = _aten._scaled_dot_product_efficient_attention_backward.default(
        do, q, k, v, None, o, lse, *kept, 0.0, [True, True, True, False], scale=scale
    )
    return _heads_first(*gradients[:3])


def _cpu_forward(q, k, v, scale):
    o, lse = _aten._scaled_dot_product_flash_attention_for_cpu.default(*_heads_first(q, k, v), scale=scale)
    return o.transpose(1, 2), lse.transpose(1, 2), ()


def _cpu_backward(do, q, k, v, o, lse, kept, scale):
    do, q, k, v, o = _heads_first(do, q, k, v, o)
    gradients = _aten._scaled_dot_product_flash_attention_for_cpu_backward.default(
        do, q, k, v, o, lse.transpose(1, 2), 0.0, False, scale=scale
    )
    return _heads_first(*gradients)


KERNELS = {
    "flash": Kernels(_flash_forward, _flash_backward),
    "efficient": Kernels(_efficient_forward, _efficient_backward),
    "cpu": Kernels(_cpu_forward, _cpu_backward),
}
_ON_CPU = "these are CUDA kernels; lse-merge:cpu has the CPU's"
LIMITS = {
    "flash": Limits(capability=(8, 0), dtypes=HALF, most_width=256, cpu=_ON_CPU),
    "efficient": Limits(capability=(5, 0), dtypes=(*HALF, "float32"), cpu=_ON_CPU),
    "cpu": Limits(devices=("cpu",), dtypes=(*HALF, "float32", "float64")),
}
