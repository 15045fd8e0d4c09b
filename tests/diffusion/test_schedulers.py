"""Every scheduler of the DDPM family leads to the right end, for epsilon and v prediction."""

import pytest
import torch
from diffusers import DDIMScheduler

from rcv.diffusion.config import SCHEDULERS
from rcv.diffusion.generate import make_scheduler

FRAMES = 2


def perfect(pipe, clean, kind):
    """A forward for the UNet that knows the clean latents: what it answers is exact at every noise level."""

    def forward(sample, timestep, encoder_hidden_states, return_dict=True):
        alpha_bar = pipe.scheduler.alphas_cumprod[timestep.long()].to(sample.dtype)
        noise = (sample - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        if kind == "v_prediction":
            return (alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean,)
        return (noise,)

    return forward


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_perfect_unet_gives_its_latents_back(pipe, monkeypatch, name, kind):
    """Wrong initial noise, input scaling or prediction type would end elsewhere."""
    config = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind).config
    pipe.scheduler = make_scheduler(name, config)
    clean = torch.randn(1, 4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(pipe.unet, "forward", perfect(pipe, clean, kind))
    steps = []
    latents = pipe(
        "a fox",
        num_frames=FRAMES,
        num_inference_steps=12,
        guidance_scale=1,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=lambda pipe, i, t, tensors: steps.append(pipe.num_timesteps) or {},
    ).frames
    error = (latents - clean).square().mean().sqrt()
    # what is left at the last timestep: its own noise, a few hundredths in Stable Diffusion's schedule
    assert error < 0.06
    assert len(steps) == steps[0] >= 12


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_given_first_frame_stands_at_the_end(pipe, name):
    pipe.scheduler = make_scheduler(name, pipe.scheduler.config)
    first = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    frames = pipe(
        "a fox",
        num_frames=FRAMES,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        first_frame_latents=first,
        output_type="latent",
    ).frames
    torch.testing.assert_close(frames[:, :, 0], first)
    assert torch.isfinite(frames).all()
    assert not torch.allclose(frames[:, :, 1], first, atol=0.1)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler-ancestral", "lcm"])
def test_a_video_depends_on_its_own_generator_alone(pipe, name):
    """Also where the scheduler draws noise in its steps."""
    pipe.scheduler = make_scheduler(name, pipe.scheduler.config)

    def run(*seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe(
            ["a fox"] * len(seeds),
            num_frames=FRAMES,
            num_inference_steps=3,
            eta=0.5 if name == "ddim" else 0.0,
            generator=generators,
            output_type="latent",
        ).frames

    both = run(1, 2)
    torch.testing.assert_close(both[1:], run(2), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=0.1)
