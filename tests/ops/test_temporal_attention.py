"""temporal_attention against the reference."""

import functools

import pytest
import torch

from rcv.ops import reference, temporal_attention
from rcv.ops.torch_backend import temporal
from tests.ops.cases import DTYPES, assert_close_to_reference, normal, results


def _inputs(videos=2, frames=3, tokens=5, heads=2, width=8, dtype=torch.float64):
    return [normal(videos, frames, tokens, heads, width, seed=seed, dtype=dtype) for seed in (1, 2, 3)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 16])
def test_float64_equals_reference(frames, causal, monkeypatch):
    monkeypatch.setitem(temporal.CHUNK_ELEMENTS, "cpu", 2000)
    inputs = _inputs(frames=frames, tokens=17)
    ours = results(functools.partial(temporal_attention, causal=causal), *inputs)
    theirs = results(functools.partial(reference.temporal_attention, causal=causal), *inputs)
    for got, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(causal):
    inputs = _inputs(1, 3, 2, 2, 3)
    assert torch.autograd.gradcheck(functools.partial(temporal_attention, causal=causal), inputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_bounds(dtype, causal):
    inputs = _inputs(frames=7, tokens=17, width=40, dtype=dtype)
    assert_close_to_reference(
        functools.partial(temporal_attention, causal=causal),
        functools.partial(reference.temporal_attention, causal=causal),
        *inputs,
    )


def test_more_than_65536_sequences():
    inputs = _inputs(videos=1, frames=2, tokens=20000, heads=2, width=2, dtype=torch.float32)
    assert_close_to_reference(temporal_attention, reference.temporal_attention, *inputs)


def test_strided_views_and_scale():
    fused = normal(2, 3, 5, 3, 2, 8)
    turned = normal(2, 3, 2, 5, 8, seed=1)
    inputs = fused[:, :, :, 0], fused[:, :, :, 2], turned.transpose(2, 3)
    ours = results(functools.partial(temporal_attention, scale=0.7), *inputs)
    theirs = results(functools.partial(reference.temporal_attention, scale=0.7), *inputs)
    for got, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert temporal_attention(*inputs).is_contiguous()


def test_a_causal_frame_does_not_see_the_future():
    q, k, v = _inputs()
    o = temporal_attention(q, k, v, causal=True)
    changed = [torch.cat([t[:, :2], t[:, 2:] + 1], dim=1) for t in (k, v)]
    torch.testing.assert_close(temporal_attention(q, *changed, causal=True)[:, :2], o[:, :2], rtol=0, atol=0)


def test_keeps_inputs_alone():
    inputs = _inputs(frames=16, dtype=torch.float16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        temporal_attention(*inputs)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in inputs}


def test_bitwise_reproducible():
    inputs = _inputs(frames=16, tokens=33, dtype=torch.bfloat16)
    first, second = (results(temporal_attention, *inputs) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q": torch.randn(2, 3, 5, 16)}, r"q has shape \[2, 3, 5, 16\], expected \[B, F, N, H, D\]"),
        (
            {"k": torch.randn(2, 4, 5, 2, 8)},
            r"k has shape \[2, 4, 5, 2, 8\], expected \[B=2, F=3, N=5, H=2, D=8\]",
        ),
        ({"v": torch.randn(2, 3, 5, 2, 8).half()}, "v is torch.float16 and q is torch.float32"),
    ],
)
def test_errors_name_argument_shape_and_expectation(change, said):
    good = {name: torch.randn(2, 3, 5, 2, 8) for name in "qkv"}
    with pytest.raises(ValueError, match=said):
        temporal_attention(**{**good, **change})
