"""What is read off a run's folder: status, curves, samples, also while files are being written."""

import math
import os

import pytest

from rcv.app.curve import POINTS, _ticks, loss_curves, svg
from rcv.app.runs import Runs
from rcv.app.watch import captioned, sample_files, status
from rcv.training.log import Evaluation, Record, StepLog
from rcv.video import write_video
from tests.training.clip_files import moving_square


def write_log(path, kind, rows):
    log = StepLog(path, kind)
    for row in rows:
        log.append(kind(*row))
    log.close()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    return folder


def test_curves_of_a_run(folder):
    assert loss_curves(folder) == {} and svg({}) == ""
    write_log(folder / "losses.csv", Record, [(1, 2.0, 0, 0, 1), (2, math.nan, 0, 0, 1), (3, 1.0, 0, 0, 1)])
    write_log(folder / "eval_losses.csv", Evaluation, [(0, 3.0)])
    write_log(folder / "validation_losses.csv", Evaluation, [(0, 4.0), (3, math.inf)])
    with open(folder / "losses.csv", "a") as file:
        file.write("4,0.")  # half written
    curves = loss_curves(folder)
    assert curves == {
        "single steps": [(1, 2.0), (3, 1.0)],
        "moving mean": [(1, 2.0), (3, 1.95)],
        "fixed draws": [(0, 3.0)],
        "held-out clips": [(0, 4.0)],
    }
    picture = svg(curves)
    assert picture.count("<polyline") == 4 and "nan" not in picture


def test_long_curves_are_thinned_out_but_keep_their_end(folder):
    write_log(folder / "losses.csv", Record, [(step, 1.0, 0, 0, 1) for step in range(1, 1002)])
    steps = [step for step, _ in loss_curves(folder)["single steps"]]
    assert len(steps) <= POINTS and steps[-1] == 1001


@pytest.mark.parametrize("ends", [(0, 1), (0.031, 0.32), (-5, 1e6), (3, 3), (0, 0), (1e-9, 2e-9), (1, 7)])
def test_axes_have_few_round_numbers_around_what_they_show(ends):
    ticks = _ticks(*ends)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] <= ends[0] and ends[1] <= ticks[-1]


def test_status_of_a_run(folder):
    runs = Runs(folder.parent)
    (folder / "config.yaml").write_text("steps: 4\n")
    assert status(runs, "birds").startswith("**Not running**: 0 of 4 steps")
    write_log(folder / "losses.csv", Record, [(step, 1.0, 0, 0, 1) for step in range(1, 5)])
    assert status(runs, "birds").startswith("**Not running**: 4 of 4")
    (folder / "adapter.safetensors").touch()
    assert status(runs, "birds").startswith("**Finished**: 4 steps")
    assert runs.adapters() == [str(folder)]
    write_log(folder / "losses.csv", Record, [(1, 1.0, 0, 0, 1)])  # the folder's next run was killed
    os.utime(folder / "adapter.safetensors", (0, 0))
    assert status(runs, "birds").startswith("**Not running**: 1 of 4")


def test_the_newest_samples_come_first_and_broken_ones_not_at_all(folder):
    for step in (100, 200):
        for name in ("a-fox", "b-bear"):
            write_video(folder / "samples" / f"step-{step:06d}" / f"{name}.gif", moving_square(2))
    (folder / "samples" / "step-000300").mkdir()
    (folder / "samples" / "step-000300" / "a-fox.gif").write_bytes(b"GIF89a")
    assert [text for _, text in captioned(sample_files(folder))] == [
        f"step-000{step}: {name}" for step in (200, 100) for name in ("a-fox", "b-bear")
    ]
