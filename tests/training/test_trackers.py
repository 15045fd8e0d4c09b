"""Weights & Biases by a stub, and TensorBoard's files of a resumed run."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from accelerate import PartialState
from PIL import Image

from rcv.training import FinetuneConfig
from rcv.training.trackers import check_tracker, open_tracker


@pytest.fixture(autouse=True)
def accelerate():
    PartialState(cpu=True)  # its trackers ask which process they are in


@pytest.fixture
def wandb(monkeypatch):
    """What wandb was told, as a list of calls."""
    told = []
    stub = ModuleType("wandb")
    stub.__spec__ = ModuleSpec("wandb", None)
    run = SimpleNamespace(
        log=lambda values, step=None, **_: told.append(("log", values, step)),
        finish=lambda: told.append(("finish",)),
    )

    def init(**options):
        told.append(("init", options))
        return run

    stub.init = init
    stub.config = SimpleNamespace(update=lambda values, **_: told.append(("config", values)))
    stub.Video = lambda path, caption, format: (path, caption, format)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    return told


def test_wandb_gets_settings_numbers_and_videos(wandb, tmp_path):
    check_tracker("wandb")
    settings = FinetuneConfig(tracker="wandb", output=tmp_path / "walking", seed=4)
    tracker = open_tracker(settings, None)
    tracker.log({"loss": 0.5}, 3)
    tracker.show([("a fox", tmp_path / "0.gif", None), ("a bear", tmp_path / "1.gif", None)], 3)
    tracker.close()
    assert [call[0] for call in wandb] == ["init", "config", "log", "log", "finish"]
    assert wandb[0][1]["project"] == "rcv" and wandb[0][1]["name"] == "walking"
    assert wandb[1][1]["seed"] == 4
    assert wandb[2][1:] == ({"loss": 0.5}, 3)
    assert wandb[3][1:] == (
        {
            "samples/00": (str(tmp_path / "0.gif"), "a fox", "gif"),
            "samples/01": (str(tmp_path / "1.gif"), "a bear", "gif"),
        },
        3,
    )


def test_a_resumed_run_takes_lost_steps_back_from_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = FinetuneConfig(tracker="tensorboard", output=tmp_path)
    for done, steps in ((None, range(1, 6)), (3, range(4, 8))):
        tracker = open_tracker(settings, done)
        for step in steps:
            tracker.log({"loss": step if done else -step}, step)
        Image.new("RGB", (4, 4)).save(tmp_path / "0.gif")
        tracker.show([("a fox", tmp_path / "0.gif", None)], steps[-1])
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        *((step, -step) for step in (1, 2, 3)),
        *((step, step) for step in (4, 5, 6, 7)),
    ]
    assert [event.step for event in events.Images("samples/00 a fox")] == [7]


def test_no_tracker_needs_nothing(tmp_path):
    check_tracker("none")
    assert open_tracker(FinetuneConfig(output=tmp_path), None) is None
