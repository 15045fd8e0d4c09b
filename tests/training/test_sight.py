"""What a run shows of itself: its folder, and that nothing of it disturbs or ends the training."""

import logging
import re
import signal

import numpy as np
import pytest
from PIL import Image

from rcv.training import CheckpointError, FinetuneConfig, Interrupted, finetune, read_adapter
from rcv.training import checkpoint as checkpoint_module
from rcv.training import run as run_module
from rcv.training import sight as sight_module
from rcv.training.log import Record, read_log
from rcv.training.samples import last_samples
from rcv.video import read_video
from tests.tiny import make_tiny_clip

SHOWN = {"sample_every": 4, "prompts": ["a fox", "a|bear"], "sample_steps": 2, "tracker": "tensorboard"}


@pytest.fixture(scope="module")
def shown(base, clips, tmp_path_factory):
    """A run with everything to be seen: its folder and its FinetuneResult."""
    settings = {"base": base, "clips": clips, "frames": 3, "steps": 6, "learning_rate": 1e-2, "eval_draws": 2}
    folder = tmp_path_factory.mktemp("shown") / "run"
    clip = make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")
    config = FinetuneConfig(**settings, **SHOWN, sample_clip=str(clip), checkpoint_every=3, output=folder)
    return folder, finetune(config, show_progress=False)


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


def test_a_run_explains_itself(shown):
    folder, _ = shown
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("adapter.safetensors", "README.md", "config.yaml", "log.txt", "curves.png", "losses.csv"),
        *("eval_losses.csv", "checkpoints", "samples", "tensorboard"),
    }


def test_nothing_that_is_shown_disturbs_the_training(shown, quick, tmp_path):
    folder, result = shown
    plain = run(quick, tmp_path / "plain", checkpoint_every=3)
    assert plain.losses == result.losses
    assert plain.eval_losses == result.eval_losses
    weights = read_adapter(folder)[0]
    assert all((tensor == weights[name]).all() for name, tensor in read_adapter(plain.adapter)[0].items())


def test_samples_are_made_before_every_n_steps_and_at_the_end(shown):
    folder, _ = shown
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "step-000000", "step-000004", "step-000006",
    ]  # fmt: skip
    samples = last_samples(folder)
    assert [(prompt, path.name) for prompt, path in samples] == [
        ("a fox", "video-00-a-fox.gif"),
        ("a|bear", "video-01-a-bear.gif"),
    ]
    first, last = (
        read_video(folder / "samples" / step / samples[0][1].name) for step in ("step-000000", "step-000006")
    )
    assert first.frames.shape == last.frames.shape == (3, 192, 192, 3)
    assert not np.array_equal(first.frames, last.frames)  # the same noise, other weights


def test_a_sample_is_what_generate_makes(shown, base, tmp_path):
    from rcv.diffusion.config import GenerateConfig
    from rcv.diffusion.generate import generate

    folder, _ = shown
    (again,) = generate(
        GenerateConfig(
            prompts=["a|bear"], base=base, adapter=folder, steps=2, seed=1, scale=6, output=tmp_path / "v.gif"
        ),
        lambda *_: None,
    )
    other, sample = (read_video(path).frames.astype(int) for _, path in last_samples(folder))
    made = read_video(again).frames
    # a GIF's palette makes several levels of a pixel that the decoder rounded the other way
    assert np.abs(made - sample).mean() < 0.5 < 5 < np.abs(made - other).mean()


def test_the_log_tells_the_run(shown):
    text = (shown[0] / "log.txt").read_text(encoding="utf-8")
    for line in (
        " INFO rcv ",
        "step 0  eval_loss",
        "step 6 of 6  loss",
        "GiB",
        "left",
        "checkpoint of step 3",
        "finished",
    ):
        assert line in text, line


def test_curves_are_a_picture_of_the_losses(shown):
    with Image.open(shown[0] / "curves.png") as picture:
        assert picture.size == (800, 500)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_numbers_and_videos_reach_tensorboard(shown):
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

    folder, result = shown
    events = EventAccumulator(str(folder / "tensorboard"), {SCALARS: 0, IMAGES: 0}).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(result.losses)
    assert [event.step for event in events.Scalars("eval_loss")] == [0, 3, 6]
    assert {"learning_rate", "gradient_norm", "seconds"} <= set(events.Tags()["scalars"])
    images = events.Images("samples/00 a fox")
    assert [image.step for image in images] == [0, 4, 6]
    assert images[-1].encoded_image_string == last_samples(folder)[0][1].read_bytes()


def failing(*_):
    raise RuntimeError("not today")


