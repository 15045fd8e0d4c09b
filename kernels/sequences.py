"""Tiles of short sequences: rows that are the frames of several (token, head) pairs side by side.

A tile has ROWS rows: ROWS / FRAMES sequences of FRAMES frames each. Heads are next to each other in memory, and so are
the sequences of a tile. A sequence that is longer than FRAMES has several blocks, and a tile of its own for each.
"""

from dataclasses import dataclass

import triton
import triton.language as tl

from rcv.kernels.heads import constants_of


@dataclass(frozen=True)
class Tiling:
    """How tensors [B, F, N, H, D] are covered.

    Attributes
    ----------
    programs : int
    constants : dict
        What all kernels of tiles have as `tl.constexpr` parameters, but ROWS.
    """

    programs: int
    constants: dict

    @staticmethod
    def of(rows, *tensors):
        """Return the Tiling by tiles of so many rows.

        Parameters
        ----------
        rows : int
            A power of two.
        tensors : Tensor [B, F, N, H, D]
            All that the kernel reads by stride.
        """
        videos, frames, tokens, heads, _ = tensors[0].shape
        per_tile = min(rows, triton.next_power_of_2(max(1, frames)))
        blocks = triton.cdiv(frames, per_tile)
        groups = triton.cdiv(tokens * heads, rows // per_tile)
        wide = any(_extent(t) >= 1 << 31 for t in tensors)
        constants = {**constants_of(*tensors), "FRAMES": per_tile, "WIDE": wide}
        return Tiling(videos * groups * blocks, constants)


def _extent(t):
    """Elements that offsets within one video may span: tiles reach beyond the tensor, by less than it again."""
    return sum(2 * size * stride for size, stride in zip(t.shape[1:], t.stride()[1:], strict=True))


@triton.jit
def tile_of(frames, tokens, heads, FRAMES: tl.constexpr, ROWS: tl.constexpr):
    """Video, block, and by row the sequence, numbered token by token through the heads, of this program.

    The blocks of a sequence, then the sequences of a video, run side by side.
    """
    blocks = tl.cdiv(frames, FRAMES)
    groups = tl.cdiv(tokens * heads, ROWS // FRAMES)
    program = tl.program_id(0)
    sequences = (program // blocks % groups) * (ROWS // FRAMES) + tl.arange(0, ROWS) // FRAMES
    return (program // blocks // groups).to(tl.int64), program % blocks, sequences


@triton.jit
def frames_of(block, FRAMES: tl.constexpr, ROWS: tl.constexpr):
    """The frame of every row in a block of frames."""
    return block * FRAMES + tl.arange(0, ROWS) % FRAMES


@triton.jit
def load_tile(
    start, t_f, t_n, t_h, t_d, sequences, frames_of_rows, frames, tokens, heads,
    D: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, ALIGNMENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Head and tail channels of a tile's rows, 0 where there is none; without a tail, the head twice."""
    exists = (frames_of_rows < frames) & (sequences < tokens * heads)
    n, h, f = sequences // heads, sequences % heads, frames_of_rows
    if WIDE:
        n, h, f = n.to(tl.int64), h.to(tl.int64), f.to(tl.int64)
    rows = tl.multiple_of(f * t_f + n * t_n + h * t_h, ALIGNMENT)
    head = _load_channels(start, rows, exists, t_d, 0, HEAD, D, WIDE)
    tail = _load_channels(start, rows, exists, t_d, HEAD, TAIL, D, WIDE) if TAIL > 0 else head
    return head, tail


@triton.jit
def _load_channels(
    start, rows, exists, stride_d, FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    channels = FIRST + tl.arange(0, WIDTH)
    mask = exists[:, None]
    if FIRST + WIDTH > D:
        mask = mask & (channels < D)[None, :]
    if WIDE:
        pointers = start + (rows[:, None] + (channels.to(tl.int64) * stride_d)[None, :])
    else:
        pointers = start + (rows[:, None] + (channels * stride_d)[None, :])
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def store_channels(
    start, value, sequences, frames_of_rows, frames, tokens, heads,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write channels of a tile's rows to one video of a contiguous tensor [B, F, N, H, D]."""
    channels = FIRST + tl.arange(0, WIDTH)
    exists = (frames_of_rows < frames) & (sequences < tokens * heads)
    f = frames_of_rows
    if WIDE:
        f = f.to(tl.int64)
    rows = (f * (tokens * heads) + sequences) * D
    mask = exists[:, None] & (channels < D)[None, :]
    tl.store(start + (rows[:, None] + channels[None, :]), value.to(start.dtype.element_ty), mask=mask)


@triton.jit
def over_channels(a_head, a_tail, b_head, b_tail, TAIL: tl.constexpr, PRECISION: tl.constexpr):
    """a b^T for two tiles of rows."""
    product = tl.dot(a_head, tl.trans(b_head), input_precision=PRECISION)
    if TAIL > 0:
        product = tl.dot(a_tail, tl.trans(b_tail), product, input_precision=PRECISION)
    return product


@triton.jit
def attends(
    query_frames, key_frames, frames, CAUSAL: tl.constexpr, FRAMES: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """Which rows of a tile of queries attend to which of a tile of keys, of the same sequences."""
    which = tl.arange(0, ROWS) // FRAMES
    allowed = (key_frames < frames)[None, :] & (which[:, None] == which[None, :])
    if CAUSAL:
        allowed = allowed & (key_frames[None, :] <= query_frames[:, None])
    return allowed
