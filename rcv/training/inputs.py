"""Batches of a run: latents and text embeddings, with noise and timesteps by the draws."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import torch

from rcv.data.facts import DECODERS
from rcv.diffusion import encode_video, sample_noise
from rcv.training.draws import draw_generator, timestep_at
from rcv.training.kept import KeptTensors

LATENT_BYTES = 2**30


class ClipLostError(OSError):
    """A clip that could be read when the run began cannot be read any more."""


class Batch(NamedTuple):
    """Latents and noise [B,C,F,h,w] float32, timesteps [B], text [B,L,C]."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor


class Inputs:
    """Everything that the UNet is trained on; a batch is a function of (seed, step, sample indices).

    Latents are the means of the VAE's posterior, encoded a frame at a time and kept by frame, in memory and on disk:
    samples of one clip that start at different frames share them, and a latent does not depend on which sample asked
    for it first.

    Parameters
    ----------
    pipeline : rcv.diffusion.VideoPipeline
        Its VAE and text encoder are used where they are; the text encoder only here.
    clips : ClipFolder
    config : FinetuneConfig
    samples_per_step : int
        Samples of one optimizer step over all batches and processes.
    device : torch.device
        Where batches go.
    model : str, optional
        Fingerprint of the base: what is kept on disk is told apart by it. None: nothing is kept on disk.
    """

    def __init__(self, pipeline, clips, config, samples_per_step, device, model=None):
        self.vae, self.clips, self.config, self.device = pipeline.vae, clips, config, device
        self.samples_per_step = samples_per_step
        self.noise = config.noise_config()
        self.train_timesteps = pipeline.scheduler.config.num_train_timesteps
        disk = clips.disk if model is not None else None
        self._latents = KeptTensors(
            disk, f"latent by {_made_by(pipeline.vae, model)}, {DECODERS}", LATENT_BYTES
        )
        self._pool = ThreadPoolExecutor(config.workers) if config.workers else None
        self._ahead = {}
        captions = dict.fromkeys([*clips.captions, *([""] if config.caption_drop else [])])
        kept = KeptTensors(disk, f"text by {_made_by(pipeline.text_encoder, model)}", LATENT_BYTES)
        self.text = {caption: self._embedded(pipeline, caption, kept) for caption in captions}

    def batch(self, step, indices):
        """Return the Batch of samples `indices` of optimizer step `step`."""
        seed = self.config.seed
        timesteps = [
            timestep_at(seed, step * self.samples_per_step + index, self.train_timesteps) for index in indices
        ]
        return self._batch(
            [self._sample(step, index) for index in indices],
            [self._caption(step, index) for index in indices],
            [draw_generator(seed, "noise", step, index) for index in indices],
            timesteps,
        )

    def fixed_batches(self, draws):
        """Yield `draws` Batches of one sample that stay the same over the run: what evaluations compare.

        Clips take turns; timesteps are the middles of `draws` equal parts of the schedule.
        """
        for number in range(draws):
            sample = self.clips.cut(
                number % len(self.clips), draw_generator(self.config.seed, "fixed cut", number)
            )
            generator = draw_generator(self.config.seed, "fixed noise", number)
            caption = self.clips.clips[sample.clip].caption
            yield self._batch(
                [sample], [caption], [generator], [(2 * number + 1) * self.train_timesteps // (2 * draws)]
            )

    def prefetch(self, step, indices):
        """Let the worker threads read or decode what `batch(step, indices)` will need."""
        if self._pool is None:
            return
        for index in indices:
            sample = self._sample(step, index)
            if sample not in self._ahead and not all(key in self._latents for key in self._keys(sample)):
                with suppress(RuntimeError):  # no thread to be had: `_read` does it
                    self._ahead[sample] = self._pool.submit(self._found, sample)

    def frames(self, step):
        """Return the number of frames of the samples of optimizer step `step`."""
        return self.clips.bucket(self.config.seed, step).frames

    def close(self):
        """Let the worker threads go."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _batch(self, samples, captions, generators, timesteps):
        latents = torch.stack([self._encoded(sample) for sample in samples]).to(self.device)
        return Batch(
            latents,
            sample_noise(latents.shape, self.noise, generator=generators, device=self.device),
            torch.tensor(timesteps, device=self.device),
            torch.stack([self.text[caption] for caption in captions]).to(self.device),
        )

    def _sample(self, step, index):
        return self.clips.sample(self.config.seed, step, index, self.samples_per_step)

    def _caption(self, step, index):
        """The caption that a sample trains on: its clip's, or the empty one with probability `caption_drop`."""
        if self.config.caption_drop:
            generator = draw_generator(self.config.seed, "caption", step, index)
            if float(torch.rand((), generator=generator)) < self.config.caption_drop:
                return ""
        return self.clips.clips[self._sample(step, index).clip].caption

    def _keys(self, sample):
        """What tells the latents of a sample's frames apart, one text a frame: content of the clip and what is cut."""
        clip = self.clips.clips[sample.clip]
        cut = f"{clip.size} {sample.top} {sample.left} {clip.bucket.size} {sample.mirrored}"
        return [f"frame {frame} of {clip.content} {cut}" for frame in self.clips.frame_indices(sample)]

    def _found(self, sample):
        """The latents of a sample's frames that are kept somewhere, by key, and its pixels if there are others."""
        latents = {key: self._latents.get(key) for key in self._keys(sample)}
        found = {key: latent for key, latent in latents.items() if latent is not None}
        return found, self.clips.pixels(sample) if len(found) < len(latents) else None

    @torch.no_grad()
    def _encoded(self, sample):
        """Latents [C,F,h,w] of one sample, float32 on the CPU."""
        keys = self._keys(sample)
        found, pixels = self._read(sample, self._ahead.pop(sample, None))
        for number, key in enumerate(keys):
            if key not in found:
                frame = pixels[number]
                found[key] = encode_video(self.vae, frame[None, None], sample=False)[0].float().cpu()
                self._latents.keep(key, found[key])
        return torch.cat([found[key] for key in keys], dim=1)

    def _read(self, sample, ahead):
        """What `_found` gives: what a worker found ahead, or, where it had none or died of it, what is found here."""
        if ahead is not None and ahead.exception() is None:
            return ahead.result()
        try:
            return self._found(sample)
        except Exception as error:  # whatever a decoder throws at a file that has changed or gone
            clip = self.clips.clips[sample.clip]
            raise ClipLostError(
                f"clip {clip.name} cannot be read any more ({str(error) or type(error).__name__}), which it could be "
                "when the run began; bring it back as it was"
            ) from error

    @staticmethod
    @torch.no_grad()
    def _embedded(pipeline, caption, kept):
        """Embedding [L,C] of one caption, as the pipeline makes it for sampling, on the CPU."""
        found = kept.get(caption)
        if found is None:
            found = pipeline.encode_prompt([caption], pipeline.text_encoder.device, guided=False)[0][0].cpu()
            kept.keep(caption, found)
        return found


def _made_by(module, model):
    """What decides about every bit of what `module` computes, but its input."""
    return f"{model} in {module.dtype} on {module.device.type}, torch {torch.__version__}"
