"""Backward of frame_attention, part one: dq and the gradient of the bias, by block of queries.

Dao 2023: probabilities p are computed again from lse. With delta = rowsum(do * o) and ds = p (do v^T - delta), dq is
scale ds k, and the gradient of a slot's logit bias is the sum of its ds.
"""

import triton
import triton.language as tl

from rcv.kernels.elementary import LOG2_E
from rcv.kernels.heads import constants_of, load_rows, start_of, store_rows, wide
from rcv.kernels.launch import launch
from rcv.kernels.pools import frame_of, of_pool, tensors_and_strides, tile_of, tokens_of
from rcv.ops.table import FrameTable


def query_gradients(do, q, pools, o, lse, key, bias, scale, bias_needs_gradient):
    """Return dq, (lse, delta) [2, B, F, H, N] in units of log 2 and of the output, and the gradient of the bias."""
    videos, frames, tokens, heads, _ = q.shape
    table = FrameTable.from_key(key)
    keys = tokens_of(pools)
    tile = tile_of(frame_attention_bwd_dq_kernel, q, keys)
    blocks = triton.cdiv(tokens, tile["BLOCK_M"])
    dq = q.new_empty(q.shape)
    statistics = lse.new_empty(2, videos, frames, heads, tokens)
    bias_parts = None
    if bias_needs_gradient:
        bias_parts = lse.new_empty(videos * frames * blocks, heads, table.slots)
    pool_tensors, pool_strides = tensors_and_strides(pools)
    by_stride = [do, q, *(t for pair in pools for t in pair)]
    launch(
        frame_attention_bwd_dq_kernel,
        (videos * heads * frames * blocks,),
        do,
        q,
        *pool_tensors,
        o,
        lse,
        table.on(q.device).rows,
        bias,
        dq,
        statistics,
        bias_parts,
        *do.stride(),
        *q.stride(),
        *pool_strides,
        videos,
        frames,
        tokens,
        heads,
        table.slots,
        table.frames_per_pool[0],
        *keys,
        scale,
        WIDE=wide(*by_stride),
        **constants_of(*by_stride),
        MASKED=any(m % tile["BLOCK_N"] for m in keys),
        **tile,
    )
    return dq, statistics, bias_parts.sum(0) if bias_needs_gradient else None


