"""How the published programs compute what the presets `tune-a-video` and `published` compute, as a baseline.

Tune-A-Video and the paper's repository run on diffusers 0.11, whose attention materialises its softmax. What costs
time or memory in them is restated here over the modules and weights of one of our UNets, and no more than that:

* attention: heads are moved into the batch dimension by a copy, logits come from `baddbmm` over an empty tensor with
  beta 0, then a softmax and a `bmm`;
* sparse-causal attention (Tune-A-Video): keys and values of all frames are projected once, gathered and concatenated
  as [first ; former], a copy for every frame;
* recurrent attention (the paper's repository): frame after frame, tokens [first ; former ; memory] are concatenated
  and projected, so that the first frame's keys and values are computed again for every frame;
* text attention: text embeddings are repeated over frames before their projection;
* temporal attention: hidden states are rearranged to (B*N, F, C) and back;
* GroupNorms of ResNet blocks and the last one see the 5-D tensor [B,C,F,H,W], which costs a copy on either side, as
  the published inflated convolutions' rearrangements do.

Convolutions, feed-forward layers, layer norms and residual additions are the same in both and stay as they are.
"""

import copy

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn

from rcv.models.attention import FirstAttention, TemporalAttention, TextAttention
from rcv.models.blocks import VideoTransformerBlock
from rcv.models.feed_forward import DeferredLayerNorm, NormedFeedForward
from rcv.models.layers import FrozenConv2d
from rcv.models.norms import GroupNormSiLU, JointGroupNormSiLU

SOFTMAX = ("baddbmm", "sdpa")


def published_way(unet, softmax="baddbmm"):
    """Return `unet` as the published programs run it: same weights (shared), same call, same state dict.

    Parameters
    ----------
    unet : VideoUNet
        Of preset `tune-a-video` or `published`, or one that differs from these in its norms alone.
    softmax : str
        "baddbmm": as published. "sdpa": `scaled_dot_product_attention` instead, heads by stride and not by copy, as
        diffusers' attention has been since; everything else as published.

    Returns
    -------
    VideoUNet
        Gradients of its trained weights arrive in the parameters of `unet`.

    Raises
    ------
    ValueError
        For another preset or softmax.
    """
    if softmax not in SOFTMAX:
        raise ValueError(f"softmax is {softmax!r}, expected one of {', '.join(map(repr, SOFTMAX))}")
    preset = unet.preset
    if preset.attends == ("first", "former"):
        first_attention = SparseCausalAttention
    elif preset.cell == "published":
        first_attention = RecurrentAttention
    else:
        raise ValueError(
            f"preset {preset.name!r} has no published program, expected 'tune-a-video' or 'published'"
        )
    shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
    twin = copy.deepcopy(unet, shared)
    classes = {
        FirstAttention: first_attention,
        TextAttention: RepeatedTextAttention,
        TemporalAttention: PlainAttention,
        VideoTransformerBlock: RearrangingBlock,
        JointGroupNormSiLU: GroupNorm5DThenSiLU,
        GroupNormSiLU: GroupNormThenSiLU,
        FrozenConv2d: nn.Conv2d,
        DeferredLayerNorm: nn.LayerNorm,
        NormedFeedForward: FeedForward,
    }
    for module in twin.modules():
        module.__class__ = classes.get(type(module), type(module))
        if isinstance(module, PlainAttention):
            module.softmax = softmax
        if isinstance(module, RearrangingBlock):
            module.frames = twin.frames
    if unet.is_gradient_checkpointing:
        twin.enable_gradient_checkpointing()  # the copied one would pin the frame count of `unet`
    return twin


