"""Backward of frame_attention, part two: dk and dv by block of keys, summed over the queries that name its frame.

dk = scale ds^T q and dv = p^T do, with p and ds as in `attention_dq`. No atomics: a frame that many name is cut into
slices, whose float32 sums a second kernel adds in order.
"""

import triton
import triton.language as tl

from rcv.kernels.elementary import LOG2_E
from rcv.kernels.heads import constants_of, load_rows, start_of, store_rows, wide
from rcv.kernels.launch import capability_of, launch
from rcv.kernels.pools import frame_of, of_pool, tensors_and_strides, tile_of, tokens_of
from rcv.kernels.slices import slice_length, slices_of
from rcv.ops.table import FrameTable

_SUM_BLOCK = 1024


def key_value_gradients(do, q, pools, statistics, key, bias, scale):
    """Return [dk, dv] of each pool."""
    videos, frames, tokens, heads, width = q.shape
    table = FrameTable.from_key(key)
    keys = tokens_of(pools)
    capability = capability_of(q)
    tile = tile_of(frame_attention_bwd_dkv_kernel, q, keys)
    blocks = triton.cdiv(max(keys), tile["BLOCK_N"])
    on_device = table.on(q.device)
    length = slice_length(
        capability,
        on_device.naming.shape[0],
        videos * heads * blocks,
        triton.cdiv(tokens, tile["BLOCK_M"]),
    )
    slices = slices_of(key, length, q.device)
    results = [[t.new_empty(t.shape) for t in pair] for pair in pools]
    parts = None
    if slices.count:
        parts = statistics.new_empty(2, slices.count, videos, max(keys), heads, width)
    pool_tensors, pool_strides = tensors_and_strides(pools)
    by_stride = [do, q, *(t for pair in pools for t in pair)]
    outputs = [t for pair in results for t in pair] + [None, None] * (2 - len(pools))
    held = [k.shape[1] for k, _ in pools] + [0] * (2 - len(pools))
    launch(
        frame_attention_bwd_dkv_kernel,
        (slices.items.shape[0] * videos * heads * blocks,),
        do,
        q,
        *pool_tensors,
        statistics,
        on_device.naming,
        slices.items,
        bias,
        *outputs,
        parts,
        *do.stride(),
        *q.stride(),
        *pool_strides,
        videos,
        frames,
        tokens,
        heads,
        table.slots,
        *held,
        *keys,
        slices.count,
        scale,
        WIDE=wide(*by_stride),
        **constants_of(*by_stride),
        # All blocks or none: a second body for the last one costs registers, and 64x64 tiles then spill.
        MASKED=tokens % tile["BLOCK_M"] != 0,
        **tile,
    )
    if slices.count:
        elements = max(keys) * heads * width
        launch(
            frame_attention_bwd_sum_kernel,
            (slices.sums.shape[0] * videos * triton.cdiv(elements, _SUM_BLOCK),),
            parts,
            slices.sums,
            *outputs,
            videos,
            *held,
            *(m * heads * width for m in keys),
            slices.count,
            BLOCK=_SUM_BLOCK,
        )
    return results


