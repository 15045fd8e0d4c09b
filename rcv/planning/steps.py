"""Traces of a training step and of generation on tensors without values."""

import contextlib
import warnings
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rcv.config import DTYPES, checked_name
from rcv.diffusion import decode_video, diffusion_loss, encode_video
from rcv.diffusion.windows import Windows, predict
from rcv.kernels.launch import recording
from rcv.models import Preset, VideoUNet, get_preset
from rcv.models.recompute import MODES
from rcv.ops import registry
from rcv.ops.cuda_backend import driver
from rcv.planning.fused_attention import fused_attention
from rcv.planning.models import ModelShape
from rcv.planning.trace import Trace

TEXT_TOKENS = 77
MOST_FRAMES = 4096  # at once
REPEATING = 2  # windows or chunks after which nothing new comes
CUBLAS_WORKSPACE = 4096 * 1024 * 2 + 16 * 1024 * 8
"""PyTorch's default, ":4096:2:16:8"; on compute capability 9.0 it is 32 MiB."""


@dataclass(frozen=True)
class Setting:
    """What is planned.

    Attributes
    ----------
    model : ModelShape
    preset : Preset or str
    frames, height, width : int
        Of a sample, in pixels.
    window : int or None
        Frames that the UNet sees at once; None for all. Generation blends windows for presets that carry no state.
    batch : int
        Samples (videos) at once.
    precision : str
        "fp32", "fp16" or "bf16".
    checkpointing : str
        Mode of gradient checkpointing, for training.
    averaged : bool
        Whether a running mean of the trained weights is kept, for training.
    decode_chunk : int
        Frames that the VAE decodes at once, for generation.
    capability : tuple of two int, or None
        Compute capability of the CUDA device; None for a CPU.

    Raises
    ------
    ValueError
        For an unknown preset, precision or mode, suggesting the nearest.
    """

    model: ModelShape
    preset: Preset | str = "recurrent"
    frames: int = 16
    height: int = 512
    width: int = 512
    window: int | None = None
    batch: int = 1
    precision: str = "fp16"
    checkpointing: str = "none"
    averaged: bool = False
    decode_chunk: int = 8
    capability: tuple | None = (7, 0)

    def __post_init__(self):
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}, expected 1 frame or more")
        if min(self.window or self.frames, self.frames) > MOST_FRAMES:
            raise ValueError(
                f"frames at once: {self.frames}, at most {MOST_FRAMES} are planned; set a window"
            )
        object.__setattr__(self, "preset", get_preset(self.preset))
        for name, known in (("precision", DTYPES), ("checkpointing", MODES)):
            checked_name(name, getattr(self, name), known)

    @property
    def dtype(self):
        """The precision's dtype."""
        return getattr(torch, DTYPES[self.precision])

    @property
    def latent_shape(self):
        """[B,C,F,h,w]."""
        factor = self.model.vae_factor
        channels = self.model.unet.get("in_channels", 4)
        return self.batch, channels, self.frames, self.height // factor, self.width // factor


class TrainingStep:
    """One optimizer step of `rcv finetune`, from the second on, when AdamW's moments exist.

    Latents and text embeddings wait on the host, the text encoder as well. Made of what a setting says on the default
    device; `run` also runs on real tensors.

    Parameters
    ----------
    setting : Setting
    unet : callable, optional
        Makes another UNet, for comparisons, of the VideoUNet that `rcv finetune` would train.
    """

    def __init__(self, setting, unet=None):
        self.setting = setting
        model = _unet(setting).train()
        model.set_gradient_checkpointing(setting.checkpointing)
        self.model = model if unet is None else unet(model)
        self.vae = setting.model.make_vae(setting.dtype)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        foreach = setting.capability is not None  # as PyTorch chooses by device
        self.optimizer = torch.optim.AdamW(self.trained, foreach=foreach)
        for p in self.trained:
            p.grad = torch.zeros_like(p)
        self._update()
        self.moments = [
            t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)
        ]
        self.means = [p.detach().clone() for p in self.trained] if setting.averaged else []
        self.noisy, self.noise = torch.randn(setting.latent_shape), torch.randn(setting.latent_shape)
        self.windows = Windows(setting.window or setting.frames).spans(setting.frames)[:REPEATING]
        self.text = torch.randn(setting.batch, TEXT_TOKENS, model.config.cross_attention_dim).to(
            setting.dtype
        )
        self.timesteps = torch.zeros(setting.batch, dtype=torch.long)

    def run(self, begin=lambda stage: None):
        """Run it, calling ``begin`` with each stage: encode (a frame by the VAE), forward, backward, optimizer.

        Of many windows the first and the second run: the others are as the second.
        """
        begin("encode")
        setting, state = self.setting, None
        encode_video(self.vae, torch.randn(1, 1, 3, setting.height, setting.width), sample=False)
        for window in self.windows:
            begin("forward")
            frames = slice(window.start, window.stop)
            more = {"state": state, "return_state": window.stop < setting.frames}
            noisy = self.noisy[:, :, frames].to(setting.dtype)
            output = self.model(noisy, self.timesteps, self.text, **(more if setting.window else {}))
            loss, state = (
                diffusion_loss(output.sample, self.noise[:, :, frames]),
                getattr(output, "state", None),
            )
            del output, noisy
            begin("backward")
            loss.backward()
            del loss
        begin("optimizer")
        self._update()

    def _update(self):
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def trace_training(setting, unet=None):
    """Return the Trace of a TrainingStep; its parameters."""
    with _without_values(setting):
        step = TrainingStep(setting, unet)
        trace = Trace(workspaces=setting.capability is not None)
        _hold_models(trace, setting, step.model, step.vae)
        trace.hold([*step.moments, *step.means], "optimizer")
        trace.hold([step.noisy, step.noise, step.text, step.timesteps], "inputs")
        with trace.of(step.model):
            step.run(trace.begin)
    return trace


