"""Kernels of the gated scans: a program walks all frames for a tile of tokens and channels, the state in registers.

All are bound by memory. What a frame reads does not depend on the state, so that its loads can be under way STAGES - 1
frames ahead (from capability 8.0 on): it is what hides their latency where there are too few tiles to fill the device,
and costs occupancy where there are enough. State and gates are float32.

Tensors [B, F, N, C] come with their strides; h, the gradients of such tensors and h_last [B, N, C] are contiguous; h0
[B, N, C] has strides, its gradient is contiguous.
"""

import triton
import triton.language as tl

from rcv.kernels.elementary import one_minus_exp


@triton.jit
def _tile(N, C, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    """Video, tokens [BLOCK_N, 1] and channels [1, BLOCK_C] of this program, and which of them exist."""
    token_blocks, channel_blocks = tl.cdiv(N, BLOCK_N), tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    tokens = (program // channel_blocks % token_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = (program % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    exists = (tokens < N)[:, None] & (channels < C)[None, :]
    video = (program // channel_blocks // token_blocks).to(tl.int64)
    return video, tokens.to(tl.int64)[:, None], channels.to(tl.int64)[None, :], exists


@triton.jit
def _read(pointers, exists):
    return tl.load(pointers, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def _write(tensor, offset, value, exists):
    tl.store(tensor + offset, value.to(tensor.dtype.element_ty), mask=exists)


@triton.jit
def _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists):
    if h0 is None:
        return tl.zeros(exists.shape, tl.float32)
    else:  # Triton compiles what stands behind a return
        return _read(h0 + video * h0_b + tokens * h0_n + channels * h0_c, exists)


@triton.jit(do_not_specialize=["F", "N"])
def gated_scan_fwd_kernel(
    a, a_b, a_f, a_n, a_c,
    x, x_b, x_f, x_n, x_c,
    h, h_last,
    h0, h0_b, h0_n, h0_c,
    F, N, C,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    video, tokens, channels, exists = _tile(N, C, BLOCK_N, BLOCK_C)
    a += video * a_b + tokens * a_n + channels * a_c
    x += video * x_b + tokens * x_n + channels * x_c
    plane = tl.cast(N, tl.int64) * C
    within = tokens * C + channels
    h += video * F * plane + within
    state = _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists)
    for i in tl.range(F, num_stages=STAGES):
        frame = tl.cast(i, tl.int64)
        state = _read(a + frame * a_f, exists) * state + _read(x + frame * x_f, exists)
        _write(h, frame * plane, state, exists)
    _write(h_last, video * plane + within, state, exists)


@triton.jit(do_not_specialize=["F", "N"])
def gated_scan_bwd_kernel(
    dh, dh_b, dh_f, dh_n, dh_c,
    a, a_b, a_f, a_n, a_c,
    dh_last, h, da, dx, dh0,
    h0, h0_b, h0_n, h0_c,
    F, N, C,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    video, tokens, channels, exists = _tile(N, C, BLOCK_N, BLOCK_C)
    dh += video * dh_b + tokens * dh_n + channels * dh_c
    a += video * a_b + tokens * a_n + channels * a_c
    plane = tl.cast(N, tl.int64) * C
    within = tokens * C + channels
    first = video * F * plane + within
    initial = _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists)
    g = _read(dh_last + video * plane + within, exists)
    for reversed_i in tl.range(F, num_stages=STAGES):
        frame = tl.cast(F - 1 - reversed_i, tl.int64)
        former = _read(h + first + tl.maximum(frame - 1, 0) * plane, exists)
        former = tl.where(frame > 0, former, initial)
        g += _read(dh + frame * dh_f, exists)
        _write(dx, first + frame * plane, g, exists)
        _write(da, first + frame * plane, g * former, exists)
        g *= _read(a + frame * a_f, exists)
    if h0 is not None:
        _write(dh0, video * plane + within, g, exists)


@triton.jit(do_not_specialize=["F", "N"])
def mingru_scan_fwd_kernel(
    gate, gate_b, gate_f, gate_n, gate_c,
    candidate, candidate_b, candidate_f, candidate_n, candidate_c,
    h, h_last,
    h0, h0_b, h0_n, h0_c,
    F, N, C,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    video, tokens, channels, exists = _tile(N, C, BLOCK_N, BLOCK_C)
    gate += video * gate_b + tokens * gate_n + channels * gate_c
    candidate += video * candidate_b + tokens * candidate_n + channels * candidate_c
    plane = tl.cast(N, tl.int64) * C
    within = tokens * C + channels
    h += video * F * plane + within
    state = _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists)
    for i in tl.range(F, num_stages=STAGES):
        frame = tl.cast(i, tl.int64)
        share = tl.sigmoid(_read(gate + frame * gate_f, exists))
        state += share * (_read(candidate + frame * candidate_f, exists) - state)
        _write(h, frame * plane, state, exists)
    _write(h_last, video * plane + within, state, exists)


@triton.jit(do_not_specialize=["F", "N"])
def mingru_scan_bwd_kernel(
    dh, dh_b, dh_f, dh_n, dh_c,
    gate, gate_b, gate_f, gate_n, gate_c,
    candidate, candidate_b, candidate_f, candidate_n, candidate_c,
    dh_last, h, dgate, dcandidate, dh0,
    h0, h0_b, h0_n, h0_c,
    F, N, C,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    video, tokens, channels, exists = _tile(N, C, BLOCK_N, BLOCK_C)
    dh += video * dh_b + tokens * dh_n + channels * dh_c
    gate += video * gate_b + tokens * gate_n + channels * gate_c
    candidate += video * candidate_b + tokens * candidate_n + channels * candidate_c
    plane = tl.cast(N, tl.int64) * C
    within = tokens * C + channels
    first = video * F * plane + within
    initial = _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists)
    g = _read(dh_last + video * plane + within, exists)
    for reversed_i in tl.range(F, num_stages=STAGES):
        frame = tl.cast(F - 1 - reversed_i, tl.int64)
        former = _read(h + first + tl.maximum(frame - 1, 0) * plane, exists)
        former = tl.where(frame > 0, former, initial)
        share = tl.sigmoid(_read(gate + frame * gate_f, exists))
        by_gate = _read(candidate + frame * candidate_f, exists) - former
        g += _read(dh + frame * dh_f, exists)
        into = g * share
        _write(dcandidate, first + frame * plane, into, exists)
        g *= 1.0 - share
        _write(dgate, first + frame * plane, by_gate * g * share, exists)
    if h0 is not None:
        _write(dh0, video * plane + within, g, exists)


@triton.jit(do_not_specialize=["F", "N"])
def rglru_scan_fwd_kernel(
    forget, forget_b, forget_f, forget_n, forget_c,
    inlet, inlet_b, inlet_f, inlet_n, inlet_c,
    candidate, candidate_b, candidate_f, candidate_n, candidate_c,
    rate, h, h_last,
    h0, h0_b, h0_n, h0_c,
    F, N, C,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    video, tokens, channels, exists = _tile(N, C, BLOCK_N, BLOCK_C)
    forget += video * forget_b + tokens * forget_n + channels * forget_c
    inlet += video * inlet_b + tokens * inlet_n + channels * inlet_c
    candidate += video * candidate_b + tokens * candidate_n + channels * candidate_c
    plane = tl.cast(N, tl.int64) * C
    within = tokens * C + channels
    rate = _read(rate + channels, channels < C)
    h += video * F * plane + within
    state = _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists)
    for i in tl.range(F, num_stages=STAGES):
        frame = tl.cast(i, tl.int64)
        log_a = rate * tl.sigmoid(_read(forget + frame * forget_f, exists))
        root = tl.sqrt(tl.maximum(one_minus_exp(2.0 * log_a), FLOOR))
        share = tl.sigmoid(_read(inlet + frame * inlet_f, exists))
        state = tl.exp(log_a) * state + root * share * _read(candidate + frame * candidate_f, exists)
        _write(h, frame * plane, state, exists)
    _write(h_last, video * plane + within, state, exists)


@triton.jit(do_not_specialize=["F", "N"])
def rglru_scan_bwd_kernel(
    dh, dh_b, dh_f, dh_n, dh_c,
    forget, forget_b, forget_f, forget_n, forget_c,
    inlet, inlet_b, inlet_f, inlet_n, inlet_c,
    candidate, candidate_b, candidate_f, candidate_n, candidate_c,
    rate, dh_last, h, dforget, dinlet, dcandidate, drate, dh0,
    h0, h0_b, h0_n, h0_c,
    F, N, C,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    video, tokens, channels, exists = _tile(N, C, BLOCK_N, BLOCK_C)
    dh += video * dh_b + tokens * dh_n + channels * dh_c
    forget += video * forget_b + tokens * forget_n + channels * forget_c
    inlet += video * inlet_b + tokens * inlet_n + channels * inlet_c
    candidate += video * candidate_b + tokens * candidate_n + channels * candidate_c
    plane = tl.cast(N, tl.int64) * C
    within = tokens * C + channels
    rate = _read(rate + channels, channels < C)
    first = video * F * plane + within
    initial = _initial(h0, video, tokens, channels, h0_b, h0_n, h0_c, exists)
    g = _read(dh_last + video * plane + within, exists)
    by_rate = tl.zeros(exists.shape, tl.float32)
    for reversed_i in tl.range(F, num_stages=STAGES):
        frame = tl.cast(F - 1 - reversed_i, tl.int64)
        here = first + frame * plane
        former = _read(h + first + tl.maximum(frame - 1, 0) * plane, exists)
        former = tl.where(frame > 0, former, initial)
        opening = tl.sigmoid(_read(forget + frame * forget_f, exists))
        a = tl.exp(rate * opening)
        free = one_minus_exp(2.0 * rate * opening)
        root = tl.sqrt(tl.maximum(free, FLOOR))
        share = tl.sigmoid(_read(inlet + frame * inlet_f, exists))
        c = _read(candidate + frame * candidate_f, exists)
        g += _read(dh + frame * dh_f, exists)
        _write(dcandidate, here, g * root * share, exists)
        by_inlet = g * root * c * share * (1.0 - share)
        _write(dinlet, here, by_inlet, exists)
        # d h / d log a = a (former - s c a / sqrt(1 - a^2)); the root has no slope on the floor.
        slope = tl.where(free < FLOOR, 0.0, a / root)
        g *= a
        by_opening = g * (former - slope * share * c)
        by_rate += by_opening * opening
        by_forget = by_opening * rate * opening * (1.0 - opening)
        _write(dforget, here, by_forget, exists)
    _write(drate, video * plane + within, by_rate, exists)
    if h0 is not None:
        _write(dh0, video * plane + within, g, exists)
