"""Tiles of heads whose width is no power of two: rows of a tensor, read and written as a head and a tail.

A width of 40 is held as 32 + 8 channels, 80 as 64 + 16, 160 as 128 + 32: padding 40 to 64 would cost up to 1.45 times
the matrix work. Where channels are contracted, a matrix instruction takes 16 of them at least, so that a tail of 8 is
masked; where they are the columns of the result it stays 8.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

_CONTRACTED = 16  # fewest channels that a product contracts
_COLUMNS = 8  # fewest channels that a product gives
_MOST_ROWS = 256  # of a block, and more
_TRANSACTION = 16  # bytes of the widest load


@dataclass(frozen=True)
class Widths:
    """How a head's D channels are held.

    Attributes
    ----------
    head : int
        Channels of the first part, a power of two.
    tail : int
        Of the second part where it is contracted, a power of two; 0 if there is none.
    columns : int
        Of the second part where it is the columns of a result.
    """

    head: int
    tail: int
    columns: int

    @staticmethod
    def of(width):
        """Return the Widths of heads of D channels."""
        head = max(_CONTRACTED, 1 << (width.bit_length() - 1))
        rest = width - head
        if rest <= 0:
            return Widths(head, 0, 0)
        power = triton.next_power_of_2(rest)
        return Widths(head, max(_CONTRACTED, power), max(_COLUMNS, power))


def constants_of(*tensors):
    """Return what kernels over heads [..., H, D] have as `tl.constexpr` parameters, for all tensors read by stride."""
    width, dtype = tensors[0].shape[-1], tensors[0].dtype
    widths = Widths.of(width)
    return {
        "D": width,
        "HEAD": widths.head,
        "TAIL": widths.tail,
        "ALIGNMENT": alignment(*tensors),
        "PRECISION": precision(dtype),
    }


def alignment(*tensors):
    """Return how many elements the offsets of all heads and rows are multiples of, as far as a load can use it."""
    elements = _TRANSACTION // tensors[0].element_size()
    for t in tensors:
        strides = [stride for size, stride in zip(t.shape[:-1], t.stride(), strict=False) if size > 1]
        if t.data_ptr() % _TRANSACTION or any(stride % elements for stride in strides):
            return 1
    return elements


def wide(*tensors):
    """Return whether offsets within a block of rows exceed 32 bits."""
    extents = [
        _MOST_ROWS * t.stride(-3) + max(_CONTRACTED, 2 * t.shape[-1]) * t.stride(-1)
        for t in tensors
        if t.numel()
    ]
    return max(extents, default=0) >= 1 << 31


def precision(dtype):
    """Return how products of this dtype are computed: float32 as PyTorch's setting for CUDA says."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


@triton.jit
def start_of(tensor, i, stride_i, j, stride_j, k, stride_k, ALIGNMENT: tl.constexpr):
    """Pointer to the first row at three indices of a tensor, known to be aligned."""
    return tensor + tl.multiple_of(i * stride_i + j * stride_j + k * stride_k, ALIGNMENT)


@triton.jit
def load_rows(
    start, first, stride, stride_d, size,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    MASKED: tl.constexpr, ALIGNMENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Channels FIRST to FIRST + WIDTH of ROWS rows from `first`; 0 beyond D, and if MASKED beyond `size` rows."""
    rows = tl.arange(0, ROWS)
    channels = FIRST + tl.arange(0, WIDTH)
    # The offset of the block is always in 64 bits. Within it 32 do mostly, and take half the registers.
    block = start + tl.multiple_of(tl.cast(first, tl.int64) * stride, ALIGNMENT)
    if WIDE:
        offsets = tl.multiple_of(rows.to(tl.int64) * stride, ALIGNMENT)[:, None]
        pointers = block + (offsets + (channels.to(tl.int64) * stride_d)[None, :])
    else:
        pointers = block + (
            tl.multiple_of(rows * stride, ALIGNMENT)[:, None] + (channels * stride_d)[None, :]
        )
    within = channels[None, :] < D
    if MASKED and FIRST + WIDTH > D:
        return tl.load(pointers, mask=(first + rows < size)[:, None] & within, other=0.0)
    if MASKED:
        return tl.load(pointers, mask=(first + rows < size)[:, None], other=0.0)
    if FIRST + WIDTH > D:
        return tl.load(pointers, mask=within, other=0.0)
    return tl.load(pointers)


@triton.jit
def store_rows(
    start,
    rows,
    stride,
    size,
    value,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
):
    """Write channels FIRST to FIRST + WIDTH of some rows of a contiguous tensor, those within `size` and D."""
    channels = FIRST + tl.arange(0, WIDTH)
    pointers = start + (rows.to(tl.int64) * stride)[:, None] + channels[None, :]
    within = (rows < size)[:, None] & (channels < D)[None, :]
    tl.store(pointers, value.to(start.dtype.element_ty), mask=within)