@triton.jit(
    do_not_specialize=[
        "videos",
        "frames",
        "tokens",
        "heads",
        "slots",
        "held1",
        "held2",
        "keys1",
        "keys2",
        "slices",
    ]
)
def frame_attention_bwd_dkv_kernel(
    do, q, k1, v1, k2, v2, statistics, naming, items, bias, dk1, dv1, dk2, dv2, parts,
    do_b, do_f, do_n, do_h, do_d,
    q_b, q_f, q_n, q_h, q_d,
    k1_b, k1_p, k1_m, k1_h, k1_d,
    v1_b, v1_p, v1_m, v1_h, v1_d,
    k2_b, k2_p, k2_m, k2_h, k2_d,
    v2_b, v2_p, v2_m, v2_h, v2_d,
    videos, frames, tokens, heads, slots, held1, held2, keys1, keys2, slices, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, ALIGNMENT: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dk and dv of one block of keys, summed over the (query frame, slot) entries of one item."""
    TWO: tl.constexpr = k2 is not None
    most_keys = tl.maximum(keys1, keys2)
    blocks = tl.cdiv(most_keys, BLOCK_N)
    program = tl.program_id(0)
    h = ((program // blocks) % heads).to(tl.int64)
    b = ((program // blocks // heads) % videos).to(tl.int64)
    item = items + (program // blocks // heads // videos) * 4
    first = (program % blocks) * BLOCK_N
    m = first + tl.arange(0, BLOCK_N)
    p = tl.load(item).to(tl.int64)
    is_first = p < held1
    keys = of_pool(is_first, keys1, keys2, TWO)

    k = frame_of(is_first, k1, k1_b, k1_p, k1_h, k2, k2_b, k2_p, k2_h, b, p, h, held1, ALIGNMENT)
    v = frame_of(is_first, v1, v1_b, v1_p, v1_h, v2, v2_b, v2_p, v2_h, b, p, h, held1, ALIGNMENT)
    k_m = of_pool(is_first, k1_m, k2_m, TWO)
    k_d = of_pool(is_first, k1_d, k2_d, TWO)
    v_m = of_pool(is_first, v1_m, v2_m, TWO)
    v_d = of_pool(is_first, v1_d, v2_d, TWO)
    k_head = load_rows(k, first, k_m, k_d, keys, 0, HEAD, D, BLOCK_N, True, ALIGNMENT, WIDE)
    v_head = load_rows(v, first, v_m, v_d, keys, 0, HEAD, D, BLOCK_N, True, ALIGNMENT, WIDE)
    k_tail = k_head
    v_tail = v_head
    if TAIL:
        k_tail = load_rows(k, first, k_m, k_d, keys, HEAD, TAIL, D, BLOCK_N, True, ALIGNMENT, WIDE)
        v_tail = load_rows(v, first, v_m, v_d, keys, HEAD, TAIL, D, BLOCK_N, True, ALIGNMENT, WIDE)

    log2_scale = scale * LOG2_E
    to_delta = videos.to(tl.int64) * frames * heads * tokens
    dk_head = tl.zeros([BLOCK_N, HEAD], tl.float32)
    dv_head = tl.zeros([BLOCK_N, HEAD], tl.float32)
    dk_tail = tl.zeros([BLOCK_N, TAIL if TAIL else 1], tl.float32)
    dv_tail = tl.zeros([BLOCK_N, TAIL if TAIL else 1], tl.float32)
    for entry in range(tl.load(item + 1), tl.load(item + 2)):
        f = tl.load(naming + entry * 2).to(tl.int64)
        shift = 0.0
        if bias is not None:
            shift = tl.load(bias + h * slots + tl.load(naming + entry * 2 + 1)) * LOG2_E
        q_f0 = start_of(q, b, q_b, f, q_f, h, q_h, ALIGNMENT)
        do_f0 = start_of(do, b, do_b, f, do_f, h, do_h, ALIGNMENT)
        kept = statistics + ((b * frames + f) * heads + h) * tokens
        for start in range(0, tokens, BLOCK_M):
            dk_head, dk_tail, dv_head, dv_tail = _dkv_block(
                k_head, k_tail, v_head, v_tail, q_f0, q_n, q_d, do_f0, do_n, do_d, kept, to_delta, start, tokens,
                shift, log2_scale, dk_head, dk_tail, dv_head, dv_tail, D, HEAD, TAIL, MASKED, ALIGNMENT, WIDE,
                PRECISION, BLOCK_M,
            )  # fmt: skip

    dk_head *= scale
    dk_tail *= scale
    # Read again: masks of the rows kept from above the loop are what makes the widest exact tiles spill.
    p = tl.load(item, volatile=True).to(tl.int64)
    is_first = p < held1
    keys = of_pool(is_first, keys1, keys2, TWO)
    number = tl.load(item + 3).to(tl.int64)
    if number < 0:
        frame = b * of_pool(is_first, held1, held2, TWO) + of_pool(is_first, p, p - held1, TWO)
        of_head = (frame * keys * heads + h) * D
        dk = of_pool(is_first, dk1, dk2, TWO) + of_head
        dv = of_pool(is_first, dv1, dv2, TWO) + of_head
        store_rows(dk, m, heads * D, keys, dk_head, 0, HEAD, D)
        store_rows(dv, m, heads * D, keys, dv_head, 0, HEAD, D)
        if TAIL:
            store_rows(dk, m, heads * D, keys, dk_tail, HEAD, TAIL, D)
            store_rows(dv, m, heads * D, keys, dv_tail, HEAD, TAIL, D)
    elif parts is not None:
        dk_part = parts + ((number * videos + b) * most_keys * heads + h) * D
        dv_part = dk_part + slices.to(tl.int64) * videos * most_keys * heads * D
        store_rows(dk_part, m, heads * D, keys, dk_head, 0, HEAD, D)
        store_rows(dv_part, m, heads * D, keys, dv_head, 0, HEAD, D)
        if TAIL:
            store_rows(dk_part, m, heads * D, keys, dk_tail, HEAD, TAIL, D)
            store_rows(dv_part, m, heads * D, keys, dv_tail, HEAD, TAIL, D)


@triton.jit
def _dkv_block(
    k_head, k_tail, v_head, v_tail, q,
    q_n, q_d,
    do,
    do_n, do_d,
    kept, to_delta, first, tokens, shift, log2_scale, dk_head, dk_tail, dv_head, dv_tail,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, MASKED: tl.constexpr,
    ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dk (before the scale) and dv after one more block of queries. Products are transposed: keys are rows."""
    n = first + tl.arange(0, BLOCK)
    q_head = load_rows(q, first, q_n, q_d, tokens, 0, HEAD, D, BLOCK, MASKED, ALIGNMENT, WIDE)
    logits = tl.dot(k_head, tl.trans(q_head), input_precision=PRECISION)
    do_head = load_rows(do, first, do_n, do_d, tokens, 0, HEAD, D, BLOCK, MASKED, ALIGNMENT, WIDE)
    dp = tl.dot(v_head, tl.trans(do_head), input_precision=PRECISION)
    if TAIL:
        q_tail = load_rows(q, first, q_n, q_d, tokens, HEAD, TAIL, D, BLOCK, MASKED, ALIGNMENT, WIDE)
        logits = tl.dot(k_tail, tl.trans(q_tail), logits, input_precision=PRECISION)
        do_tail = load_rows(do, first, do_n, do_d, tokens, HEAD, TAIL, D, BLOCK, MASKED, ALIGNMENT, WIDE)
        dp = tl.dot(v_tail, tl.trans(do_tail), dp, input_precision=PRECISION)
    if MASKED:
        # Queries that are not there have no share in anything.
        log2_sum = tl.load(kept + n, mask=n < tokens, other=float("inf"))
        delta = tl.load(kept + to_delta + n, mask=n < tokens, other=0.0)
    else:
        log2_sum = tl.load(kept + n)
        delta = tl.load(kept + to_delta + n)
    p = tl.exp2(logits * log2_scale + (shift - log2_sum)[None, :])
    ds = (p * (dp - delta[None, :])).to(q_head.dtype)
    p = p.to(q_head.dtype)
    dv_head = tl.dot(p, do_head, dv_head, input_precision=PRECISION)
    dk_head = tl.dot(ds, q_head, dk_head, input_precision=PRECISION)
    if TAIL:
        dv_tail = tl.dot(p, do_tail, dv_tail, input_precision=PRECISION)
        dk_tail = tl.dot(ds, q_tail, dk_tail, input_precision=PRECISION)
    return dk_head, dk_tail, dv_head, dv_tail


@triton.jit(do_not_specialize=["videos", "held1", "held2", "size1", "size2", "slices"])
def frame_attention_bwd_sum_kernel(
    parts, sums, dk1, dv1, dk2, dv2, videos, held1, held2, size1, size2, slices, BLOCK: tl.constexpr
):
    """Sum of a pool frame's slices, in order. A frame of a pool has `size` elements."""
    TWO: tl.constexpr = dk2 is not None
    most = tl.maximum(size1, size2)
    blocks = tl.cdiv(most, BLOCK)
    program = tl.program_id(0)
    element = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    b = ((program // blocks) % videos).to(tl.int64)
    group = sums + (program // blocks // videos) * 3
    p = tl.load(group).to(tl.int64)
    first = tl.load(group + 1)
    is_first = p < held1
    size = of_pool(is_first, size1, size2, TWO)
    within = element < size
    to_dv = slices.to(tl.int64) * videos * most
    dk = tl.zeros([BLOCK], tl.float32)
    dv = tl.zeros([BLOCK], tl.float32)
    for number in range(first, first + tl.load(group + 2)):
        part = parts + (number * videos + b) * most + element
        dk += tl.load(part, mask=within, other=0.0)
        dv += tl.load(part + to_dv, mask=within, other=0.0)
    frame = b * of_pool(is_first, held1, held2, TWO) + of_pool(is_first, p, p - held1, TWO)
    to_frame = frame * size + element
    dk_out = of_pool(is_first, dk1, dk2, TWO) + to_frame
    dv_out = of_pool(is_first, dv1, dv2, TWO) + to_frame
    tl.store(dk_out, dk.to(dk1.dtype.element_ty), mask=within)
    tl.store(dv_out, dv.to(dk1.dtype.element_ty), mask=within)
