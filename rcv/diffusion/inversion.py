"""DDIM inversion: from the latents of a video to the noise that DDIM sampling turns back into it."""

from __future__ import annotations

import torch
from diffusers import DDIMInverseScheduler


def inverse_scheduler(scheduler) -> DDIMInverseScheduler:
    """The DDIMInverseScheduler on the noise schedule and prediction type of `scheduler`.

    Every setting is passed by name: what a scheduler's configuration leaves out would fall to the defaults of
    DDIM, which are not Stable Diffusion's (clip_sample, set_alpha_to_one).
    """
    config = scheduler.config
    if "beta_schedule" not in config:
        raise ValueError(
            f"scheduler is a {type(scheduler).__name__}, which DDIM cannot invert; expected one with a beta schedule"
        )
    spacing = config.get("timestep_spacing", "leading")
    return DDIMInverseScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        trained_betas=config.get("trained_betas"),
        clip_sample=bool(config.get("clip_sample", False)),
        clip_sample_range=config.get("clip_sample_range", 1.0),
        set_alpha_to_one=bool(config.get("set_alpha_to_one", False)),
        steps_offset=config.get("steps_offset", 0),
        prediction_type=config.get("prediction_type", "epsilon"),
        timestep_spacing=spacing if spacing in ("leading", "trailing") else "leading",
        rescale_betas_zero_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


@torch.no_grad()
def invert_latents(
    unet,
    scheduler,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    num_inference_steps: int = 50,
    progress=None,
) -> torch.Tensor:
    """DDIM inversion of latents under given text embeddings.

    Step k evaluates the UNet at the k-th smallest timestep t of the sampling schedule, on latents that belong to
    the timestep before it, and moves them to t: the order of Tune-A-Video (there `ddim_inversion`). No guidance.

    Parameters
    ----------
    unet
        VideoUNet.
    scheduler
        Any scheduler with a beta schedule; it is not changed.
    latents
        [B,C,F,h,w], scaled, clean.
    prompt_embeds
        [B,L,c], or [1,L,c] for all.
    num_inference_steps
        Steps; sample with as many.
    progress
        Wraps the timesteps, as tqdm does.

    Returns
    -------
    torch.Tensor
        [B,C,F,h,w] float32, at the noise level of the last timestep.
    """
    if latents.ndim != 5:
        raise ValueError(f"latents has shape {tuple(latents.shape)}, expected [B,C,F,h,w]")
    if prompt_embeds.shape[0] not in (1, latents.shape[0]):
        raise ValueError(
            f"prompt_embeds has batch {prompt_embeds.shape[0]}, expected 1 or {latents.shape[0]}"
        )
    inverse = inverse_scheduler(scheduler)
    inverse.set_timesteps(num_inference_steps, device=latents.device)
    text = prompt_embeds.expand(latents.shape[0], -1, -1).to(unet.dtype)
    latents = latents.float()
    for t in progress(inverse.timesteps) if progress else inverse.timesteps:
        prediction = unet(latents.to(unet.dtype), t, encoder_hidden_states=text, return_dict=False)[0]
        latents = inverse.step(prediction.float(), t, latents, return_dict=False)[0]
    return latents


@torch.no_grad()
def ddim_invert(
    pipe, latents: torch.Tensor, prompt: str | list[str] = "", num_inference_steps: int = 50
) -> torch.Tensor:
    """Invert latents with a pipeline's UNet, text encoder and noise schedule; see `invert_latents`.

    Pass the result as `latents` to the pipeline, with as many steps, for Tune-A-Video's guided generation. The
    prompt is empty there, and here by default.
    """
    device = pipe._execution_device
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    embeds, _ = pipe.encode_prompt(prompts, device=device, guided=False)
    inverted = invert_latents(
        pipe.unet, pipe.scheduler, latents.to(device), embeds, num_inference_steps, progress=pipe.progress_bar
    )
    pipe.maybe_free_model_hooks()
    return inverted
