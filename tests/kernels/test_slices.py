"""How query frames that name a pool frame are shared out."""

import pytest
import torch

from rcv.kernels.slices import MULTIPROCESSORS, slice_length, slices_of
from rcv.ops import FrameTable
from tests.ops.cases import TABLES

CPU = torch.device("cpu")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_every_entry_is_in_one_item_of_its_frame(table, length):
    slices = slices_of(table.key, length, CPU)
    items = slices.items.tolist()
    entries = [(p, entry) for p, start, stop, _ in items for entry in range(start, stop)]
    starts = table.on(CPU).starts.tolist()
    assert sorted(entries) == [
        (p, e) for p in range(len(starts) - 1) for e in range(starts[p], starts[p + 1])
    ]
    assert {p for p, *_ in items} == set(range(sum(table.frames_per_pool)))
    assert all(stop - start <= length for _, start, stop, _ in items)
    lengths = [stop - start for _, start, stop, _ in items]
    assert lengths == sorted(lengths, reverse=True)


def test_slices_of_a_frame_are_summed_in_order():
    table = FrameTable.first_memory(6)
    slices = slices_of(table.key, 2, CPU)
    assert slices.count == 3
    assert slices.sums.tolist() == [[0, 0, 3]]
    numbered = sorted((number, p, start) for p, start, _, number in slices.items.tolist() if number >= 0)
    assert numbered == [(0, 0, 0), (1, 0, 2), (2, 0, 4)]


def test_a_frame_of_one_item_needs_no_slice():
    slices = slices_of(FrameTable.first(6).key, 6, CPU)
    assert slices.count == 0
    assert slices.items.tolist() == [[0, 0, 6, -1]]


@pytest.mark.parametrize("capability", MULTIPROCESSORS)
def test_much_named_frames_are_cut_until_the_chip_is_full(capability):
    many = slice_length(capability, entries=64, programs=8 * 64, steps=64)
    few = slice_length(capability, entries=64, programs=8, steps=64)
    assert few == 1 < many
    # So many programs that every frame may stay whole, and so few queries that slices are not worth their sums.
    assert slice_length(capability, entries=64, programs=10**6, steps=64) >= 64
    assert slice_length(capability, entries=64, programs=8, steps=1) == 4
