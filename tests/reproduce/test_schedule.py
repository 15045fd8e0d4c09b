"""Cells are computed once, survive a kill, and give the same numbers again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from rcv.cli.app import main
from rcv.reproduce.cells import write_result
from rcv.reproduce.config import ReproduceConfig
from rcv.reproduce.schedule import all_cells, compute_all, estimate, missing_cells

TIMES = ("train_seconds", "step_seconds", "sample_seconds", "score_seconds", "wall_seconds", "peak_bytes")


def numbers(config):
    """{cell: result without times}, as text: NaN equals NaN."""
    results = {cell.fingerprint: cell.result() for cell in all_cells(config)}
    return {
        name: json.dumps({key: value for key, value in result.items() if key not in TIMES})
        for name, result in results.items()
    }


def written(settings, folder, **more):
    """The path of a YAML file of settings."""
    plain = {name: str(value) if name in ("base", "clip") else value for name, value in settings.items()}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**plain, **more}))
    return str(path)


def test_all_cells_are_there_and_none_is_computed_again(computed):
    config, lines = computed
    assert len(lines) == 6 and not missing_cells(config)
    assert lines[0].startswith("waterfalls, seed 0: true clips")
    assert estimate(config)[:2] == (0, 0)
    again = []
    assert compute_all(config, again.append) and again == []
    result = next(cell.result() for cell in all_cells(config) if cell.arm.name == "recurrent")
    assert result["step_seconds"] > 0 and result["peak_bytes"] > 0
    assert {"truth", "truth_rhythm", "clip_temp", "warping_error"} <= result["videos"][0]["scores"].keys()
    assert len(result["videos"][0]["subject_by_frame"]) == 4
    trainings = list((config.output / "trainings").iterdir())
    assert len(trainings) == 4 and all((path / "training.json").is_file() for path in trainings)
    assert not list(config.output.rglob("checkpoints"))


def test_the_same_seeds_give_the_same_numbers(computed, tmp_path):
    config, _ = computed
    again = config.model_copy(update={"output": tmp_path, "seeds": [1]})
    assert compute_all(again, lambda line: None)
    first = numbers(config)
    assert numbers(again).items() <= first.items()
    assert len(set(first.values())) == 6


def test_a_spent_budget_computes_nothing_more(tiny, tmp_path, capsys):
    settings = written(tiny, tmp_path, budget=1e-9, output=str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "table1", "--config", settings])
    assert ended.value.code == 2
    said = capsys.readouterr().out
    assert "6 cells to compute, with 4 trainings" in said and "the same command goes on" in said
    assert "Nothing is computed yet" in (tmp_path / "report.md").read_text()


def test_a_damaged_result_is_named(computed, tmp_path):
    config, _ = computed
    cell = all_cells(config.model_copy(update={"output": tmp_path}))[0]
    write_result(cell.folder, {"videos": []})
    (cell.folder / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        cell.result()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_numbers(computed, tiny, tmp_path):
    config, _ = computed
    output = tmp_path / "killed"
    settings = written(tiny, tmp_path, output=str(output))
    command = [sys.executable, "-m", "rcv", "reproduce", "table1", "--config", settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for seen in (1, 2, 4):  # so many folders of cells, begun or done
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((output / "cells").glob("*"))) >= seen:
                os.killpg(process.pid, signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.05)
    assert kills == 3
    subprocess.run([*command, "--jobs", "2"], env=environment, check=True, timeout=600)
    assert numbers(ReproduceConfig(**tiny, output=output)) == numbers(config)
