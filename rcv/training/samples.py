"""Sample videos of a run: the same prompts and seeds again and again, so that they can be compared."""

import csv
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rcv.diffusion import VideoPipeline
from rcv.diffusion.config import EMBEDDED_GUIDANCE, GUIDANCE, WINDOW
from rcv.diffusion.generate import output_paths
from rcv.diffusion.windows import Windows
from rcv.video import write_video

MOST_CAPTIONS = 4
"""So many captions serve as prompts where none are given."""

PROMPTS = "prompts.csv"
"""Beside the videos of a step: which file shows which prompt."""

SHOWN_HEIGHT = 192
"""Smaller frames are written with larger pixels: a GIF of 64 pixels is hard to look at."""


class SampleVideo(NamedTuple):
    """A sample video as it was written: prompt, path, and frames uint8 [F,H,W,3] before the GIF's palette and scale."""

    prompt: str
    path: Path
    frames: np.ndarray


class Samples:
    """Sample videos of the UNet that is being trained, in FOLDER/step-000100/00-a-red-fox.gif.

    Video k is drawn from seed + k, as `rcv generate` draws it. Nothing of the training's state is touched: the random
    numbers are the samples' own, and so is the scheduler.

    Parameters
    ----------
    trainer : Trainer
    pipeline : VideoPipeline
        What it trains. Its text encoder runs here, once, where it is.
    """

    def __init__(self, trainer, pipeline):
        self.trainer, self.settings = trainer, trainer.settings
        self.folder = self.settings.output / "samples"
        settings, captions = self.settings, trainer.inputs.clips.captions
        self.every = settings.samples_every()
        self.prompts = settings.prompts or list(dict.fromkeys(captions))[:MOST_CAPTIONS]
        scheduler = pipeline.scheduler
        self.pipeline = VideoPipeline(
            vae=pipeline.vae,
            text_encoder=None,
            tokenizer=None,
            unet=pipeline.unet,
            scheduler=type(scheduler).from_config(scheduler.config),
        )
        self.pipeline.set_progress_bar_config(disable=True)
        with torch.no_grad():  # one at a time, as `rcv generate` does: the last bit depends on the batch
            self.text = [
                pipeline.encode_prompt([prompt], pipeline.text_encoder.device) for prompt in self.prompts
            ]

    def due(self, step, last=False):
        """Return whether samples of `step` are to be made: every n steps and after the last one, unless they exist.

        A run that was killed while it made them makes them when it goes on.
        """
        asked = bool(self.every) and (last or step % self.every == 0 or step == self.settings.steps)
        return asked and [prompt for prompt, _ in _videos(self._step_folder(step))] != self.prompts

    def write(self, step, interrupted=lambda: False):
        """Write the videos of the (averaged) weights; returns the SampleVideos, without what was interrupted.

        Parameters
        ----------
        step : int
            Optimizer steps done.
        interrupted : callable
            Asked after every denoising step; once true, no more is made.
        """
        folder = self._step_folder(step)
        paths = output_paths(folder / "video.gif", self.prompts)
        unet, written = self.pipeline.unet, []
        training, device = unet.training, unet.device
        unet.eval()
        try:
            devices = [device] if device.type == "cuda" else []
            with torch.random.fork_rng(devices), self.trainer.averaged():
                for number, path in enumerate(paths):
                    latents = self._latents(number, interrupted)
                    if interrupted():
                        break
                    frames = np.stack(list(self.pipeline.iter_frames(latents[0])))
                    scale = max(1, SHOWN_HEIGHT // self.settings.size[0])
                    write_video(path, frames, scale=scale)
                    written.append(SampleVideo(self.prompts[number], path, frames))
                    with open(folder / PROMPTS, "a" if number else "w", newline="", encoding="utf-8") as file:
                        csv.writer(file).writerow([path.name, self.prompts[number]])
        finally:
            unet.train(training)
        return written

    def clear(self, done):
        """Remove samples of later steps than `done` (None: all), left by an earlier run, and what a kill cut short."""
        for folder in self.folder.glob("step-*"):
            if done is None or folder.name > self._step_folder(done).name:
                shutil.rmtree(folder, ignore_errors=True)
        for part in self.folder.glob("step-*/.*.part.gif"):
            part.unlink(missing_ok=True)

    def _step_folder(self, step):
        return self.folder / f"step-{step:06d}"

    def _latents(self, number, interrupted):
        """Denoised latents [1,C,F,h,w] of video `number`."""
        settings, (text, no_text) = self.settings, self.text[number]
        window = max(settings.window or settings.frames, WINDOW)
        windows = None
        if window < settings.frames:
            windows = Windows.for_preset(self.pipeline.unet.preset, window)

        def on_step_end(pipe, step, timestep, tensors):
            pipe._interrupt = interrupted()
            return {}

        return self.pipeline(
            num_frames=settings.frames,
            height=settings.size[0],
            width=settings.size[1],
            num_inference_steps=settings.sample_steps,
            guidance_scale=EMBEDDED_GUIDANCE if settings.base is None else GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(settings.seed + number),
            noise=settings.noise_config(),
            prompt_embeds=text,
            negative_prompt_embeds=no_text,
            windows=windows,
            output_type="latent",
            callback_on_step_end=on_step_end,
        ).frames


def last_samples(output, step=None):
    """Return the (prompt, path) of the newest sample videos in a run's folder, of those up to `step` if it is given."""
    for folder in sorted((Path(output) / "samples").glob("step-*"), reverse=True):
        behind = step is not None and folder.name > f"step-{step:06d}"
        if not behind and (videos := _videos(folder)):
            return videos
    return []


def _videos(folder):
    """The (prompt, path) of the sample videos of one step that are there, in the prompts' order."""
    if not (folder / PROMPTS).exists():
        return []
    with open(folder / PROMPTS, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2]
    return [(prompt, folder / name) for name, prompt in rows if (folder / name).exists()]
