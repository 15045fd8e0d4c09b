"""The suite's `steps` and `memory` parts: training steps of a VideoUNet in Stable Diffusion 1.4's shape."""

import gc
import importlib.util
from dataclasses import dataclass

import torch

from .results import Row
from .targets import GIB, V100_GIB
from .timing import Clock, Time

SD14 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
TINY = {
    **SD14,
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
LATENTS = (40, 64)  # 320x512 pixels
TEXT_TOKENS = 77
WARM_UP_STEPS, TIMED_STEPS = 2, 5


@dataclass(frozen=True)
class Step:
    """A training step.

    Attributes
    ----------
    preset : str
    frames : int
    checkpointing : bool
        Whether blocks are recomputed.
    way : str
        A backend of the operations, or "published" for the published way with SDPA as its softmax.
    config : str
        "sd14" or "tiny".
    """

    preset: str
    frames: int
    checkpointing: bool = False
    way: str = "auto"
    config: str = "sd14"

    @property
    def label(self):
        """The step as a candidate's name."""
        owner = "published" if self.way == "published" else f"rcv:{self.way}"
        return f"{owner} {self.preset}" + (" checkpointing" if self.checkpointing else "")


def why_not(device, memory=False):
    """Return the reasons why training steps (with `memory`: their peaks) cannot be measured here."""
    reasons = []
    if importlib.util.find_spec("diffusers") is None:
        reasons.append("the package diffusers is not installed")
    if memory and device.type != "cuda":
        reasons.append("only a CUDA device counts and limits its memory")
    return reasons


def steps(shapes, device):
    """Return the Steps that are timed, the most telling first."""
    if device.type != "cuda" or shapes == "quick":
        return [Step(preset, 4, config="tiny") for preset in ("recurrent", "tune-a-video")]
    presets = ("recurrent", "tune-a-video", "paper", "published")
    return [
        Step(preset, frames, True, way)
        for frames in (32, 16)
        for preset, way in (("published", "published"), *((preset, "auto") for preset in presets))
    ]


def memory_steps(shapes):
    """Return the Steps whose peak is measured under a V100's memory, the most telling first."""
    if shapes == "quick":
        return [Step("recurrent", 4, config="tiny")]
    plain = [Step("recurrent", 32), Step("recurrent", 32, True), Step("tune-a-video", 32, True)]
    return [*plain, *(Step("recurrent", frames, True) for frames in (64, 96, 128))]


def measure_step(step, suite):
    """Time a training step and record it."""
    _recorded(step, suite, None)


def measure_memory(step, suite):
    """Run a training step within a V100's memory and record its peak, or that it does not fit."""
    total = torch.cuda.get_device_properties(suite.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, V100_GIB * GIB / total), suite.device)
    try:
        _recorded(step, suite, V100_GIB)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, suite.device)


def _recorded(step, suite, limit_gib):
    dtype = _native_dtype(suite.device)
    tokens = _latents(step)[0] * _latents(step)[1]
    shape = ("training_step", step.frames, tokens, str(dtype).removeprefix("torch."), "step", step.label)
    limit = f"held to {limit_gib} GiB" if limit_gib else ""
    _release(suite.device)
    try:
        time, peak, loss = _run(step, dtype, suite)
    except Exception as error:
        reason = " ".join(f"{limit} {type(error).__name__}: {error}".split())[:400]
        row = Row(*shape, "failed", reason=reason)
    else:
        told = [limit, "" if loss == loss else "the loss of random weights is NaN"]
        row = Row(
            *shape,
            "timed",
            reason="; ".join(filter(None, told)),
            median_s=time.median,
            q1_s=time.first_quartile,
            q3_s=time.third_quartile,
            peak_bytes=peak,
        )
    _release(suite.device)
    suite.results.rows.append(row)


def _run(step, dtype, suite):
    """Time of a step, its peak memory (None on a CPU) and its last loss."""
    from rcv import ops
    from rcv.models import VideoUNet

    from .published import published_way

    device, config = suite.device, SD14 if step.config == "sd14" else TINY
    with torch.device(device):
        torch.manual_seed(0)
        unet = VideoUNet.from_config(config, preset=step.preset).set_precision(dtype).train()
        height, width = _latents(step)
        sample = torch.randn(1, 4, step.frames, height, width)
        text = torch.randn(1, TEXT_TOKENS, config["cross_attention_dim"])
        noise, timestep = torch.randn_like(sample), torch.tensor([500])
    if step.way == "published":
        unet = published_way(unet, "sdpa")
    if step.checkpointing:
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=3e-5)
    loss = None

    def train():
        nonlocal loss
        loss = torch.nn.functional.mse_loss(unet(sample, timestep, text).sample.float(), noise)
        loss.backward()
        # Always, whatever the gradients: a loss scaler that skips the step would hide the optimizer's memory.
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with ops.backend("auto" if step.way == "published" else step.way):
        for _ in range(WARM_UP_STEPS):
            train()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        # A step is far larger than the cache; a buffer to flush it would count as the step's memory.
        clock = Clock(device, flush=False)
        seconds = [clock.seconds(train)[0] for _ in range(TIMED_STEPS)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Time.of(seconds), peak, loss.item()


def _latents(step):
    return LATENTS if step.config == "sd14" else (8, 8)


def _native_dtype(device):
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _release(device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