def trace_generation(setting):
    """Return the Trace of one denoising step with guidance, and of decoding, chunk by chunk.

    Stages: denoise, decode. Of many windows or chunks a few run: the others are as those.
    """
    with _without_values(setting), torch.no_grad():
        model = _unet(setting).eval()
        vae = setting.model.make_vae(setting.dtype)
        windows = None
        run = setting.frames
        if setting.window and setting.window < setting.frames:
            windows = Windows.for_preset(model.preset, setting.window)
            run = min(run, (REPEATING + 1) * setting.window)
        batch, channels, frames, *size = setting.latent_shape
        latents = torch.randn(batch, channels, run, *size)
        text = torch.randn(2 * batch, TEXT_TOKENS, model.config.cross_attention_dim, dtype=setting.dtype)
        trace = Trace(workspaces=setting.capability is not None)
        _hold_models(trace, setting, model, vae)
        trace.hold_bytes(
            setting.model.parameters("text_encoder") * setting.dtype.itemsize, "text encoder and VAE"
        )
        trace.hold([latents, text], "inputs")
        not_run = latents.numel() // run * (frames - run) * 4
        trace.hold_bytes(not_run, "inputs")
        trace.hold_bytes(2 * not_run, "temporaries")  # predictions
        with trace.of(model):
            trace.begin("denoise")
            prediction = predict(model, latents, torch.zeros((), dtype=torch.long), text, windows)
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + 7.5 * (conditional - unconditional)
            latents = latents + prediction  # a scheduler's step, at its least
            del prediction, unconditional, conditional
            trace.begin("decode")
            for chunk in latents.split(setting.decode_chunk, dim=2)[:REPEATING]:
                decode_video(vae, chunk, setting.decode_chunk).float()
    return trace


def _unet(setting):
    return VideoUNet.from_config(dict(setting.model.unet), preset=setting.preset).set_precision(setting.dtype)


def _hold_models(trace, setting, unet, vae):
    trained = [p for p in unet.parameters() if p.requires_grad]
    masters = {id(p) for p in trained}
    trace.hold([p for p in unet.parameters() if id(p) not in masters], "frozen weights")
    trace.hold(trained, "trained weights")
    trace.hold(vae.parameters(), "text encoder and VAE")
    if setting.capability is not None:
        workspace = 32 << 20 if setting.capability[0] == 9 else CUBLAS_WORKSPACE
        trace.hold_bytes(workspace, "workspaces")


@contextlib.contextmanager
def _without_values(setting):
    """Tensors made inside have no values; they are a CPU's, or stand for those of a CUDA device.

    Meta tensors stand for CUDA: fake ones of that device abort PyTorch's builds without it.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if setting.capability is None:
            stack.enter_context(FakeTensorMode())
        else:
            stack.enter_context(torch.device("meta"))
            stack.enter_context(registry.standing_for(setting.capability))
            stack.enter_context(recording(setting.capability, keep=False))
            stack.enter_context(driver.planning(setting.capability))
            stack.enter_context(fused_attention())
        yield
