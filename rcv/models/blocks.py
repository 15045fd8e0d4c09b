"""Inflation: a 2D Stable Diffusion UNet's modules become a video UNet's, in place, with their weights."""

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from rcv.models.attention import FirstAttention, TemporalAttention, TextAttention
from rcv.models.feed_forward import NormedFeedForward
from rcv.models.layers import CastLinear, FrozenConv2d
from rcv.models.norms import FeatureMapsPass, activate
from rcv.models.sources import refuse_other_kinds


class VideoTransformerBlock(BasicTransformerBlock):
    """A transformer block that ends in a self-attention of every token over its own frames."""

    recomputing = None

    def inflate(self, preset, frames, name):
        """Extend a 2D block in place; the temporal attention starts as the identity (a zero `to_out`)."""
        self.attn1.__class__ = FirstAttention
        self.attn1.inflate(preset, frames, name)
        self.attn2.__class__ = TextAttention
        self.attn2.frames = frames
        self.ff.__class__ = NormedFeedForward
        self.ff.follow(self.norm3)
        self.attn_temp = None
        if preset.temporal_attention:
            self.norm_temp = nn.LayerNorm(self.dim)
            self.attn_temp = TemporalAttention(
                query_dim=self.dim,
                heads=self.num_attention_heads,
                dim_head=self.attention_head_dim,
                dropout=self.dropout,
                bias=self.attention_bias,
                upcast_attention=self.attn1.upcast_attention,
            )
            self.attn_temp.frames, self.attn_temp.block = frames, name
            self.attn_temp.window = preset.temporal_window
            nn.init.zeros_(self.attn_temp.to_out[0].weight)
            nn.init.zeros_(self.attn_temp.to_out[0].bias)

    def forward(
        self, hidden_states, attention_mask=None, encoder_hidden_states=None, *unused, **unused_by_name
    ):
        """Return hidden states [B*F,N,C] of hidden states and text [B,L,C]. Checkpointing calls by position."""
        x = self._part(self._attend, hidden_states, encoder_hidden_states)
        x = self.ff(self.norm3(x)) + x
        if self.attn_temp is not None:
            x = self._part(self._attend_frames, x)
        self.attn1.frames.carried.let_go(self.attn1.block)
        return x

    def _part(self, function, *args):
        if self.recomputing is None or not torch.is_grad_enabled():
            return function(*args)
        return self.recomputing(self.attn1.frames.pinning(function), *args)

    def _attend(self, x, text):
        x = self.attn1(self.norm1(x)) + x  # contiguous as the attention's output is, whatever x's strides
        return self.attn2(self.norm2(x), text) + x

    def _attend_frames(self, x):
        return x + self.attn_temp(self.norm_temp(x))


def inflate(unet, preset, frames):
    """Turn the modules of a UNet2DConditionModel into those of `preset`, sharing the FrameCount `frames`.

    Returns the names of its transformer blocks.

    Raises
    ------
    ValueError
        For a UNet that is not Stable Diffusion 1.x or 2.x in kind (SDXL, upscalers, GLIGEN, DeepFloyd).
    """
    refuse_other_kinds(unet)
    blocks = []
    for name, module in list(unet.named_modules()):
        if isinstance(module, BasicTransformerBlock):
            module.__class__ = VideoTransformerBlock
            module.inflate(preset, frames, name)
            blocks.append(name)
        elif isinstance(module, ResnetBlock2D):
            activate(module.norm1, preset, frames)
            activate(module.norm2, preset, frames)
            module.nonlinearity = FeatureMapsPass()
    if unet.conv_norm_out is not None:
        activate(unet.conv_norm_out, preset, frames)
        unet.conv_act = nn.Identity()
    for name, module in unet.named_modules():
        if type(module) is nn.Linear and preset.trains(f"{name}.weight"):
            module.__class__ = CastLinear
        elif type(module) is nn.Conv2d:
            module.__class__ = FrozenConv2d
    return tuple(blocks)
