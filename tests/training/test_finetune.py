"""Whole runs on a tiny base: what they learn and leave, and what they refuse."""

import csv
import math

import pytest
import torch
import yaml

from rcv.diffusion import VideoPipeline
from rcv.diffusion.config import GenerateConfig
from rcv.training import FinetuneConfig, OutputError, finetune, read_adapter

PRESETS = ("recurrent", "streaming", "paper", "published", "tune-a-video", "first-frame")


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


def rows(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_leaves_adapter_settings_and_losses(quick, base, tmp_path):
    result = run(quick, tmp_path / "run")
    assert result.adapter == tmp_path / "run" / "adapter.safetensors"
    assert sorted(result.eval_losses) == [0, 6]
    assert [float(row["loss"]) for row in rows(tmp_path / "run" / "losses.csv")] == result.losses
    assert [int(row["step"]) for row in rows(tmp_path / "run" / "eval_losses.csv")] == [0, 6]
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["size"] == [32, 32]
    assert (saved["precision"], saved["warmup_steps"]) == ("auto" if torch.cuda.is_available() else "fp32", 0)
    assert FinetuneConfig.read_yaml(tmp_path / "run" / "config.yaml").steps == 6

    weights, description = read_adapter(tmp_path / "run")
    assert description["preset"] == "recurrent"
    assert description["prompts"] == ["square 0", "square 1", "square 2"]
    assert description["versions"]["torch"]
    pipeline = VideoPipeline.from_base(base, adapter=tmp_path / "run")
    assert sorted(weights) == sorted(pipeline.unet.trained_names())
    assert all(torch.equal(pipeline.unet.state_dict()[name], weights[name]) for name in weights)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_trained_weights_move_as_float32_and_frozen_ones_stay(quick, base, clips, tmp_path, precision):
    from accelerate import Accelerator

    from rcv.training.clips import ClipFolder
    from rcv.training.setup import load_base, resolved
    from rcv.training.trainer import Trainer

    config = FinetuneConfig(**{**quick, "precision": precision}, output=tmp_path)
    pipeline = load_base(config)
    settings = resolved(config, pipeline, torch.device("cpu"))
    trainer = Trainer(settings, Accelerator(cpu=True), pipeline, ClipFolder(clips, 3, (32, 32)))
    before = {name: weight.detach().clone() for name, weight in trainer.unet.named_parameters()}
    for _ in range(3):
        record = trainer.train()
        assert math.isfinite(record.loss)
    trainer.close()
    half = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    trained = set(trainer.unet.trained_names())
    for name, weight in trainer.unet.named_parameters():
        assert weight.dtype == (torch.float32 if name in trained else half), name
        assert torch.equal(weight, before[name]) == (name not in trained), name
    assert pipeline.vae.dtype == half


def test_the_loss_of_fixed_draws_falls(quick, tmp_path):
    result = run(quick, tmp_path / "run", steps=40, eval_draws=8, checkpoint_every=10)
    measured = [result.eval_losses[step] for step in (0, 10, 20, 30, 40)]
    assert measured[-1] < 0.9 * measured[0]
    assert measured == sorted(measured, reverse=True)
    assert run(quick, tmp_path / "none", eval_draws=0).eval_losses == {}


def test_measuring_changes_nothing(quick, tmp_path):
    measured = run(quick, tmp_path / "a", checkpoint_every=2)
    assert measured.losses == run(quick, tmp_path / "b", eval_draws=0).losses


def test_accumulated_batches_are_one_batch(quick, tmp_path):
    whole = run(quick, tmp_path / "whole", batch_size=2)
    parts = run(quick, tmp_path / "parts", gradient_accumulation=2)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert run(quick, tmp_path / "single").losses != pytest.approx(whole.losses, rel=1e-4)


def test_recomputed_activations_give_the_same_losses(quick, tmp_path):
    plain = run(quick, tmp_path / "plain")
    assert run(quick, tmp_path / "lean", gradient_checkpointing="full").losses == pytest.approx(
        plain.losses, rel=1e-5
    )


@pytest.mark.parametrize("preset", ["tune-a-video", "published", "paper", "first-frame"])
def test_every_preset_trains(quick, tmp_path, preset):
    result = run(quick, tmp_path / "run", preset=preset, steps=2)
    assert read_adapter(result.adapter)[1]["preset"] == preset


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_with_everything_on(quick, tmp_path, preset, precision):
    settings = {"ema_decay": 0.9, "hold_out": 1, "patience": 3, "debiased_loss": 1, "noise": "shared"}
    result = run(quick, tmp_path / "run", preset=preset, precision=precision, **settings, checkpoint_every=3)
    assert len(result.losses) == 6 and sorted(result.validation_losses) == [0, 3, 6]
    lowest = min(result.validation_losses.values())
    assert result.validation_losses[result.step] == lowest < result.validation_losses[0]


def test_the_debiased_loss_is_trained_and_not_evaluated(quick, tmp_path):
    plain = run(quick, tmp_path / "plain", debiased_loss=0)
    debiased = run(quick, tmp_path / "debiased", debiased_loss=1)
    assert debiased.losses == run(quick, tmp_path / "own").losses  # the preset's own
    assert all(more > less for more, less in zip(debiased.losses, plain.losses, strict=True))
    assert debiased.eval_losses[0] == plain.eval_losses[0]
    assert debiased.eval_losses[6] != plain.eval_losses[6]
    nothing_but_anchors = run(quick, tmp_path / "one frame", debiased_loss=1, frames=1)
    once = run(quick, tmp_path / "once", debiased_loss=0, frames=1)
    share = 1 + (2**0.5 - 1) ** 2
    assert nothing_but_anchors.losses[0] == pytest.approx(share * once.losses[0], rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"noise": "shared", "noise_alpha": 0.3}, {"noise": "autoregressive", "noise_form": "paper"}],
)
def test_noise_strategies_reach_the_loss_and_generation(quick, tmp_path, settings):
    trained = run(quick, tmp_path / "a", **settings)
    assert trained.losses != run(quick, tmp_path / "b").losses
    taken = GenerateConfig(prompts=["a square"], adapter=tmp_path / "a").with_adapter_defaults()
    assert taken.noise_config() == FinetuneConfig(**settings).noise_config()
    own = GenerateConfig(prompts=["a square"], adapter=tmp_path / "a", noise="independent")
    assert own.with_adapter_defaults().noise_config().strategy == "independent"


