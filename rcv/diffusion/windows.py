"""Long videos at the memory of a window: frames are predicted window by window within every denoising step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rcv.config import checked_name
from rcv.diffusion.config import WINDOW_MODES


@dataclass(frozen=True)
class Windows:
    """How the frames of a long video are divided for the UNet.

    All windows of a step run before the next step, at one noise level. So the state that windows carry lives for one
    step: nothing is kept by timestep, and the scheduler sees the whole video, as it does without windows.

    Parameters
    ----------
    length
        Frames that the UNet sees at once.
    mode
        `carry`: windows follow each other and hand on the state of every block (`rcv.models.CarriedState`): the result
        is that of a single pass, to rounding. For presets whose frames depend on earlier ones alone (`streaming`).
        `blend`: windows overlap and their predictions are averaged, by weights that fall towards a window's ends
        (FreeNoise, arXiv 2310.15169, averages so inside the temporal attention; sliding contexts, as here, after the
        UNet). Each window begins with the video's first frame, to which the others attend. For every preset.
    overlap
        Frames that neighbouring windows share (`blend`); a quarter of `length` if None.
    """

    length: int
    mode: str = "carry"
    overlap: int | None = None

    def __post_init__(self):
        checked_name("mode", self.mode, WINDOW_MODES)
        least = 1 if self.mode == "carry" else 3
        if not isinstance(self.length, int) or isinstance(self.length, bool) or self.length < least:
            raise ValueError(f"length is {self.length!r}, expected a number of frames, {least} or more in mode "
                             f"{self.mode!r}")  # fmt: skip
        if self.overlap is not None and self.mode == "carry":
            raise ValueError(f"overlap is {self.overlap}, but windows in mode 'carry' do not overlap")
        if self.overlap is not None and not 0 <= self.overlap <= self.length - 2:
            raise ValueError(f"overlap is {self.overlap}, expected 0 to {self.length - 2}: a window of {self.length} "
                             "frames holds the first frame and at least one of its own")  # fmt: skip

    @classmethod
    def for_preset(cls, preset, length: int, mode: str | None = None, overlap: int | None = None) -> Windows:
        """Windows of a Preset: `carry` where it can, unless `mode` or an overlap says otherwise; else `blend`."""
        if mode is None:
            mode = "blend" if overlap is not None or preset.why_not_carried() else "carry"
        return cls(length, mode, overlap)

    def spans(self, frames: int) -> list[range]:
        """The frames of each window, in order; the last one is shorter (`carry`) or begins earlier (`blend`)."""
        if frames <= self.length:
            return [range(frames)]
        if self.mode == "carry":
            return [range(start, min(start + self.length, frames)) for start in range(0, frames, self.length)]
        overlap = self.length // 4 if self.overlap is None else self.overlap
        own = self.length - 1  # beside the first frame
        spans = [range(self.length)]
        while spans[-1].stop < frames:
            start = min(spans[-1].stop - overlap, frames - own)
            spans.append(range(start, start + own))
        return spans


def predict(unet, latents, timestep, text, windows: Windows | None = None) -> torch.Tensor:
    """The UNet's prediction for all frames of noisy latents, window by window.

    Parameters
    ----------
    unet
        VideoUNet.
    latents
        [B,C,F,h,w], in any precision.
    timestep
        Of all videos.
    text
        [G*B,L,c]: G texts a video, such as the negative and the positive prompt of guidance; those of the first text
        come first.
    windows
        None runs all frames at once.

    Returns
    -------
    torch.Tensor
        [G*B,C,F,h,w] float32.

    Raises
    ------
    ValueError
        Mode `carry` for a preset that cannot.
    """
    copies = text.shape[0] // latents.shape[0]
    spans = [range(latents.shape[2])] if windows is None else windows.spans(latents.shape[2])

    def run(part, **state):
        part = part.to(unet.dtype).repeat(copies, 1, 1, 1, 1)
        return unet(part, timestep, encoder_hidden_states=text, return_dict=False, **state)

    if len(spans) == 1:
        return run(latents)[0].float()
    shape = (text.shape[0], unet.config.out_channels, *latents.shape[2:])
    prediction = torch.zeros(shape, dtype=torch.float32, device=latents.device)
    if windows.mode == "carry":
        state = None
        for span in spans:
            part = slice(span.start, span.stop)
            prediction[:, :, part], state = run(latents[:, :, part], state=state, return_state=True)
            state.read_once = True
        return prediction
    total = torch.zeros(latents.shape[2], device=latents.device)
    for span in spans:
        part = slice(span.start, span.stop)
        weight = torch.tensor([min(i + 1, len(span) - i) for i in range(len(span))], device=latents.device)
        if span.start == 0:
            (sample,) = run(latents[:, :, part])
        else:
            (sample,) = run(torch.cat((latents[:, :, :1], latents[:, :, part]), 2))
            sample = sample[:, :, 1:]
        prediction[:, :, part] += sample.float() * weight[:, None, None]
        total[part] += weight
    return prediction.div_(total[:, None, None])


def hold_to_first_frame(latents: torch.Tensor, strength: float, progress: float, reach: int) -> None:
    """Pull the channel statistics of all frames towards the first frame's, in place: a smooth AdaIN against drift.

    Frame i (from 0) moves by the share ``strength * progress * (1 - exp(-i / reach))`` of the way to its values with
    the first frame's mean and standard deviation per channel (AdaIN, arXiv 1703.06868). The published program does so
    fully at every step from the tenth frame on, and not at all before it: a jump.

    Parameters
    ----------
    latents
        [B,C,F,h,w], float32.
    strength
        0 to 1.
    progress
        Share of the denoising steps that are done, up to 1: noise has no statistics of a scene.
    reach
        Frames over which the pull sets in.
    """
    frames = torch.arange(latents.shape[2], dtype=torch.float32, device=latents.device)
    share = (strength * progress * (1 - torch.exp(-frames / reach)))[:, None, None]
    std, mean = torch.std_mean(latents, dim=(3, 4), keepdim=True, correction=0)
    # x + share (std_1 (x - mean) / std + mean_1 - x), without a second video
    scale = 1 + share * (std[:, :, :1] / std.clamp_min(1e-6) - 1)
    latents.mul_(scale).add_(mean - mean * scale + share * (mean[:, :, :1] - mean))
