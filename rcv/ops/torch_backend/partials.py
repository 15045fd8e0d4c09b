"""Attention over one set of keys, with its log-sum-exp, and the backward against a merged one.

Layouts: q, o and their gradients [b, n, H, D], k and v [b, M, H, D], lse [b, n, H]. On the CPU this is PyTorch's flash
attention, elsewhere plain products over chunks of queries.

The backward of a softmax over several sets of keys is, set by set, the usual one with the merged output and the merged
lse: P = exp(scale q k^T - lse) is the set's share, and rowsum(do * o) is common to all sets.
"""

import torch

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# Logits that exist at one time outside the CPU: 64 Mi of float32 are 256 MiB.
CHUNK_ELEMENTS = 1 << 26


def forward(q, k, v, scale):
    """Return o = softmax(scale q k^T) v [b, n, H, D] and its log-sum-exp [b, n, H], float32 or wider."""
    if q.device.type != "cpu":
        return products_forward(q, k, v, scale)
    o, lse = _flash(*_heads_first(q, k, v), scale=scale)
    return o.transpose(1, 2), lse.transpose(1, 2)


def backward(do, q, k, v, o, lse, scale):
    """Return dq, dk, dv of this set of keys; o and lse are those of all sets merged."""
    if q.device.type != "cpu":
        return products_backward(do, q, k, v, o, lse, scale)
    do, q, k, v, o = _heads_first(do, q, k, v, o)
    gradients = _flash_backward(do, q, k, v, o, lse.transpose(1, 2), 0.0, False, scale=scale)
    return [g.transpose(1, 2) for g in gradients]


def products_forward(q, k, v, scale):
    """`forward` by matrix products, the softmax in float32 or wider."""
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    wide = torch.promote_types(q.dtype, torch.float32)
    lse = q.new_empty(q.shape[:3], dtype=wide)
    q, k, v = _heads_first(q, k, v)
    for rows in _chunks(q, k):
        logits = _logits(q[:, :, rows], k, scale).to(wide)
        sums = logits.logsumexp(-1)
        lse[:, rows] = sums.transpose(1, 2)
        o[:, rows] = (logits.sub_(sums[..., None]).exp_().to(v.dtype) @ v).transpose(1, 2)
    return o, lse


def products_backward(do, q, k, v, o, lse, scale):
    """`backward` by matrix products; dk and dv are summed over chunks in float32 or wider."""
    dtype, wide = q.dtype, lse.dtype
    do, q, k, v, o = _heads_first(do, q, k, v, o)
    lse = lse.transpose(1, 2)[..., None]
    dq = torch.empty_like(q, memory_format=torch.contiguous_format)
    dk, dv = (torch.zeros_like(t, dtype=wide, memory_format=torch.contiguous_format) for t in (k, v))
    for rows in _chunks(q, k):
        p = _logits(q[:, :, rows], k, scale).to(wide).sub_(lse[:, :, rows]).exp_()
        dv += p.to(dtype).mT @ do[:, :, rows]
        delta = (do[:, :, rows].to(wide) * o[:, :, rows].to(wide)).sum(-1, keepdim=True)
        ds = ((do[:, :, rows] @ v.mT).to(wide) - delta).mul_(p).mul_(scale).to(dtype)
        dq[:, :, rows] = ds @ k
        dk += ds.mT @ q[:, :, rows]
    return dq.transpose(1, 2), dk.to(dtype).transpose(1, 2), dv.to(dtype).transpose(1, 2)


def _logits(q, k, scale):
    # Scaled inside the product, whose sum is in float32: float16 logits do not overflow before the scale.
    flat = torch.baddbmm(q.new_empty(()), q.flatten(0, 1), k.flatten(0, 1).mT, beta=0, alpha=scale)
    return flat.unflatten(0, q.shape[:2])


def _heads_first(*tensors):
    # PyTorch's kernel reads any stride but the last.
    return [(t if t.stride(-1) == 1 else t.contiguous()).transpose(1, 2) for t in tensors]


def _chunks(q, k):
    batch, heads, n = q.shape[:3]
    size = max(1, CHUNK_ELEMENTS // max(1, batch * heads * k.shape[2]))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
