"""What the UNet is trained to predict, by the scheduler's prediction type, and the loss, in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def _signal_and_noise(scheduler, timesteps: torch.Tensor, like: torch.Tensor):
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), float32, broadcastable over `like` [B, ...]."""
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"scheduler is a {type(scheduler).__name__}, which has no alphas_cumprod; expected a scheduler of the "
            "DDPM family (DDPM, DDIM, PNDM, DPM-Solver, Euler, ...)"
        )
    timesteps = torch.as_tensor(timesteps, device=like.device).long().reshape(-1)
    if timesteps.numel() not in (1, like.shape[0]):
        raise ValueError(
            f"timesteps has {timesteps.numel()} entries, expected 1 or one for each of {like.shape[0]}"
        )
    alpha_bar = scheduler.alphas_cumprod.to(device=like.device, dtype=torch.float32)[timesteps]
    alpha_bar = alpha_bar.reshape(-1, *[1] * (like.ndim - 1))
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def noisy_latents(
    scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, computed in float32.

    Unlike a scheduler's `add_noise` it does not depend on the scheduler's own scaling (Euler's is by sigma), so
    that any base model's scheduler can stand in training.

    Parameters
    ----------
    latents, noise
        [B,C,F,H,W].
    timesteps
        [B], or one for all.

    Returns
    -------
    torch.Tensor
        [B,C,F,H,W] in the dtype of `latents`.
    """
    signal, spread = _signal_and_noise(scheduler, timesteps, latents)
    return (signal * latents.float() + spread * noise.float()).to(latents.dtype)


def training_target(
    scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The tensor that the UNet's prediction is compared with, float32, by `scheduler.config.prediction_type`.

    `epsilon`: the noise. `sample`: the latents. `v_prediction`: sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) latents
    (Salimans and Ho, arXiv 2202.00512).

    Parameters
    ----------
    latents, noise
        [B,C,F,H,W].
    timesteps
        [B], or one for all.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise.float()
    if kind == "sample":
        return latents.float()
    if kind == "v_prediction":
        signal, spread = _signal_and_noise(scheduler, timesteps, latents)
        return signal * noise.float() - spread * latents.float()
    raise ValueError(
        f"the scheduler's prediction_type is {kind!r}, expected one of {', '.join(PREDICTION_TYPES)}; "
        "flow-matching models are not supported"
    )


def diffusion_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error in float32, a scalar; ValueError if the shapes differ (no silent broadcasting)."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, expected {tuple(target.shape)} of target"
        )
    return F.mse_loss(prediction.float(), target.float())


def debiased_loss(prediction: torch.Tensor, target: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The loss of what differs between frames: MotionDirector's appearance-debiased loss, float32, a scalar.

    With the anchor frame j and beta = 1, alpha = sqrt(beta^2 + 1), both prediction and target x become
    alpha x_i - beta x_j in every frame i, and their mean squared error is taken. What all frames share, a clip's
    appearance, weighs alpha - beta = 0.41 in it; alpha keeps the variance of independent noise at 1
    (Zhao et al., arXiv 2310.08465, equation 8).

    Parameters
    ----------
    prediction, target
        [B,C,F,H,W].
    anchors
        [B], int64: each sample's anchor frame.

    Raises
    ------
    ValueError
        For shapes that differ, and for anchors that are not one frame a sample.
    """
    batch, frames = target.shape[0], target.shape[2]
    if anchors.shape != (batch,):
        raise ValueError(f"anchors has shape {tuple(anchors.shape)}, expected ({batch},), a frame a sample")
    if not 0 <= int(anchors.min()) <= int(anchors.max()) < frames:
        raise ValueError(f"anchors are {anchors.tolist()}, expected frames 0 to {frames - 1}")

    def debiased(x):
        x = x.float()
        anchor = x[torch.arange(batch, device=x.device), :, anchors.to(x.device)]
        return 2**0.5 * x - anchor.unsqueeze(2)

    return diffusion_loss(debiased(prediction), debiased(target))
