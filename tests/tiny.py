"""Tiny Stable Diffusion and CLIP models with random weights, in their libraries' layouts: seconds to make, offline."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

TEXT_WIDTH = 16
TEXT_LENGTH = 12
VAE_FACTOR = 4
UNET_CONFIG = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": TEXT_WIDTH,
}


def tiny_unet(**overrides) -> UNet2DConditionModel:
    """UNet2DConditionModel of about 0.1 M parameters: 8x8 latents, two levels, 2 heads."""
    return UNet2DConditionModel(**{**UNET_CONFIG, **overrides})


def tiny_vae(**overrides) -> AutoencoderKL:
    """AutoencoderKL with 4 latent channels and a factor of 4."""
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 8, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "latent_channels": 4,
            "norm_num_groups": 4,
            "sample_size": 32,
            **overrides,
        }
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIPTokenizer over single bytes and a dozen merges; 12 tokens a prompt."""
    letters = sorted(ByteLevel.alphabet())
    merges = [("a", "n"), ("i", "n"), ("r", "e"), ("o", "n"), ("e", "d</w>"), ("o", "x</w>"), ("re", "d</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIPTextModel of width 16 with two layers, for `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tiny_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def make_tiny_sd(
    folder: str | Path, prediction_type: str = "epsilon", seed: int = 0, scheduler=None, **unet_overrides
) -> Path:
    """Write a whole Stable Diffusion pipeline (as `StableDiffusionPipeline.save_pretrained`) and return its folder.

    Images are 32x32, latents 8x8x4, text embeddings 12x16. `unet_overrides` replace entries of `UNET_CONFIG`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipe = StableDiffusionPipeline(
            vae=tiny_vae(),
            text_encoder=tiny_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=tiny_unet(**unet_overrides),
            scheduler=scheduler or tiny_scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder)
    return Path(folder)


def make_tiny_clip(folder: str | Path, seed: int = 0) -> Path:
    """Write a CLIPModel of one layer a side and its CLIPProcessor (32x32 pixels, 12 tokens) and return the folder."""
    tokenizer = tiny_tokenizer()
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tiny_text_encoder(tokenizer).config.to_dict() | shared
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = {**shared, "image_size": 32, "patch_size": 8}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        # as initialized, layers hardly tell one image from another
        for weight in model.vision_model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    images.save_pretrained(folder)
    return Path(folder)
