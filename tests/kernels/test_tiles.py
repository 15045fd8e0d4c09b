"""The table of tiles: its look-up, and what it holds."""

import pytest
import torch

from rcv.kernels import gated
from rcv.kernels import tiles as module
from rcv.kernels.launch import recording
from rcv.kernels.tiles import nearest, tiles, using

ROWS = {
    (8, 0): [
        {"shape": {"bytes": 2, "D": 40}, "tile": {"BLOCK_M": 1}},
        {"shape": {"bytes": 2, "D": 80, "N": 64}, "tile": {"BLOCK_M": 2}},
        {"shape": {"bytes": 2, "D": 80, "N": 4096}, "tile": {"BLOCK_M": 3}},
        {"shape": {"bytes": 4}, "tile": {"BLOCK_M": 4}},
    ],
    (9, 0): [{"shape": {}, "tile": {"BLOCK_M": 9}}],
}


@pytest.fixture
def rows(monkeypatch):
    module._tile.cache_clear()
    monkeypatch.setattr(module, "table", lambda: {"kernel": ROWS})
    yield
    module._tile.cache_clear()


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ({"bytes": 2, "D": 40, "N": 4096}, 1),
        ({"bytes": 2, "D": 20, "N": 64}, 1),
        ({"bytes": 2, "D": 41, "N": 64}, 2),
        ({"bytes": 2, "D": 80, "N": 65}, 3),
        ({"bytes": 2, "D": 160, "N": 10000}, 3),
        ({"bytes": 4, "D": 40}, 4),
    ],
)
def test_the_smallest_row_that_fits(rows, shape, block):
    assert tiles("kernel", (8, 0), **shape) == {"BLOCK_M": block}


def test_an_unknown_device_takes_the_nearest_below_it():
    known = [(8, 0), (8, 6), (9, 0), (10, 0), (12, 0)]
    for capability, entry in {(8, 9): (8, 6), (10, 3): (10, 0), (13, 0): (12, 0), (7, 5): (8, 0)}.items():
        assert nearest(known, capability) == entry


def test_a_tile_in_use_comes_before_the_table(rows):
    with using("kernel", {"BLOCK_M": 5}):
        assert tiles("kernel", (9, 0)) == {"BLOCK_M": 5}
    assert tiles("kernel", (9, 0)) == {"BLOCK_M": 9}


def test_a_tile_belongs_to_its_caller(rows):
    tiles("kernel", (9, 0))["BLOCK_M"] = 0
    assert tiles("kernel", (9, 0)) == {"BLOCK_M": 9}


def test_every_row_is_a_tile_with_a_source():
    for kernel, entries in module.table().items():
        assert kernel.endswith("_kernel")
        for rows in entries.values():
            shapes = [tuple(row["shape"].items()) for row in rows]
            assert len(set(shapes)) == len(shapes) > 0
            for row in rows:
                assert {"num_warps", "num_stages"} <= set(row["tile"])
                assert row["source"].startswith(("compiled only", "measured on "))
                assert set(row) <= {"shape", "tile", "source", "rejected"}


def test_registers_of_a_tile_reach_the_compiler_where_it_names_them():
    x = torch.empty(1, 2, 3, 64, device="meta")
    tile = tiles("gated_scan_fwd_kernel", (8, 0), elements=192)
    for chosen in (tile, {**tile, "maxnreg": 128}):
        with using("gated_scan_fwd_kernel", chosen), recording((8, 0)) as recorder:
            gated.gated_forward(x, x, None)
        (launched,) = recorder.launches
        assert launched.options.get("maxnreg") == chosen.get("maxnreg")
        assert ("maxnreg" in launched.options) == ("maxnreg" in chosen)
