"""One optimizer step after the other: weights, their gradients, and the draws that feed them."""

import math
import time
from contextlib import nullcontext

import torch

from rcv.config import DTYPES
from rcv.diffusion import diffusion_loss, noisy_latents, training_target
from rcv.diffusion.windows import Windows
from rcv.training.adapter import library_versions
from rcv.training.checkpoint import save_checkpoint
from rcv.training.draws import draw_generator, draw_seed
from rcv.training.inputs import Inputs
from rcv.training.log import Evaluation, Record
from rcv.training.setup import base_fingerprint, base_path


class DivergedError(ValueError):
    """The loss or the gradients became NaN or infinite; says what to go back to and what to try."""


class Trainer:
    """A model, its optimizer and its inputs; each `train` is one optimizer step.

    Frozen weights are in the precision's dtype, trained ones are float32 masters; there is no autocast. float16 runs
    under a dynamic loss scale, on the CPU too (right, but slow there). Every draw, the global generator's included, is
    a function of (seed, step, sample), so that a checkpoint needs no generator's state.
    """

    def __init__(self, settings, accelerator, pipeline, clips):
        self.settings, self.accelerator, self.scheduler = settings, accelerator, pipeline.scheduler
        self.dtype = getattr(torch, DTYPES[settings.precision])
        self.samples_per_step = (
            settings.batch_size * settings.gradient_accumulation * accelerator.num_processes
        )
        self.identity = {
            "settings": settings.model_dump(mode="json"),
            "base": base_fingerprint(base_path(settings)),
            "clips": clips.digests(),
            "samples_per_step": self.samples_per_step,
        }
        for model in (pipeline.vae, pipeline.text_encoder):
            # Module's own: diffusers' `to` warns of modules to be kept in float32, of which these have none
            torch.nn.Module.to(model.requires_grad_(False), accelerator.device, self.dtype)
        self.inputs = Inputs(pipeline, clips, settings, self.samples_per_step, accelerator.device)
        pipeline.text_encoder.to("cpu")
        self.unet = pipeline.unet.train()
        self.unet.set_precision(self.dtype)
        self.unet.set_gradient_checkpointing(settings.gradient_checkpointing)
        self.model = accelerator.prepare(self.unet)
        self.trained = {name: weight for name, weight in self.unet.named_parameters() if weight.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.dtype == torch.float16)
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
                with nullcontext() if synchronise else self.accelerator.no_sync(self.model):
                    part, state = self._window_loss(
                        self.model, batch, window, state, window is not windows[-1]
                    )
                    part = part * (len(window) / sum(map(len, windows))) / len(batches)
                    self.scaler.scale(part).backward()
                loss += part.detach()
        loss = self.accelerator.reduce(loss, "mean").item()
        norm = self._update(loss)
        self.step += 1
        return Record(self.step, loss, rate, norm, round(time.perf_counter() - started, 4))

    @torch.no_grad()
    def evaluate(self):
        """Return the Evaluation of the present weights on the fixed draws; not for several processes at once."""
        losses = [self._clip_loss(batch) for batch in self.inputs.fixed_batches(self.settings.eval_draws)]
        return Evaluation(self.step, sum(losses) / len(losses))

    def save(self, folder):
        """Write a checkpoint of the present step; returns its path (main process) or None."""
        if not self.accelerator.is_main_process:
            return None
        tensors, plain = _split_state(self.optimizer, list(self.trained))
        return save_checkpoint(
            folder,
            self.step,
            {"weights": self.unet.adapter_state_dict(), "optimizer": tensors},
            {
                **self.identity,
                "optimizer": plain,
                "scaler": self.scaler.state_dict(),
                "versions": library_versions(),
            },
            keep=self.settings.keep_checkpoints,
        )

    def restore(self, checkpoint):
        """Take weights, optimizer, loss scale and step from a Checkpoint."""
        self.unet.load_adapter_state_dict(checkpoint.tensors["weights"])
        state = {}
        for number, name in enumerate(self.trained):
            tensors = {
                key.rpartition("/")[2]: tensor
                for key, tensor in checkpoint.tensors["optimizer"].items()
                if key.rpartition("/")[0] == name
            }
            state[number] = {**tensors, **checkpoint.state["optimizer"].get(name, {})}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.scaler.is_enabled() and checkpoint.state["scaler"]:
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step = checkpoint.step

    def close(self):
        """Let the worker threads of the inputs go."""
        self.inputs.close()

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
        frames, window = self.settings.frames, self.settings.window or self.settings.frames
        if not self.settings.random_window:
            return Windows(window).spans(frames)
        generator = draw_generator(self.settings.seed, "window", self.step)
        start = int(torch.randint(frames - window + 1, (), generator=generator))
        return [range(start, start + window)]

    @torch.no_grad()
    def _context(self, batch, window):
        """The state that the first window begins with: None at the start of the sample.

        Elsewhere the first frame is the anchor and the frame before the window the former one; the memory is empty.
        """
        if window.start == 0:
            return None
        frames = range(0, window.start, max(1, window.start - 1))  # the first one and the former one
        return self._predict(self.unet, batch, list(frames), None, return_state=True).state.reset()

    def _clip_loss(self, batch):
        """The loss of all frames as a number, window by window."""
        frames, total, state = self.settings.frames, 0.0, None
        for window in Windows(self.settings.window or frames).spans(frames):
            part, state = self._window_loss(self.unet, batch, window, state, window.stop < frames)
            total += part.item() * (len(window) / frames)
        return total

    def _window_loss(self, model, batch, window, state, return_state):
        """The mean loss of a window, and the state after it (None if it is not asked for)."""
        frames = slice(window.start, window.stop)
        output = self._predict(model, batch, frames, state, return_state)
        target = training_target(
            self.scheduler, batch.latents[:, :, frames], batch.noise[:, :, frames], batch.timesteps
        )
        return diffusion_loss(output.sample, target), output.state

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


def _split_state(optimizer, names):
    """The optimizer's state as {"weight/key": tensor} and {weight: {key: plain value}}."""
    tensors, plain = {}, {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if torch.is_tensor(value):
                tensors[f"{names[number]}/{key}"] = value
            else:
                plain.setdefault(names[number], {})[key] = value
    return tensors, plain
