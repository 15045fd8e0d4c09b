"""Parts of the video UNet that belong to no one subject: cast and frozen layers."""

import torch
import torch.nn.functional as F
from torch import nn

from rcv.ops.library import autocast_enabled


class CastLinear(nn.Linear):
    """A trained linear layer: its master weights stay as they are, often float32, and are cast to the input's dtype."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class FrozenConv2d(nn.Conv2d):
    """A convolution that keeps nothing but its weight for the backward while it is frozen.

    PyTorch's keeps its input for the weight's gradient whether or not that is asked for, unlike its linear layer.
    """

    def forward(self, x):
        trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        plain = self.padding_mode != "zeros" or isinstance(self.padding, str)
        if trained or plain or not torch.is_grad_enabled() or autocast_enabled(x):
            return super().forward(x)
        return _FrozenConv2d.apply(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class _FrozenConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *geometry):
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = x.shape, geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        # the input's values are not read where the weight's gradient is not asked for: any tensor of its shape will do
        x = grad.new_empty(1).expand(ctx.shape)
        dx, _, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        )
        return dx, *(None,) * 6