def test_a_size_that_does_not_divide_names_the_nearest(quick, tmp_path):
    with pytest.raises(ValueError, match=r"size: 30x41 pixels, expected multiples of 4.*nearest is 32x40"):
        run(quick, tmp_path / "run", size="30x41")
    assert not (tmp_path / "run").exists()


def test_odd_latents_train(quick, tmp_path):
    """20 x 28 pixels are 5 x 7 latents, which the UNet halves to 3 x 4."""
    assert math.isfinite(run(quick, tmp_path / "run", size="20x28").losses[-1])


def test_a_single_frame_trains(quick, tmp_path):
    assert math.isfinite(run(quick, tmp_path / "run", frames=1).losses[-1])


def test_nothing_is_written_for_clips_that_fail(quick, tmp_path):
    with pytest.raises(ValueError, match="fewer than the 16"):
        run(quick, tmp_path / "run", frames=16)
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_named(quick, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file.*cannot be written.*choose another output"):
        run(quick, tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["losses.csv", "config.yaml", "adapter.safetensors"])
def test_a_folder_in_the_way_of_a_file_is_named(quick, tmp_path, name):
    (tmp_path / "run" / name / "x").mkdir(parents=True)
    with pytest.raises((OutputError, ValueError), match=name.split(".")[0]):
        run(quick, tmp_path / "run")
