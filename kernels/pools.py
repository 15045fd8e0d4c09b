"""Frames of one or two pools as kernels see them: pointers, strides, and which pool a frame lies in."""

import triton
import triton.language as tl

from rcv.kernels.heads import precision, start_of
from rcv.kernels.launch import capability_of
from rcv.kernels.tiles import tiles


def tensors_and_strides(pools):
    """Return k, v, k, v of two pools, and their strides as one list; None and 0 for a second pool that is not there."""
    first = list(pools[0])
    second = list(pools[1]) if len(pools) == 2 else [None, None]
    strides = [stride for t in (*first, *second) for stride in ((0,) * 5 if t is None else t.stride())]
    return [*first, *second], strides


def tokens_of(pools):
    """Return how many tokens a frame of the first and of the second pool holds, 0 where a pool holds no frame."""
    tokens = [k.shape[2] if k.shape[1] else 0 for k, _ in pools]
    return tokens if len(pools) == 2 else [*tokens, 0]


def tile_of(kernel, q, keys):
    """Return the tile of a kernel for queries [B, F, N, H, D] and pools whose frames hold so many keys."""
    by_tf32 = int(precision(q.dtype) == "tf32")
    sizes = {"bytes": q.element_size(), "tf32": by_tf32, "D": q.shape[-1], "N": q.shape[2], "M": max(keys)}
    return tiles(kernel.__name__, capability_of(q), **sizes)


@triton.jit
def of_pool(is_first, first, second, TWO: tl.constexpr):
    """`first` or `second`, a number or a pointer of each pool; `first` if there is one pool."""
    if TWO:
        return tl.where(is_first, first, second)
    return first


@triton.jit
def frame_of(
    is_first,
    first,
    first_b,
    first_p,
    first_h,
    second,
    second_b,
    second_p,
    second_h,
    b,
    p,
    h,
    held,
    ALIGNMENT: tl.constexpr,
):
    """Pointer to the tokens of pool frame p of video b and head h in the tensor of the pool that holds it."""
    start = start_of(first, b, first_b, p, first_p, h, first_h, ALIGNMENT)
    if second is not None:
        other = start_of(second, b, second_b, p - held, second_p, h, second_h, ALIGNMENT)
        start = tl.where(is_first, start, other)
    return start
