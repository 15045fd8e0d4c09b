"""Videos through the image VAE, a chunk of frames at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers.utils.torch_utils import randn_tensor


def encode_video(
    vae,
    frames: torch.Tensor,
    chunk_size: int = 8,
    generator: torch.Generator | list[torch.Generator] | None = None,
    *,
    sample: bool = True,
) -> torch.Tensor:
    """Scaled latents of videos.

    Parameters
    ----------
    vae
        AutoencoderKL; its `scaling_factor` and, where there is one, `shift_factor` are applied.
    frames
        [B,F,3,H,W] in [-1,1].
    chunk_size
        Frames that the VAE sees at once; the result does not depend on it.
    generator
        Draws from the posterior, one or one for each of the B videos.
    sample
        False takes the posterior's mean.

    Returns
    -------
    torch.Tensor
        [B,C,F,h,w] in the VAE's dtype.
    """
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames has shape {tuple(frames.shape)}, expected [B,F,3,H,W]")
    batch, count = frames.shape[:2]
    means, stds = [], []
    for chunk in frames.flatten(0, 1).split(_checked(chunk_size)):
        posterior = vae.encode(chunk.to(device=_device(vae), dtype=vae.dtype)).latent_dist
        means.append(posterior.mean)
        if sample:
            stds.append(posterior.std)
    latents = torch.cat(means).unflatten(0, (batch, count))
    if sample:
        # drawn for the whole batch, so that the draw does not depend on chunk_size
        noise = randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=torch.float32)
        latents = latents + torch.cat(stds).unflatten(0, (batch, count)) * noise.to(latents.dtype)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return ((latents - shift) * vae.config.scaling_factor).transpose(1, 2).contiguous()


def decode_video(vae, latents: torch.Tensor, chunk_size: int = 8) -> torch.Tensor:
    """Videos [B,F,3,H,W], nominally in [-1,1] (not clipped), of scaled latents [B,C,F,h,w], in the VAE's dtype."""
    return torch.cat(list(iter_decoded(vae, latents, chunk_size))).unflatten(0, latents.shape[:3:2])


def iter_decoded(vae, latents: torch.Tensor, chunk_size: int = 8) -> Iterator[torch.Tensor]:
    """Chunks [n,3,H,W] of the frames that `decode_video` returns, one video after the other."""
    if latents.ndim != 5:
        raise ValueError(f"latents has shape {tuple(latents.shape)}, expected [B,C,F,h,w]")
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    for chunk in latents.transpose(1, 2).flatten(0, 1).split(_checked(chunk_size)):
        chunk = chunk / vae.config.scaling_factor + shift
        yield vae.decode(chunk.to(device=_device(vae), dtype=vae.dtype), return_dict=False)[0]


def _device(vae) -> torch.device:
    """Where the VAE will compute: with offload its hook moves it there, but not the arguments of encode and decode."""
    return getattr(getattr(vae, "_hf_hook", None), "execution_device", None) or vae.device


def _checked(chunk_size: int) -> int:
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected the number of frames at once, 1 or more")
    return chunk_size
