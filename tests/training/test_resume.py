"""Runs that were stopped, killed or damaged go on as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from rcv.training import FinetuneConfig, finetune, read_adapter
from rcv.training.checkpoint import load_checkpoint, newest_checkpoint
from rcv.training.trainer import Trainer


class Crash(Exception):
    pass


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


def same_weights(one, other):
    """Whether two runs left the same adapter (the order of a file's metadata is not fixed)."""
    (one, said), (other, also_said) = read_adapter(one.adapter), read_adapter(other.adapter)
    return said == also_said and all(
        torch.equal(one[name], other[name]) for name in one.keys() | other.keys()
    )


def crash_at(monkeypatch, step):
    """Let the step numbered `step` (from 0) end in an exception."""
    train = Trainer.train

    def train_or_crash(self):
        if self.step == step:
            raise Crash
        return train(self)

    monkeypatch.setattr(Trainer, "train", train_or_crash)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preset": "paper", "batch_size": 2, "workers": 0},
        {"precision": "fp16", "noise": "autoregressive"},
        {"preset": "streaming", "frames": 5, "window": 2},
        {"preset": "streaming", "frames": 5, "window": 2, "random_window": True},
        {"ema_decay": 0.9, "hold_out": 1, "patience": 3, "debiased_loss": 1, "precision": "bf16"},
    ],
    ids=[
        "default",
        "paper, batches",
        "fp16, autoregressive",
        "windows",
        "random windows",
        "average, validation",
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(quick, tmp_path, monkeypatch, settings):
    settings = {**quick, **settings, "checkpoint_every": 2}
    whole = run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        crash_at(patch, 5)
        with pytest.raises(Crash):
            run(settings, tmp_path / "stopped")
    assert newest_checkpoint(tmp_path / "stopped" / "checkpoints").name == "step-000004"
    resumed = run(settings, tmp_path / "stopped")
    assert resumed.losses == whole.losses
    assert resumed.eval_losses == whole.eval_losses
    assert resumed.validation_losses == whole.validation_losses
    assert resumed.step == whole.step
    assert same_weights(resumed, whole)


def test_a_resumed_run_goes_on_with_its_loss_scale(quick, tmp_path, monkeypatch):
    """From a scale at which float16 overflows, and growing back every third step."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *a, **k: scaler(*a, **k, init_scale=2.0**22, growth_interval=3)
    )
    settings = {**quick, "precision": "fp16", "steps": 12, "checkpoint_every": 5, "keep_checkpoints": 9}
    whole = run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        crash_at(patch, 6)
        with pytest.raises(Crash):
            run(settings, tmp_path / "stopped")
    resumed = run(settings, tmp_path / "stopped")
    assert resumed.losses == whole.losses and same_weights(resumed, whole)
    states = [
        load_checkpoint(tmp_path / name / "checkpoints" / f"step-{step:06d}").state["scaler"]
        for name, step in (("whole", 5), ("whole", 12), ("stopped", 12))
    ]
    assert states[1] == states[2]
    assert states[0]["scale"] < 2.0**22 and states[0] != states[1]


def test_a_damaged_checkpoint_is_passed_over(quick, tmp_path, monkeypatch, caplog):
    settings = {**quick, "checkpoint_every": 2}
    whole = run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        crash_at(patch, 5)
        with pytest.raises(Crash):
            run(settings, tmp_path / "run")
    weights = newest_checkpoint(tmp_path / "run" / "checkpoints") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    resumed = run(settings, tmp_path / "run")
    assert "step-000004 is passed over: weights.safetensors" in caplog.text
    assert resumed.losses == whole.losses
    assert same_weights(resumed, whole)


def test_a_finished_run_is_left_as_it_is(quick, tmp_path, monkeypatch):
    first = run(quick, tmp_path / "run")
    weights = read_adapter(first.adapter)[0]
    crash_at(monkeypatch, 6)
    again = run(quick, tmp_path / "run")
    assert (again.losses, again.eval_losses) == (first.losses, first.eval_losses)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read_adapter(again.adapter)[0].items())


def test_the_output_of_another_run_is_refused(quick, tmp_path):
    first = run(quick, tmp_path / "run")
    content = first.adapter.read_bytes()
    with pytest.raises(
        ValueError, match=r"holds step 6 of a run that differs(.|\n)*learning_rate: 0.01 -> 0.02"
    ):
        run(quick, tmp_path / "run", learning_rate=0.02)
    with pytest.raises(ValueError, match="checkpoint has preset 'recurrent', this run 'paper'"):
        run(quick, tmp_path / "run", preset="paper")
    with pytest.raises(ValueError, match=r"differs(.|\n)*ema_decay: 0.0 -> 0.9\n  debiased_loss: 1.0 -> 0.5"):
        run(quick, tmp_path / "run", ema_decay=0.9, debiased_loss=0.5)
    assert first.adapter.read_bytes() == content

    longer = run(quick, tmp_path / "run", steps=8, resume="latest")
    assert longer.losses[:6] == first.losses
    assert len(longer.losses) == 8
    fresh = run(quick, tmp_path / "run", steps=4, resume="never")
    assert len(fresh.losses) == 4
    assert newest_checkpoint(tmp_path / "run" / "checkpoints.replaced").name == "step-000008"


def test_an_adapter_without_checkpoints_is_not_overwritten(quick, tmp_path):
    import shutil

    first = run(quick, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ValueError, match="adapter of an earlier run and no checkpoint"):
        run(quick, tmp_path / "run", seed=1)
    assert run(quick, tmp_path / "run", resume="never").losses == first.losses


def test_changed_clips_are_named(quick, tmp_path, clips):
    import shutil

    shutil.copytree(clips, tmp_path / "clips")
    settings = {**quick, "clips": tmp_path / "clips"}
    run(settings, tmp_path / "run")
    (tmp_path / "clips" / "1.txt").write_text("a circle")
    with pytest.raises(ValueError, match=r"clip 1.mp4: its content or caption changed"):
        run(settings, tmp_path / "run")


def test_resume_from_a_path(quick, tmp_path):
    first = run(quick, tmp_path / "first", checkpoint_every=3)
    start = tmp_path / "first" / "checkpoints" / "step-000003"
    second = run(quick, tmp_path / "second", resume=str(start))
    assert same_weights(second, first)
    with pytest.raises(ValueError, match="holds no complete checkpoint; expected auto, latest"):
        run(quick, tmp_path / "third", resume=str(tmp_path / "nowhere"))


PROGRAM = """
import sys
from rcv.training import FinetuneConfig, Interrupted, finetune
try:
    finetune(FinetuneConfig.read_yaml(sys.argv[1]), show_progress=False)
except Interrupted as stop:
    print(stop)
    sys.exit(130)
"""


def start(settings, output, tmp_path):
    """A run in a process of its own, handed over once it has written its first checkpoint."""
    config = tmp_path / "settings.yaml"
    FinetuneConfig(**settings, output=output).write_yaml(config)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while newest_checkpoint(output / "checkpoints") is None:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
def test_a_killed_process_goes_on_bit_for_bit(quick, tmp_path, kind):
    settings = {**quick, "steps": 400, "checkpoint_every": 1, "eval_draws": 0}
    process = start(settings, tmp_path / "killed", tmp_path)
    time.sleep(0.3)
    process.send_signal(getattr(signal, kind))
    out, _ = process.communicate()
    assert process.returncode == (130 if kind == "SIGTERM" else -signal.SIGKILL)
    assert kind == "SIGKILL" or "the same command" in out or "stopped after step" in out
    reached = int(newest_checkpoint(tmp_path / "killed" / "checkpoints").name.removeprefix("step-"))
    assert 1 <= reached < 400
    settings = {**settings, "steps": 400, "checkpoint_every": 100}
    resumed = run(settings, tmp_path / "killed")
    whole = run(settings, tmp_path / "whole")
    assert resumed.losses == whole.losses
    assert same_weights(resumed, whole)