@triton.jit(do_not_specialize=["videos", "frames", "tokens", "heads", "slots", "held", "keys1", "keys2"])
def frame_attention_bwd_dq_kernel(
    do, q, k1, v1, k2, v2, o, lse, rows, bias, dq, statistics, bias_parts,
    do_b, do_f, do_n, do_h, do_d,
    q_b, q_f, q_n, q_h, q_d,
    k1_b, k1_p, k1_m, k1_h, k1_d,
    v1_b, v1_p, v1_m, v1_h, v1_d,
    k2_b, k2_p, k2_m, k2_h, k2_d,
    v2_b, v2_p, v2_m, v2_h, v2_d,
    videos, frames, tokens, heads, slots, held, keys1, keys2, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, ALIGNMENT: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dq of one block of queries, and what the sums over queries need of it: lse, delta, gradients of the bias."""
    TWO: tl.constexpr = k2 is not None
    blocks = tl.cdiv(tokens, BLOCK_M)
    program = tl.program_id(0)
    block = program % blocks
    f = ((program // blocks) % frames).to(tl.int64)
    h = ((program // blocks // frames) % heads).to(tl.int64)
    b = (program // blocks // frames // heads).to(tl.int64)
    first = block * BLOCK_M
    n = first + tl.arange(0, BLOCK_M)
    within = n < tokens

    row = (b * frames + f) * tokens
    of_head = (row * heads + h) * D
    q = start_of(q, b, q_b, f, q_f, h, q_h, ALIGNMENT)
    do = start_of(do, b, do_b, f, do_f, h, do_h, ALIGNMENT)
    q_head = load_rows(q, first, q_n, q_d, tokens, 0, HEAD, D, BLOCK_M, True, ALIGNMENT, WIDE)
    do_head = load_rows(do, first, do_n, do_d, tokens, 0, HEAD, D, BLOCK_M, True, ALIGNMENT, WIDE)
    o_head = load_rows(o + of_head, first, heads * D, 1, tokens, 0, HEAD, D, BLOCK_M, True, D & -D, False)
    delta = tl.sum(o_head.to(tl.float32) * do_head.to(tl.float32), 1)
    q_tail = q_head
    do_tail = do_head
    if TAIL:
        q_tail = load_rows(q, first, q_n, q_d, tokens, HEAD, TAIL, D, BLOCK_M, True, ALIGNMENT, WIDE)
        do_tail = load_rows(do, first, do_n, do_d, tokens, HEAD, TAIL, D, BLOCK_M, True, ALIGNMENT, WIDE)
        o_tail = load_rows(
            o + of_head, first, heads * D, 1, tokens, HEAD, TAIL, D, BLOCK_M, True, D & -D, False
        )
        delta += tl.sum(o_tail.to(tl.float32) * do_tail.to(tl.float32), 1)
    log2_sum = tl.load(lse + (row + n) * heads + h, mask=within, other=float("inf")) * LOG2_E
    kept = statistics + ((b * frames + f) * heads + h) * tokens + n
    tl.store(kept, log2_sum, mask=within)
    tl.store(kept + videos.to(tl.int64) * frames * heads * tokens, delta, mask=within)

    log2_scale = scale * LOG2_E
    dq_head = tl.zeros([BLOCK_M, HEAD], tl.float32)
    dq_tail = tl.zeros([BLOCK_M, TAIL if TAIL else 1], tl.float32)
    for slot in range(slots):
        p = tl.load(rows + f * slots + slot).to(tl.int64)
        ds_sum = tl.zeros([BLOCK_M], tl.float32)
        if p >= 0:
            is_first = p < held
            k = frame_of(is_first, k1, k1_b, k1_p, k1_h, k2, k2_b, k2_p, k2_h, b, p, h, held, ALIGNMENT)
            v = frame_of(is_first, v1, v1_b, v1_p, v1_h, v2, v2_b, v2_p, v2_h, b, p, h, held, ALIGNMENT)
            k_m = of_pool(is_first, k1_m, k2_m, TWO)
            k_d = of_pool(is_first, k1_d, k2_d, TWO)
            v_m = of_pool(is_first, v1_m, v2_m, TWO)
            v_d = of_pool(is_first, v1_d, v2_d, TWO)
            keys = of_pool(is_first, keys1, keys2, TWO)
            shift = -log2_sum
            if bias is not None:
                shift += tl.load(bias + h * slots + slot) * LOG2_E
            for start in range(0, keys, BLOCK_N):
                dq_head, dq_tail, ds_sum = _dq_block(
                    q_head, q_tail, do_head, do_tail, k, k_m, k_d, v, v_m, v_d, start, keys, shift, delta, log2_scale,
                    dq_head, dq_tail, ds_sum, D, HEAD, TAIL, MASKED, ALIGNMENT, WIDE, PRECISION, BLOCK_N,
                )  # fmt: skip
        if bias_parts is not None:
            part = ((b * frames + f) * blocks + block) * heads + h
            tl.store(bias_parts + part * slots + slot, tl.sum(ds_sum, 0))

    store_rows(dq + of_head, n, heads * D, tokens, dq_head * scale, 0, HEAD, D)
    if TAIL:
        store_rows(dq + of_head, n, heads * D, tokens, dq_tail * scale, HEAD, TAIL, D)


@triton.jit
def _dq_block(
    q_head, q_tail, do_head, do_tail, k, k_m, k_d, v, v_m, v_d, first, keys, shift, delta, log2_scale,
    dq_head, dq_tail, ds_sum,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, MASKED: tl.constexpr,
    ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dq and the sum of ds after one more block of keys."""
    m = first + tl.arange(0, BLOCK)
    k_head = load_rows(k, first, k_m, k_d, keys, 0, HEAD, D, BLOCK, MASKED, ALIGNMENT, WIDE)
    logits = tl.dot(q_head, tl.trans(k_head), input_precision=PRECISION)
    v_head = load_rows(v, first, v_m, v_d, keys, 0, HEAD, D, BLOCK, MASKED, ALIGNMENT, WIDE)
    dp = tl.dot(do_head, tl.trans(v_head), input_precision=PRECISION)
    if TAIL:
        # One tail as wide as a contraction needs, also where it is columns: a narrower one would be a second load.
        k_tail = load_rows(k, first, k_m, k_d, keys, HEAD, TAIL, D, BLOCK, MASKED, ALIGNMENT, WIDE)
        logits = tl.dot(q_tail, tl.trans(k_tail), logits, input_precision=PRECISION)
        v_tail = load_rows(v, first, v_m, v_d, keys, HEAD, TAIL, D, BLOCK, MASKED, ALIGNMENT, WIDE)
        dp = tl.dot(do_tail, tl.trans(v_tail), dp, input_precision=PRECISION)
    p = tl.exp2(logits * log2_scale + shift[:, None])
    if MASKED:
        # exp2(0 - lse) of a key that is not there may be infinite.
        p = tl.where((m < keys)[None, :], p, 0.0)
    ds = p * (dp - delta[:, None])
    ds_sum += tl.sum(ds, 1)
    ds = ds.to(k_head.dtype)
    dq_head = tl.dot(ds, k_head, dq_head, input_precision=PRECISION)
    if TAIL:
        dq_tail = tl.dot(ds, k_tail, dq_tail, input_precision=PRECISION)
    return dq_head, dq_tail, ds_sum
