"""PyTorch's caching allocator for CUDA, replayed on a trace: memory that is reserved, not only used.

Rules and sizes are those of c10/cuda/CUDACachingAllocator.cpp with its default settings and one stream: blocks are cut
from segments, freed blocks merge with their neighbours, and segments go back to the driver only when it has nothing
left.
"""

import bisect
from dataclasses import dataclass

BLOCK = 512  # bytes to which every size is rounded up
SMALL = 1 << 20  # sizes up to here come from segments of their own
_SMALL_SEGMENT, _LARGE_SEGMENT = 2 << 20, 20 << 20
_LARGE_ENOUGH, _LARGE_ROUNDING = 10 << 20, 2 << 20  # from here on, sizes have a segment each, rounded up


class OutOfMemory(Exception):
    """No segment of the size asked for is left; `event` is the number of the trace's event that asks."""

    def __init__(self, event):
        super().__init__(event)
        self.event = event


@dataclass(eq=False, slots=True)
class _Block:
    """A piece of a segment; `left` and `right` are its neighbours in it."""

    size: int
    address: int
    small: bool
    left: object = None
    right: object = None
    free: bool = False

    @property
    def key(self):
        return self.size, self.address


class CachingAllocator:
    """Reserves segments up to `limit` bytes (None: without end) and cuts blocks from them.

    Attributes
    ----------
    reserved, peak : int
        Bytes of all segments now, and at most so far.
    """

    def __init__(self, limit=None):
        self.limit = limit
        self.reserved = self.peak = 0
        self._free = {True: [], False: []}  # by pool, small or not: (size, address, block), sorted
        self._next_address = 0

    def allocate(self, size):
        """Return a block for `size` bytes; MemoryError if the limit leaves none."""
        size = max(BLOCK, -(-size // BLOCK) * BLOCK)
        small = size <= SMALL
        block = self._best_fit(size, small) or self._segment(size, small)
        remaining = block.size - size
        if remaining >= BLOCK if small else remaining > SMALL:
            rest = _Block(remaining, block.address + size, small, block, block.right)
            if block.right is not None:
                block.right.left = rest
            block.size, block.right = size, rest
            self._put_back(rest)
        return block

    def free(self, block):
        """Take a block back and merge it with free neighbours."""
        for other in (block.left, block.right):
            if other is not None and other.free:
                self._take(other)
                first, second = (other, block) if other is block.left else (block, other)
                first.size += second.size
                first.right = second.right
                if second.right is not None:
                    second.right.left = first
                block = first
        self._put_back(block)

    def _best_fit(self, size, small):
        pool = self._free[small]
        place = bisect.bisect_left(pool, (size, -1))
        if place == len(pool):
            return None
        block = pool.pop(place)[2]
        block.free = False
        return block

    def _segment(self, size, small):
        if small:
            segment = _SMALL_SEGMENT
        elif size < _LARGE_ENOUGH:
            segment = _LARGE_SEGMENT
        else:
            segment = -(-size // _LARGE_ROUNDING) * _LARGE_ROUNDING
        if self.limit is not None and self.reserved + segment > self.limit:
            self._release()
            if self.reserved + segment > self.limit:
                raise MemoryError
        self.reserved += segment
        self.peak = max(self.peak, self.reserved)
        block = _Block(segment, self._next_address, small)
        self._next_address += segment
        return block

    def _release(self):
        """Give segments that are free from end to end back."""
        for pool in self._free.values():
            for entry in list(pool):
                block = entry[2]
                if block.left is None and block.right is None:
                    pool.remove(entry)
                    self.reserved -= block.size

    def _put_back(self, block):
        block.free = True
        bisect.insort(self._free[block.small], (*block.key, block))

    def _take(self, block):
        pool = self._free[block.small]
        del pool[bisect.bisect_left(pool, (*block.key,))]
        block.free = False


def reserved_bytes(trace, limit=None):
    """Return the most that the allocator reserves at once for a Trace.

    Raises
    ------
    OutOfMemory
        If `limit` bytes do not hold it.
    """
    allocator, blocks = CachingAllocator(limit), {}
    for event, (number, begins) in enumerate(trace.events):
        if begins:
            try:
                blocks[number] = allocator.allocate(trace.allocations[number].size)
            except MemoryError:
                raise OutOfMemory(event) from None
        else:
            allocator.free(blocks.pop(number))
    return allocator.peak


def least_bytes(trace):
    """Return how much memory the allocator needs at least to run a Trace, to 8 MiB; none of it is the context's."""
    low, high = trace.peak, reserved_bytes(trace)
    while high - low > 8 << 20:
        middle = (low + high) // 2
        try:
            high = min(middle, reserved_bytes(trace, middle))
        except OutOfMemory:
            low = middle
    return high
