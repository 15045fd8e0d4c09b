"""The UNet's norms and frozen convolutions: PyTorch's numbers and gradients, and what is kept for the backward."""

import pytest
import torch
import torch.nn.functional as F

from rcv.models.layers import FrozenConv2d
from rcv.models.norms import GroupNormSiLU, JointGroupNormSiLU
from rcv.models.state import FrameCount

FRAMES = 4


def a_norm(channels, groups, joint, dtype=torch.float32):
    norm = torch.nn.GroupNorm(groups, channels).to(dtype)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    norm.__class__ = JointGroupNormSiLU if joint else GroupNormSiLU
    if joint:
        norm.frames = FrameCount()
        norm.frames.value = FRAMES
    return norm


def plainly(norm, x, joint):
    """The same by PyTorch's layers: over all frames, of the video [B,C,F,H,W]."""
    video = x.unflatten(0, (-1, FRAMES)).transpose(1, 2) if joint else x
    y = F.silu(F.group_norm(video, norm.num_groups, norm.weight, norm.bias, norm.eps))
    return y.transpose(1, 2).flatten(0, 1) if joint else y


def run(function, norm, x, grad):
    norm.zero_grad()
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    y.backward(grad)
    return y.detach(), leaf.grad, norm.weight.grad.clone(), norm.bias.grad.clone()


@pytest.mark.parametrize("joint", [False, True], ids=["per frame", "joint"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)], ids=str
)
def test_norm_and_silu_are_those_of_pytorch(joint, dtype, tolerance):
    torch.manual_seed(0)
    norm = a_norm(12, 3, joint, dtype)
    x = (3 + 2 * torch.randn(2 * FRAMES, 12, 5, 3)).to(dtype)
    grad = torch.randn(x.shape).to(dtype)
    wanted = run(lambda t: plainly(norm, t, joint), norm, x, grad)
    for given, expected in zip(run(norm, norm, x, grad), wanted, strict=True):
        assert (given - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("joint", [False, True], ids=["per frame", "joint"])
def test_a_norm_takes_channels_last(joint):
    torch.manual_seed(0)
    norm = a_norm(8, 2, joint)
    x, grad = torch.randn(FRAMES, 8, 6, 5), torch.randn(FRAMES, 8, 6, 5)
    wanted = run(norm, norm, x, grad)
    for turned in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        for given, expected in zip(run(norm, norm, turned, grad), wanted, strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("joint", [False, True], ids=["per frame", "joint"])
def test_a_norm_keeps_its_input_alone(joint):
    norm = a_norm(8, 2, joint).requires_grad_(False)
    x = torch.randn(FRAMES, 8, 16, 16, requires_grad=True)
    assert kept_elements(norm, x) < 100


def kept_elements(module, x):
    """Elements that autograd keeps besides x and the parameters."""
    kept, known = [], {t.data_ptr() for t in (x, *module.parameters())}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        module(x)
    return sum(t.numel() for t in kept if t.data_ptr() not in known)


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"stride": 2, "padding": 1}, {"groups": 2, "bias": False}], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_frozen_convolution_is_a_convolution(options, dtype):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 6, 3, **options).to(dtype).requires_grad_(False)
    x = torch.randn(2, 4, 9, 7, dtype=dtype, requires_grad=True)
    wanted = conv(x)
    grad = torch.randn_like(wanted)
    (wanted_dx,) = torch.autograd.grad(wanted, x, grad)
    conv.__class__ = FrozenConv2d
    y = conv(x)
    assert torch.equal(y, wanted)
    assert torch.equal(torch.autograd.grad(y, x, grad)[0], wanted_dx)


def test_a_frozen_convolution_keeps_nothing_and_a_trained_one_learns():
    conv = torch.nn.Conv2d(4, 6, 3)
    conv.__class__ = FrozenConv2d
    x = torch.randn(1, 4, 8, 8)
    conv(x).sum().backward()
    assert conv.weight.grad.abs().max() > 0
    conv.requires_grad_(False)
    # x without a base: kept by nobody else
    assert kept_elements(conv, x.clone().requires_grad_()) == 0


def test_a_frozen_convolution_has_no_second_derivative():
    conv = torch.nn.Conv2d(2, 2, 1).requires_grad_(False)
    conv.__class__ = FrozenConv2d
    x = torch.randn(1, 2, 3, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(conv(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
