"""frame_attention: one online softmax over the keys of all pool frames that a table names.

Flash attention (Dao et al. 2022, 2023) with a loop over the slots of a table around the loop over keys. Logits are in
units of log 2, and the scale is applied to the float32 products, so that float16 logits cannot overflow.
"""

import torch
import triton
import triton.language as tl

from rcv.kernels.attention_dkv import key_value_gradients
from rcv.kernels.attention_dq import query_gradients
from rcv.kernels.elementary import LN_2, LOG2_E
from rcv.kernels.heads import Widths, constants_of, load_rows, start_of, store_rows, wide
from rcv.kernels.launch import launch
from rcv.kernels.pools import frame_of, of_pool, tensors_and_strides, tile_of, tokens_of
from rcv.ops.table import FrameTable


def forward(q, pools, key, logit_bias, scale):
    """Return o [B, F, N, H, D] and lse [B, F, N, H], both contiguous; rows without a frame are 0 and -inf."""
    videos, frames, tokens, heads, width = q.shape
    table = FrameTable.from_key(key)
    o = q.new_empty(q.shape)
    lse = q.new_empty(q.shape[:-1], dtype=torch.float32)
    pool_tensors, pool_strides = tensors_and_strides(pools)
    by_stride = [q, *(t for pair in pools for t in pair)]
    keys = tokens_of(pools)
    tile = tile_of(frame_attention_fwd_kernel, q, keys)
    launch(
        frame_attention_fwd_kernel,
        (videos * frames * heads * triton.cdiv(tokens, tile["BLOCK_M"]),),
        q,
        *pool_tensors,
        table.on(q.device).rows,
        None if logit_bias is None else logit_bias.float().contiguous(),
        o,
        lse,
        *q.stride(),
        *pool_strides,
        frames,
        tokens,
        heads,
        table.slots,
        table.frames_per_pool[0],
        *keys,
        scale * LOG2_E.value,
        COLUMNS=Widths.of(width).columns,
        MASKED=any(m % tile["BLOCK_N"] for m in keys),
        SCALE_IS_NEGATIVE=scale < 0,
        WIDE=wide(*by_stride),
        **constants_of(*by_stride),
        **tile,
    )
    return o, lse


def backward(do, q, pools, o, lse, key, logit_bias, scale, bias_needs_gradient):
    """Return dq, [dk, dv] of each pool, and the gradient of the bias (or None); all contiguous."""
    bias = None if logit_bias is None else logit_bias.float().contiguous()
    dq, statistics, dbias = query_gradients(do, q, pools, o, lse, key, bias, scale, bias_needs_gradient)
    of_pools = key_value_gradients(do, q, pools, statistics, key, bias, scale)
    return dq, of_pools, None if dbias is None else dbias.to(logit_bias.dtype)


