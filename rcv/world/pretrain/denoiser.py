"""The embedded model's UNet, trained with the text model on latents."""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F

from rcv.diffusion.objective import training_target
from rcv.world.pretrain.loop import train
from rcv.world.pretrain.text import tokenize

SNR_LIMIT = 5.0
"""Min-SNR weighting (Hang et al., 2023): nearly clean latents, easy and many, count less."""
LEAST_WEIGHT = 0.2
"""Of a timestep, where Min-SNR's weights go from 0 to 0.83: what a caption decides is decided in much noise."""


def build_unet(config, latent_shape, text_width):
    """Return a UNet2DConditionModel with random weights; its levels but the last have attention."""
    levels = len(config.widths)
    return UNet2DConditionModel(
        sample_size=latent_shape[-1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        block_out_channels=config.widths,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=text_width,
        attention_head_dim=config.heads,
    )


def build_scheduler():
    """Return Stable Diffusion's noise schedule, for v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def timestep_weights(scheduler):
    """Return how much each training timestep counts under v-prediction, float32 [timesteps]."""
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    return (snr.clamp(max=SNR_LIMIT) / (snr + 1)).clamp(min=LEAST_WEIGHT)


def train_denoiser(latents, captions, tokenizer, text_model, config, progress=None):
    """Return a UNet trained to denoise `latents` [n,c,h,w] under `captions`; `text_model` learns with it, in place."""
    scheduler = build_scheduler()
    unet = build_unet(config, latents.shape[1:], config.text_width)
    # plain matrix products: at 256 tokens the backward of a CPU's fused attention takes three times as long
    unet.set_attn_processor(AttnProcessor())
    text_model.set_attn_implementation("eager")
    modules = nn.ModuleDict({"unet": unet, "text_model": text_model})
    ids = tokenize(tokenizer, captions)
    empty = tokenize(tokenizer, [""])
    weights = timestep_weights(scheduler)

    def loss_at(step, generator):
        chosen = torch.randint(len(latents), (config.batch,), generator=generator)
        noise = torch.randn((config.batch, *latents.shape[1:]), generator=generator)
        # drawn by their weights, not weighted by them: no step is spent on timesteps that hardly count
        t = torch.multinomial(weights, config.batch, replacement=True, generator=generator)
        dropped = torch.rand(config.batch, generator=generator) < config.caption_drop
        text = text_model(torch.where(dropped[:, None], empty, ids[chosen])).last_hidden_state
        clean = latents[chosen]
        prediction = unet(scheduler.add_noise(clean, noise, t), t, text).sample.float()
        return F.mse_loss(prediction, training_target(scheduler, clean, noise, t))

    train(
        "denoiser", modules, loss_at, folder=config.output, steps=config.steps,
        learning_rate=config.learning_rate, config=config, ema_decay=config.ema_decay, progress=progress,
    )  # fmt: skip
    return unet
