"""One optimizer step after the other: weights, their gradients, and the draws that feed them."""

import math
import time
from contextlib import contextmanager, nullcontext

import torch

from rcv.config import DTYPES
from rcv.diffusion import debiased_loss, diffusion_loss, noisy_latents, training_target
from rcv.diffusion.windows import Windows
from rcv.training.adapter import library_versions
from rcv.training.averaging import WeightAverage, replaced
from rcv.training.checkpoint import save_checkpoint
from rcv.training.draws import draw_generator, draw_seed
from rcv.training.inputs import Inputs
from rcv.training.log import Evaluation, Record, Validation
from rcv.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state
from rcv.training.setup import base_fingerprint, base_path
from rcv.training.validation import EarlyStop


class DivergedError(ValueError):
    """The loss or the gradients became NaN or infinite; says what to go back to and what to try."""


class Trainer:
    """A model, its optimizer and its inputs; each `train` is one optimizer step.

    Frozen weights are in the precision's dtype, trained ones are float32 masters; there is no autocast. float16 runs
    under a dynamic loss scale, on the CPU too (right, but slow there). Every draw, the global generator's included, is
    a function of (seed, step, sample), so that a checkpoint needs no generator's state.

    Evaluation, validation and the running mean are the main process's alone.

    Parameters
    ----------
    settings : FinetuneConfig
        Resolved.
    accelerator : accelerate.Accelerator
    pipeline : VideoPipeline
    clips : ClipFolder
        To train on.
    validation_clips : ClipFolder, optional
        Not to train on.
    """

    def __init__(self, settings, accelerator, pipeline, clips, validation_clips=None):
        self.settings, self.accelerator, self.scheduler = settings, accelerator, pipeline.scheduler
        self.dtype = getattr(torch, DTYPES[settings.precision])
        self.samples_per_step = (
            settings.batch_size * settings.gradient_accumulation * accelerator.num_processes
        )
        self.identity = {
            "settings": settings.model_dump(mode="json"),
            "base": base_fingerprint(base_path(settings)),
            "clips": clips.digests(),
            "validation_clips": {} if validation_clips is None else validation_clips.digests(),
            "samples_per_step": self.samples_per_step,
        }
        for model in (pipeline.vae, pipeline.text_encoder):
            # Module's own: diffusers' `to` warns of modules to be kept in float32, of which these have none
            torch.nn.Module.to(model.requires_grad_(False), accelerator.device, self.dtype)

        def inputs_of(folder):
            return Inputs(
                *(pipeline, folder, settings, self.samples_per_step, accelerator.device),
                model=self.identity["base"],
            )

        self.inputs = inputs_of(clips)
        self.validation_inputs = None if validation_clips is None else inputs_of(validation_clips)
        pipeline.text_encoder.to("cpu")
        self.unet = pipeline.unet.train()
        self.unet.set_precision(self.dtype)
        self.unet.set_gradient_checkpointing(settings.gradient_checkpointing)
        self.model = accelerator.prepare(self.unet)
        self.trained = {name: weight for name, weight in self.unet.named_parameters() if weight.requires_grad}
        self.optimizer = make_optimizer(settings, self.trained.values())
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.dtype == torch.float16)
        averages = settings.ema_decay and accelerator.is_main_process
        self.average = WeightAverage(self.trained, settings.ema_decay) if averages else None
        self.early_stop = EarlyStop(settings.patience)
        self.step = 0

    def train(self):
        """Do one optimizer step and return its Record."""
        started = time.perf_counter()
        rate = self.settings.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(draw_seed(self.settings.seed, "global", self.step, self.accelerator.process_index))
        batches, windows = self._indices(), self._windows()
        loss = torch.zeros((), device=self.accelerator.device)
        for number, indices in enumerate(batches):
            last = number == len(batches) - 1
            if last and self.step + 1 < self.settings.steps:
                self.inputs.prefetch(self.step + 1, [index for batch in batches for index in batch])
            batch = self.inputs.batch(self.step, indices)
            state = self._context(batch, windows[0])
            for window in windows:
                synchronise = last and window is windows[-1]
                anchors = self._anchors(indices, window) if self.settings.debiased_loss else None
                with nullcontext() if synchronise else self.accelerator.no_sync(self.model):
                    part, state = self._window_loss(
                        self.model, batch, window, state, window is not windows[-1], anchors
                    )
                    part = part * (len(window) / sum(map(len, windows))) / len(batches)
                    self.scaler.scale(part).backward()
                loss += part.detach()
        loss = self.accelerator.reduce(loss, "mean").item()
        norm = self._update(loss)
        if self.average is not None:
            self.average.update()
        self.step += 1
        return Record(self.step, loss, rate, norm, round(time.perf_counter() - started, 4))

    @torch.no_grad()
    def evaluate(self):
        """Return the Evaluation of the averaged weights on the fixed draws; not for several processes at once."""
        return Evaluation(self.step, self._mean_loss(self.inputs))

    @torch.no_grad()
    def validate(self):
        """Return the Validation of the averaged weights, which the early stop takes note of."""
        found = Validation(self.step, self._mean_loss(self.validation_inputs))
        measured = self.unet.adapter_state_dict() if self.average is None else self.average.state_dict()
        self.early_stop.take(self.step, found.validation_loss, measured)
        return found

    def averaged(self):
        """Return a context in which the UNet has the running mean of its weights, if one is kept."""
        return replaced(self.unet, None if self.average is None else self.average.state_dict())

    @contextmanager
    def result(self):
        """Put the weights that the run is made for into the UNet inside the block; gives the step that they are of.

        With patience the best ones, else the averaged ones.
        """
        best = self.early_stop.best_step
        with self.averaged() if best is None else replaced(self.unet, self.early_stop.weights):
            yield self.step if best is None else best

    def save(self, folder):
        """Write a checkpoint of the present step; returns its path (main process) or None."""
        if not self.accelerator.is_main_process:
            return None
        moments, plain = optimizer_state(self.optimizer, list(self.trained))
        tensors = {"weights": self.unet.adapter_state_dict(), "optimizer": moments}
        if self.average is not None:
            tensors["average"] = self.average.state_dict()
        if self.early_stop.weights is not None:
            tensors["best"] = self.early_stop.weights
        return save_checkpoint(
            folder,
            self.step,
            tensors,
            {
                **self.identity,
                "optimizer": plain,
                "scaler": self.scaler.state_dict(),
                "early_stop": self.early_stop.state_dict(),
                "versions": library_versions(),
            },
            keep=self.settings.keep_checkpoints,
        )

    def restore(self, checkpoint):
        """Take weights, their average, optimizer, loss scale, early stop and step from a Checkpoint.

        Of a run without an average it begins with the weights; what was best by other validation clips is forgotten.
        """
        tensors, state = checkpoint.tensors, checkpoint.state
        self.unet.load_adapter_state_dict(tensors["weights"])
        load_optimizer_state(self.optimizer, list(self.trained), tensors["optimizer"], state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(tensors.get("average", tensors["weights"]), checkpoint.step)
        if self.early_stop.patience and state.get("validation_clips") == self.identity["validation_clips"]:
            self.early_stop.load_state_dict(state["early_stop"], tensors.get("best"))
        self.step = checkpoint.step

    def close(self):
        """Let the worker threads of the inputs go."""
        for inputs in (self.inputs, self.validation_inputs):
            if inputs is not None:
                inputs.close()

    def _indices(self):
        """Sample indices of this process's batches: any split of one global batch holds the same samples."""
        size, processes = self.settings.batch_size, self.accelerator.num_processes
        firsts = [
            (number * processes + self.accelerator.process_index) * size
            for number in range(self.settings.gradient_accumulation)
        ]
        return [range(first, first + size) for first in firsts]

    def _windows(self):
        """The frames of each window of this step, in order: all of the sample, or one at a place drawn for the step.

        The place is a function of (seed, step): any split of the samples into batches and processes trains the same.
        """
        frames = self.inputs.frames(self.step)
        window = min(frames, self.settings.window or frames)
        if not self.settings.random_window:
            return Windows(window).spans(frames)
        generator = draw_generator(self.settings.seed, "window", self.step)
        start = int(torch.randint(frames - window + 1, (), generator=generator))
        return [range(start, start + window)]

    def _anchors(self, indices, window):
        """The debiased loss's anchor frame in a window, for each sample: a function of (seed, step, sample, window)."""
        draws = [draw_seed(self.settings.seed, "anchor", self.step, index, window.start) for index in indices]
        return torch.tensor([draw % len(window) for draw in draws])

    @torch.no_grad()
    def _context(self, batch, window):
        """The state that the first window begins with: None at the start of the sample.

        Elsewhere the first frame is the anchor and the frame before the window the former one; the memory is empty.
        """
        if window.start == 0:
            return None
        frames = range(0, window.start, max(1, window.start - 1))  # the first one and the former one
        return self._predict(self.unet, batch, list(frames), None, return_state=True).state.reset()

    def _mean_loss(self, inputs):
        """The averaged weights' mean loss on the fixed draws of some inputs."""
        with self.averaged():
            losses = [self._clip_loss(batch) for batch in inputs.fixed_batches(self.settings.eval_draws)]
        return sum(losses) / len(losses)

    def _clip_loss(self, batch):
        """The loss of all frames as a number, window by window."""
        frames, total, state = batch.latents.shape[2], 0.0, None
        for window in Windows(self.settings.window or frames).spans(frames):
            part, state = self._window_loss(self.unet, batch, window, state, window.stop < frames)
            total += part.item() * (len(window) / frames)
        return total

    def _window_loss(self, model, batch, window, state, return_state, anchors=None):
        """The mean loss of a window, the debiased one added if there are anchors, and the state after it (or None)."""
        frames = slice(window.start, window.stop)
        output = self._predict(model, batch, frames, state, return_state)
        target = training_target(
            self.scheduler, batch.latents[:, :, frames], batch.noise[:, :, frames], batch.timesteps
        )
        loss = diffusion_loss(output.sample, target)
        if anchors is not None:
            loss = loss + self.settings.debiased_loss * debiased_loss(output.sample, target, anchors)
        return loss, output.state

    def _predict(self, model, batch, frames, state, return_state):
        latents, noise = batch.latents[:, :, frames], batch.noise[:, :, frames]
        noisy = noisy_latents(self.scheduler, latents, noise, batch.timesteps).to(self.dtype)
        text = batch.text.to(self.dtype)
        return model(noisy, batch.timesteps, text, state=state, return_state=return_state)

    def _update(self, loss):
        """Clip the gradients, step the optimizer and return the gradients' norm; DivergedError leaves the weights."""
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of step {self.step + 1} is {loss}")
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm).item()
        if self.scaler.is_enabled():
            if self.scaler.get_scale() < 1:
                raise DivergedError(
                    f"the gradients of step {self.step + 1} overflow float16 at any loss scale"
                )
        elif not math.isfinite(norm):
            raise DivergedError(f"the gradients of step {self.step + 1} have norm {norm}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm
