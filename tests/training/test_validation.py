"""Clips held out of training: which, what their loss decides, and what is refused."""

import csv
import shutil

import pytest
import torch

from rcv.training import ClipFolder, FinetuneConfig, finetune, read_adapter
from rcv.training.checkpoint import load_checkpoint, newest_checkpoint
from rcv.training.trainer import Trainer
from rcv.training.validation import EarlyStop, validation_split


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


@pytest.fixture
def curve(monkeypatch):
    """Let validation losses be as said, {step: loss}, measured or not."""

    def curve(losses):
        mean_loss = Trainer._mean_loss

        def as_said(self, inputs):
            return losses[self.step] if inputs is self.validation_inputs else mean_loss(self, inputs)

        monkeypatch.setattr(Trainer, "_mean_loss", as_said)

    return curve


def test_the_seed_alone_chooses_what_is_held_out(quick, clips):
    folder, chosen = ClipFolder(clips, 3, (32, 32)), set()
    for seed in range(8):
        settings = FinetuneConfig(**quick, hold_out=1, seed=seed)
        train, held = validation_split(settings, folder)
        assert sorted([*train.digests(), *held.digests()]) == ["0.mp4", "1.mp4", "2.mp4"]
        assert len(held) == 1
        assert held.digests() == validation_split(settings, folder)[1].digests()
        chosen |= held.digests().keys()
        number = [clip.name for clip in folder.clips].index(held.clips[0].name)
        generator = torch.Generator().manual_seed(seed)
        cut = held.cut(0, torch.Generator().manual_seed(seed))
        assert torch.equal(held.pixels(cut), folder.pixels(folder.cut(number, generator)))
    assert chosen == {"0.mp4", "1.mp4", "2.mp4"}


def test_held_out_clips_are_measured_and_not_trained_on(quick, tmp_path):
    result = run(quick, tmp_path / "run", hold_out=1, checkpoint_every=3)
    with open(tmp_path / "run" / "validation_losses.csv", newline="") as stream:
        rows = {int(row["step"]): float(row["validation_loss"]) for row in csv.DictReader(stream)}
    assert rows == result.validation_losses
    assert sorted(rows) == sorted(result.eval_losses) == [0, 3, 6]
    state = load_checkpoint(newest_checkpoint(tmp_path / "run" / "checkpoints")).state
    assert len(state["clips"]) == 2 and len(state["validation_clips"]) == 1
    assert not state["clips"].keys() & state["validation_clips"].keys()
    prompts = read_adapter(result.adapter)[1]["prompts"]
    assert prompts == sorted(f"square {name[0]}" for name in state["clips"])
    assert read_adapter(result.adapter)[1]["steps"] == result.step == 6


def test_a_folder_of_validation_clips_equals_what_is_held_out(quick, clips, tmp_path):
    names = validation_split(FinetuneConfig(**quick, hold_out=1), ClipFolder(clips, 3, (32, 32)))[1].digests()
    held, rest = (shutil.copytree(clips, tmp_path / folder) for folder in ("held", "rest"))
    for file in clips.iterdir():
        (rest if f"{file.stem}.mp4" in names else held).joinpath(file.name).unlink()
    one = run(quick, tmp_path / "one", hold_out=1)
    other = run({**quick, "clips": rest}, tmp_path / "other", validation_clips=held)
    assert (one.losses, one.validation_losses) == (other.losses, other.validation_losses)


def test_patience_ends_a_run_and_keeps_the_best_weights(quick, tmp_path, curve):
    curve({0: 1.0, 1: 0.5, 2: 0.4, 3: 0.6, 4: 0.7, 5: 0.1, 6: 0.1})
    settings = {**quick, "hold_out": 1, "checkpoint_every": 1, "keep_checkpoints": 9}
    result = run(settings, tmp_path / "run", patience=2)
    assert len(result.losses) == 4 and result.step == 2
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-000002").tensors["weights"]
    weights, description = read_adapter(result.adapter)
    assert description["steps"] == 2
    assert all(torch.equal(best[name], weights[name]) for name in best)

    again = run(settings, tmp_path / "run", patience=2)
    assert (again.losses, again.step) == (result.losses, 2)
    longer = run(settings, tmp_path / "run", patience=3, resume="latest")
    assert len(longer.losses) == 6 and longer.step == 5
    assert longer.losses[:4] == result.losses


def test_the_best_weights_are_averaged_ones_where_those_are_measured(quick, tmp_path, curve):
    curve({0: 1.0, 2: 0.5, 4: 0.6, 6: 0.7})
    settings = {**quick, "hold_out": 1, "checkpoint_every": 2, "keep_checkpoints": 9, "ema_decay": 0.9}
    result = run(settings, tmp_path / "run", patience=5)
    means = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-000002").tensors["average"]
    weights = read_adapter(result.adapter)[0]
    assert all(torch.equal(means[name], weights[name]) for name in means)


def test_a_loss_that_is_no_number_is_never_the_best():
    stop = EarlyStop(patience=3)
    for step, loss in enumerate([float("nan"), 2.0, float("nan"), float("inf")]):
        stop.take(step, loss, {})
    assert (stop.best_step, stop.best_loss, stop.waited, stop.over) == (1, 2.0, 2, False)


def test_other_validation_clips_begin_the_comparison_anew(quick, tmp_path, curve):
    curve(dict.fromkeys(range(9), 1.0) | {0: 0.1})
    settings = {**quick, "checkpoint_every": 1, "patience": 3}
    assert run(settings, tmp_path / "run", hold_out=1).step == 0
    with pytest.raises(ValueError, match=r"hold_out: 1 -> 2(.|\n)*validation clip ..mp4: added"):
        run(settings, tmp_path / "run", hold_out=2)
    other = run(settings, tmp_path / "run", hold_out=2, resume="latest")
    assert len(other.losses) == 6 and other.step == 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"hold_out": 3}, "3 of 3 clips would leave none to train on; expected at most 2"),
        ({"hold_out": 12, "clips": None}, "hold_out is 12 of 12 rendered clips"),
        ({"hold_out": 1, "validation_clips": "x"}, "both name clips to validate on"),
        ({"patience": 2}, "patience needs a validation loss"),
        ({"hold_out": 1, "eval_draws": 0}, "would never be measured"),
        ({"validation_clips": "nowhere"}, "no such folder"),
    ],
)
def test_what_cannot_be_validated_is_refused(quick, tmp_path, settings, expected):
    with pytest.raises(ValueError, match=expected):
        run({**quick, **settings}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validating_on_what_is_trained_on_is_refused(quick, clips, tmp_path):
    with pytest.raises(
        ValueError, match=r"0.mp4, 1.mp4, 2.mp4 in .* are among the clips that are trained on"
    ):
        run(quick, tmp_path / "run", validation_clips=clips)
