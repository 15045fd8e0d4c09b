"""FrameTable: constructors, inverse, key, errors."""

import copy
import pickle

import pytest
import torch

from rcv.ops import FrameTable
from rcv.ops.torch_backend.parts import split
from tests.ops.cases import TABLES


def test_constructors():
    assert FrameTable.first(3) == FrameTable([[0], [0], [0]], (1,))
    assert FrameTable.first_former(3) == FrameTable([[0, 0], [0, 0], [0, 1]], (3,))
    assert FrameTable.first_memory(3) == FrameTable([[0, -1], [0, 1], [0, 2]], (1, 2))
    assert FrameTable.first_memory(3, carried=True) == FrameTable([[0, 1], [0, 2], [0, 3]], (1, 3))
    assert FrameTable.first_memory(1) == FrameTable([[0, -1]], (1, 0))
    assert FrameTable.causal(2) == FrameTable([[0, -1], [0, 1]], (2,))
    assert FrameTable.window(3, 2) == FrameTable([[-1, 0], [0, 1], [1, 2]], (3,))
    assert FrameTable.window(2, 1) != FrameTable.first_former(2)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_key_and_copies_hold_the_whole_content(table):
    for same in (FrameTable.from_key(table.key), pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        assert same == table
        assert hash(same) == hash(table)
        assert (same.rows, same.frames_per_pool) == (table.rows, table.frames_per_pool)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_device_table_holds_the_inverse(table):
    on = table.on("cpu")
    assert on is table.on("cpu")
    assert on.rows.dtype == on.starts.dtype == on.naming.dtype == torch.int32
    assert on.rows.tolist() == [list(row) for row in table.rows]
    for p, pairs in enumerate(table.inverse()):
        named = on.naming[on.starts[p] : on.starts[p + 1]].tolist()
        assert [tuple(pair) for pair in named] == list(pairs)
        assert all(table.rows[i][s] == p for i, s in pairs)
    assert on.starts[-1] == sum(p >= 0 for row in table.rows for p in row)


@pytest.mark.parametrize("videos", [1, 3])
@pytest.mark.parametrize("foldable", [False, True])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_parts_name_every_pair_once(table, foldable, videos):
    named = []
    for part in split(table.key, videos, foldable):
        for i in range(part.start, part.stop):
            step = 0 if part.video is None else i - part.start
            p = part.pool_start + step + part.pool * table.frames_per_pool[0]
            assert part.pool_start + step < table.frames_per_pool[part.pool]
            named += [(b, i, part.slot, p) for b in (range(videos) if part.video is None else [part.video])]
    wanted = [
        (b, i, s, p)
        for b in range(videos)
        for i, row in enumerate(table.rows)
        for s, p in enumerate(row)
        if p >= 0
    ]
    assert sorted(named) == sorted(wanted)


def test_few_calls():
    assert len(split(FrameTable.first(16).key, 1, True)) == 1
    assert len(split(FrameTable.first_memory(16).key, 1, True)) == 2
    assert len(split(FrameTable.window(16, 3).key, 1, True)) == 3


@pytest.mark.parametrize(
    ("rows", "pools", "said"),
    [
        ([[0], [0, 1]], (2,), r"rows\[1\] has 2 slots and rows\[0\] has 1"),
        ([[0], [2]], (2,), r"rows\[1\]\[0\] is 2, expected -1 \(none\) or a pool frame from 0 to 1"),
        ([[-2]], (1,), r"rows\[0\]\[0\] is -2"),
        ([], (1,), "expected at least one row"),
        ([[0]], (1, 1, 1), "expected one or two frame counts"),
    ],
)
def test_errors(rows, pools, said):
    with pytest.raises(ValueError, match=said):
        FrameTable(rows, pools)


def test_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="size is 0"):
        FrameTable.window(3, 0)
