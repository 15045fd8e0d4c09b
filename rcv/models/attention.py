"""The three attentions of a video transformer block: first frame and memory, text, frames of a token."""

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from rcv.models.recurrence import CELLS
from rcv.models.state import LayerState, causal_window_attention, kept, layer_state, no_memory
from rcv.ops import FrameTable, frame_attention, registry, temporal_attention
from rcv.ops.library import autocast_enabled

# one frame against one first frame; the same with its memory; `published`: former | first, memory
_FIRST_ONE = FrameTable.first(1)
_MEMORY_ONE = FrameTable.first_memory(1, carried=True)
_PUBLISHED_ONE = FrameTable([[0, 1, 2]], (1, 2))


class _AttentionToTokens(torch.autograd.Function):
    """frame_attention whose last pool is projected from tokens [B,P,M,C] and kept as those tokens alone.

    Their keys and values, twice as large, are projected again in the backward, by the frozen weights.
    """

    @staticmethod
    def forward(ctx, q, first_k, first_v, tokens, to_k, to_v, logit_bias, table, scale):
        ctx.call = table.key, scale, registry.requested()
        pools = _AttentionToTokens._pools(q, first_k, first_v, tokens, to_k, to_v)
        o, lse = torch.ops.rcv.frame_attention(q, *pools, table.key, logit_bias, *ctx.call[1:])
        ctx.save_for_backward(q, first_k, first_v, tokens, to_k, to_v, logit_bias, o, lse)
        return o

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, do):
        q, first_k, first_v, tokens, to_k, to_v, logit_bias, o, lse = ctx.saved_tensors
        table, scale, backend = ctx.call
        pools = _AttentionToTokens._pools(q, first_k, first_v, tokens, to_k, to_v)
        biased = logit_bias is not None
        dq, *rest = torch.ops.rcv.frame_attention_backward(
            do, q, *pools, logit_bias, o, lse, table, scale, biased, backend
        )
        dbias = rest.pop() if biased else None
        dv, dk = rest.pop().flatten(-2), rest.pop().flatten(-2)
        dtokens = (dk @ to_k).add_(dv @ to_v)
        return dq, *(rest or (None, None)), dtokens, None, None, dbias, None, None

    @staticmethod
    def _pools(q, first_k, first_v, tokens, *projections):
        pool = [F.linear(tokens, weight).unflatten(-1, q.shape[-2:]) for weight in projections]
        return (*pool, None, None) if first_k is None else (first_k, first_v, *pool)


class VideoAttention(Attention):
    """diffusers' Attention over videos: same weights and names, tokens [B*F,N,C], no processor.

    Attributes
    ----------
    keeps_tokens : bool
        Whether memory tokens are kept for the backward instead of their keys and values, twice as large.
    """

    keeps_tokens = True

    def _by_frame(self, x):
        return x.unflatten(0, (-1, self.frames.value))

    def _by_head(self, x):
        return x.unflatten(-1, (self.heads, -1))

    def _key_value(self, x):
        return self._by_head(self.to_k(x)), self._by_head(self.to_v(x))

    def _attend_tokens(self, q, first, tokens, table, logit_bias=None):
        """Attend to a first frame's keys and values (or None) and to those of tokens [B,P,M,C]."""
        projects_again = self.keeps_tokens and all(
            type(layer) is torch.nn.Linear and layer.bias is None and not layer.weight.requires_grad
            for layer in (self.to_k, self.to_v)
        )
        if projects_again and torch.is_grad_enabled() and not autocast_enabled(q):
            weights = self.to_k.weight, self.to_v.weight
            first = first or (None, None)
            return _AttentionToTokens.apply(q, *first, tokens, *weights, logit_bias, table, self.scale)
        pools = [pool for pool in (first, self._key_value(tokens)) if pool]
        return frame_attention(q, pools, table, logit_bias=logit_bias, scale=self.scale)

    def _out(self, o):
        return self.to_out[1](self.to_out[0](o.flatten(-2).flatten(0, 1)))

    def set_use_memory_efficient_attention_xformers(self, *args, **kwargs):
        """Do nothing: pipelines hand xformers to every Attention, and it is meant for the VAE's."""


class TextAttention(VideoAttention):
    """Cross-attention of all frames to one text: its keys and values are projected once a video, not once a frame."""

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        q = self._by_head(self.to_q(self._by_frame(hidden_states)))
        text = self._key_value(encoder_hidden_states[:, None])
        return self._out(frame_attention(q, [text], FrameTable.first(self.frames.value), scale=self.scale))


class TemporalAttention(VideoAttention):
    """Self-attention of every token over its own frames: all, or with a `window` that many up to the present one."""

    window = None

    def forward(self, hidden_states):
        x = self._by_frame(hidden_states)
        q = self._by_head(self.to_q(x))
        if self.window is None:
            return self._out(temporal_attention(q, *self._key_value(x)))
        carried = layer_state(self.frames, self.block, x)
        seen = x if carried is None else torch.cat((carried.recent, x), 1)
        if self.frames.kept is not None:
            self.frames.kept[self.block].recent = kept(seen[:, max(0, seen.shape[1] - self.window + 1) :])
        if seen is x and x.shape[1] <= self.window:
            return self._out(temporal_attention(q, *self._key_value(x), causal=True))
        return self._out(causal_window_attention(q, *self._key_value(seen), self.window, self.scale))


