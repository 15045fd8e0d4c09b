"""The tuning script, as far as it runs without a GPU: its candidates, and the table that it writes."""

import json

import pytest
import torch

from benchmarks import tune
from rcv.kernels.tiles import TABLE, table


def test_the_table_is_as_the_script_writes_it():
    assert tune.text_of(table()) == TABLE.read_text()


def test_candidates_hold_the_tiles_of_a_row_once():
    for kernel in ("frame_attention_fwd_kernel", "frame_attention_bwd_dkv_kernel"):
        tiles = tune.candidates(kernel, {"bytes": 2, "D": 160})
        assert len({json.dumps(tile) for tile in tiles}) == len(tiles) > 20
    keys = {
        tile["BLOCK_N"] for tile in tune.candidates("frame_attention_bwd_dkv_kernel", {"bytes": 2, "D": 160})
    }
    assert max(keys) == 64  # two sums of 128 rows would take 160 KiB of registers


class _Wrong:
    """Stands in for Problem: one tile is wrong, one does not compile, and larger blocks are faster."""

    tile = None

    def __init__(self, shape, device):
        pass

    def relative_error(self, kernel):
        if self.tile["BLOCK_M"] == 128:
            return float("nan")
        if self.tile["num_warps"] == 8:
            raise RuntimeError("out of resources")
        return 1e-4


class _Clock:
    def __init__(self, device):
        pass

    def seconds(self, call, kernel):
        return 1 / (_Wrong.tile["BLOCK_M"] * _Wrong.tile["BLOCK_N"] * _Wrong.tile["num_stages"]), None


@pytest.fixture
def stand_ins(monkeypatch):
    class Using:
        def __init__(self, kernel, tile):
            _Wrong.tile = tile

        def __enter__(self):
            pass

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(_Wrong, "call", None, raising=False)
    monkeypatch.setattr(tune, "Problem", _Wrong)
    monkeypatch.setattr(tune, "Clock", _Clock)
    monkeypatch.setattr(tune, "using", Using)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a device")


def test_the_fastest_right_tile_wins(stand_ins):
    own = {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1}
    row = {"shape": {"bytes": 2, "D": 40}, "tile": own, "source": "compiled only"}
    tuned = tune.tuned_row("frame_attention_fwd_kernel", row, "cuda", float("inf"))
    assert tuned["tile"] == {"BLOCK_M": 64, "BLOCK_N": 128, "num_warps": 4, "num_stages": 3}
    assert tuned["source"].startswith("measured on a device")
    assert tuned["rejected"].startswith("64x128x4x2 +50%")


def test_without_time_a_row_stays(stand_ins):
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2}
    row = {"shape": {"bytes": 2, "D": 40}, "tile": tile, "source": "compiled only"}
    assert tune.tuned_row("frame_attention_fwd_kernel", row, "cuda", 0) is row
