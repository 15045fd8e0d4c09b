"""The embedded model's autoencoder: 64x64 pixels to 16x16 latents with four channels."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from rcv.world.pretrain.loop import precision, train

KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5
LATENT_CHANNELS = 4
CROPPED = 0.8
"""Share of the steps that see crops of half the side: a quarter of the cost, and what is learnt is local."""


def build_autoencoder(config):
    """Return an AutoencoderKL with random weights, a factor of 2 for each level after the first."""
    levels = len(config.vae_widths)
    return AutoencoderKL(
        block_out_channels=config.vae_widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=config.size,
        scaling_factor=1.0,
    )


def pixels(images):
    """Return uint8 images [n,H,W,3] as float32 [n,3,H,W] in [-1,1], channels last in memory."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def reconstruction_loss(given, expected):
    """Mean absolute error of pixels, and of their differences to the right and downwards, which keep edges sharp."""
    error = given.float() - expected
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + EDGE_WEIGHT * edges


def train_autoencoder(images, config, progress=None):
    """Return an autoencoder trained on uint8 images [n,H,W,3], its latents with mean 0 and deviation 1 a channel."""
    vae = build_autoencoder(config).to(memory_format=torch.channels_last)

    def loss_at(step, generator):
        chosen = torch.randint(len(images), (config.vae_batch,), generator=generator).sort().values
        batch = images[chosen.numpy()]
        if step < CROPPED * config.vae_steps:
            side = config.size // 2
            top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
            batch = batch[:, top : top + side, left : left + side]
        batch = pixels(batch)
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var - 1 - posterior.logvar).mean()
        return reconstruction_loss(vae.decode(latents).sample, batch) + KL_WEIGHT * kl

    train(
        "autoencoder", vae, loss_at, folder=config.output, steps=config.vae_steps,
        learning_rate=config.vae_learning_rate, config=config, ema_decay=0.99, progress=progress,
    )  # fmt: skip
    standardize(vae, images[:: max(1, len(images) // 512)])
    return vae


@torch.no_grad()
def encode(vae, images, batch=128):
    """Return the latents (means) of uint8 images [n,H,W,3] as float32 [n,4,h,w]."""
    latents = []
    for start in range(0, len(images), batch):
        with precision():
            latents.append(vae.encode(pixels(images[start : start + batch])).latent_dist.mean.float())
    return torch.cat(latents)


@torch.no_grad()
def standardize(vae, images):
    """Fold each latent channel's mean and deviation on `images` into the convolutions next to the latents.

    The autoencoder computes what it computed, but its latents need no scaling factor, and no shift, which Stable
    Diffusion's pipelines have no place for.
    """
    latents = encode(vae, images)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out_of = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    into.weight[:channels] /= deviation[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()
    out_of.bias += (out_of.weight * mean[None, :, None, None]).sum((1, 2, 3))
    out_of.weight *= deviation[None, :, None, None]


@torch.no_grad()
def reconstruction_error(vae, images):
    """Return the mean absolute error of uint8 `images` through the autoencoder, in steps of 1/255."""
    expected = pixels(images)
    return F.l1_loss(vae.decode(vae.encode(expected).latent_dist.mean).sample, expected).item() * 127.5