def test_samples_are_measured(shown):
    import csv

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open(shown[0] / "samples" / "step-000006" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["a fox", "a|bear"]
    scores = [float(row["clip_score"]) for row in rows]
    assert all(-100 <= score <= 100 for score in scores)
    events = EventAccumulator(str(shown[0] / "tensorboard")).Reload().Scalars("samples/clip_score")
    assert [event.step for event in events] == [0, 4, 6]
    assert events[-1].value == pytest.approx(sum(scores) / 2, rel=1e-5)


def test_metrics_that_cannot_be_taken_are_warned_of_once(quick, tmp_path, caplog):
    settings = {"steps": 1, "sample_every": 1, "sample_steps": 1, "prompts": ["a fox"]}
    run(quick, tmp_path, **settings, sample_clip=str(tmp_path / "nowhere"))
    assert caplog.text.count("metrics of samples left out from here on (FileNotFoundError: ") == 1
    assert len(last_samples(tmp_path)) == 1


class FailingTracker:
    def __init__(self, *_):
        self.log = self.show = self.close = failing


@pytest.mark.parametrize(
    ("name", "replacement", "warned"),
    [
        ("open_tracker", failing, "tracker left out"),
        ("open_tracker", FailingTracker, "tracker left out"),
        ("write_curves", failing, "curves left out"),
        ("Samples", failing, "sample videos left out"),
        ("write_model_card", failing, "no model card"),
    ],
)
def test_what_fails_to_show_is_warned_of_once_and_ends_nothing(
    quick, tmp_path, monkeypatch, caplog, name, replacement, warned
):
    monkeypatch.setattr(sight_module, name, replacement)
    caplog.set_level(logging.WARNING, "rcv")
    result = run(quick, tmp_path, steps=2, checkpoint_every=1, sample_every=2, sample_steps=1)
    assert len(result.losses) == 2 and result.adapter.exists()
    assert len(re.findall("left out from here on|no model card \\(", caplog.text)) == 1
    for text in (caplog.text, (tmp_path / "log.txt").read_text()):
        assert warned in text and "(RuntimeError: not today)" in text


def test_a_sample_that_breaks_in_the_middle_leaves_training_as_it_was(quick, tmp_path, monkeypatch, caplog):
    plain = run(quick, tmp_path / "plain")
    from rcv.training import samples

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples, "write_video", full)
    broken = run(quick, tmp_path / "broken", sample_every=2, sample_steps=1)
    assert broken.losses == plain.losses
    assert caplog.text.count("No space left on device); the run goes on") == 1


def test_a_checkpoint_that_fails_ends_the_run_and_stands_in_the_log(quick, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        run(quick, tmp_path)
    assert "ERROR CheckpointError: the checkpoint of step 6 could not" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("propagate", [False, True])
def test_warnings_are_kept_once_and_still_shown(propagate, quick, tmp_path, monkeypatch, recwarn):
    import warnings

    true_save = run_module.save_adapter

    def warning(*args, **details):
        warnings.warn("of something", RuntimeWarning, stacklevel=1)
        logging.getLogger("rcv.models").warning("of another thing")
        logging.getLogger("transformers").warning("of a third")
        return true_save(*args, **details)

    monkeypatch.setattr(run_module, "save_adapter", warning)
    monkeypatch.setattr(
        logging.getLogger("transformers"), "propagate", propagate
    )  # True where the variable CI is set
    handlers = list(logging.getLogger().handlers)
    run(quick, tmp_path, steps=1)
    text = (tmp_path / "log.txt").read_text()
    for said in ("RuntimeWarning: of something", "WARNING of another thing", "WARNING of a third"):
        assert text.count(said) == 1, said
    assert any("of something" in str(warning.message) for warning in recwarn)
    assert logging.getLogger().handlers == handlers


def test_a_resumed_run_goes_on_in_the_same_files(shown, quick, tmp_path, monkeypatch):
    _, result = shown
    settings = {**quick, **SHOWN, "checkpoint_every": 3}
    true_train = run_module.Trainer.train

    def train(trainer):
        record = true_train(trainer)
        if record.step == 4:
            signal.raise_signal(signal.SIGINT)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Trainer, "train", train)
        with pytest.raises(Interrupted, match="stopped after step 4 of 6"):
            run(settings, tmp_path)
    assert not (tmp_path / "samples" / "step-000004").exists()  # Ctrl-C does not wait for a sample
    again = run(settings, tmp_path)
    assert again.losses == result.losses
    text = (tmp_path / "log.txt").read_text()
    assert "WARNING stopped after step 4 of 6" in text and "going on from step 4 of 6" in text
    assert [record.step for record in read_log(tmp_path / "losses.csv", Record)] == [1, 2, 3, 4, 5, 6]


def test_samples_that_a_kill_cut_short_are_made_when_the_run_goes_on(quick, tmp_path):
    settings = {**quick, "steps": 2, "sample_every": 1, "sample_steps": 1, "prompts": ["a fox", "a bear"]}
    run(settings, tmp_path)
    whole = set((tmp_path / "samples").rglob("*"))
    assert len(whole) == 12
    last = tmp_path / "samples" / "step-000002"
    (last / "video-01-a-bear.gif").unlink()
    (last / ".video-01.part.gif").write_text("half")
    (tmp_path / "samples" / "step-000007").mkdir()  # of a run that was set back
    run(settings, tmp_path)
    assert set((tmp_path / "samples").rglob("*")) == whole


def test_a_damaged_list_of_samples_ends_nothing(quick, tmp_path, caplog):
    settings = {**quick, "steps": 1, "sample_every": 1, "sample_steps": 1, "prompts": ["a fox"]}
    run(settings, tmp_path)
    (tmp_path / "samples" / "step-000001" / "prompts.csv").write_bytes(b"\xff\xfe")
    run(settings, tmp_path)
    assert caplog.text.count("sample videos left out from here on (UnicodeDecodeError") == 1


def test_a_new_run_clears_the_samples_of_an_earlier_one(quick, tmp_path):
    (tmp_path / "samples" / "step-000900").mkdir(parents=True)
    run(quick, tmp_path, steps=1, sample_every=1, sample_steps=1)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-000000", "step-000001"]
    assert [prompt for prompt, _ in last_samples(tmp_path)] == ["square 0", "square 1", "square 2"]


def test_prompts_alone_ask_for_samples_at_checkpoints():
    assert FinetuneConfig().samples_every() == 0
    assert FinetuneConfig(prompts=["a fox"], checkpoint_every=7).samples_every() == 7
    assert FinetuneConfig(prompts=["a fox"], sample_every=0).samples_every() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tracker": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"prompts": ["a fox", " "]}, "one of the prompts is empty"),
        ({"sample_every": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**settings)


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(quick, tmp_path, monkeypatch):
    from rcv.training import trackers

    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="wandb is not installed; pip install wandb"):
        run(quick, tmp_path / "run", tracker="wandb")
    assert not (tmp_path / "run").exists()
