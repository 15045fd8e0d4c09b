"""SIGKILL at random moments: no file is left broken, and the losses are those of the run that was not killed."""

import os
import subprocess
import sys

import pytest
import torch

from rcv.training import FinetuneConfig, finetune, read_adapter
from rcv.training.log import Evaluation, Record, Validation, read_log

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork are POSIX")


@pytest.mark.parametrize(
    ("kills", "steps", "settings"),
    [
        (2, 24, {}),
        pytest.param(20, 200, {"precision": "fp16", "patience": 1000}, marks=pytest.mark.slow),
        pytest.param(
            20, 200, {"preset": "streaming", "window": 2, "checkpoint_every": 2}, marks=pytest.mark.slow
        ),
    ],
    ids=["2 kills", "20 kills, fp16", "20 kills, windows"],
)
def test_kills_change_nothing(quick, tmp_path, kills, steps, settings):
    settings = {
        **quick,
        "steps": steps,
        "checkpoint_every": 1,
        "hold_out": 1,
        "ema_decay": 0.9,
        "eval_draws": 1,
        "learning_rate": 1e-3,
        **settings,
    }
    FinetuneConfig(**settings, output=tmp_path / "killed").write_yaml(tmp_path / "settings.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killed", str(tmp_path / "settings.yaml"), str(kills)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reached = [int(line) for line in done.stdout.split()]
    assert len(reached) == kills and reached == sorted(reached) and 0 < reached[-1] < steps

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = finetune(FinetuneConfig(**settings, output=tmp_path / "whole"), show_progress=False)
    finally:
        torch.set_num_threads(threads)
    for name, kind in (
        ("losses.csv", Record),
        ("eval_losses.csv", Evaluation),
        ("validation_losses.csv", Validation),
    ):
        killed, expected = (read_log(tmp_path / run / name, kind) for run in ("killed", "whole"))
        assert [row[:2] for row in killed] == [row[:2] for row in expected], name
    one, other = read_adapter(tmp_path / "killed")[0], read_adapter(whole.adapter)[0]
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    left = {path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*")}
    assert left == {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
