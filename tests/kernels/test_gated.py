"""gated_scan, mingru_scan and rglru_scan in Triton, against the reference."""

import pytest
import torch

from rcv.kernels import gated as kernels
from rcv.kernels.launch import recording
from rcv.ops import backend
from rcv.ops.torch_backend import gated as torch_backend
from tests.ops.cases import assert_close_to_reference, normal, results
from tests.ops.test_gated import SCANS, carried_or_not, every_scan, inputs_of

pytestmark = pytest.mark.usefixtures("triton_backend", "poisoned")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 4 tokens and 8 channels: small inputs then have several, the last ones masked."""
    tile = {"BLOCK_N": 4, "BLOCK_C": 8, "STAGES": 2, "num_warps": 1, "num_stages": 2}
    monkeypatch.setattr("rcv.kernels.tiles._tile", lambda kernel, capability, shape: tile)


def _inputs(name, frames=3, carried=True, dtype=torch.float32, **sizes):
    inputs = inputs_of(name, frames, carried, dtype, **{"tokens": 5, "width": 12, **sizes})
    return [None if t is None else t.detach().to(DEVICE).requires_grad_() for t in inputs]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@carried_or_not
@every_scan
def test_error_bounds(name, carried, dtype):
    scan, truth, _ = SCANS[name]
    assert_close_to_reference(scan, truth, *_inputs(name, 7, carried, dtype))


@every_scan
def test_one_frame(name):
    scan, truth, _ = SCANS[name]
    assert_close_to_reference(scan, truth, *_inputs(name, 1))
    assert_close_to_reference(scan, truth, *_inputs(name, 1, carried=False, tokens=1, width=1, videos=1))


@every_scan
def test_relative_error_in_float16(name):
    scan, truth, _ = SCANS[name]
    inputs = _inputs(name, 12, dtype=torch.float16)
    ours = results(scan, *inputs)
    exact = results(truth, *(t.detach().double().requires_grad_() for t in inputs))
    for got, wanted in zip((*ours[0], *ours[1]), (*exact[0], *exact[1]), strict=True):
        assert (got - wanted).square().mean().sqrt() <= 0.005 * wanted.square().mean().sqrt()


@every_scan
def test_strided_inputs_and_gradients(name):
    scan, truth, gates = SCANS[name]
    inputs = _inputs(name)
    inputs[0] = normal(12, 5, 3, 2, seed=31, dtype=torch.float32).to(DEVICE).permute(3, 2, 1, 0)
    for place in range(1, gates):
        wide = normal(2, 6, 5, 24, seed=31 + place, dtype=torch.float32).to(DEVICE)
        inputs[place] = wide[:, ::2, :, ::2]
    inputs[-1] = normal(5, 12, 2, seed=40, dtype=torch.float32).to(DEVICE).permute(2, 0, 1)
    inputs = [t.detach().requires_grad_() for t in inputs]
    assert_close_to_reference(scan, truth, *inputs)
    # sum() expands its gradients from one number: stride 0
    gradients = [torch.autograd.grad(sum(t.sum() for t in f(*inputs)), inputs) for f in (scan, truth)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@every_scan
def test_last_state_carries_on(name):
    scan, _, gates = SCANS[name]
    inputs = [t.detach() for t in _inputs(name, 5, dtype=torch.float16)]

    def window(frames, state):
        return scan(*[t[:, frames] for t in inputs[:gates]], *inputs[gates:-1], state)

    whole, last = window(slice(0, 5), inputs[-1])
    former, state = window(slice(0, 2), inputs[-1])
    latter, end = window(slice(2, 5), state)
    assert state.dtype == torch.float32
    assert torch.equal(torch.cat([former, latter], 1), whole)
    assert torch.equal(end, last)


@pytest.mark.parametrize("gate", [-60.0, 60.0], ids=["closed", "open"])
@pytest.mark.parametrize("name", ["mingru", "rglru"])
def test_gates_at_their_ends(name, gate):
    inputs = _inputs(name)
    inputs[0] = torch.full_like(inputs[0], gate).requires_grad_()
    ours = results(SCANS[name][0], *inputs)
    exact = results(SCANS[name][1], *(t.detach().double().requires_grad_() for t in inputs))
    for got, wanted in zip((*ours[0], *ours[1]), (*exact[0], *exact[1]), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_inlet_has_no_slope_on_its_floor():
    """Where 1 - a^2 is below it: of the gradients of `forget` and `decay` the former state alone is left."""
    inputs = _inputs("rglru")
    inputs[3] = torch.full_like(inputs[3], -20.0).requires_grad_()
    ours = results(SCANS["rglru"][0], *inputs)[1]
    exact = results(SCANS["rglru"][1], *(t.detach().double().requires_grad_() for t in inputs))[1]
    for got, wanted in zip(ours, exact, strict=True):
        assert (got - wanted).norm() <= 1e-3 * wanted.norm()


@every_scan
def test_bitwise_reproducible(name):
    inputs = _inputs(name, 9, dtype=torch.float16)
    first, second = (results(SCANS[name][0], *inputs) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


@every_scan
def test_runs_the_kernels(name):
    inputs = [t.detach() for t in _inputs(name)]
    with recording((8, 0)) as recorder:
        SCANS[name][0](*inputs)
    assert [launch.kernel.__name__ for launch in recorder.launches] == [f"{name}_scan_fwd_kernel"]
    with recording((8, 0)) as recorder, backend("torch"):
        SCANS[name][0](*inputs)
    assert not recorder.launches


@every_scan
def test_results_are_as_the_torch_backend_lays_them_out(name):
    for dtype in (torch.float16, torch.float32):
        inputs = [t.detach() for t in _inputs(name, dtype=dtype)]
        inputs[-1] = inputs[-1].to(torch.bfloat16)
        found = []
        for program in (kernels, torch_backend):
            h, last = getattr(program, f"{name}_forward")(*inputs)
            kept = (inputs[0], h) if name == "gated" else (*inputs[:-1], h)
            gradients = getattr(program, f"{name}_backward")(h, last, *kept, inputs[-1])
            found.append([(t.shape, t.dtype, t.stride()) for t in (h, last, *gradients)])
            assert getattr(program, f"{name}_backward")(h, last, *kept, None)[-1] is None
        assert found[0] == found[1]
