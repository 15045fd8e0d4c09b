"""The programs that are compared end to end: presets, and the published way of running two of them."""

import contextlib
import math
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from rcv.models import VideoUNet, attention, recurrence
from rcv.ops import reference

from .published import published_way

LEARNING_RATE = 0.0  # the whole of AdamW's arithmetic, and weights that stay the same for every program
GUIDANCE_SCALE = 12.5

# (preset, way of running it)
PROGRAMS = (
    ("tune-a-video", "baddbmm"),
    ("tune-a-video", "sdpa"),
    ("tune-a-video", "preset"),
    ("published", "baddbmm"),
    ("published", "sdpa"),
    ("published", "preset"),
    ("recurrent", "preset"),
    ("paper", "preset"),
    ("first-frame", "preset"),
)
PUBLISHED_NAMES = {"tune-a-video": "Tune-A-Video's program", "published": "the paper's program"}


@dataclass(frozen=True)
class Setting:
    """Size of the UNet and of its input.

    Parameters
    ----------
    channels : tuple of int
        Width of each UNet level, all but the last with attention.
    layers : int
        ResNet blocks a level on the way down.
    heads, text_width, text_length : int
    frames, height, width : int
        Latents [1,4,frames,height,width].
    checkpointing : bool
        Gradient checkpointing.
    device : str
    """

    channels: tuple = (64, 128, 256, 256)
    layers: int = 2
    heads: int = 4
    text_width: int = 128
    text_length: int = 77
    frames: int = 16
    height: int = 32
    width: int = 32
    checkpointing: bool = False
    device: str = "cpu"

    def unet(self, preset, seed=0):
        """Return a float32 VideoUNet, its trained weights away from their start, so that no branch is dead."""
        deeper = len(self.channels) - 1
        config = {
            "sample_size": self.height,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "down_block_types": ("CrossAttnDownBlock2D",) * deeper + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * deeper,
            "norm_num_groups": math.gcd(32, *self.channels),
            "attention_head_dim": self.heads,
            "cross_attention_dim": self.text_width,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = VideoUNet.from_config(config, preset=preset)
            with torch.no_grad():
                for parameter in unet.parameters():
                    if parameter.requires_grad:
                        parameter += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
        if self.checkpointing:
            unet.enable_gradient_checkpointing()
        return unet.to(self.device).train()

    def inputs(self, batch=1, seed=1):
        """Return noisy latents [batch,4,F,H,W], a timestep [batch] and text [batch,L,C], float32."""
        generator = torch.Generator().manual_seed(seed)
        sample = torch.randn(batch, 4, self.frames, self.height, self.width, generator=generator)
        text = torch.randn(batch, self.text_length, self.text_width, generator=generator)
        timestep = torch.full((batch,), 500)
        return tuple(tensor.to(self.device) for tensor in (sample, timestep, text))


class Program:
    """A UNet run in one way, with an optimizer over its trained weights.

    Parameters
    ----------
    preset : str
    way : str
        "preset", or the `softmax` of `published_way`.
    unet : VideoUNet
        Of this preset; `published_way` shares its weights.
    setting : Setting
    """

    def __init__(self, preset, way, unet, setting):
        self.preset, self.way = preset, way
        self.unet = unet if way == "preset" else published_way(unet, way)
        self.trained = {name: p for name, p in self.unet.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=LEARNING_RATE)
        self.train_inputs, self.denoise_inputs = setting.inputs(), setting.inputs(batch=2)
        self.target = setting.inputs(seed=2)[0]
        self.scheduler = DDIMScheduler(clip_sample=False)
        self.scheduler.set_timesteps(50)

    @property
    def label(self):
        """How tables call it."""
        if self.way == "preset":
            return f"preset `{self.preset}`"
        name = PUBLISHED_NAMES[self.preset]
        return name if self.way == "baddbmm" else f"{name}, with SDPA"

    def backward(self):
        """Leave gradients in the trained weights; return the UNet's output, detached."""
        output = self.unet(*self.train_inputs).sample
        F.mse_loss(output.float(), self.target).backward()
        return output.detach()

    def update(self):
        """An optimizer step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def train_step(self):
        """Forward, loss, backward and optimizer step."""
        self.backward()
        self.update()

    @torch.no_grad()
    def denoise_step(self):
        """One DDIM step under classifier-free guidance: the UNet on two copies of the latents."""
        sample, _, text = self.denoise_inputs
        latents, timestep = sample[:1], self.scheduler.timesteps[0]
        both = self.unet(torch.cat((latents, latents)), timestep, text).sample
        unconditional, conditional = both.chunk(2)
        guided = unconditional + GUIDANCE_SCALE * (conditional - unconditional)
        return self.scheduler.step(guided, timestep, latents).prev_sample

    def make_optimizer_state(self):
        """Let AdamW allocate its moments, which later steps find in memory."""
        for parameter in self.trained.values():
            parameter.grad = torch.zeros_like(parameter)
        self.update()

    def tensors(self):
        """What is in memory between two steps: weights, buffers, optimizer state, inputs."""
        state = (value for moments in self.optimizer.state.values() for value in moments.values())
        held = (*self.unet.parameters(), *self.unet.buffers(), *state, *self.train_inputs, self.target)
        return [value for value in held if isinstance(value, torch.Tensor)]


def chosen_programs(names):
    """Return the entries of PROGRAMS whose preset, or "preset:way", is in `names`, in PROGRAMS' order.

    Raises
    ------
    ValueError
        For a name that is neither.
    """
    known = {preset for preset, _ in PROGRAMS} | {f"{preset}:{way}" for preset, way in PROGRAMS}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"unknown program {unknown[0]!r}, expected one of {', '.join(sorted(known))}")
    return tuple(p for p in PROGRAMS if p[0] in names or ":".join(p) in names)


@contextlib.contextmanager
def reference_operations():
    """Let every preset run on `rcv.ops.reference` within the block, differentiated by autograd."""

    def attend_tokens(self, q, first, tokens, table, logit_bias=None):
        pools = [pool for pool in (first, self._key_value(tokens)) if pool]
        return reference.frame_attention(q, pools, table, logit_bias=logit_bias, scale=self.scale)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(attention.FirstAttention, "_attend_tokens", attend_tokens))
        for module, name in (
            (attention, "frame_attention"),
            (attention, "temporal_attention"),
            (recurrence, "recurrent_scan"),
            (recurrence, "mingru_scan"),
            (recurrence, "rglru_scan"),
        ):
            stack.enter_context(mock.patch.object(module, name, getattr(reference, name)))
        yield
