"""frame_attention by the kernels of csrc/attention.cu and csrc/attention_backward.cu."""

import ctypes

import torch

from rcv.ops.cuda_backend import driver
from rcv.ops.cuda_backend.parameters import Pool, View, address, head_dim_of, like, readable
from rcv.ops.table import FrameTable


class ForwardParameters(ctypes.Structure):
    _fields_ = (
        ("q", View),
        ("o", View),
        ("lse", ctypes.c_void_p),
        ("pools", Pool * 2),
        ("names", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("frames", ctypes.c_int),
        ("tokens", ctypes.c_int),
        ("heads", ctypes.c_int),
        ("slots", ctypes.c_int),
    )


def forward(q, pools, key, logit_bias, scale):
    """Return o [B, F, N, H, D] and lse [B, F, N, H], both contiguous; rows without a frame are 0 and -inf."""
    videos, frames, tokens, heads, width = q.shape
    lse = q.new_empty(q.shape[:-1], dtype=torch.float32)
    if not q.numel():
        return q.new_empty(q.shape), lse.fill_(float("-inf"))
    dim = head_dim_of(width)
    kernel = f"frame_attention_fwd_kernel_d{dim}"
    table = FrameTable.from_key(key)
    names = table.on(q.device).rows
    halves = readable(q, dim)
    pools = [tuple(readable(t, dim) for t in pair) for pair in pools]
    o = torch.empty((*q.shape[:-1], dim), dtype=torch.float16, device=q.device)
    parameters = ForwardParameters(
        View.of(halves),
        View.of(o),
        address(lse),
        _two(pools),
        address(names),
        address(logit_bias),
        scale,
        frames,
        tokens,
        heads,
        table.slots,
    )
    blocks = videos * heads * frames * -(-tokens // driver.tile(kernel, q).rows)
    driver.launch(kernel, blocks, parameters, [halves, o, lse, names, logit_bias, *sum(pools, ())])
    return like(o, q), lse


class QueryGradientParameters(ctypes.Structure):
    _fields_ = (
        ("q", View),
        ("o", View),
        ("d_o", View),
        ("dq", View),
        ("lse", ctypes.c_void_p),
        ("delta", ctypes.c_void_p),
        ("pools", Pool * 2),
        ("names", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("largest", ctypes.c_void_p),
        ("shares", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("frames", ctypes.c_int),
        ("tokens", ctypes.c_int),
        ("heads", ctypes.c_int),
        ("slots", ctypes.c_int),
    )


class KeyGradientParameters(ctypes.Structure):
    _fields_ = (
        ("q", View),
        ("d_o", View),
        ("dk", View),
        ("dv", View),
        ("lse", ctypes.c_void_p),
        ("delta", ctypes.c_void_p),
        ("pool", Pool),
        ("starts", ctypes.c_void_p),
        ("naming", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("largest", ctypes.c_void_p),
        ("dk_parts", ctypes.c_void_p),
        ("dv_parts", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("videos", ctypes.c_int),
        ("frames", ctypes.c_int),
        ("tokens", ctypes.c_int),
        ("heads", ctypes.c_int),
        ("slots", ctypes.c_int),
        ("slices", ctypes.c_int),
    )


# Blocks that fill a V100 twice; a pool with fewer is cut into slices, at most this many.
ENOUGH_BLOCKS = 160
MOST_SLICES = 16


def backward(do, q, pools, o, lse, key, logit_bias, scale, bias_needs_gradient):
    """Return dq, [dk, dv] of each pool, and the gradient of the bias (or None)."""
    dbias = torch.zeros_like(logit_bias) if bias_needs_gradient else None
    if not q.numel():
        return torch.zeros_like(q), [tuple(torch.zeros_like(t) for t in pair) for pair in pools], dbias
    dim = head_dim_of(q.shape[-1])
    halves, d_o, out = (readable(t, dim) for t in (q, do, o))
    half_pools = [tuple(readable(t, dim) for t in pair) for pair in pools]
    largest = torch.stack([_largest([d_o]), _largest([v for _, v in half_pools])])
    table = FrameTable.from_key(key)
    saved = (halves, d_o, lse, logit_bias, largest, table, scale)
    dq, delta, dbias = _query_gradient(*saved, out, half_pools, bias_needs_gradient)
    of_pools = []
    for pool, (k, v) in enumerate(pools):
        gradients = _key_gradient(*saved, delta, half_pools[pool], pool)
        of_pools.append(tuple(like(g, t) for g, t in zip(gradients, (k, v), strict=True)))
    return like(dq, q), of_pools, dbias


def _query_gradient(q, d_o, lse, bias, largest, table, scale, o, pools, bias_needs_gradient):
    """Return dq in float16, delta = rowsum(dO * O) like lse, and dbias [H, S] or None."""
    videos, frames, tokens, heads, dim = q.shape
    kernel = f"frame_attention_bwd_dq_kernel_d{dim}"
    tile = driver.tile(kernel, q)
    blocks = -(-tokens // tile.rows)
    dq = torch.empty(q.shape, dtype=torch.float16, device=q.device)
    delta = torch.empty_like(lse)
    shares = None
    if bias_needs_gradient:
        # Slots of -1 are written by no block.
        shares = torch.zeros(*lse.shape, table.slots, tile.threads // tile.rows, 2, device=q.device)
    names = table.on(q.device).rows
    parameters = QueryGradientParameters(
        View.of(q),
        View.of(o),
        View.of(d_o),
        View.of(dq),
        address(lse),
        address(delta),
        _two(pools),
        address(names),
        address(bias),
        address(largest),
        address(shares),
        scale,
        frames,
        tokens,
        heads,
        table.slots,
    )
    tensors = [q, o, d_o, dq, lse, delta, names, bias, largest, shares, *sum(pools, ())]
    driver.launch(kernel, videos * heads * frames * blocks, parameters, tensors)
    return dq, delta, None if shares is None else _bias_gradient(shares).to(bias.dtype)


def _bias_gradient(shares):
    """Return [H, S] from the sums of P dP and of P over the keys of every slot, [B, F, N, H, S, part, 2]."""
    p_dp, p = shares.sum(-2).unbind(-1)
    return (p_dp - p_dp.sum(-1, keepdim=True) * p).sum((0, 1, 2))


def _key_gradient(q, d_o, lse, bias, largest, table, scale, delta, pool, index):
    """Return dk, dv of one pool: float16, or float32 if they are sums of slices."""
    k, v = pool
    videos, held, keys, heads, dim = k.shape
    if not k.numel():
        return torch.zeros_like(k), torch.zeros_like(v)
    kernel = f"frame_attention_bwd_dkv_kernel_d{dim}"
    blocks = videos * heads * held * -(-keys // driver.tile(kernel, q).rows)
    slices = _slices(blocks, table, index)
    on_device = table.on(q.device)
    first = sum(table.frames_per_pool[:index])
    starts = on_device.starts[first : first + held + 1]
    dk, dv, dk_parts, dv_parts = None, None, None, None
    if slices > 1:
        dk_parts, dv_parts = torch.empty(2, slices, *k.shape, dtype=torch.float32, device=q.device)
    else:
        dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (k, v))
    parameters = KeyGradientParameters(
        View.of(q),
        View.of(d_o),
        View() if dk is None else View.of(dk),
        View() if dv is None else View.of(dv),
        address(lse),
        address(delta),
        Pool.of(k, v),
        address(starts),
        address(on_device.naming),
        address(bias),
        address(largest),
        address(dk_parts),
        address(dv_parts),
        scale,
        videos,
        *q.shape[1:4],
        table.slots,
        slices,
    )
    tensors = [q, d_o, dk, dv, lse, delta, k, v, starts, on_device.naming, bias, largest, dk_parts, dv_parts]
    driver.launch(kernel, blocks * slices, parameters, tensors)
    return (dk, dv) if slices == 1 else (dk_parts.sum(0), dv_parts.sum(0))


def _slices(blocks, table, pool):
    """Into how many slices the queries of a pool's frames are cut, from shapes and table alone: the same every time."""
    first = sum(table.frames_per_pool[:pool])
    naming = table.inverse()[first : first + table.frames_per_pool[pool]]
    most_named = max(map(len, naming))
    return max(1, min(-(-ENOUGH_BLOCKS // blocks), MOST_SLICES, most_named))


def _largest(tensors):
    """Return the largest magnitude in these tensors as a float32 tensor, without waiting for it."""
    norms = [torch.linalg.vector_norm(t, float("inf"), dtype=torch.float32) for t in tensors if t.numel()]
    return torch.stack(norms).amax() if norms else torch.zeros((), device=tensors[0].device)


def _two(pools):
    return (Pool * 2)(*[Pool.of(k, v) for k, v in pools])
