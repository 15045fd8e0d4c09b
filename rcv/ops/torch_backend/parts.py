"""How a FrameTable splits into attention calls over frames that lie where they are: no gather, no expand, no copy."""

import functools
from typing import NamedTuple

from rcv.ops.table import FrameTable


class Part(NamedTuple):
    """One attention call: some query frames against the pool frames that one slot names.

    With ``video`` None the query frames are folded into the tokens and attend to the one pool frame
    `pool_start`, for all videos at once. Else frame i of that one video attends to pool frame
    ``pool_start + i - start``: frames are the batch.
    """

    slot: int
    pool: int
    video: int | None
    start: int
    stop: int
    pool_start: int

    def of_queries(self, t):
        """View of the part's frames in a tensor [B, F, N, ...]."""
        if self.video is None:
            return t[:, self.start : self.stop].flatten(1, 2)
        return t[self.video, self.start : self.stop]

    def of_keys(self, t):
        """View of the part's frames in a tensor [B, P, M, ...]."""
        if self.video is None:
            return t[:, self.pool_start]
        return t[self.video, self.pool_start : self.pool_start + self.stop - self.start]


@functools.lru_cache(maxsize=1024)
def split(key, videos, foldable):
    """Return the Parts of the table with this `key`, those that cover most frames first.

    Parameters
    ----------
    key : str
        `FrameTable.key`.
    videos : int
        Batch size B.
    foldable : bool
        Whether frames and tokens of the queries can be seen as one axis.
    """
    table = FrameTable.from_key(key)
    parts = []
    for slot in range(table.slots):
        for start, stop, name, step in _runs([row[slot] for row in table.rows], table.frames_per_pool[0]):
            pool = int(name >= table.frames_per_pool[0])
            local = name - pool * table.frames_per_pool[0]
            frames = stop - start
            if step == 0 and foldable:
                parts.append(Part(slot, pool, None, start, stop, local))
            elif step == 0 or frames <= videos:
                parts += [
                    Part(slot, pool, None, i, i + 1, local + step * (i - start)) for i in range(start, stop)
                ]
            else:
                parts += [Part(slot, pool, video, start, stop, local) for video in range(videos)]
    parts.sort(key=lambda part: (part.video is not None, part.start - part.stop))
    return tuple(parts)


def _runs(names, second_pool):
    """Split a slot's column into (start, stop, first name, step): one name repeated, or names counting up.

    Counting stops at `second_pool`, the first name of the second pool.
    """
    start = 0
    while start < len(names):
        if names[start] < 0:
            start += 1
            continue
        step, stop = 0, start + 1
        if stop < len(names) and names[stop] in (names[start], names[start] + 1):
            step = names[stop] - names[start]
            while stop < len(names) and names[stop] == names[stop - 1] + step:
                if step and names[stop] == second_pool:
                    break
                stop += 1
        yield start, stop, names[start], step
        start = stop
