"""The tuning script, as far as it runs without a GPU: its candidates, and the table that it writes."""

import json

import pytest
import torch

from benchmarks import tune
from rcv.kernels import scan
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


def test_every_row_has_candidates_with_what_its_tile_has():
    for kernel, capabilities in table().items():
        for row in (row for rows in capabilities.values() for row in rows):
            tiles = tune.candidates(kernel, row["shape"])
            assert len(tiles) > 10
            assert all(tile.keys() == row["tile"].keys() - {"maxnreg"} for tile in tiles)


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton's interpreter is off where a GPU is")
def test_a_dry_run_goes_through_every_kernel_and_writes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(scan, "WALK_TOKENS", {(8, 0): 70})  # a whole tile of 64 and a part
    before = TABLE.read_text()
    tune.main(["--dry-run"])
    assert TABLE.read_text() == before
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == set(table())
    assert all(line.endswith(" 0 do not run or are wrong") for line in lines)


def test_a_dry_run_tells_what_went_wrong(monkeypatch):
    def broken(*row, small):
        raise TypeError("a typing error")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(tune, "problem_of", broken)
    with pytest.raises(TypeError, match="a typing error"):
        tune.main(["--dry-run", "--operations", "gated_scan"])


class _Wrong:
    """Stands in for a Problem: one tile is wrong, one does not compile, and larger blocks are faster."""

    tile = None
    run = None

    def relative_error(self):
        if self.tile["BLOCK_M"] == 128:
            return float("nan")
        if self.tile["num_warps"] == 8:
            raise RuntimeError("out of resources")
        return 1e-4


class _Clock:
    def __init__(self, device):
        pass

    def seconds(self, run):
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

    monkeypatch.setattr(tune, "problem_of", lambda *row, small: _Wrong())
    monkeypatch.setattr(tune, "Clock", _Clock)
    monkeypatch.setattr(tune, "using", Using)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a device")


def test_the_fastest_right_tile_wins(stand_ins):
    own = {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1}
    row = {"shape": {"bytes": 2, "D": 40}, "tile": own, "source": "compiled only"}
    tuned = tune.tuned_row("frame_attention_fwd_kernel", row, torch.device("cuda"), float("inf"))
    assert tuned["tile"] == {"BLOCK_M": 64, "BLOCK_N": 128, "num_warps": 4, "num_stages": 3}
    assert tuned["source"].startswith("measured on a device")
    assert tuned["rejected"].startswith("64x128x4x2 +50%")


def test_without_time_a_row_stays(stand_ins):
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2}
    row = {"shape": {"bytes": 2, "D": 40}, "tile": tile, "source": "compiled only"}
    assert tune.tuned_row("frame_attention_fwd_kernel", row, torch.device("cuda"), 0) is row
