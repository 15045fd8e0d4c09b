"""`rcv bench` and `rcv bench compare`."""

import dataclasses
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rcv.benchmarks.plots import write_plots
from rcv.benchmarks.results import Results, Row, load
from rcv.cli import app

runner = CliRunner()


def results(median=1e-3, spread=0.01, frames=(4, 8)):
    """Results of two candidates on one shape at several frame counts."""
    rows = [
        Row(
            operation="frame_attention", frames=count, tokens=16, heads=2, head_dim=8, dtype="float32",
            direction=direction, candidate=candidate, status="timed", table="first_memory",
            median_s=median * factor * count, q1_s=median * factor * count * (1 - spread),
            q3_s=median * factor * count * (1 + spread), bound_s=1e-4, bound_kind="matrix", share=0.1,
        )
        for count in frames
        for direction in ("forward", "backward")
        for candidate, factor in (("rcv:torch", 1), ("reference", 2))
    ]  # fmt: skip
    device = {"name": "Test", "rates": {"float32 FLOP/s": 1e11, "memory B/s": 1e10}, "source": "made up"}
    return Results("measured on Test", device, {"python": "3"}, None, rows)


def test_a_run_writes_figures_tables_and_plots(tmp_path):
    arguments = ["bench", "--output", str(tmp_path), "--device", "cpu", "--parts", "ops", "--budget", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "rcv", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = load(tmp_path)
    assert any(row.status == "timed" and row.candidate == "rcv:torch" for row in measured.rows)
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(measured.rows)
    assert {"results.md", "bars.png", "roofline.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "rcv ms" in done.stdout


def test_plots_of_several_frame_counts(tmp_path):
    assert [path.name for path in write_plots(results(), tmp_path)] == [
        "bars.png",
        "frames.png",
        "roofline.png",
    ]
    assert write_plots(dataclasses.replace(results(), rows=[]), tmp_path / "none") == []


@pytest.mark.parametrize(("factor", "code"), [(1.5, 1), (1.005, 0), (0.5, 0)])
def test_compare_fails_where_rcv_grew_slower(tmp_path, factor, code):
    results().save(tmp_path / "old")
    results(median=1e-3 * factor).save(tmp_path / "new")
    outcome = runner.invoke(
        app, ["bench", "compare", str(tmp_path / "old"), str(tmp_path / "new"), "--slower", "0.1"]
    )
    assert (outcome.exit_code != 0) == bool(code)
    assert f"{factor:.2f}" in outcome.stdout
    if code:
        assert "frame_attention forward" in str(outcome.exception)


def test_compare_needs_something_in_common(tmp_path):
    results().save(tmp_path / "old")
    results(frames=(16,)).save(tmp_path / "new")
    outcome = runner.invoke(app, ["bench", "compare", str(tmp_path / "old"), str(tmp_path / "new")])
    assert "no measurement in common" in str(outcome.exception)


def test_compare_names_a_folder_without_results(tmp_path):
    outcome = runner.invoke(app, ["bench", "compare", str(tmp_path), str(tmp_path)])
    assert isinstance(outcome.exception, ValueError | OSError) and str(tmp_path) in str(outcome.exception)
