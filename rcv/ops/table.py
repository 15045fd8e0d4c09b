"""FrameTable: which frames of which pools each query frame attends to."""

import functools
from dataclasses import dataclass
from operator import index

import torch


@dataclass(frozen=True)
class DeviceTable:
    """A FrameTable as int32 tensors on one device.

    Attributes
    ----------
    rows : Tensor [F, S]
        Pool frame of every (query frame, slot), -1 for none.
    starts : Tensor [P + 1]
        Pool frame p is named by the entries ``starts[p]`` to ``starts[p + 1]`` of `naming`.
    naming : Tensor [E, 2]
        (query frame, slot) pairs, ordered by pool frame, then frame, then slot.
    """

    rows: torch.Tensor
    starts: torch.Tensor
    naming: torch.Tensor


class FrameTable:
    """Immutable table of the pool frames that each query frame attends to.

    Parameters
    ----------
    rows : sequence of F sequences of S int
        ``rows[i][s]`` is the pool frame in slot s of query frame i, or -1 for none. Pool frames are
        numbered through, pool 0 first. A frame may be named more than once in a row: it counts as often.
    frames_per_pool : int or sequence of one or two int
        How many frames each pool holds; a pool may be empty.

    Raises
    ------
    ValueError
        If rows differ in length, or name a frame that no pool holds.

    Notes
    -----
    Tables compare and hash by content. `key` is the whole content as a string: it travels through
    registered operations and compiled graphs, and `from_key` turns it back into a table.
    """

    __slots__ = ("_on_device", "frames", "frames_per_pool", "key", "rows", "slots")

    def __init__(self, rows, frames_per_pool):
        pools = (frames_per_pool,) if isinstance(frames_per_pool, int) else frames_per_pool
        pools = tuple([index(p) for p in pools])
        rows = tuple([tuple([index(p) for p in row]) for row in rows])
        if len(pools) not in (1, 2) or any(p < 0 for p in pools):
            raise ValueError(f"frames_per_pool is {pools}, expected one or two frame counts, none negative")
        if not rows or not rows[0]:
            raise ValueError(f"rows is {rows}, expected at least one row (query frame) and one column (slot)")
        total = sum(pools)
        for i, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise ValueError(
                    f"rows[{i}] has {len(row)} slots and rows[0] has {len(rows[0])}: rows must be equally long, "
                    "use -1 for an empty slot"
                )
            for s, p in enumerate(row):
                if not -1 <= p < total:
                    raise ValueError(
                        f"rows[{i}][{s}] is {p}, expected -1 (none) or a pool frame from 0 to {total - 1}: "
                        f"the pools hold {pools} frames"
                    )
        self.rows = rows
        self.frames_per_pool = pools
        self.frames = len(rows)
        self.slots = len(rows[0])
        self.key = "/".join([",".join(map(str, pools)), ";".join([",".join(map(str, row)) for row in rows])])
        self._on_device = {}

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def from_key(key):
        """Return the table whose `key` this is."""
        pools, rows = key.split("/")
        return FrameTable(
            [[int(p) for p in row.split(",")] for row in rows.split(";")], [int(p) for p in pools.split(",")]
        )

    @staticmethod
    def first(frames):
        """Every frame attends to the one frame of one pool: the first frame, or the text."""
        return FrameTable([[0]] * frames, (1,))

    @staticmethod
    def first_former(frames):
        """Every frame attends to the first and to the former frame, as in Tune-A-Video.

        Frame 0 has itself as former frame and names it twice.
        """
        return FrameTable([[0, max(i - 1, 0)] for i in range(frames)], (frames,))

    @staticmethod
    def first_memory(frames, carried=False):
        """Every frame attends to the first frame (pool 0) and to its own memory (pool 1).

        Without a carried state frame 0 has no memory and pool 1 holds ``frames - 1`` frames; with one it
        holds `frames`.
        """
        if carried:
            return FrameTable([[0, 1 + i] for i in range(frames)], (1, frames))
        return FrameTable([[0, i if i else -1] for i in range(frames)], (1, frames - 1))

    @staticmethod
    def causal(frames):
        """Every frame attends to itself and to all frames before it."""
        return FrameTable([[j if j <= i else -1 for j in range(frames)] for i in range(frames)], (frames,))

    @staticmethod
    def window(frames, size):
        """Every frame attends to itself and to the ``size - 1`` frames before it, where they exist."""
        if size < 1:
            raise ValueError(f"size is {size}, expected a window of one frame or more")
        rows = [[j if j >= 0 else -1 for j in range(i - size + 1, i + 1)] for i in range(frames)]
        return FrameTable(rows, (frames,))

    def inverse(self):
        """Return, for every pool frame, the tuple of (query frame, slot) that name it, in order."""
        naming = [[] for _ in range(sum(self.frames_per_pool))]
        for i, row in enumerate(self.rows):
            for s, p in enumerate(row):
                if p >= 0:
                    naming[p].append((i, s))
        return tuple(tuple(pairs) for pairs in naming)

    def on(self, device):
        """Return the table and its inverse as a DeviceTable, kept per device."""
        device = torch.device(device)
        found = self._on_device.get(device)
        if found is None:
            inverse = self.inverse()
            starts = [0]
            for pairs in inverse:
                starts.append(starts[-1] + len(pairs))
            naming = [pair for pairs in inverse for pair in pairs]
            found = DeviceTable(
                torch.tensor(self.rows, dtype=torch.int32, device=device),
                torch.tensor(starts, dtype=torch.int32, device=device),
                torch.tensor(naming, dtype=torch.int32, device=device).reshape(-1, 2),
            )
            # A table asked for inside FakeTensorMode is fake: it must not outlive the mode.
            if type(found.rows) is torch.Tensor:
                self._on_device[device] = found
        return found

    def __eq__(self, other):
        return isinstance(other, FrameTable) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"FrameTable({[list(row) for row in self.rows]}, {self.frames_per_pool})"

    def __reduce__(self):
        return FrameTable, (self.rows, self.frames_per_pool)
