"""The feed-forward layer that is computed again: diffusers' numbers and gradients, and what it keeps."""

import pytest
import torch
from diffusers.models.attention import FeedForward

from rcv.models import feed_forward
from rcv.models.feed_forward import DeferredLayerNorm, NormedFeedForward
from tests.models.test_layers import kept_elements

WIDTH = 12


def a_layer(dtype=torch.float32, **options):
    torch.manual_seed(0)
    norm, layer = torch.nn.LayerNorm(WIDTH), FeedForward(WIDTH, activation_fn="geglu", **options)
    for parameter in (*norm.parameters(), *layer.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    layer = torch.nn.ModuleDict({"norm": norm, "ff": layer}).to(dtype).requires_grad_(False)
    return layer["norm"], layer["ff"]


def both(dtype=torch.float32, shape=(2, 7, WIDTH), **options):
    """Output and input gradient of diffusers' layers, then of ours over the same weights."""
    norm, layer = a_layer(dtype, **options)
    x = torch.randn(shape).to(dtype).requires_grad_()
    found = []
    for ours in (False, True):
        if ours:
            layer.__class__ = NormedFeedForward
            layer.follow(norm)
        y = layer(norm(x))
        dy = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        found.append((y.detach(), *torch.autograd.grad(y, x, dy)))
    return found


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 4e-2)], ids=str
)
@pytest.mark.parametrize("chunk", [1, 3 * 8 * WIDTH, 1 << 20], ids=["one token", "three", "all"])
def test_it_is_the_layer_of_diffusers(monkeypatch, dtype, tolerance, chunk):
    monkeypatch.setattr(feed_forward, "CHUNK_ELEMENTS_CPU", chunk)
    for given, wanted in zip(*reversed(both(dtype)), strict=True):
        assert (given - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_without_gradients_and_without_biases():
    given, wanted = both(bias=False)[::-1]
    torch.testing.assert_close(given, wanted)
    with torch.no_grad():
        norm, layer = a_layer()
        x = torch.randn(3, WIDTH)
        expected = layer(norm(x))
        layer.__class__ = NormedFeedForward
        layer.follow(norm)
        assert torch.equal(layer(norm(x)), expected)


def test_it_keeps_its_input_alone():
    norm, layer = a_layer()
    layer.__class__ = NormedFeedForward
    layer.follow(norm)
    x = torch.randn(50, WIDTH, requires_grad=True)
    assert kept_elements(torch.nn.Sequential(norm, layer), x) == 0


@pytest.mark.parametrize("trained", ["weight of the norm", "weight of the layer"])
def test_a_trained_layer_learns(trained):
    norm, layer = a_layer()
    layer.__class__ = NormedFeedForward
    layer.follow(norm)
    parameter = norm.weight if "norm" in trained else layer.net[2].weight
    parameter.requires_grad_()
    layer(norm(torch.randn(5, WIDTH))).square().sum().backward()
    assert parameter.grad.abs().max() > 0


def test_dropout_is_not_lost():
    norm, layer = a_layer(dropout=0.5)
    layer.__class__ = NormedFeedForward
    layer.follow(norm)
    x = torch.randn(20, WIDTH, requires_grad=True)
    assert not torch.equal(layer.train()(norm(x)), layer(norm(x)))
    assert torch.equal(layer.eval()(norm(x)), layer(norm(x)))


def test_a_deferred_norm_still_is_one():
    norm, _ = a_layer()
    x = torch.randn(3, WIDTH)
    expected = norm(x)
    norm.__class__ = DeferredLayerNorm
    assert torch.equal(norm(x), x)
    assert torch.equal(norm(x, apply=True), expected)
