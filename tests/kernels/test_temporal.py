"""temporal_attention in Triton, against the reference."""

import functools

import pytest
import torch

from rcv.kernels import temporal as kernels
from rcv.kernels.launch import recording
from rcv.kernels.sequences import Tiling
from rcv.ops import backend, reference, temporal_attention
from rcv.ops.torch_backend import temporal as torch_backend
from tests.ops.cases import assert_close_to_reference, normal, results

pytestmark = pytest.mark.usefixtures("triton_backend", "poisoned")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
causal_or_not = pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])


@pytest.fixture(autouse=True)
def tiles_of_16_rows(monkeypatch):
    """Small inputs then have several tiles, and sequences of more than 16 frames several blocks."""
    tile = {"ROWS": 16, "num_warps": 1, "num_stages": 2}
    monkeypatch.setattr("rcv.kernels.tiles._tile", lambda kernel, capability, shape: tile)


def _inputs(frames=3, width=8, dtype=torch.float32, videos=2, tokens=3, heads=3):
    shape = (videos, frames, tokens, heads, width)
    return [normal(*shape, seed=s, dtype=dtype).detach().to(DEVICE).requires_grad_() for s in (1, 2, 3)]


def _assert_close(inputs, **options):
    ours, truth = (
        functools.partial(function, **options)
        for function in (temporal_attention, reference.temporal_attention)
    )
    assert_close_to_reference(ours, truth, *inputs)


@causal_or_not
@pytest.mark.parametrize("frames", [1, 2, 3, 8, 12, 16, 17, 40])
def test_frames(frames, causal):
    short = frames <= 16
    _assert_close(_inputs(frames, tokens=3 if short else 1, heads=3 if short else 1), causal=causal)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 8, 20, 32, 40, 64, 80, 96, 160])
def test_head_dims(width, dtype):
    _assert_close(_inputs(5, width, dtype, videos=1, tokens=2, heads=2), causal=True)


@causal_or_not
@pytest.mark.parametrize("frames", [7, 20])
def test_relative_error_in_float16(frames, causal):
    inputs = _inputs(frames, 40, torch.float16, videos=1)
    ours = results(functools.partial(temporal_attention, causal=causal), *inputs)
    exact = results(
        functools.partial(reference.temporal_attention, causal=causal),
        *(t.detach().double().requires_grad_() for t in inputs),
    )
    for got, wanted in zip((*ours[0], *ours[1]), (*exact[0], *exact[1]), strict=True):
        assert (got - wanted).square().mean().sqrt() <= 0.005 * wanted.square().mean().sqrt()


@pytest.mark.parametrize("frames", [3, 18])
@pytest.mark.parametrize("layout", ["fused projection", "heads first", "frames apart", "channels apart"])
def test_strided_inputs(layout, frames):
    def strided(seed):
        make = functools.partial(normal, seed=seed, dtype=torch.float32)
        if layout == "fused projection":
            t = make(1, frames, 2, 3, 2, 8)[:, :, :, seed % 3]
        elif layout == "heads first":
            t = make(1, frames, 2, 2, 8).transpose(2, 3)
        elif layout == "frames apart":
            t = make(1, 2 * frames, 2, 2, 8)[:, ::2]
        else:
            t = make(1, frames, 2, 8, 2).transpose(3, 4)[..., ::2]
        return t.detach().to(DEVICE).requires_grad_()

    inputs = [strided(seed) for seed in (1, 2, 3)]
    _assert_close(inputs, scale=-0.7)
    # sum() expands its gradient from one number: stride 0
    gradients = [
        torch.autograd.grad(f(*inputs).square().sum() + f(*inputs).sum(), inputs)
        for f in (temporal_attention, reference.temporal_attention)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_offsets_of_64_bits(monkeypatch):
    inputs = _inputs(18, 20, videos=1)
    monkeypatch.setattr("rcv.kernels.sequences._extent", lambda t: 1 << 31)
    assert Tiling.of(16, *inputs).constants["WIDE"]
    _assert_close(inputs)


def test_large_logits_do_not_overflow():
    inputs = [(200 * t).detach().requires_grad_() for t in _inputs(4, 32, torch.float16)]
    o = temporal_attention(*inputs)
    exact = reference.temporal_attention(*(t.detach().double() for t in inputs))
    torch.testing.assert_close(o.double(), exact, rtol=2e-3, atol=1e-2)


def test_a_causal_frame_does_not_see_the_future():
    for frames in (5, 20):
        q, k, v = (t.detach() for t in _inputs(frames))
        changed = [torch.cat([t[:, : frames - 2], t[:, frames - 2 :] + 1], 1) for t in (k, v)]
        before, after = (temporal_attention(q, *pair, causal=True) for pair in ((k, v), changed))
        assert torch.equal(before[:, : frames - 2], after[:, : frames - 2])
        assert not torch.equal(before, after)


@pytest.mark.parametrize("frames", [6, 20])
def test_bitwise_reproducible(frames):
    inputs = _inputs(frames, 20, torch.float16, videos=1, tokens=2, heads=1)
    first, second = (results(temporal_attention, *inputs) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("frames", "backward"), [(16, ["bwd"]), (17, ["bwd_dq", "bwd_dkv"])], ids=["a tile", "several"]
)
def test_kernels_that_run(frames, backward):
    q, k, v = (t.detach() for t in _inputs(frames))
    with recording((8, 0)) as recorder:
        kernels.backward(kernels.forward(q, k, v, False, 1.0), q, k, v, False, 1.0)
    names = [launch.kernel.__name__ for launch in recorder.launches]
    assert names == [f"temporal_attention_{name}_kernel" for name in ("fwd", *backward)]
    with recording((8, 0)) as recorder, backend("torch"):
        temporal_attention(q, k, v)
    assert not recorder.launches


def test_results_are_as_the_torch_backend_lays_them_out():
    q, k, v = (t.detach().transpose(2, 3) for t in _inputs())
    found = []
    for program in (kernels, torch_backend):
        o = program.forward(q, k, v, True, 0.3)
        found.append([(t.shape, t.dtype, t.stride()) for t in (o, *program.backward(o, q, k, v, True, 0.3))])
    assert found[0] == found[1]


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_nothing_to_do(axis):
    shape = [2, 3, 4, 2, 8]
    shape[axis] = 0
    q = torch.zeros(shape, device=DEVICE, requires_grad=True)
    o = temporal_attention(q, q, q)
    assert o.shape == q.shape
    assert torch.autograd.grad(o.sum(), q)[0].shape == q.shape
