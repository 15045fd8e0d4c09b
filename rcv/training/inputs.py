"""Batches of a run: latents and text embeddings, kept once computed, with noise and timesteps by the draws."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import torch

from rcv.diffusion import encode_video, sample_noise
from rcv.training.draws import draw_generator, timestep_at

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

    Latents are the means of the VAE's posterior, encoded a frame at a time and kept by frame: samples of one clip that
    start at different frames share them, and a latent does not depend on which sample asked for it first.

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
    """

    def __init__(self, pipeline, clips, config, samples_per_step, device):
        self.vae, self.clips, self.config, self.device = pipeline.vae, clips, config, device
        self.samples_per_step = samples_per_step
        self.noise = config.noise_config()
        self.train_timesteps = pipeline.scheduler.config.num_train_timesteps
        self._latents, self._latents_left = {}, LATENT_BYTES
        self._pool = ThreadPoolExecutor(config.workers) if config.workers else None
        self._ahead = {}
        self.text = {caption: self._embed(pipeline, caption) for caption in dict.fromkeys(clips.captions)}

    def batch(self, step, indices):
        """Return the Batch of samples `indices` of optimizer step `step`."""
        seed = self.config.seed
        timesteps = [
            timestep_at(seed, step * self.samples_per_step + index, self.train_timesteps) for index in indices
        ]
        return self._batch(
            [self._sample(step, index) for index in indices],
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
            yield self._batch([sample], [generator], [(2 * number + 1) * self.train_timesteps // (2 * draws)])

    def prefetch(self, step, indices):
        """Let the worker threads decode what `batch(step, indices)` will need."""
        if self._pool is None:
            return
        for index in indices:
            sample = self._sample(step, index)
            if sample not in self._ahead and not all(key in self._latents for key in self._keys(sample)):
                with suppress(RuntimeError):  # no thread to be had: `_pixels` decodes it
                    self._ahead[sample] = self._pool.submit(self.clips.pixels, sample)

    def close(self):
        """Let the worker threads go."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _batch(self, samples, generators, timesteps):
        latents = torch.stack([self._encoded(sample) for sample in samples]).to(self.device)
        text = torch.stack([self.text[self.clips.clips[sample.clip].caption] for sample in samples])
        return Batch(
            latents,
            sample_noise(latents.shape, self.noise, generator=generators, device=self.device),
            torch.tensor(timesteps, device=self.device),
            text.to(self.device),
        )

    def _sample(self, step, index):
        return self.clips.sample(self.config.seed, step, index, self.samples_per_step)

    def _keys(self, sample):
        return [(sample.clip, frame, sample.top, sample.left) for frame in self.clips.frame_indices(sample)]

    @torch.no_grad()
    def _encoded(self, sample):
        """Latents [C,F,h,w] of one sample, float32 on the CPU."""
        keys = self._keys(sample)
        found = {key: self._latents[key] for key in keys if key in self._latents}
        ahead = self._ahead.pop(sample, None)
        if len(found) < len(keys):
            for key, frame in zip(keys, self._pixels(sample, ahead), strict=True):
                if key in found:
                    continue
                found[key] = encode_video(self.vae, frame[None, None], sample=False)[0].float().cpu()
                if found[key].nbytes <= self._latents_left:
                    self._latents[key] = found[key]
                    self._latents_left -= found[key].nbytes
        return torch.cat([found[key] for key in keys], dim=1)

    def _pixels(self, sample, ahead):
        """Frames of a sample: what a worker decoded ahead, or, where it had none or died of it, decoded here."""
        if ahead is not None and ahead.exception() is None:
            return ahead.result()
        try:
            return self.clips.pixels(sample)
        except Exception as error:  # whatever a decoder throws at a file that has changed or gone
            clip = self.clips.clips[sample.clip]
            raise ClipLostError(
                f"clip {clip.name} cannot be read any more ({str(error) or type(error).__name__}), which it could be "
                "when the run began; bring it back as it was"
            ) from error

    @staticmethod
    @torch.no_grad()
    def _embed(pipeline, caption):
        """Embedding [L,C] of one caption, as the pipeline makes it for sampling, on the CPU."""
        embeddings = pipeline.encode_prompt([caption], pipeline.text_encoder.device, guided=False)[0]
        return embeddings[0].cpu()
