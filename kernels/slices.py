"""How the backward of frame_attention shares out the query frames that name a pool frame."""

import functools
from typing import NamedTuple

import torch

from rcv.kernels.tiles import nearest
from rcv.ops.table import FrameTable

# Of a chip of each compute capability (NVIDIA's white papers): A100, RTX 3090 Ti, RTX 4090, H100, B200, RTX 5090. By
# capability and not by the device at hand, so that chips of a kind give the same bits.
MULTIPROCESSORS = {(8, 0): 108, (8, 6): 84, (8, 9): 128, (9, 0): 132, (10, 0): 148, (12, 0): 170}
_PROGRAMS = 4  # that a multiprocessor should find: the last ones to finish then leave a quarter of it idle
_STEPS = (
    4  # blocks of queries that a slice has at least: below, writing its float32 sums outweighs its products
)


class Slices(NamedTuple):
    """Work of the programs that sum dk and dv of a block of keys.

    Attributes
    ----------
    items : Tensor [I, 4], int32
        Pool frame, first and last entry of `DeviceTable.naming`, and the number of the slice, -1 where the frame has
        one item alone. Longest first: what starts last should not finish last.
    sums : Tensor [G, 3], int32
        Pool frame, its first slice, and how many it has, for every frame of more than one.
    count : int
        Slices.
    """

    items: torch.Tensor
    sums: torch.Tensor
    count: int


def slice_length(capability, entries, programs, steps):
    """Return how many entries of a table's inverse one program takes at most.

    Parameters
    ----------
    capability : tuple of two int
    entries : int
        Entries of the table.
    programs : int
        Programs that one entry keeps busy: blocks of keys of all heads and videos.
    steps : int
        Blocks of queries in a frame.
    """
    wanted = _PROGRAMS * MULTIPROCESSORS[nearest(MULTIPROCESSORS, capability)]
    return max(1, entries * programs // wanted, _STEPS // max(1, steps))


@functools.lru_cache(maxsize=1024)
def slices_of(key, length, device):
    """Return the Slices, of at most `length` entries, of the table with this key."""
    items, sums, count, entry = [], [], 0, 0
    for p, pairs in enumerate(FrameTable.from_key(key).inverse()):
        stop = entry + len(pairs)
        starts = range(entry, stop, length)
        if len(starts) > 1:
            sums.append((p, count, len(starts)))
            items += [(p, i, min(i + length, stop), count + n) for n, i in enumerate(starts)]
            count += len(starts)
        else:
            items.append((p, entry, stop, -1))
        entry = stop
    items.sort(key=lambda item: item[1] - item[2])
    items, sums = (torch.tensor(rows, dtype=torch.int32, device=device) for rows in (items, sums))
    return Slices(items, sums, count)
