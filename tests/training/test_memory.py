"""Memory of a run: what is refused before it starts, which mode is chosen, what is said when it runs out."""

import dataclasses

import pytest
import torch

from rcv.models.attention import TextAttention
from rcv.models.recompute import MODES
from rcv.planning import Budget, Setting, plan
from rcv.training import DoesNotFitError, FinetuneConfig, OutOfMemoryError, finetune, memory
from rcv.training.checkpoint import newest_checkpoint
from rcv.training.setup import load_base, resolved

CPU = torch.device("cpu")


@pytest.fixture
def config(quick, tmp_path):
    return FinetuneConfig(**quick, output=tmp_path / "run")


@pytest.fixture
def held(monkeypatch):
    """Returns a function that holds runs to so many bytes, on a CPU."""

    def hold(total):
        monkeypatch.setattr(memory, "_budget", lambda *_: Budget("this machine", total, None))

    return hold


def needed(config, pipeline, mode):
    settings = resolved(config.model_copy(update={"memory": "none"}), pipeline, CPU)
    return plan("train", memory._setting(settings, pipeline, mode), Budget("x", None, None)).needed


@pytest.mark.parametrize("mode", MODES)
def test_auto_is_the_fastest_mode_that_fits(config, held, mode):
    longer = config.model_copy(update={"frames": 40})
    pipeline = load_base(longer)
    held(needed(longer, pipeline, mode))
    assert resolved(longer, pipeline, CPU).gradient_checkpointing == mode


def test_what_does_not_fit_is_refused_with_advice(config, held):
    longer = config.model_copy(update={"frames": 40, "gradient_checkpointing": "none"})
    pipeline = load_base(longer)
    held(needed(longer, pipeline, "selective"))
    with pytest.raises(
        DoesNotFitError, match=r"40 frames of 32x32.* needs .*This fits: --gradient-checkpoin"
    ):
        resolved(longer, pipeline, CPU)
    assert not longer.output.exists()


def test_memory_none_plans_nothing(config, monkeypatch):
    monkeypatch.setattr("rcv.planning.plan", None)
    pipeline = load_base(config)
    assert resolved(config, pipeline, CPU).gradient_checkpointing == "none"
    full = config.model_copy(update={"memory": "none", "gradient_checkpointing": "full"})
    assert resolved(full, pipeline, CPU).gradient_checkpointing == "full"


def test_the_plan_is_of_the_run(config):
    pipeline = load_base(config)
    settings = resolved(config, pipeline, CPU)
    setting = memory._setting(settings, pipeline, "full")
    assert isinstance(setting, Setting)
    assert (setting.frames, setting.height, setting.width) == (settings.frames, *settings.size)
    assert (setting.precision, setting.checkpointing) == ("fp32", "full")
    assert dataclasses.asdict(setting.preset) == dataclasses.asdict(pipeline.unet.preset)
    planned = plan("train", setting, Budget("x", None, None))
    trained = sum(p.numel() for p in pipeline.unet.parameters() if p.requires_grad)
    assert planned.at_peak["trained weights"] == 4 * trained


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_running_out_of_memory(config, monkeypatch, kind):
    """The message names the module, the checkpoint, and what to try; the checkpoint is good."""
    calls, forward = [], TextAttention.forward

    def exhausted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == wanted:
            if kind == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            torch.empty(1 << 60)
        return forward(self, *args, **kwargs)

    settings = config.model_copy(update={"checkpoint_every": 2, "eval_draws": 0})
    blocks = sum(isinstance(m, TextAttention) for m in load_base(settings).unet.modules())
    wanted = 3 * blocks + 1
    monkeypatch.setattr(TextAttention, "forward", exhausted)
    with pytest.raises(OutOfMemoryError) as error:
        finetune(settings, show_progress=False)
    kept = newest_checkpoint(settings.output / "checkpoints")
    message = str(error.value)
    assert "transformer_blocks.0" in message
    assert f"The last checkpoint is {kept}" in message
    assert (
        "Try gradient_checkpointing selective or full or offload, fewer frames, a shorter window" in message
    )
    assert ("Tried to allocate" in message) == (kind == "cuda")
    monkeypatch.setattr(TextAttention, "forward", forward)
    resumed = finetune(settings, show_progress=False)
    whole = finetune(
        settings.model_copy(update={"output": settings.output.with_name("whole")}), show_progress=False
    )
    assert resumed.losses == whole.losses


def test_other_errors_pass(config, monkeypatch):
    def broken(self, *args, **kwargs):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(TextAttention, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        finetune(config, show_progress=False)
