"""GroupNorms of the video UNet: statistics per frame or over all frames, with the SiLU behind them."""

import torch
import torch.nn.functional as F
from torch import nn

from rcv.models.state import FrameCount
from rcv.ops.library import autocast_enabled


class GroupNormSiLU(nn.GroupNorm):
    """SiLU of a GroupNorm, x [B*F,C,H,W]; keeps x alone and two statistics per group.

    PyTorch's two layers keep the norm's output too. Made from a GroupNorm by changing its class.
    """

    def forward(self, x):
        if autocast_enabled(x):  # which runs norms in float32
            return F.silu(super().forward(x))
        return _NormSiLU.apply(x, self.weight, self.bias, self.num_groups, 1, self.eps)


class JointGroupNormSiLU(nn.GroupNorm):
    """SiLU of a GroupNorm whose statistics run over all frames of a video: one mean and variance per [B,group].

    Tune-A-Video inflates its ResNet blocks to 5-D tensors, which makes their norms joint. Made from a GroupNorm by
    changing its class and giving it `frames`. x [B*F,C,H,W].
    """

    frames: FrameCount

    def forward(self, x):
        return _NormSiLU.apply(x, self.weight, self.bias, self.num_groups, self.frames.value, self.eps)


def activate(norm, preset, frames):
    """Let a GroupNorm, with the preset's statistics, apply the SiLU that follows it."""
    norm.__class__ = JointGroupNormSiLU if preset.group_norm == "joint" else GroupNormSiLU
    norm.frames = frames


class FeatureMapsPass(nn.Module):
    """The nonlinearity of a ResNet block whose norms bring their own: time embeddings [B,C] alone still need it."""

    def forward(self, x):
        return F.silu(x) if x.ndim == 2 else x


class _NormSiLU(torch.autograd.Function):
    """The norm's output is computed again in the backward, from x and the statistics."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, frames, eps):
        x = x.contiguous(memory_format=_layout(x, frames))
        normed, mean, rstd = _norm(x, weight, bias, groups, frames, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.settings = groups, frames, eps
        return F.silu(normed, inplace=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, bias, mean, rstd = ctx.saved_tensors
        groups, frames, eps = ctx.settings
        normed, _, _ = _norm(x, weight, bias, groups, frames, eps)
        grad = torch.ops.aten.silu_backward(grad.contiguous(memory_format=_layout(x, frames)), normed)
        del normed
        needed = list(ctx.needs_input_grad[:3])
        if frames == 1:
            samples, channels = x.shape[:2]
            gradients = torch.ops.aten.native_group_norm_backward(
                grad, x, mean, rstd, weight, samples, channels, x[0, 0].numel(), groups, needed
            )
        else:
            gradients = _joint_backward(grad, x, weight, mean, rstd, frames, needed[0])
        return *gradients, None, None, None


def _norm(x, weight, bias, groups, frames, eps):
    """GroupNorm of x over `frames` consecutive samples at a time; its output, and mean and rstd [B,groups].

    Frames stay where they are, nothing is transposed.
    """
    if frames == 1:
        samples, channels = x.shape[:2]
        return torch.native_group_norm(x, weight, bias, samples, channels, x[0, 0].numel(), groups, eps)
    by_group = x.view(-1, frames, groups, x[0].numel() // groups)
    variance, mean = torch.var_mean(_at_least_float32(by_group), dim=(1, 3), correction=0)
    rstd = (variance + eps).rsqrt()
    scale = _per_channel(rstd, weight) * weight
    shift = bias - _per_channel(mean, weight) * scale
    videos = x.view(-1, frames, len(weight), x[0, 0].numel())
    normed = torch.addcmul(shift[:, None, :, None], videos, scale[:, None, :, None])
    return normed.to(x.dtype).view(x.shape), mean, rstd


def _joint_backward(grad, x, weight, mean, rstd, frames, needs_dx):
    """Gradients of x, weight and bias: dx = rstd (w g - mean(w g) - normed mean(w g normed)), means over a group."""
    shape = (-1, frames, len(weight), x[0, 0].numel())
    groups = mean.shape[1]
    mean, rstd = (_per_channel(statistic, weight)[:, None, :, None] for statistic in (mean, rstd))
    grad = _at_least_float32(grad.view(shape))
    normed = (x.view(shape) - mean) * rstd
    grad_bias, grad_weight = grad.sum((1, 3)), (grad * normed).sum((1, 3))
    dx = None
    if needs_dx:
        count = frames * shape[-1] * len(weight) // groups
        mean_grad, mean_product = (
            _per_channel((weight * part).view(len(part), groups, -1).sum(2) / count, weight)[:, None, :, None]
            for part in (grad_bias, grad_weight)
        )
        dx = rstd * (weight[:, None] * grad - mean_grad - normed * mean_product)
        dx = dx.to(x.dtype).view(x.shape)
    return dx, grad_weight.sum(0).to(weight.dtype), grad_bias.sum(0).to(weight.dtype)


def _layout(x, frames):
    """The memory format that a norm reads: on a CPU, PyTorch's reads channels last as well."""
    channels_last = frames == 1 and x.is_cpu and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _at_least_float32(x):
    return x if x.dtype == torch.float64 else x.float()


def _per_channel(statistic, weight):
    """[B,G] to [B,C]: each group's value for every channel of it."""
    return statistic.repeat_interleave(len(weight) // statistic.shape[1], dim=1)