class FirstAttention(VideoAttention):
    """A block's first attention: to the first frame, and to the former frame or to memory tokens.

    z, the normed input, is [B,F,N,C]. Frame 1 has no memory slot, unless a state is carried in from earlier frames.
    """

    def inflate(self, preset, frames, block):
        """Give a self-attention of the 2D UNet the preset's memory, the frame count it reads and its block's name."""
        self.preset = preset
        self.frames, self.block = frames, block
        self.memory = self.logit_bias = None
        if preset.logit_bias is not None:
            self.logit_bias = torch.nn.Parameter(torch.full((self.heads,), float(preset.logit_bias)))
        if preset.cell == "published":
            self.memory_update_layer = torch.nn.Linear(2 * self.inner_dim, self.inner_dim)
            torch.nn.init.zeros_(self.memory_update_layer.weight)
            torch.nn.init.zeros_(self.memory_update_layer.bias)
        elif preset.cell is not None:
            self.memory = CELLS[preset.cell](self.inner_dim, preset)

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        z = self._by_frame(hidden_states)
        q = self._by_head(self.to_q(z))
        if self.preset.cell == "published":
            return self._out(self._published(q, z))
        carried = layer_state(self.frames, self.block, z)
        feeds_back = self.memory is not None and self.preset.drive == "feedback"
        o, h = (self._feedback if feeds_back else self._all_frames_at_once)(q, z, carried)
        if self.frames.kept is not None:
            self.frames.kept[self.block] = LayerState(
                first=kept(z[:, :1]) if carried is None else carried.first,
                former=kept(z[:, -1:]) if len(self.preset.attends) > 1 else None,
                h=None if self.memory is None else no_memory(z) if h is None else kept(h),
                output=kept(o[:, -1:].flatten(-2)) if feeds_back else None,
            )
        return self._out(o)

    def _all_frames_at_once(self, q, z, carried):
        """The attention's output [B,F,N,H,D], and the state before the last frame (None where there is none)."""
        frames = z.shape[1]
        if "former" in self.preset.attends and carried is None:
            return self._attend_tokens(q, None, z, FrameTable.first_former(frames)), None
        first = self._key_value(z[:, :1] if carried is None else carried.first)
        if len(self.preset.attends) == 1 or (frames == 1 and carried is None):
            return frame_attention(q, [first], FrameTable.first(frames), scale=self.scale), None
        past = z[:, :-1] if carried is None else torch.cat((carried.former, z[:, :-1]), 1)
        table = FrameTable.first_memory(frames, carried is not None)
        if self.memory is None:
            return self._attend_tokens(q, first, past, table), None
        h, last = self.memory(past, None if carried is None else carried.h)
        return self._attend_memory(q, first, h, past, table), last

    def _feedback(self, q, z, carried):
        """The same where the state reads o_i, which needs the state: frame after frame."""
        first = self._key_value(z[:, :1] if carried is None else carried.first)
        q, past = ([t[:, i : i + 1] for i in range(t.shape[1])] for t in (q, z[:, :-1]))
        if carried is None:
            o, state = [frame_attention(q.pop(0), [first], _FIRST_ONE, scale=self.scale)], None
        else:
            o, state, past = [self._by_head(carried.output)], carried.h, [carried.former, *past]
        for q_i, former in zip(q, past, strict=True):
            h, state = self.memory(o[-1].flatten(-2), state)
            o.append(self._attend_memory(q_i, first, h, former, _MEMORY_ONE))
        return torch.cat(o if carried is None else o[1:], 1), state

    def _attend_memory(self, q, first, h, former, table):
        """Attend to the first frame and to the memory tokens of states h; `former` holds z of the same frames."""
        m = self.memory.tokens(h, former if self.preset.base == "former" else None)
        bias = self.logit_bias
        if bias is not None:
            bias = torch.stack((torch.zeros_like(bias), bias), 1).float()
        return self._attend_tokens(q, first, m, table, bias)

    def _published(self, q, z):
        """The paper's repository as it runs: keys of [first; former; memory], its in-place write included.

        From the third frame on, "first" is the first frame's attention output; m_i = relu(W [m_{i-1}; o_i] + b).
        """
        keys, values = (part.split(1, 1) for part in self._key_value(z))
        m, o = torch.zeros_like(z[:, :1]), []
        first = keys[0], values[0]
        for i, q_i in enumerate(q.split(1, 1)):
            if i == 2:
                first = self._key_value(o[0].flatten(-2))
            former = max(i - 1, 0)
            rest = [torch.cat(pair, 1) for pair in zip(first, self._key_value(m), strict=True)]
            o.append(
                frame_attention(q_i, [(keys[former], values[former]), rest], _PUBLISHED_ONE, scale=self.scale)
            )
            m = torch.relu(self.memory_update_layer(torch.cat((m, o[-1].flatten(-2)), -1)))
        return torch.cat(o, 1)
