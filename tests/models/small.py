"""A small VideoUNet and inputs for it."""

import torch

from rcv.models import VideoUNet
from tests.tiny import TEXT_WIDTH, UNET_CONFIG


def small_unet(preset="recurrent", seed=0, **overrides):
    """VideoUNet of two levels with random weights; trained layers at their start values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VideoUNet.from_config({**UNET_CONFIG, **overrides}, preset=preset)


def small_inputs(batch=1, frames=4, height=8, width=8, seed=1, dtype=torch.float32):
    """Noisy latents, a timestep per video, text: the arguments of one call."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(batch, 4, frames, height, width, generator=generator, dtype=torch.float32)
    text = torch.randn(batch, 7, TEXT_WIDTH, generator=generator, dtype=torch.float32)
    timestep = torch.randint(0, 1000, (batch,), generator=generator)
    return sample.to(dtype), timestep, text.to(dtype)


def randomise(unet, seed=2, scale=0.3):
    """Give every trained parameter a value away from its start, as training does, and return the UNet."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if unet.preset.trains(name):
                parameter += (
                    scale * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
                )
    return unet


def training_steps(unet, steps=3, frames=4, loss_scale=1.0, learning_rate=1e-3):
    """Take AdamW steps towards random targets; return the gradients of the first step, scaled by `loss_scale`."""
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0)
    first = None
    for step in range(steps):
        sample, timestep, text = small_inputs(frames=frames, seed=10 + step)
        target = torch.randn(sample.shape, generator=torch.Generator().manual_seed(20 + step))
        loss = (unet(sample, timestep, text).sample.float() - target).square().mean()
        (loss * loss_scale).backward()
        gradients = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
        first = first or gradients
        for parameter in parameters:
            parameter.grad /= loss_scale
        optimizer.step()
        optimizer.zero_grad()
    return first
