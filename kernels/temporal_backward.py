"""temporal_attention's backward: the softmax again from q, k and v, then the gradients.

Where a tile holds whole sequences, one program computes dq, dk and dv of them. Longer sequences take two kernels: by
block of queries (dq, and what the other one needs of the softmax), then by block of keys. Neither adds to what another
program writes: results are the same in every run.
"""

import triton
import triton.language as tl

from rcv.kernels.elementary import LOG2_E
from rcv.kernels.sequences import (
    attends,
    frames_of,
    load_tile,
    over_channels,
    store_channels,
    tile_of,
)


@triton.jit(do_not_specialize=["frames", "tokens", "heads"])
def temporal_attention_bwd_kernel(
    do, q, k, v, dq, dk, dv,
    do_b, do_f, do_n, do_h, do_d,
    q_b, q_f, q_n, q_h, q_d,
    k_b, k_f, k_n, k_h, k_d,
    v_b, v_f, v_n, v_h, v_d,
    frames, tokens, heads, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, FRAMES: tl.constexpr, CAUSAL: tl.constexpr,
    ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """All gradients of the sequences of one tile, which holds them whole."""
    video, _, rows = tile_of(frames, tokens, heads, FRAMES, ROWS)
    f = frames_of(0, FRAMES, ROWS)
    do, q, k, v = do + video * do_b, q + video * q_b, k + video * k_b, v + video * v_b
    q_head, q_tail = load_tile(
        q, q_f, q_n, q_h, q_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    k_head, k_tail = load_tile(
        k, k_f, k_n, k_h, k_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    do_head, do_tail = load_tile(
        do, do_f, do_n, do_h, do_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    v_head, v_tail = load_tile(
        v, v_f, v_n, v_h, v_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    logits = over_channels(q_head, q_tail, k_head, k_tail, TAIL, PRECISION) * (scale * LOG2_E)
    logits = tl.where(attends(f, f, frames, CAUSAL, FRAMES, ROWS), logits, float("-inf"))
    p = tl.exp2(logits - tl.max(logits, 1)[:, None])
    p /= tl.sum(p, 1)[:, None]
    dp = over_channels(do_head, do_tail, v_head, v_tail, TAIL, PRECISION)
    ds = p * (dp - tl.sum(p * dp, 1)[:, None])
    p_t, ds_t = tl.trans(p.to(q_head.dtype)), tl.trans(ds.to(q_head.dtype))
    ds = ds.to(q_head.dtype)
    first = video * frames * tokens * heads * D
    dq, dk, dv = dq + first, dk + first, dv + first
    part = tl.dot(p_t, do_head, input_precision=PRECISION)
    store_channels(dv, part, rows, f, frames, tokens, heads, 0, HEAD, D, WIDE)
    part = tl.dot(ds, k_head, input_precision=PRECISION) * scale
    store_channels(dq, part, rows, f, frames, tokens, heads, 0, HEAD, D, WIDE)
    part = tl.dot(ds_t, q_head, input_precision=PRECISION) * scale
    store_channels(dk, part, rows, f, frames, tokens, heads, 0, HEAD, D, WIDE)
    if TAIL > 0:
        part = tl.dot(p_t, do_tail, input_precision=PRECISION)
        store_channels(dv, part, rows, f, frames, tokens, heads, HEAD, TAIL, D, WIDE)
        part = tl.dot(ds, k_tail, input_precision=PRECISION) * scale
        store_channels(dq, part, rows, f, frames, tokens, heads, HEAD, TAIL, D, WIDE)
        part = tl.dot(ds_t, q_tail, input_precision=PRECISION) * scale
        store_channels(dk, part, rows, f, frames, tokens, heads, HEAD, TAIL, D, WIDE)


@triton.jit(do_not_specialize=["frames", "tokens", "heads"])
def temporal_attention_bwd_dq_kernel(
    do, q, k, v, dq, lse, delta,
    do_b, do_f, do_n, do_h, do_d,
    q_b, q_f, q_n, q_h, q_d,
    k_b, k_f, k_n, k_h, k_d,
    v_b, v_f, v_n, v_h, v_d,
    frames, tokens, heads, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, FRAMES: tl.constexpr, CAUSAL: tl.constexpr,
    ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dq of one block of queries, and by row its log-sum-exp (in units of log 2) and sum of p dp, for dk and dv."""
    video, block, rows = tile_of(frames, tokens, heads, FRAMES, ROWS)
    f = frames_of(block, FRAMES, ROWS)
    do, q, k, v = do + video * do_b, q + video * q_b, k + video * k_b, v + video * v_b
    q_head, q_tail = load_tile(
        q, q_f, q_n, q_h, q_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    do_head, do_tail = load_tile(
        do, do_f, do_n, do_h, do_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    blocks = block + 1 if CAUSAL else tl.cdiv(frames, FRAMES)
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sum_p_dp = tl.zeros([ROWS], tl.float32)
    for j in range(blocks):
        k_f_of = frames_of(j, FRAMES, ROWS)
        k_head, k_tail = load_tile(
            k, k_f, k_n, k_h, k_d, rows, k_f_of, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
        )
        v_head, v_tail = load_tile(
            v, v_f, v_n, v_h, v_d, rows, k_f_of, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
        )
        logits = over_channels(q_head, q_tail, k_head, k_tail, TAIL, PRECISION) * (scale * LOG2_E)
        logits = tl.where(attends(f, k_f_of, frames, CAUSAL, FRAMES, ROWS), logits, float("-inf"))
        now = tl.maximum(most, tl.max(logits, 1))
        p = tl.exp2(logits - now[:, None])
        dp = over_channels(do_head, do_tail, v_head, v_tail, TAIL, PRECISION)
        decay = tl.exp2(most - now)
        most = now
        total = total * decay + tl.sum(p, 1)
        sum_p_dp = sum_p_dp * decay + tl.sum(p * dp, 1)
    lse_of_rows = most + tl.log2(total)
    sum_p_dp /= total
    dq_head = tl.zeros([ROWS, HEAD], tl.float32)
    if TAIL > 0:
        dq_tail = tl.zeros([ROWS, TAIL], tl.float32)
    for j in range(blocks):
        k_f_of = frames_of(j, FRAMES, ROWS)
        k_head, k_tail = load_tile(
            k, k_f, k_n, k_h, k_d, rows, k_f_of, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
        )
        v_head, v_tail = load_tile(
            v, v_f, v_n, v_h, v_d, rows, k_f_of, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
        )
        logits = over_channels(q_head, q_tail, k_head, k_tail, TAIL, PRECISION) * (scale * LOG2_E)
        logits = tl.where(attends(f, k_f_of, frames, CAUSAL, FRAMES, ROWS), logits, float("-inf"))
        p = tl.exp2(logits - lse_of_rows[:, None])
        dp = over_channels(do_head, do_tail, v_head, v_tail, TAIL, PRECISION)
        ds = (p * (dp - sum_p_dp[:, None])).to(k_head.dtype)
        dq_head = tl.dot(ds, k_head, dq_head, input_precision=PRECISION)
        if TAIL > 0:
            dq_tail = tl.dot(ds, k_tail, dq_tail, input_precision=PRECISION)
    dq += video * frames * tokens * heads * D
    store_channels(dq, dq_head * scale, rows, f, frames, tokens, heads, 0, HEAD, D, WIDE)
    if TAIL > 0:
        store_channels(dq, dq_tail * scale, rows, f, frames, tokens, heads, HEAD, TAIL, D, WIDE)
    at = (video * frames + f) * (tokens * heads) + rows
    exists = (f < frames) & (rows < tokens * heads)
    tl.store(lse + at, lse_of_rows, mask=exists)
    tl.store(delta + at, sum_p_dp, mask=exists)


@triton.jit(do_not_specialize=["frames", "tokens", "heads"])
def temporal_attention_bwd_dkv_kernel(
    do, q, k, v, dk, dv, lse, delta,
    do_b, do_f, do_n, do_h, do_d,
    q_b, q_f, q_n, q_h, q_d,
    k_b, k_f, k_n, k_h, k_d,
    v_b, v_f, v_n, v_h, v_d,
    frames, tokens, heads, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, FRAMES: tl.constexpr, CAUSAL: tl.constexpr,
    ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dk and dv of one block of keys, in a loop over the blocks of queries that attend to it."""
    video, block, rows = tile_of(frames, tokens, heads, FRAMES, ROWS)
    f = frames_of(block, FRAMES, ROWS)
    do, q, k, v = do + video * do_b, q + video * q_b, k + video * k_b, v + video * v_b
    k_head, k_tail = load_tile(
        k, k_f, k_n, k_h, k_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    v_head, v_tail = load_tile(
        v, v_f, v_n, v_h, v_d, rows, f, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
    )
    dk_head = tl.zeros([ROWS, HEAD], tl.float32)
    dv_head = tl.zeros([ROWS, HEAD], tl.float32)
    if TAIL > 0:
        dk_tail = tl.zeros([ROWS, TAIL], tl.float32)
        dv_tail = tl.zeros([ROWS, TAIL], tl.float32)
    for i in range(block if CAUSAL else 0, tl.cdiv(frames, FRAMES)):
        q_f_of = frames_of(i, FRAMES, ROWS)
        q_head, q_tail = load_tile(
            q, q_f, q_n, q_h, q_d, rows, q_f_of, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
        )
        do_head, do_tail = load_tile(
            do, do_f, do_n, do_h, do_d, rows, q_f_of, frames, tokens, heads, D, HEAD, TAIL, ALIGNMENT, WIDE
        )
        at = (video * frames + q_f_of) * (tokens * heads) + rows
        exists = (q_f_of < frames) & (rows < tokens * heads)
        lse_of_rows = tl.load(lse + at, mask=exists, other=0.0)
        sum_p_dp = tl.load(delta + at, mask=exists, other=0.0)
        logits = over_channels(q_head, q_tail, k_head, k_tail, TAIL, PRECISION) * (scale * LOG2_E)
        logits = tl.where(attends(q_f_of, f, frames, CAUSAL, FRAMES, ROWS), logits, float("-inf"))
        p = tl.exp2(logits - lse_of_rows[:, None])
        dp = over_channels(do_head, do_tail, v_head, v_tail, TAIL, PRECISION)
        ds_t = tl.trans((p * (dp - sum_p_dp[:, None])).to(k_head.dtype))
        p_t = tl.trans(p.to(k_head.dtype))
        dv_head = tl.dot(p_t, do_head, dv_head, input_precision=PRECISION)
        dk_head = tl.dot(ds_t, q_head, dk_head, input_precision=PRECISION)
        if TAIL > 0:
            dv_tail = tl.dot(p_t, do_tail, dv_tail, input_precision=PRECISION)
            dk_tail = tl.dot(ds_t, q_tail, dk_tail, input_precision=PRECISION)
    first = video * frames * tokens * heads * D
    dk, dv = dk + first, dv + first
    store_channels(dk, dk_head * scale, rows, f, frames, tokens, heads, 0, HEAD, D, WIDE)
    store_channels(dv, dv_head, rows, f, frames, tokens, heads, 0, HEAD, D, WIDE)
    if TAIL > 0:
        store_channels(dk, dk_tail * scale, rows, f, frames, tokens, heads, HEAD, TAIL, D, WIDE)
        store_channels(dv, dv_tail, rows, f, frames, tokens, heads, HEAD, TAIL, D, WIDE)