@triton.jit(do_not_specialize=["frames", "tokens", "heads", "slots", "held", "keys1", "keys2"])
def frame_attention_fwd_kernel(
    q, k1, v1, k2, v2, rows, bias, o, lse,
    q_b, q_f, q_n, q_h, q_d,
    k1_b, k1_p, k1_m, k1_h, k1_d,
    v1_b, v1_p, v1_m, v1_h, v1_d,
    k2_b, k2_p, k2_m, k2_h, k2_d,
    v2_b, v2_p, v2_m, v2_h, v2_d,
    frames, tokens, heads, slots, held, keys1, keys2, scale,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr,
    SCALE_IS_NEGATIVE: tl.constexpr, ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of queries of one (video, head, frame). Blocks of a frame, then frames of a head, run side by side.

    They read the same keys: those of their frame, those of the first frame.
    """
    TWO: tl.constexpr = k2 is not None
    blocks = tl.cdiv(tokens, BLOCK_M)
    program = tl.program_id(0)
    f = ((program // blocks) % frames).to(tl.int64)
    h = ((program // blocks // frames) % heads).to(tl.int64)
    b = (program // blocks // frames // heads).to(tl.int64)
    first = (program % blocks) * BLOCK_M
    n = first + tl.arange(0, BLOCK_M)

    q = start_of(q, b, q_b, f, q_f, h, q_h, ALIGNMENT)
    q_head = load_rows(q, first, q_n, q_d, tokens, 0, HEAD, D, BLOCK_M, True, ALIGNMENT, WIDE)
    q_tail = q_head
    if TAIL:
        q_tail = load_rows(q, first, q_n, q_d, tokens, HEAD, TAIL, D, BLOCK_M, True, ALIGNMENT, WIDE)
    o_head = tl.zeros([BLOCK_M, HEAD], tl.float32)
    o_tail = tl.zeros([BLOCK_M, COLUMNS if COLUMNS else 1], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_M], tl.float32)
    for slot in range(slots):
        p = tl.load(rows + f * slots + slot).to(tl.int64)
        if p >= 0:
            is_first = p < held
            k = frame_of(is_first, k1, k1_b, k1_p, k1_h, k2, k2_b, k2_p, k2_h, b, p, h, held, ALIGNMENT)
            v = frame_of(is_first, v1, v1_b, v1_p, v1_h, v2, v2_b, v2_p, v2_h, b, p, h, held, ALIGNMENT)
            k_m = of_pool(is_first, k1_m, k2_m, TWO)
            k_d = of_pool(is_first, k1_d, k2_d, TWO)
            v_m = of_pool(is_first, v1_m, v2_m, TWO)
            v_d = of_pool(is_first, v1_d, v2_d, TWO)
            keys = of_pool(is_first, keys1, keys2, TWO)
            shift = 0.0
            if bias is not None:
                shift = tl.load(bias + h * slots + slot) * LOG2_E
            for start in range(0, keys, BLOCK_N):
                o_head, o_tail, top, mass = _block(
                    q_head, q_tail, k, k_m, k_d, v, v_m, v_d, start, keys, shift, scale, o_head, o_tail, top, mass,
                    D, HEAD, TAIL, COLUMNS, MASKED, SCALE_IS_NEGATIVE, ALIGNMENT, WIDE, PRECISION, BLOCK_N,
                )  # fmt: skip

    # A row without a frame has no mass, and -inf on top.
    mass = tl.where(mass == 0, 1.0, mass)
    inverse = 1 / mass
    row = (b * frames + f) * tokens
    o += (row * heads + h) * D
    store_rows(o, n, heads * D, tokens, o_head * inverse[:, None], 0, HEAD, D)
    if TAIL:
        store_rows(o, n, heads * D, tokens, o_tail * inverse[:, None], HEAD, COLUMNS, D)
    natural = (top + tl.log2(mass)) * LN_2
    tl.store(lse + (row + n) * heads + h, natural, mask=n < tokens)


@triton.jit
def _block(
    q_head, q_tail, k, k_m, k_d, v, v_m, v_d, first, keys, shift, scale, o_head, o_tail, top, mass,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr,
    SCALE_IS_NEGATIVE: tl.constexpr, ALIGNMENT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The running softmax after one more block of keys: unnormalised output, largest logit, mass."""
    m = first + tl.arange(0, BLOCK)
    k_head = load_rows(k, first, k_m, k_d, keys, 0, HEAD, D, BLOCK, MASKED, ALIGNMENT, WIDE)
    logits = tl.dot(q_head, tl.trans(k_head), input_precision=PRECISION)
    if TAIL:
        k_tail = load_rows(k, first, k_m, k_d, keys, HEAD, TAIL, D, BLOCK, MASKED, ALIGNMENT, WIDE)
        logits = tl.dot(q_tail, tl.trans(k_tail), logits, input_precision=PRECISION)
    # Scaled inside the exponential's multiply and add, but where keys are masked.
    if MASKED:
        logits = tl.where((m < keys)[None, :], logits * scale, float("-inf"))
        new = tl.maximum(top, tl.max(logits, 1) + shift)
        p = tl.exp2(logits + (shift - new)[:, None])
    else:
        extreme = tl.min(logits, 1) if SCALE_IS_NEGATIVE else tl.max(logits, 1)
        new = tl.maximum(top, extreme * scale + shift)
        p = tl.exp2(logits * scale + (shift - new)[:, None])
    kept = tl.exp2(top - new)
    mass = mass * kept + tl.sum(p, 1)
    v_head = load_rows(v, first, v_m, v_d, keys, 0, HEAD, D, BLOCK, MASKED, ALIGNMENT, WIDE)
    p = p.to(v_head.dtype)
    o_head = tl.dot(p, v_head, o_head * kept[:, None], input_precision=PRECISION)
    if TAIL:
        v_tail = load_rows(v, first, v_m, v_d, keys, HEAD, COLUMNS, D, BLOCK, MASKED, ALIGNMENT, WIDE)
        o_tail = tl.dot(p, v_tail, o_tail * kept[:, None], input_precision=PRECISION)
    return o_head, o_tail, new, mass
