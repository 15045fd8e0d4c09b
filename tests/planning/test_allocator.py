"""The caching allocator's rules, on sequences small enough to follow by hand."""

import pytest

from rcv.planning.allocator import CachingAllocator

MIB = 1 << 20


def test_small_sizes_share_a_segment():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(100) for _ in range(4096)]
    assert allocator.reserved == 2 * MIB
    assert blocks[1].address - blocks[0].address == 512
    allocator.allocate(1)
    assert allocator.reserved == 4 * MIB


@pytest.mark.parametrize(
    ("size", "segment"), [(MIB, 2), (MIB + 1, 20), (9 * MIB, 20), (10 * MIB, 10), (11 * MIB, 12)]
)
def test_segments(size, segment):
    allocator = CachingAllocator()
    allocator.allocate(size)
    assert allocator.reserved == segment * MIB


def test_a_freed_block_is_cut_and_merged():
    allocator = CachingAllocator()
    whole = allocator.allocate(40 * MIB)
    allocator.free(whole)
    first, second = allocator.allocate(15 * MIB), allocator.allocate(25 * MIB)
    assert allocator.reserved == 40 * MIB
    assert second.address - first.address == 15 * MIB
    allocator.free(first)
    allocator.free(second)
    assert allocator.allocate(40 * MIB).address == whole.address
    assert allocator.reserved == 40 * MIB


def test_the_smallest_block_that_holds_it_is_taken():
    allocator = CachingAllocator()
    large, small = allocator.allocate(60 * MIB), allocator.allocate(30 * MIB)
    place = small.address
    allocator.free(large)
    allocator.free(small)
    assert allocator.allocate(29 * MIB).address == place


def test_no_more_than_a_mebibyte_is_left_uncut():
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(30 * MIB))
    assert allocator.allocate(29 * MIB).size == 30 * MIB


def test_cached_segments_go_back_before_memory_is_short():
    allocator = CachingAllocator(limit=100 * MIB)
    allocator.free(allocator.allocate(60 * MIB))
    held = allocator.allocate(90 * MIB)
    assert allocator.reserved == 90 * MIB
    assert allocator.peak == 90 * MIB
    with pytest.raises(MemoryError):
        allocator.allocate(11 * MIB)
    allocator.free(held)
    allocator.allocate(100 * MIB)


def test_gaps_make_memory_short():
    """Half of it is free, in pieces: no piece is large enough."""
    allocator = CachingAllocator(limit=100 * MIB)
    whole = allocator.allocate(100 * MIB)
    allocator.free(whole)
    blocks = [allocator.allocate(10 * MIB) for _ in range(10)]
    for block in blocks[::2]:
        allocator.free(block)
    with pytest.raises(MemoryError):
        allocator.allocate(20 * MIB)
