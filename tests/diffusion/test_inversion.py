"""DDIM inversion: exact where it must be, close where it approximates, equal to the published program's."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load_file

from rcv.diffusion import ddim_invert, invert_latents
from rcv.models import VideoUNet
from tests.tiny import tiny_scheduler

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"


class TimeOnly:
    """Stands for a UNet whose prediction depends on the timestep alone: its inversion has no error."""

    dtype = torch.float32

    def __init__(self):
        self.calls = []

    def __call__(self, sample, timestep, encoder_hidden_states, return_dict=True):
        self.calls.append(int(timestep))
        pattern = torch.linspace(-1, 1, sample.numel()).reshape(sample.shape)
        return ((pattern * (1 + timestep / 500)).sin(),)


@pytest.fixture
def latents():
    return 0.5 * torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_sampling_undoes_inversion(latents, spacing, steps):
    scheduler = DDIMScheduler.from_config(tiny_scheduler().config, timestep_spacing=spacing)
    unet = TimeOnly()
    inverted = invert_latents(unet, scheduler, latents, torch.zeros(1, 2, 16), steps)
    upwards, unet.calls = unet.calls, []
    scheduler.set_timesteps(steps)
    sample = inverted
    for t in scheduler.timesteps:
        sample = scheduler.step(unet(sample, t, None)[0], t, sample, return_dict=False)[0]
    assert upwards == unet.calls[::-1] and len(upwards) == steps
    assert (inverted - latents).abs().max() > 0.01
    torch.testing.assert_close(sample, latents, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_error_of_a_real_unet_falls_with_the_steps(pipe, latents, kind):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    with (
        torch.no_grad()
    ):  # a random UNet answers a small change of its input with a large one, a trained one does not
        pipe.unet.conv_out.weight *= 0.03

    def error(steps):
        inverted = ddim_invert(pipe, latents, num_inference_steps=steps)
        again = pipe(
            "", latents=inverted, num_inference_steps=steps, guidance_scale=1, output_type="latent"
        ).frames
        return ((again - latents).norm() / latents.norm()).item()

    few, many = error(4), error(20)
    assert many < 0.75 * few
    assert many < {"epsilon": 0.03, "v_prediction": 0.15}[kind]


def test_it_needs_the_prompt_it_was_inverted_with(pipe, latents):
    plain = ddim_invert(pipe, latents, num_inference_steps=3)
    assert torch.equal(plain, ddim_invert(pipe, latents, prompt="", num_inference_steps=3))
    assert not torch.equal(plain, ddim_invert(pipe, latents, prompt="a fox", num_inference_steps=3))
    two = ddim_invert(pipe, latents.expand(2, -1, -1, -1, -1), prompt=["", "a fox"], num_inference_steps=3)
    torch.testing.assert_close(two[:1], plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_the_pipelines_scheduler_is_read_not_used(pipe, latents, kind):
    expected = ddim_invert(pipe, latents, num_inference_steps=3)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    before = pipe.scheduler.timesteps.clone()
    assert torch.equal(ddim_invert(pipe, latents, num_inference_steps=3), expected)
    assert torch.equal(pipe.scheduler.timesteps, before)


def test_what_cannot_be_inverted_is_refused(pipe, latents):
    with pytest.raises(ValueError, match=r"latents has shape \(4, 3, 8, 8\), expected \[B,C,F,h,w\]"):
        ddim_invert(pipe, latents[0])
    with pytest.raises(ValueError, match="prompt_embeds has batch 2, expected 1 or 1"):
        ddim_invert(pipe, latents, prompt=["", ""])
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler, which DDIM cannot invert"):
        invert_latents(pipe.unet, FlowMatchEulerDiscreteScheduler(), latents, torch.zeros(1, 2, 16))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no ../shared/golden")
def test_published_inversion():
    record = load_file(GOLDEN / "tune_a_video_sd1.safetensors")
    meta = json.loads((GOLDEN / "tune_a_video_sd1.json").read_text())
    state = {key.removeprefix("state."): value for key, value in record.items() if key.startswith("state.")}
    unet = VideoUNet.from_config(meta["config"], preset=meta["preset"]).eval()
    unet.load_state_dict(state)
    scheduler = DDIMScheduler.from_config(meta["ddim"]["scheduler"])
    inverted = invert_latents(
        unet, scheduler, record["ddim.latents"], record["ddim.cond"], meta["ddim"]["num_inference_steps"]
    )
    expected = record["ddim.inverted"]
    assert (inverted - expected).abs().max() <= 1e-5 * expected.abs().max()
