"""Tensors kept in main memory: what leaves, in which order it returns, and that gradients do not notice."""

import pytest
import torch

from rcv.models.offload import LEAST_BYTES, OffloadedTensors, _Packed
from tests.models.small import randomise, small_inputs, small_unet

LARGE = LEAST_BYTES // 4


@pytest.fixture
def packed(monkeypatch):
    """Every tensor that is packed, and the order in which they begin to return."""
    made, begun = [], []
    init, start = _Packed.__init__, _Packed.start_to_return

    def note(self, tensor, *args):
        init(self, tensor, *args)
        made.append(self)

    def begin(self):
        if self._coming is None:
            begun.append(made.index(self))
        start(self)

    monkeypatch.setattr(_Packed, "__init__", note)
    monkeypatch.setattr(_Packed, "start_to_return", begin)
    return made, begun


def test_they_return_one_ahead_of_the_backward(packed):
    made, begun = packed
    x = torch.randn(LARGE, requires_grad=True)
    with OffloadedTensors(devices=("cpu",)):
        y = x
        for _ in range(4):
            y = y.sin()
    y.sum().backward()
    assert len(made) == 3  # x is a leaf
    assert begun == [2, 1, 0]
    assert all(one._coming is None for one in made)
    expected = x.detach().clone().requires_grad_()
    expected.sin().sin().sin().sin().sum().backward()
    assert torch.equal(x.grad, expected.grad)


def test_small_tensors_leaves_and_other_devices_stay(packed):
    made, _ = packed
    x = torch.randn(LARGE - 1, requires_grad=True)
    with OffloadedTensors(devices=("cpu",)):
        x.sin().sin().sum().backward()
    with OffloadedTensors():
        torch.randn(LARGE, requires_grad=True).sin().sin().sum().backward()
    assert made == []


def test_strides_and_dtypes_return(packed):
    x = torch.randn(2048, 1024, dtype=torch.float16, requires_grad=True)
    with OffloadedTensors(devices=("cpu",)):
        y = x.t().exp()
        z = y[:, ::2].sin()
    saved = y.detach()[:, ::2]
    (one, *_) = [p for p in packed[0] if p._shape == saved.shape]
    assert one._host.stride() == saved.stride()
    assert torch.equal(one._host, saved)
    z.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_a_forward_that_fails_leaves_no_hooks_behind(packed):
    class Failing(torch.nn.Module):
        def forward(self, x):
            raise ValueError("no")

    module = Failing()
    offloaded = OffloadedTensors(devices=("cpu",)).attach(module)
    with pytest.raises(ValueError, match="no"):
        module(torch.zeros(1))
    torch.randn(LARGE, requires_grad=True).sin().sin().sum().backward()
    assert packed[0] == []
    offloaded.detach()
    assert not module._forward_hooks and not module._forward_pre_hooks


def test_meta_tensors_keep_their_shape_alone(packed):
    with OffloadedTensors(), torch.device("meta"):
        x = torch.randn(LARGE, requires_grad=True)
        x.sin().sin().sum().backward()
    (one,) = packed[0]
    assert one._host is None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("preset", ["recurrent", "published", "streaming"])
def test_gradients_of_a_unet(preset, packed, monkeypatch):
    """Moved for real, all of them, on a CPU."""
    monkeypatch.setattr("rcv.models.offload.LEAST_BYTES", 1)

    def gradients(mode):
        unet = randomise(small_unet(preset))
        unet.set_gradient_checkpointing(mode)
        if mode == "offload":
            unet.offloaded.detach()
            OffloadedTensors(devices=("cpu",)).attach(unet)
        unet(*small_inputs(frames=3)).sample.square().mean().backward()
        return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}

    plain, offloaded = gradients("none"), gradients("offload")
    assert len(packed[0]) > 10
    assert plain.keys() == offloaded.keys()
    for name, value in plain.items():
        atol = 1e-6 * value.abs().max().item() + 1e-12
        torch.testing.assert_close(offloaded[name], value, rtol=0, atol=atol)