class PlainAttention(Attention):
    """Self-attention of tokens [B,N,C] with `attend` as its core: diffusers' CrossAttention, restated."""

    softmax: str

    def forward(self, hidden_states):
        q, k, v = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
        return self.project_out(self.attend(q, k, v))

    def attend(self, q, k, v):
        """Attention of q [B,N,C] to k and v [B,M,C] over H heads; [B,N,C]."""
        if self.softmax == "sdpa":
            q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2).flatten(2)
        q, k, v = (self._heads_to_batch(t) for t in (q, k, v))
        logits = torch.baddbmm(
            torch.empty(q.shape[0], q.shape[1], k.shape[1], dtype=q.dtype, device=q.device),
            q,
            k.transpose(-1, -2),
            beta=0,
            alpha=self.scale,
        )
        return self._batch_to_heads(torch.bmm(logits.softmax(-1), v))

    def project_out(self, o):
        """The output projection of o, and its dropout."""
        return self.to_out[1](self.to_out[0](o))

    def _heads_to_batch(self, x):
        return x.unflatten(-1, (self.heads, -1)).permute(0, 2, 1, 3).flatten(0, 1)

    def _batch_to_heads(self, x):
        return x.unflatten(0, (-1, self.heads)).permute(0, 2, 1, 3).flatten(2)


class RepeatedTextAttention(PlainAttention):
    """Cross-attention to a video's text, repeated for each of its frames."""

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        text = encoder_hidden_states.repeat_interleave(self.frames.value, 0)
        return self.project_out(self.attend(self.to_q(hidden_states), self.to_k(text), self.to_v(text)))


class SparseCausalAttention(PlainAttention):
    """Tune-A-Video's first attention: every frame has a copy of the keys and values of [first ; former]."""

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        q = self.to_q(hidden_states)
        k = self._first_and_former(self.to_k(hidden_states))
        v = self._first_and_former(self.to_v(hidden_states))
        return self.project_out(self.attend(q, k, v))

    def _first_and_former(self, x):
        frames = self.frames.value
        former = torch.arange(frames) - 1
        former[0] = 0
        x = x.unflatten(0, (-1, frames))
        return torch.cat((x[:, [0] * frames], x[:, former]), 2).flatten(0, 1)


class RecurrentAttention(PlainAttention):
    """The first attention of the paper's repository, frame after frame.

    The repository writes each frame's output into the tensor that holds its input, which `first_frame` is a view of:
    from the third frame on it reads the first frame's output. A float32 backward through that write fails. Here
    outputs go to a list and the third frame on read the first of them: the same numbers, and a gradient.
    """

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        q = self.to_q(hidden_states).unflatten(0, (-1, self.frames.value))
        z = hidden_states.unflatten(0, (-1, self.frames.value))
        memory = torch.zeros_like(z[:, 0])
        outputs = []
        for i in range(z.shape[1]):
            first = z[:, 0] if i < 2 else outputs[0]
            tokens = torch.cat((first, z[:, max(i - 1, 0)], memory), 1)
            outputs.append(self.attend(q[:, i], self.to_k(tokens), self.to_v(tokens)))
            memory = F.relu(self.memory_update_layer(torch.cat((memory, outputs[-1]), -1)))
        return self.project_out(torch.stack(outputs, 1).flatten(0, 1))


class RearrangingBlock(VideoTransformerBlock):
    """A transformer block whose temporal attention moves the whole residual stream to (B*N, F, C) and back."""

    def forward(self, *args, **kwargs):
        hidden_states = BasicTransformerBlock.forward(self, *args, **kwargs)
        frames, tokens = self.frames.value, hidden_states.shape[1]
        by_token = hidden_states.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
        by_token = self.attn_temp(self.norm_temp(by_token)) + by_token
        return by_token.unflatten(0, (-1, tokens)).transpose(1, 2).flatten(0, 1)


class GroupNormThenSiLU(nn.GroupNorm):
    """A norm and the activation behind it, each keeping what PyTorch's layers keep."""

    def forward(self, x):
        return F.silu(super().forward(x))


class GroupNorm5DThenSiLU(nn.GroupNorm):
    """The same with a norm of the video [B,C,F,H,W] that the frames [B*F,C,H,W] make up: joint over frames."""

    def forward(self, x):
        video = x.unflatten(0, (-1, self.frames.value)).transpose(1, 2)
        return F.silu(super().forward(video)).transpose(1, 2).flatten(0, 1)
