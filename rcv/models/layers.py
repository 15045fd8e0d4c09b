"""Parts of the video UNet that belong to no one subject: the frame count of a call, cast layers, joint GroupNorm."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn


class FrameCount:
    """The number of frames of the call in progress, shared by all modules of one UNet.

    Frames are folded into the batch, so that a tensor no longer tells how many there are. The count belongs to a call,
    not to the model: recomputation during the backward must see the count of its own forward (`pinned`).
    """

    def __init__(self):
        self.value = 1

    @contextmanager
    def pinned(self, frames):
        """Let every module see `frames` inside the `with` block."""
        before, self.value = self.value, frames
        try:
            yield
        finally:
            self.value = before


class CastLinear(nn.Linear):
    """A trained linear layer: its master weights stay as they are, often float32, and are cast to the input's dtype."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class JointGroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics run over all frames of a video: x [B*F,C,H,W], one mean and variance per [B,group].

    Tune-A-Video inflates its ResNet blocks to 5-D tensors, which makes their norms joint. Made from a GroupNorm by
    changing its class and giving it `frames`.
    """

    frames: FrameCount

    def forward(self, x):
        if self.frames.value == 1:
            return super().forward(x)
        return _JointGroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.frames.value, self.eps)


class _JointGroupNorm(torch.autograd.Function):
    """Keeps x alone and two float32 statistics per group; frames stay where they are, nothing is transposed."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, frames, eps):
        by_group = x.reshape(-1, frames, groups, x[0].numel() // groups)
        variance, mean = torch.var_mean(_at_least_float32(by_group), dim=(1, 3), correction=0)
        rstd = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.frames, ctx.groups = frames, groups
        scale = _per_channel(rstd, weight) * weight
        shift = bias - _per_channel(mean, weight) * scale
        videos = x.reshape(-1, frames, len(weight), x[0, 0].numel())
        return (
            torch.addcmul(shift[:, None, :, None], videos, scale[:, None, :, None]).to(x.dtype).view(x.shape)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, mean, rstd = ctx.saved_tensors
        shape = (-1, ctx.frames, len(weight), x[0, 0].numel())
        mean, rstd = (_per_channel(statistic, weight)[:, None, :, None] for statistic in (mean, rstd))
        grad = _at_least_float32(grad.reshape(shape))
        normed = (x.reshape(shape) - mean) * rstd
        grad_bias, grad_weight = grad.sum((1, 3)), (grad * normed).sum((1, 3))
        dx = None
        if ctx.needs_input_grad[0]:
            # dx = rstd (w g - mean(w g) - normed mean(w g normed)), the means over a group's channels and all frames
            group = (len(x) // ctx.frames, ctx.groups, -1)
            mean_grad, mean_product = (
                _per_channel((weight * part).view(group).mean(2) / (ctx.frames * shape[-1]), weight)[
                    :, None, :, None
                ]
                for part in (grad_bias, grad_weight)
            )
            dx = rstd * (weight[:, None] * grad - mean_grad - normed * mean_product)
            dx = dx.to(x.dtype).view(x.shape)
        return dx, grad_weight.sum(0).to(weight.dtype), grad_bias.sum(0).to(weight.dtype), None, None, None


def _at_least_float32(x):
    return x if x.dtype == torch.float64 else x.float()


def _per_channel(statistic, weight):
    """[B,G] to [B,C]: each group's value for every channel of it."""
    return statistic.repeat_interleave(len(weight) // statistic.shape[1], dim=1)
