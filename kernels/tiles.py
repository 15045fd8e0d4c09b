"""Tile sizes per device, from a committed table that `benchmarks/tune.py` rewrites: no first call ever tunes.

`tiles.json` holds, by kernel and compute capability, rows of

    {"shape": {"bytes": 2, "D": 40}, "tile": {"BLOCK_M": 128, ...}, "source": "compiled only", "rejected": "..."}

where `source` is "compiled only" or "measured on <device>", and `rejected`, if it is there, says which other tiles were
tried and what they cost.
"""

import contextlib
import functools
import json
from pathlib import Path

TABLE = Path(__file__).with_name("tiles.json")
_used = {}


def tiles(kernel, capability, **shape):
    """Return the tile of a kernel on a device.

    Parameters
    ----------
    kernel : str
        Name of the kernel, such as "frame_attention_fwd_kernel".
    capability : tuple of two int
        Compute capability. One without an entry takes the nearest below it, and the lowest where none is below: a chip
        runs what fits its predecessor, not its successor.
    **shape : int
        What rows are told apart by, the most important first, such as ``bytes=2, D=40, N=4096``. Size after size, the
        rows with the smallest value at or above the one given are kept, or those with the largest where none is: a
        tile that fits a larger problem fits a smaller one. Rows without that size hold for all its values, and a size
        that a row has beyond those given is ignored.

    Returns
    -------
    dict
        ``num_warps``, ``num_stages``, for some ``maxnreg``, and the kernel's block sizes such as ``BLOCK_M``: keywords
        of `launch.launch`.

    Raises
    ------
    KeyError
        If the table has no such kernel.
    """
    return dict(_used.get(kernel) or _tile(kernel, tuple(capability), tuple(shape.items())))


@contextlib.contextmanager
def using(kernel, tile):
    """Within a `with` block, this kernel takes this tile, whatever the table says: for tuning and tests."""
    _used[kernel] = tile
    try:
        yield
    finally:
        del _used[kernel]


@functools.lru_cache(maxsize=4096)
def _tile(kernel, capability, shape):
    entries = table()[kernel]
    rows = entries[nearest(entries, capability)]
    for name, value in shape:
        sizes = {row["shape"][name] for row in rows if name in row["shape"]}
        if sizes:
            size = min((s for s in sizes if s >= value), default=max(sizes))
            rows = [row for row in rows if row["shape"].get(name, size) == size]
    return rows[0]["tile"]


@functools.cache
def table():
    """Return what `tiles.json` holds, with capabilities as tuples: {kernel: {capability: [row, ...]}}."""
    kernels = json.loads(TABLE.read_text())
    return {
        kernel: {tuple(map(int, name.split("."))): rows for name, rows in entries.items()}
        for kernel, entries in kernels.items()
    }


def nearest(capabilities, capability):
    """Return the highest of some capabilities that is not above `capability`, or the lowest of them."""
    return max((c for c in capabilities if c <= capability), default=min(capabilities))
