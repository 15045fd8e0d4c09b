"""Noise whose frames are independent, share a component, or follow each other, for as long as a video lasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor

from rcv.config import checked_name

STRATEGIES = ("independent", "shared", "autoregressive")
FORMS = ("variance_preserving", "paper")
BEYOND = ("fresh", "shuffled")


@dataclass(frozen=True)
class NoiseConfig:
    """How the noise of a video's frames hangs together.

    With a = `alpha`, e and e_i standard normal and independent, frame i = 1..F has

    | strategy | `paper` | `variance_preserving` |
    | --- | --- | --- |
    | independent | e_i | e_i |
    | shared | a e + (1-a) e_i | sqrt(a) e + sqrt(1-a) e_i |
    | autoregressive, i > 1 | a n_{i-1} + (1-a) e_i | a n_{i-1} + sqrt(1-a^2) e_i |

    and the first autoregressive frame is n_1 = e_1. In the variance-preserving form every frame has variance 1, and
    `alpha` is the correlation: of any two frames (shared), or of neighbours (autoregressive; alpha^k at
    distance k). The paper's form has standard deviation sqrt(a^2 + (1-a)^2) and correlation
    a^2 / (a^2 + (1-a)^2) (shared), and a standard deviation that falls over the frames from 1 to
    sqrt((1-a) / (1+a)) (autoregressive): a diffusion model, which expects 1, answers with blur.

    Parameters
    ----------
    strategy
        `independent`, `shared` (LAMP, arXiv 2310.10769; the variance-preserving form is PYoCo's mixed noise,
        arXiv 2305.10474) or `autoregressive` (the paper, section 3.3; PYoCo's progressive noise).
    alpha
        From 0 (independent frames) to 1 (equal frames).
    form
        `variance_preserving` or `paper`.
    beyond
        What e_i is behind the first window of a long video: `fresh`, drawn like the others; or `shuffled`, as
        FreeNoise has it (arXiv 2310.15169, section 3.2): the first window's, over and over, each time shuffled within
        quarters of a window. Every window then holds the same noise, in another order.
    """

    strategy: str = "independent"
    alpha: float = 0.5
    form: str = "variance_preserving"
    beyond: str = "fresh"

    def __post_init__(self):
        checked_name("strategy", self.strategy, STRATEGIES)
        checked_name("form", self.form, FORMS)
        checked_name("beyond", self.beyond, BEYOND)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")

    def marginal_std(self, frames: int) -> list[float]:
        """Standard deviation of each of `frames` frames."""
        a = self.alpha
        if self.strategy == "independent" or self.form == "variance_preserving":
            return [1.0] * frames
        if self.strategy == "shared":
            return [math.hypot(a, 1 - a)] * frames
        variances = [1.0]
        for _ in range(frames - 1):
            variances.append(a * a * variances[-1] + (1 - a) ** 2)
        return [math.sqrt(v) for v in variances[:frames]]


def sample_noise(
    shape: Sequence[int],
    config: NoiseConfig = NoiseConfig(),
    *,
    generator: torch.Generator | list[torch.Generator] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Noise for a batch of videos.

    Parameters
    ----------
    shape
        (B, C, F, H, W).
    config
        Strategy, alpha and form.
    generator
        One generator, or one for each of the B videos (a video then depends on its own generator alone). A CPU
        generator gives the same noise for every device.
    device, dtype
        Of the result. It is drawn and mixed in float32, whatever `dtype` is: float16 and float32 runs of one
        seed start from the same noise.
    window
        Frames that are drawn at once, so that a long video begins with the noise of a shorter one. None: all.

    Returns
    -------
    torch.Tensor
        [B,C,F,H,W].
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) != 5 or min(shape) < 1:
        raise ValueError(f"shape is {shape}, expected (B, C, F, H, W) with positive sizes")
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(
            f"generator is a list of {len(generator)}, expected one for each of the {shape[0]} videos"
        )
    device = torch.device(device) if device is not None else torch.device("cpu")

    def draw(*size):
        return randn_tensor(size, generator=generator, device=device, dtype=torch.float32)

    if window is not None and window < 1:
        raise ValueError(f"window is {window}, expected a number of frames, 1 or more")
    size = shape[2] if window is None else window
    noise, a = draw(*shape[:2], size, *shape[3:])[:, :, : shape[2]], config.alpha
    common = draw(*shape[:2], 1, *shape[3:]) if config.strategy == "shared" else None
    noise = _extended(noise, shape[2], size, config.beyond, draw, generator)
    if config.strategy == "shared":
        weights = (a, 1 - a) if config.form == "paper" else (math.sqrt(a), math.sqrt(1 - a))
        noise.mul_(weights[1]).add_(common, alpha=weights[0])
    elif config.strategy == "autoregressive":
        fresh = 1 - a if config.form == "paper" else math.sqrt(1 - a * a)
        for i in range(1, shape[2]):
            noise[:, :, i].mul_(fresh).add_(noise[:, :, i - 1], alpha=a)
    return noise.to(dtype or torch.float32)


def _extended(noise, frames, window, beyond, draw, generator):
    """The noise [B,C,min(F,window),H,W] of a first window, followed by that of the frames behind it."""
    parts = [noise]
    for _ in range(window, frames, window):
        parts.append(draw(*noise.shape) if beyond == "fresh" else _shuffled(noise, generator))
    return torch.cat(parts, 2)[:, :, :frames] if len(parts) > 1 else noise


def _shuffled(noise, generator):
    """The frames of noise [B,C,F,H,W] in another order for each video, within quarters of them."""
    result, frames = torch.empty_like(noise), noise.shape[2]
    quarter = max(1, frames // 4)
    for video in range(noise.shape[0]):
        source = generator[video] if isinstance(generator, list) else generator
        for start in range(0, frames, quarter):
            block = noise[video, :, start : start + quarter]
            order = torch.randperm(block.shape[1], generator=source, device=source.device if source else None)
            result[video, :, start : start + quarter] = block[:, order.to(noise.device)]
    return result
