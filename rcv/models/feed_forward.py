"""A block's feed-forward layer and the norm before it, computed again in the backward: only their input is kept."""

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from torch import nn

from rcv.ops.library import autocast_enabled

# Elements of a chunk's gated projection, the widest tensor of a block: 64 MiB in half precision, and what a core's
# cache holds on a CPU.
CHUNK_ELEMENTS = 1 << 25
CHUNK_ELEMENTS_CPU = 1 << 20


class DeferredLayerNorm(nn.LayerNorm):
    """A LayerNorm that the layer behind it applies: unless told to, it lets its input pass.

    Made from a LayerNorm by changing its class, for `NormedFeedForward`.
    """

    def forward(self, x, apply=False):
        return super().forward(x) if apply else x


class NormedFeedForward(FeedForward):
    """diffusers' feed-forward layer over `norm`, x [..., C]; frozen, it keeps x alone.

    Its own tensors are eight and four times as wide as x. Computed again in chunks of tokens, they exist a chunk at a
    time. A layer that is trained, adapted (LoRA), under autocast, or of another kind runs as in diffusers.
    """

    def follow(self, norm):
        """Apply this LayerNorm, of the same block, before the layer."""
        norm.__class__ = DeferredLayerNorm
        self.__dict__["norm"] = norm  # the block's module and state-dict entry, not a second one

    def forward(self, x):
        if self._is_recomputed(x):
            project, out = self.net[0].proj, self.net[2]
            parameters = (
                self.norm.weight,
                self.norm.bias,
                project.weight,
                project.bias,
                out.weight,
                out.bias,
            )
            return _NormedGEGLU.apply(x, self.norm.eps, *parameters)
        return super().forward(self.norm(x, apply=True))

    def _is_recomputed(self, x):
        kinds = [type(module) for module in self.net[:3]]
        return (
            torch.is_grad_enabled()
            and not autocast_enabled(x)
            and kinds == [GEGLU, nn.Dropout, nn.Linear]
            and type(self.net[0].proj) is nn.Linear
            and all(module.p == 0 or not module.training for module in self.net if type(module) is nn.Dropout)
            and not any(p.requires_grad for p in (*self.parameters(), *self.norm.parameters()))
            and self.norm.elementwise_affine
        )


class _NormedGEGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, eps, norm_weight, norm_bias, weight, bias, out_weight, out_bias):
        ctx.save_for_backward(x, norm_weight, norm_bias, weight, bias, out_weight)
        ctx.eps = eps
        tokens = x.flatten(0, -2)
        y = torch.empty_like(tokens, memory_format=torch.contiguous_format)
        for rows in _chunks(tokens, weight):
            normed = F.layer_norm(tokens[rows], norm_weight.shape, norm_weight, norm_bias, eps)
            value, gate = F.linear(normed, weight, bias).chunk(2, -1)
            activated = F.gelu(gate).mul_(value)
            if out_bias is None:
                torch.mm(activated, out_weight.mT, out=y[rows])
            else:
                torch.addmm(out_bias, activated, out_weight.mT, out=y[rows])
        return y.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, norm_weight, norm_bias, weight, bias, out_weight = ctx.saved_tensors
        tokens, dy = x.flatten(0, -2), dy.flatten(0, -2)
        dx = torch.empty_like(tokens, memory_format=torch.contiguous_format)
        affine = norm_weight.shape, norm_weight, norm_bias
        for rows in _chunks(tokens, weight):
            chunk = tokens[rows]
            normed, mean, rstd = torch.native_layer_norm(chunk, *affine, ctx.eps)
            projected = F.linear(normed, weight, bias)
            value, gate = projected.chunk(2, -1)
            product = dy[rows] @ out_weight
            dactivated = product * value
            if torch.compiler.is_compiling():  # which takes no view as `out`
                dgate = torch.ops.aten.gelu_backward(dactivated, gate)
                projected = torch.cat((F.gelu(gate) * product, dgate), -1)
            else:  # into the memory of what they are the gradients of: both halves side by side for one product
                torch.mul(F.gelu(gate), product, out=value)
                torch.ops.aten.gelu_backward.grad_input(dactivated, gate, grad_input=gate)
            dnormed = torch.mm(projected, weight, out=normed)
            dx[rows], _, _ = torch.ops.aten.native_layer_norm_backward(
                dnormed, chunk, norm_weight.shape, mean, rstd, norm_weight, norm_bias, (True, False, False)
            )
        return dx.view(x.shape), *(None,) * 7


def _chunks(tokens, weight):
    elements = CHUNK_ELEMENTS_CPU if tokens.device.type == "cpu" else CHUNK_ELEMENTS
    size = max(1, elements // len(weight))
    return [slice(start, start + size) for start in range(0, len(tokens), size)]
