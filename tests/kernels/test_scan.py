"""recurrent_scan in Triton, against the reference."""

import functools

import pytest
import torch

from rcv.kernels import scan as kernels
from rcv.kernels.launch import recording
from rcv.ops import backend, recurrent_scan, reference
from rcv.ops.torch_backend import scan as torch_backend
from tests.ops.cases import assert_close_to_reference, normal, results

pytestmark = pytest.mark.usefixtures("triton_backend", "poisoned")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
activations = pytest.mark.parametrize("activation", ["tanh", "relu"])
carried_or_not = pytest.mark.parametrize("carried", [False, True], ids=["zero", "h0"])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 16: small inputs then have several of each axis, the last ones masked."""
    tile = {"BLOCK_N": 16, "BLOCK_C": 16, "BLOCK_K": 16, "num_warps": 1, "num_stages": 2}
    monkeypatch.setattr("rcv.kernels.tiles._tile", lambda kernel, capability, shape: tile)


@pytest.fixture(params=["all frames", "a frame"], autouse=True)
def way(request, monkeypatch):
    """Both ways of the kernels, whatever would be chosen for inputs so small."""
    monkeypatch.setattr(kernels, "_walks", lambda h: request.param == "all frames")
    return request.param


def _inputs(frames=3, carried=True, dtype=torch.float32, videos=2, tokens=11, width=20):
    inputs = [normal(videos, frames, tokens, width, seed=1), normal(width, width, seed=2) / width**0.5]
    inputs.append(normal(videos, tokens, width, seed=3) if carried else None)
    return [_leaf(t, dtype) for t in inputs]


def _leaf(t, dtype=torch.float32):
    return None if t is None else t.detach().to(DEVICE, dtype).requires_grad_()


def _pair(activation):
    return [functools.partial(f, activation=activation) for f in (recurrent_scan, reference.recurrent_scan)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@carried_or_not
@activations
def test_error_bounds(activation, carried, dtype):
    x, weight, h0 = _inputs(5, carried, dtype)
    if activation == "relu" and dtype == torch.bfloat16:
        # At its kink relu's slope is 0 or 1 as a state happens to be rounded: none comes near.
        x, weight = _leaf(x + 3 * x.sign(), dtype), _leaf(weight / 8, dtype)
    assert_close_to_reference(*_pair(activation), x, weight, h0)


@carried_or_not
@activations
def test_one_frame(activation, carried):
    assert_close_to_reference(*_pair(activation), *_inputs(1, carried))
    assert_close_to_reference(*_pair(activation), *_inputs(1, carried, videos=1, tokens=1, width=1))


@activations
def test_relative_error_in_float16(activation):
    inputs = _inputs(8, dtype=torch.float16, width=36)
    ours, truth = _pair(activation)
    got = results(ours, *inputs)
    exact = results(truth, *(t.detach().double().requires_grad_() for t in inputs))
    for mine, wanted in zip((*got[0], *got[1]), (*exact[0], *exact[1]), strict=True):
        assert (mine - wanted).square().mean().sqrt() <= 0.005 * wanted.square().mean().sqrt()


def test_strided_inputs_and_gradients():
    x = _leaf(normal(2, 6, 5, 24, seed=1))[:, ::2, :, ::2].detach().requires_grad_()
    weight = _leaf(normal(12, 24, seed=2) / 4).detach().T[::2].requires_grad_()
    h0 = _leaf(normal(5, 12, 2, seed=3)).detach().permute(2, 0, 1).requires_grad_()
    for activation in ("tanh", "relu"):
        ours, truth = _pair(activation)
        assert_close_to_reference(ours, truth, x, weight, h0)
        # sum() expands its gradient from one number: stride 0
        gradients = [torch.autograd.grad(f(x, weight, h0).sum(), (x, weight, h0)) for f in (ours, truth)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@activations
def test_two_windows_equal_one(activation):
    x, weight, h0 = (t.detach() for t in _inputs(5, dtype=torch.float16))
    scan = _pair(activation)[0]
    whole = scan(x, weight, h0)
    former = scan(x[:, :2], weight, h0)
    latter = scan(x[:, 2:], weight, former[:, -1])
    assert torch.equal(torch.cat([former, latter], 1), whole)


def test_bitwise_reproducible():
    inputs = _inputs(4, dtype=torch.float16)
    first, second = (results(recurrent_scan, *inputs) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


def test_kernels_that_run(way):
    x, weight, h0 = (t.detach() for t in _inputs(3))
    with recording((8, 0)) as recorder:
        h = kernels.recurrent_forward(x, weight, h0, "tanh")
        kernels.recurrent_backward(h, weight, h, h0, "tanh")
    of_frame = {"all frames": ["fwd", "bwd"], "a frame": ["frame_fwd"] * 3 + ["frame_bwd"] * 3}[way]
    names = [launch.kernel.__name__ for launch in recorder.launches]
    assert names == [f"recurrent_scan_{name}_kernel" for name in of_frame]
    with recording((8, 0)) as recorder, backend("torch"):
        recurrent_scan(x, weight, h0)
    assert not recorder.launches


def test_results_are_as_the_torch_backend_lays_them_out():
    x, weight, h0 = (t.detach() for t in _inputs())
    found = []
    for program in (kernels, torch_backend):
        h = program.recurrent_forward(x, weight, h0, "relu")
        gradients = program.recurrent_backward(h, weight, h, h0, "relu")
        found.append([(t.shape, t.dtype, t.stride()) for t in (h, *gradients)])
        assert program.recurrent_backward(h, weight, h, None, "relu")[2] is None
    assert found[0] == found[1]
