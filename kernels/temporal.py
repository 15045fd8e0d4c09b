"""temporal_attention: every token over its own frames, many short sequences a tile, read where they lie.

A tile's rows are sequences side by side, and one product gives the logits of all; those between two sequences are
masked. At 64 rows that is 32 operations for a byte read or written, where the matrix units could do 150 to 300.
"""

import torch
import triton
import triton.language as tl

from rcv.kernels import temporal_backward
from rcv.kernels.elementary import LOG2_E
from rcv.kernels.launch import capability_of, launch
from rcv.kernels.sequences import (
    Tiling,
    attends,
    frames_of,
    load_tile,
    over_channels,
    store_channels,
    tile_of,
)
from rcv.kernels.tiles import tiles


def forward(q, k, v, causal, scale):
    """Return o [B, F, N, H, D], contiguous."""
    o = q.new_empty(q.shape)
    _launch(temporal_attention_fwd_kernel, [q, k, v], [o], causal, scale)
    return o


def backward(do, q, k, v, causal, scale):
    """Return dq, dk, dv, contiguous. Nothing but the inputs is needed: the softmax is computed again."""
    dq, dk, dv = (q.new_empty(q.shape) for _ in "qkv")
    inputs, frames = [do, q, k, v], q.shape[1]
    whole = temporal_backward.temporal_attention_bwd_kernel
    if frames <= _tile(whole, q)["ROWS"]:
        _launch(whole, inputs, [dq, dk, dv], causal, scale)
        return dq, dk, dv
    # What a block of queries needs of its softmax, for the blocks of keys: log-sum-exp and sum of p dp.
    statistics = q.new_empty((2, *q.shape[:4]), dtype=torch.float32)
    _launch(temporal_backward.temporal_attention_bwd_dq_kernel, inputs, [dq, *statistics], causal, scale)
    _launch(temporal_backward.temporal_attention_bwd_dkv_kernel, inputs, [dk, dv, *statistics], causal, scale)
    return dq, dk, dv


def _tile(kernel, q):
    shape = {"bytes": q.element_size(), "D": q.shape[-1], "F": q.shape[1]}
    return tiles(kernel.__name__, capability_of(q), **shape)


def _launch(kernel, inputs, outputs, causal, scale):
    q = inputs[-3]
    tile = _tile(kernel, q)
    tiling = Tiling.of(tile["ROWS"], *inputs)
    strides = [stride for t in inputs for stride in t.stride()]
    numbers = (*q.shape[1:4], scale)
    constants = {**tiling.constants, **tile, "CAUSAL": causal}
    launch(kernel, (tiling.programs,), *inputs, *outputs, *strides, *numbers, **constants)


@triton.jit(do_not_specialize=["frames", "tokens", "heads"])
def temporal_attention_fwd_kernel(
    q, k, v, o,
    q_b, q_f, q_n, q_h, q_d,
    k_b, k_f, k_n, k_h, k_d,
    v_b, v_f, v_n, v_h, v_d,
    frames, tokens, heads, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, FRAMES: tl.constexpr, CAUSAL: tl.constexpr,
    ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One tile of queries, in a loop over the tiles of keys of the same sequences: one, unless they are long."""
    video, block, sequences = tile_of(frames, tokens, heads, FRAMES, ROWS)
    q, k, v = q + video * q_b, k + video * k_b, v + video * v_b
    query_frames = frames_of(block, FRAMES, ROWS)
    q_head, q_tail = load_tile(
        q, q_f, q_n, q_h, q_d, sequences, query_frames, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    o_head = tl.zeros([ROWS, HEAD], tl.float32)
    if TAIL > 0:
        o_tail = tl.zeros([ROWS, TAIL], tl.float32)
    # The first block holds frame 0, to which every row may attend: no maximum stays at minus infinity.
    for j in range(block + 1 if CAUSAL else tl.cdiv(frames, FRAMES)):
        key_frames = frames_of(j, FRAMES, ROWS)
        k_head, k_tail = load_tile(
            k, k_f, k_n, k_h, k_d, sequences, key_frames, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE,
        )  # fmt: skip
        v_head, v_tail = load_tile(
            v, v_f, v_n, v_h, v_d, sequences, key_frames, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE,
        )  # fmt: skip
        logits = over_channels(q_head, q_tail, k_head, k_tail, TAIL, PRECISION) * (scale * LOG2_E)
        logits = tl.where(
            attends(query_frames, key_frames, frames, CAUSAL, FRAMES, ROWS), logits, float("-inf")
        )
        now = tl.maximum(most, tl.max(logits, 1))
        p = tl.exp2(logits - now[:, None])
        decay = tl.exp2(most - now)
        most = now
        total = total * decay + tl.sum(p, 1)
        p = p.to(v_head.dtype)
        o_head = tl.dot(p, v_head, o_head * decay[:, None], input_precision=PRECISION)
        if TAIL > 0:
            o_tail = tl.dot(p, v_tail, o_tail * decay[:, None], input_precision=PRECISION)
    o += video * frames * tokens * heads * D
    o_head /= total[:, None]
    store_channels(o, o_head, sequences, query_frames, frames, tokens, heads, 0, HEAD, D, WIDE)
    if TAIL > 0:
        o_tail /= total[:, None]
        store_channels(o, o_tail, sequences, query_frames, frames, tokens, heads, HEAD, TAIL, D, WIDE)
