"""frame_attention as partial attentions merged by their log-sum-exp, and its backward from the merged ones."""

import torch

from rcv.ops.torch_backend import partials
from rcv.ops.torch_backend.parts import split


def forward(q, pools, key, logit_bias, scale):
    """Return o [B, F, N, H, D] and lse [B, F, N, H], both contiguous; rows without a frame are 0 and -inf."""
    parts = _parts(q, key)
    wide = torch.promote_types(q.dtype, torch.float32)
    o = lse = None
    for part in parts:
        k, v = pools[part.pool]
        o_part, lse_part = partials.forward(part.of_queries(q), part.of_keys(k), part.of_keys(v), scale)
        if logit_bias is not None:
            lse_part = lse_part + logit_bias[:, part.slot].to(wide)
        if o is None:
            whole = o_part.shape[:2].numel() == q.shape[:3].numel()
            if whole:
                o, lse = o_part.reshape(q.shape).contiguous(), lse_part.reshape(q.shape[:-1]).contiguous()
                # The merge of half-precision parts is in float32: one rounding at the end, not one a part.
                o = o if len(parts) == 1 else o.to(wide)
                continue
            o = q.new_zeros(q.shape, dtype=wide)
            lse = q.new_full(q.shape[:-1], float("-inf"), dtype=wide)
        _merge(part.of_queries(o), part.of_queries(lse), o_part, lse_part)
    if o is None:
        return q.new_zeros(q.shape), q.new_full(q.shape[:-1], float("-inf"), dtype=wide)
    return o.to(q.dtype), lse


def backward(do, q, pools, o, lse, key, logit_bias, scale, bias_needs_gradient):
    """Return dq, [dk, dv] of each pool, and the gradient of the bias (or None)."""
    parts = _parts(q, key)
    into_q = _Sum(q, len(parts))
    into_pools = [
        tuple(_Sum(t, sum(part.pool == pool for part in parts)) for t in pair)
        for pool, pair in enumerate(pools)
    ]
    bias_gradient = torch.zeros_like(logit_bias) if bias_needs_gradient else None
    for part in parts:
        k, v = (part.of_keys(t) for t in pools[part.pool])
        q_part, o_part, do_part, merged = (part.of_queries(t) for t in (q, o, do, lse))
        if logit_bias is not None:
            merged = merged - logit_bias[:, part.slot].to(lse.dtype)
        dq, dk, dv = partials.backward(do_part, q_part, k, v, o_part, merged, scale)
        into_q.add(part.of_queries, dq)
        into_k, into_v = into_pools[part.pool]
        into_k.add(part.of_keys, dk)
        into_v.add(part.of_keys, dv)
        if bias_needs_gradient:
            # d loss / d bias = sum of p (do . (o_slot - o)), p the slot's share of the mass.
            o_slot, lse_slot = partials.forward(q_part, k, v, scale)
            difference = (o_slot.to(lse.dtype) - o_part.to(lse.dtype)).mul_(do_part.to(lse.dtype)).sum(-1)
            share = (lse_slot - merged).exp()
            bias_gradient[:, part.slot] += (share * difference).sum((0, 1)).to(bias_gradient.dtype)
    return into_q.result(), [tuple(s.result() for s in pair) for pair in into_pools], bias_gradient


def _parts(q, key):
    videos, frames, tokens = q.shape[:3]
    if not q.numel():
        return ()
    foldable = frames == 1 or tokens == 1 or q.stride(1) == tokens * q.stride(2)
    return split(key, videos, foldable)


def _merge(o, lse, o_part, lse_part):
    """Merge one part into o and lse in place. A weight of 1, where nothing was before, copies exactly."""
    weight = torch.sigmoid(lse_part - lse)
    o.lerp_(o_part.to(o.dtype), weight[..., None])
    torch.logaddexp(lse, lse_part, out=lse)


class _Sum:
    """Gradient of one tensor as a sum over parts; the only part of a tensor is taken as it is.

    Half-precision parts are added in float32.
    """

    def __init__(self, like, parts):
        self.like = like
        self.only = parts == 1
        self.total = None

    def add(self, view, value):
        if self.only and value.numel() == self.like.numel():
            self.total = value.reshape(self.like.shape)
            return
        if self.total is None:
            dtype = self.like.dtype if self.only else torch.promote_types(self.like.dtype, torch.float32)
            self.total = self.like.new_zeros(self.like.shape, dtype=dtype)
        view(self.total).add_(value)

    def result(self):
        if self.total is None:
            return self.like.new_zeros(self.like.shape)
        return self.total.to(self.like.dtype).contiguous()
