"""recurrent_scan: a product, a sum and an activation a frame; the backward is the same over the frames reversed.

Two ways. Where there are many tokens and few channels a program keeps a tile of tokens through all frames: tokens do
not depend on each other, so that nothing has to wait for another program. The state of the former frame is read back
from the output that the same program wrote, out of the first cache, and the weight streams from the second. Elsewhere
a frame is one launch over tiles of tokens and columns, which a CUDA graph can hold.
"""

import triton
import triton.language as tl

from rcv.kernels.elementary import tanh
from rcv.kernels.heads import precision
from rcv.kernels.launch import capability_of, launch
from rcv.kernels.tiles import nearest, tiles
from rcv.ops.torch_backend.scan import weight_and_state_gradients

WALK_CHANNELS = 320
"""Most channels at which a program walks the frames. A frame costs a launch 2 C of pre-activation traffic for 2 C^2
operations an element: at 320 channels that is what bounds it (128 operations a byte, where chips do 140 to 300), at 640
and more the product is, and there is nothing to gain but launches (computed)."""
WALK_TOKENS = {(8, 0): 5184, (8, 6): 4032, (8, 9): 6144, (9, 0): 6336, (10, 0): 7104, (12, 0): 8160}
"""Fewest tokens, over all videos, at which a program walks the frames: tiles of 64 for three quarters of the
multiprocessors of the largest chip of a compute capability (108, 84, 128, 132, 148, 170). With fewer, too many would
stand idle through all frames, while columns divide the work of one frame further (computed)."""


def recurrent_forward(x, weight, h0, activation):
    """Return h [B, F, N, C], contiguous; each state is rounded to x's dtype before the next frame reads it."""
    h = x.new_empty(x.shape)
    constants = {"TANH": activation == "tanh", "PRECISION": precision(x.dtype)}
    # h W^T: the contracted axis of the weight is its second.
    others = (x, *x.stride(), weight, weight.stride(1), weight.stride(0), h)
    if _walks(x):
        _launch(recurrent_scan_fwd_kernel, x, False, *_state(h0), *others, **constants)
        return h
    for i in range(x.shape[1]):
        former = _state(h0) if i == 0 else _frame(h, i - 1)
        _launch(recurrent_scan_frame_fwd_kernel, x, True, *former, *others, i, **constants)
    return h


def recurrent_backward(dh, weight, h, h0, activation):
    """Return dx, dweight, dh0 (None without h0). dweight is one matrix product over all frames, by PyTorch."""
    dx = h.new_empty(h.shape)
    constants = {"TANH": activation == "tanh", "PRECISION": precision(h.dtype)}
    others = (dh, *dh.stride(), weight, *weight.stride(), h, dx)
    if _walks(h):
        _launch(recurrent_scan_bwd_kernel, h, False, *others, **constants)
    else:
        last = h.shape[1] - 1
        for i in reversed(range(last + 1)):
            former = _state(None) if i == last else _frame(dx, i + 1)
            _launch(recurrent_scan_frame_bwd_kernel, h, True, *former, *others, i, **constants)
    return dx, *weight_and_state_gradients(dx, weight, h, h0)


def _walks(h):
    videos, _, tokens, width = h.shape
    fewest = WALK_TOKENS[nearest(WALK_TOKENS, capability_of(h))]
    return width <= WALK_CHANNELS and videos * tokens >= fewest


def _launch(kernel, h, by_columns, *arguments, **constants):
    """Run a kernel by tiles of tokens, and of columns if a program has not all of them."""
    videos, frames, tokens, width = h.shape
    tile = tiles(kernel.__name__, capability_of(h), bytes=h.element_size(), C=width, tokens=videos * tokens)
    programs = triton.cdiv(videos * tokens, tile["BLOCK_N"])
    if by_columns:
        programs *= triton.cdiv(width, tile["BLOCK_C"])
    launch(kernel, (programs,), *arguments, videos, frames, tokens, width, **tile, **constants)


