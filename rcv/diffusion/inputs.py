"""Checks of the pipeline's arguments, each with an error that says what to give instead."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from rcv.config import checked_name
from rcv.models.state import check_carries

from .noise import NoiseConfig
from .windows import Windows

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def check_inputs(
    pipe,
    *,
    prompt,
    negative_prompt,
    num_frames,
    height,
    width,
    num_inference_steps,
    guidance_rescale,
    num_videos_per_prompt,
    generator,
    noise,
    latents,
    first_frame_latents,
    prompt_embeds,
    negative_prompt_embeds,
    guided,
    windows,
    hold,
    output_type,
    decode_chunk_size,
    tensor_inputs,
) -> tuple[int, int, int, int, int]:
    """Shape (B, C, F, h, w) of the latents that the arguments ask for; ValueError if they don't fit."""
    _check_counts(
        num_frames=num_frames,
        num_inference_steps=num_inference_steps,
        num_videos_per_prompt=num_videos_per_prompt,
        decode_chunk_size=decode_chunk_size,
    )
    prompts = _check_prompts(pipe, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, guided)
    if not 0 <= guidance_rescale <= 1:
        raise ValueError(f"guidance_rescale is {guidance_rescale}, expected a number from 0 to 1")
    checked_name("output_type", output_type, OUTPUT_TYPES)
    if output_type != "latent" and pipe.vae is None:
        raise ValueError(f"output_type is {output_type!r}, but the pipeline has no vae; expected 'latent'")
    for name in tensor_inputs:
        checked_name("callback_on_step_end_tensor_inputs", name, pipe._callback_tensor_inputs)
    if not isinstance(noise, NoiseConfig):
        raise ValueError(
            f"noise is {noise!r}, expected a NoiseConfig, such as NoiseConfig('shared', alpha=0.2)"
        )
    shape = _latent_shape(pipe, prompts * num_videos_per_prompt, num_frames, height, width, latents)
    _check_windows(pipe, windows, shape[2])
    if not 0 <= hold <= 1:
        raise ValueError(f"hold is {hold}, expected a number from 0 to 1")
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(
            f"generator is a list of {len(generator)}, expected one for each of the {shape[0]} videos"
        )
    if first_frame_latents is not None:
        one_frame = (shape[1], *shape[3:])
        given = tuple(first_frame_latents.shape)
        if given[1:] != one_frame or given[0] not in (1, shape[0]):
            raise ValueError(
                f"first_frame_latents has shape {given}, expected {(shape[0], *one_frame)} or {(1, *one_frame)}: "
                "the scaled VAE latents of one frame for each video"
            )
    return shape


def _check_windows(pipe, windows, frames: int) -> None:
    if windows is None:
        return
    if not isinstance(windows, Windows):
        raise ValueError(f"windows is {windows!r}, expected Windows, such as Windows(16, 'blend')")
    if windows.length > frames:
        raise ValueError(
            f"windows: a window has {windows.length} frames, but the video {frames}; leave windows out for all frames "
            "at once"
        )
    if windows.mode == "carry" and windows.length < frames:
        check_carries(pipe.unet.preset, "mode 'blend' does without a state")


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        if count is None:
            continue
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} is {count!r}, expected a whole number, 1 or more")


def _check_prompts(pipe, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, guided) -> int:
    """Number of prompts."""
    if (prompt is None) == (prompt_embeds is None):
        given = "neither" if prompt is None else "both"
        raise ValueError(f"expected either prompt or prompt_embeds, got {given}")
    if prompt is not None and (
        not isinstance(prompt, list) or not prompt or not all(isinstance(text, str) for text in prompt)
    ):
        raise ValueError(f"prompt is {prompt!r}, expected a string or a list of strings with at least one")
    count = len(prompt) if prompt is not None else prompt_embeds.shape[0]
    if negative_prompt is not None and negative_prompt_embeds is not None:
        raise ValueError("expected either negative_prompt or negative_prompt_embeds, got both")
    if isinstance(negative_prompt, list) and len(negative_prompt) != count:
        raise ValueError(
            f"negative_prompt has {len(negative_prompt)} entries, expected one or {count}, as prompts"
        )
    embeds = {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds}
    width = pipe.unet.config.cross_attention_dim
    for name, tensor in embeds.items():
        if tensor is not None and (tensor.ndim != 3 or tensor.shape[0] != count or tensor.shape[2] != width):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected [{count}, L, {width}]")
    if None not in embeds.values() and prompt_embeds.shape != negative_prompt_embeds.shape:
        raise ValueError(
            f"negative_prompt_embeds has shape {tuple(negative_prompt_embeds.shape)}, expected that of "
            f"prompt_embeds, {tuple(prompt_embeds.shape)}"
        )
    needs_text = prompt is not None or (guided and negative_prompt_embeds is None)
    if needs_text and (pipe.text_encoder is None or pipe.tokenizer is None):
        raise ValueError(
            "the pipeline has no text encoder; expected prompt_embeds and negative_prompt_embeds"
        )
    return count


def _latent_shape(pipe, videos, num_frames, height, width, latents) -> tuple[int, int, int, int, int]:
    channels, factor = pipe.unet.config.in_channels, pipe.vae_scale_factor
    if latents is not None:
        given = tuple(latents.shape)
        if latents.ndim != 5 or given[:2] != (videos, channels):
            raise ValueError(
                f"latents has shape {given}, expected ({videos}, {channels}, frames, height/{factor}, "
                f"width/{factor}): {videos} videos, {channels} channels"
            )
        asked = {"num_frames": num_frames, "height": height, "width": width}
        have = {"num_frames": given[2], "height": given[3] * factor, "width": given[4] * factor}
        for name, value in asked.items():
            if value is not None and value != have[name]:
                raise ValueError(f"{name} is {value}, but latents are for {have[name]}; leave {name} out")
        return given
    height, width = pipe.size(height, width)
    return videos, channels, num_frames or 16, height // factor, width // factor


def scheduler_step_arguments(
    scheduler, eta: float, generator: torch.Generator | list | None
) -> dict[str, Any]:
    """Those of eta and generator that this scheduler's `step` takes."""
    accepted = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in (("eta", eta), ("generator", generator)) if name in accepted}