def _state(h0):
    """A state [B, N, C]: tensor, offset, strides."""
    return (None, 0, 0, 0, 0) if h0 is None else (h0, 0, *h0.stride())


def _frame(t, i):
    """Frame i of a contiguous tensor [B, F, N, C] as a state."""
    return t, i * t.stride(1), t.stride(0), t.stride(2), t.stride(3)


@triton.jit
def _tokens(first, videos, N, BLOCK_N: tl.constexpr):
    """Videos and tokens of a tile's rows, those of all videos numbered through, and which exist."""
    rows = first + tl.arange(0, BLOCK_N)
    return (rows // N).to(tl.int64), (rows % N).to(tl.int64), rows < videos * N


@triton.jit
def _product(
    former, weight, w_k, w_n, exists, columns, C, former_c,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """States [BLOCK_N, C], given by a pointer a row, times columns of the weight; float32."""
    product = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    for first in range(0, C, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        within = k < C
        states = tl.load(
            former[:, None] + (k * former_c)[None, :], mask=exists[:, None] & within[None, :], other=0.0
        )
        part = tl.load(
            weight + (k * w_k)[:, None] + (columns * w_n)[None, :],
            mask=within[:, None] & (columns < C)[None, :],
            other=0.0,
        )
        product = tl.dot(states, part, product, input_precision=PRECISION)
    return product


@triton.jit
def _activated(x, TANH: tl.constexpr):
    if TANH:
        return tanh(x)
    else:
        return tl.maximum(x, 0.0)


@triton.jit
def _slope(h, TANH: tl.constexpr):
    """Slope of the activation, from its value."""
    if TANH:
        return 1.0 - h * h
    else:
        return tl.where(h > 0, 1.0, 0.0)


@triton.jit(do_not_specialize=["videos", "F"])
def recurrent_scan_fwd_kernel(
    h0, h0_offset, h0_b, h0_n, h0_c,
    x, x_b, x_f, x_n, x_c,
    weight, w_k, w_n, h,
    videos, F, N, C,
    TANH: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """All frames of a tile of tokens."""
    video, n, exists = _tokens(tl.program_id(0) * BLOCK_N, videos, N, BLOCK_N)
    plane = tl.cast(N, tl.int64) * C
    x_rows = x + video * x_b + n * x_n
    h_rows = h + video * F * plane + n * C
    for i in range(F):
        frame = tl.cast(i, tl.int64)
        for column in range(0, C, BLOCK_C):
            columns = column + tl.arange(0, BLOCK_C)
            within = exists[:, None] & (columns < C)[None, :]
            value = tl.load(x_rows[:, None] + frame * x_f + (columns * x_c)[None, :], mask=within, other=0.0)
            value = value.to(tl.float32)
            if i > 0:
                value += _product(
                    h_rows + (frame - 1) * plane, weight, w_k, w_n, exists, columns, C, 1,
                    PRECISION, BLOCK_N, BLOCK_C, BLOCK_K,
                )  # fmt: skip
            elif h0 is not None:
                value += _product(
                    h0 + h0_offset + video * h0_b + n * h0_n, weight, w_k, w_n, exists, columns, C, h0_c,
                    PRECISION, BLOCK_N, BLOCK_C, BLOCK_K,
                )  # fmt: skip
            value = _activated(value, TANH).to(h.dtype.element_ty)
            tl.store(h_rows[:, None] + frame * plane + columns[None, :], value, mask=within)
        # All threads' parts of the state are there before any reads it.
        tl.debug_barrier()


@triton.jit(do_not_specialize=["videos", "F"])
def recurrent_scan_bwd_kernel(
    dh, dh_b, dh_f, dh_n, dh_c,
    weight, w_k, w_n, h, dx,
    videos, F, N, C,
    TANH: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dx of all frames of a tile of tokens, the last frame first."""
    video, n, exists = _tokens(tl.program_id(0) * BLOCK_N, videos, N, BLOCK_N)
    plane = tl.cast(N, tl.int64) * C
    first = video * F * plane + n * C
    dh_rows = dh + video * dh_b + n * dh_n
    for reversed_i in range(F):
        frame = tl.cast(F - 1 - reversed_i, tl.int64)
        for column in range(0, C, BLOCK_C):
            columns = column + tl.arange(0, BLOCK_C)
            within = exists[:, None] & (columns < C)[None, :]
            value = tl.load(
                dh_rows[:, None] + frame * dh_f + (columns * dh_c)[None, :], mask=within, other=0.0
            )
            value = value.to(tl.float32)
            if reversed_i > 0:
                value += _product(
                    dx + first + (frame + 1) * plane, weight, w_k, w_n, exists, columns, C, 1,
                    PRECISION, BLOCK_N, BLOCK_C, BLOCK_K,
                )  # fmt: skip
            here = (first + frame * plane)[:, None] + columns[None, :]
            value *= _slope(tl.load(h + here, mask=within, other=0.0).to(tl.float32), TANH)
            tl.store(dx + here, value.to(dx.dtype.element_ty), mask=within)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["videos", "F", "frame", "former_offset"])
def recurrent_scan_frame_fwd_kernel(
    former, former_offset, former_b, former_n, former_c,
    x, x_b, x_f, x_n, x_c,
    weight, w_k, w_n, h, frame,
    videos, F, N, C,
    TANH: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One frame of a tile of tokens and columns. The tiles of a row of columns run side by side."""
    column_blocks = tl.cdiv(C, BLOCK_C)
    video, n, exists = _tokens(tl.program_id(0) // column_blocks * BLOCK_N, videos, N, BLOCK_N)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    within = exists[:, None] & (columns < C)[None, :]
    frame = tl.cast(frame, tl.int64)
    x_rows = x + video * x_b + frame * x_f + n * x_n
    value = tl.load(x_rows[:, None] + (columns * x_c)[None, :], mask=within, other=0.0).to(tl.float32)
    if former is not None:
        value += _product(
            former + former_offset + video * former_b + n * former_n,
            weight, w_k, w_n, exists, columns, C, former_c, PRECISION, BLOCK_N, BLOCK_C, BLOCK_K,
        )  # fmt: skip
    h_rows = h + ((video * F + frame) * N + n) * C
    value = _activated(value, TANH).to(h.dtype.element_ty)
    tl.store(h_rows[:, None] + columns[None, :], value, mask=within)


@triton.jit(do_not_specialize=["videos", "F", "frame", "former_offset"])
def recurrent_scan_frame_bwd_kernel(
    former, former_offset, former_b, former_n, former_c,
    dh, dh_b, dh_f, dh_n, dh_c,
    weight, w_k, w_n, h, dx, frame,
    videos, F, N, C,
    TANH: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dx of one frame of a tile of tokens and columns, from that of the next frame, `former`."""
    column_blocks = tl.cdiv(C, BLOCK_C)
    video, n, exists = _tokens(tl.program_id(0) // column_blocks * BLOCK_N, videos, N, BLOCK_N)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    within = exists[:, None] & (columns < C)[None, :]
    frame = tl.cast(frame, tl.int64)
    dh_rows = dh + video * dh_b + frame * dh_f + n * dh_n
    value = tl.load(dh_rows[:, None] + (columns * dh_c)[None, :], mask=within, other=0.0).to(tl.float32)
    if former is not None:
        value += _product(
            former + former_offset + video * former_b + n * former_n,
            weight, w_k, w_n, exists, columns, C, former_c, PRECISION, BLOCK_N, BLOCK_C, BLOCK_K,
        )  # fmt: skip
    here = (((video * F + frame) * N + n) * C)[:, None] + columns[None, :]
    value *= _slope(tl.load(h + here, mask=within, other=0.0).to(tl.float32), TANH)
    tl.store(dx + here, value.to(dx.dtype.element_ty), mask=within)
