"""recurrent_scan by the kernels of csrc/, emulated, against the reference in float64."""

import functools
import warnings

import pytest
import torch

from rcv.ops import recurrent_scan, reference
from rcv.ops.cuda_backend import driver, parameters
from rcv.ops.cuda_backend import scan as cuda_scan
from rcv.ops.torch_backend import scan as torch_backend
from tests.ops.cases import assert_close_to_reference, normal, results

HALF = torch.float16
WALKING, BY_FRAMES = "all frames", "a frame"
activations = pytest.mark.parametrize("activation", ["tanh", "relu"])
carried_or_not = pytest.mark.parametrize("carried", [False, True], ids=["zero", "h0"])


@pytest.fixture(params=[WALKING, BY_FRAMES])
def way(request, monkeypatch):
    """Both designs, whatever would be chosen for inputs so small."""
    monkeypatch.setattr(cuda_scan, "_walks", lambda t: request.param == WALKING)
    return request.param


def _inputs(frames=3, carried=True, dtype=HALF, videos=1, tokens=11, width=40):
    x = normal(videos, frames, tokens, width, seed=1, dtype=dtype).detach()
    weight = (normal(width, width, seed=2).detach() / width**0.5).to(dtype)
    h0 = normal(videos, tokens, width, seed=3, dtype=dtype) if carried else None
    _keep_from_the_kink(x, weight, h0)
    return x.requires_grad_(), weight.requires_grad_(), h0


def _keep_from_the_kink(x, weight, h0):
    """Move x where relu's argument is next to 0: there, rounding decides on the slope."""
    h = torch.zeros_like(x[:, 0]).double() if h0 is None else h0.detach().double()
    for i in range(x.shape[1]):
        product = h @ weight.double().T
        near = (product + x[:, i]).abs() < 0.03
        x[:, i] += torch.where(near, torch.where(product + x[:, i] < 0, -0.06, 0.06), 0).to(x.dtype)
        h = (product + x[:, i]).relu()


def _pair(activation):
    return [functools.partial(f, activation=activation) for f in (recurrent_scan, reference.recurrent_scan)]


def _relative_rms(ours, truth, *inputs):
    """Of outputs and gradients, each against the float64 truth for the same inputs."""
    wide = [None if t is None else t.detach().double().requires_grad_() for t in inputs]
    got, exact = results(ours, *inputs), results(truth, *wide)
    for mine, wanted in zip((*got[0], *got[1]), (*exact[0], *exact[1]), strict=True):
        yield (((mine.double() - wanted).square().mean() / wanted.square().mean()) ** 0.5).item()


@pytest.mark.parametrize("frames", range(1, 6))
@carried_or_not
@activations
def test_error_bounds(scan_kernels, way, activation, carried, frames):
    inputs = _inputs(frames, carried, videos=2, tokens=67)
    assert_close_to_reference(*_pair(activation), *inputs)
    assert max(_relative_rms(*_pair(activation), *inputs)) <= 0.005


@activations
def test_many_frames(scan_kernels, way, activation):
    assert_close_to_reference(*_pair(activation), *_inputs(128, tokens=3, width=24))


@pytest.mark.parametrize("width", [1, 7, 17, 24, 64, 72, 200, 320])
@activations
def test_any_width_is_walked(scan_kernels, monkeypatch, activation, width):
    monkeypatch.setattr(cuda_scan, "WALK_TILES", {(7, 0): 1, (7, 5): 1})
    assert_close_to_reference(*_pair(activation), *_inputs(3, tokens=5, width=width))
    compiled = next(w for w in cuda_scan.WALK_WIDTHS if w >= width)
    assert scan_kernels.launched == [f"recurrent_scan_{name}_kernel_c{compiled}" for name in ("fwd", "bwd")]


@pytest.mark.parametrize("width", [17, 136, 328])
@pytest.mark.parametrize("columns", [64, 128])
@activations
def test_any_width_frame_by_frame(scan_kernels, monkeypatch, activation, columns, width):
    monkeypatch.setattr(cuda_scan, "_walks", lambda t: False)
    monkeypatch.setattr(cuda_scan, "WIDE_TILES", dict.fromkeys([(7, 0), (7, 5)], 0 if columns == 128 else 99))
    assert_close_to_reference(*_pair(activation), *_inputs(2, tokens=131, width=width))
    names = ["frame_fwd"] * 2 + ["frame_bwd"] * 2
    assert scan_kernels.launched == [f"recurrent_scan_{name}_kernel_n{columns}" for name in names]


@pytest.mark.parametrize("width", [640, 1280])
def test_widths_of_the_unet(scan_kernels, width):
    assert_close_to_reference(*_pair("tanh"), *_inputs(2, tokens=9, width=width))
    assert set(scan_kernels.launched) == {f"recurrent_scan_frame_{d}_kernel_n64" for d in ("fwd", "bwd")}


@pytest.mark.parametrize(
    ("shape", "chip", "kernels"),
    [
        ((1, 3, 2560, 320), (7, 0), ["kernel_c320"]),
        ((1, 3, 2496, 320), (7, 0), ["frame_kernel_n64"] * 3),  # 39 tiles of tokens on 80 multiprocessors
        ((2, 3, 640, 320), (7, 5), ["kernel_c320"]),
        ((2, 3, 576, 320), (7, 5), ["frame_kernel_n64"] * 3),
        ((1, 3, 4, 256), (7, 0), ["kernel_c256"]),
        ((1, 3, 1280, 640), (7, 0), ["frame_kernel_n64"] * 3),
        ((1, 3, 1408, 640), (7, 0), ["frame_kernel_n128"] * 3),  # 55 tiles, 52 are enough
        ((1, 2, 1024, 1280), (7, 5), ["frame_kernel_n128"] * 2),
        ((64, 2, 64, 1280), (7, 0), ["frame_kernel_n64"] * 2),  # wide ones would be half empty
    ],
)
def test_which_kernels_run(monkeypatch, shape, chip, kernels):
    launched = []
    monkeypatch.setattr(driver, "of_chip", lambda table, t: table[chip])
    monkeypatch.setattr(
        driver, "tile", lambda kernel, t: driver.Tile(256, 128 if "n128" in kernel else 64, 0)
    )
    monkeypatch.setattr(driver, "launch", lambda kernel, *rest: launched.append(kernel))
    monkeypatch.setattr(
        driver, "launch_each", lambda kernel, blocks, several, t: launched.extend([kernel] * len(several))
    )
    x, weight = torch.zeros(shape, dtype=HALF), torch.zeros(shape[-1], shape[-1], dtype=HALF)
    h = cuda_scan.recurrent_forward(x, weight, None, "tanh")
    cuda_scan.recurrent_backward(h, weight, h, None, "tanh")
    expected = [
        f"recurrent_scan_{k.replace('kernel', f'{d}_kernel')}" for d in ("fwd", "bwd") for k in kernels
    ]
    assert launched == expected


def _strided():
    x = normal(2, 6, 5, 24, seed=1, dtype=HALF).detach()[:, ::2, :, ::2].requires_grad_()
    weight = (normal(12, 24, seed=2).detach() / 4).to(HALF).T[::2].requires_grad_()
    h0 = normal(5, 12, 2, seed=3, dtype=HALF).detach().permute(2, 0, 1).requires_grad_()
    return x, weight, h0


def test_strided_inputs_and_gradients(scan_kernels, way):
    ours, truth = _pair("tanh")
    assert_close_to_reference(ours, truth, *_strided())
    inputs = _inputs(3)
    # sum() expands its gradient from one number: stride 0.
    gradients = [torch.autograd.grad(f(*inputs).float().sum(), inputs) for f in (ours, truth)]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-2)


def test_slices_are_read_in_place(scan_kernels, way, monkeypatch):
    """Frames and channels of a larger tensor."""
    read = []
    monkeypatch.setattr(cuda_scan.States, "of", _noting(cuda_scan.States.of, read))
    wide = normal(2, 6, 5, 72, seed=1, dtype=HALF).detach()
    x, h0 = wide[:, 1::2, :, 16:56], wide[:, 0, :, 24:64]
    weight = _inputs()[1].detach()
    h = recurrent_scan(x, weight, h0)
    assert {x.data_ptr(), h0.data_ptr()} <= {t.data_ptr() for t in read}
    assert torch.equal(h, recurrent_scan(x.contiguous(), weight, h0.contiguous()))
    misaligned = torch.zeros(x.numel() + 1, dtype=HALF)[1:].view(x.shape).copy_(x)
    assert torch.equal(h, recurrent_scan(misaligned, weight, h0))


def _noting(of, read):
    def noting(t):
        read.extend([] if t is None else [t])
        return of(t)

    return noting


@activations
def test_two_windows_equal_one(scan_kernels, way, activation):
    x, weight, h0 = (t.detach() for t in _inputs(5))
    scan = _pair(activation)[0]
    former = scan(x[:, :2], weight, h0)
    latter = scan(x[:, 2:], weight, former[:, -1])
    assert torch.equal(torch.cat([former, latter], 1), scan(x, weight, h0))


def test_results_are_bitwise_the_same_every_time_and_in_both_ways(scan_kernels, monkeypatch):
    inputs = _inputs(4, tokens=67)
    runs = []
    for walks in (True, True, False):
        monkeypatch.setattr(cuda_scan, "_walks", lambda t, walks=walks: walks)
        outputs, gradients = results(_pair("tanh")[0], *inputs)
        runs.append([*outputs, *gradients])
    for others in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], others, strict=True))


def test_results_are_as_the_torch_backend_lays_them_out(scan_kernels, way):
    for width in (17, 24):
        x, weight, h0 = (t.detach() for t in _inputs(width=width))
        found = []
        for program in (cuda_scan, torch_backend):
            h = program.recurrent_forward(x, weight, h0, "relu")
            gradients = program.recurrent_backward(h, weight, h, h0, "relu")
            found.append([(t.shape, t.dtype, t.stride()) for t in (h, *gradients)])
            assert program.recurrent_backward(h, weight, h, None, "relu")[2] is None
        assert found[0] == found[1]


def test_a_product_beyond_float16_does_not_overflow_where_the_state_does_not(scan_kernels, way):
    """The product is 40 x 60 000; x takes it back. Rounding it, the float16 reference becomes infinite."""
    x = torch.full((1, 2, 3, 40), 60000.0, dtype=HALF)
    weight = torch.full((40, 40), 0.0, dtype=HALF)
    weight[:, :2] = 1.0
    x[:, 1] = -60000.0
    x.requires_grad_(), weight.requires_grad_()
    ours, truth = _pair("relu")
    assert ours(x, weight)[:, 1].eq(60000.0).all()
    assert truth(x, weight)[:, 1].isinf().all()
    gradient = torch.autograd.grad(ours(x, weight)[:, 1].sum(), x)[0]
    assert gradient[:, 1].eq(1.0).all()
    assert gradient[:, 0, :, :2].eq(40.0).all()


def test_states_round_as_the_reference_does(scan_kernels, way):
    """Beyond 65504 a state is infinite, from 65520 on; what is not finite stays with its token and does not end."""
    x = torch.zeros(1, 3, 4, 20, dtype=HALF)
    weight = torch.eye(20, dtype=HALF) * 2
    x[0, 0, 0] = 32760.0  # twice that is 65520
    x[0, 0, 1] = 32752.0
    x[0, 0, 2, 3] = float("nan")
    h = recurrent_scan(x, weight, activation="relu")
    assert torch.equal(h[0, 1, :2, 0], torch.tensor([float("inf"), 65504.0], dtype=HALF))
    truth = reference.recurrent_scan(x, weight, activation="relu")
    assert torch.equal(h.isfinite(), truth.isfinite())
    assert torch.equal(h[:, :, 2:].isnan(), truth[:, :, 2:].isnan())


def test_tangent_is_exact_to_rounding(scan_kernels, way):
    """Every half from the smallest subnormal on, as x of a single frame."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(HALF)
    every = torch.cat([every[every.isfinite()], torch.tensor([float("inf"), float("-inf")], dtype=HALF)])
    x = every[::7].reshape(-1)
    x = torch.nn.functional.pad(x, (0, -len(x) % 64)).view(1, 1, -1, 64)
    h = recurrent_scan(x, torch.zeros(64, 64, dtype=HALF))
    exact = x.double().tanh()
    ulp = (
        torch.nextafter(exact.abs().to(HALF), torch.tensor(2.0, dtype=HALF)) - exact.abs().to(HALF)
    ).double()
    assert ((h.double() - exact).abs() <= 0.55 * ulp).all()


def test_bfloat16_is_computed_in_float16_and_said_so_once(scan_kernels, way, monkeypatch):
    monkeypatch.setattr(parameters, "_warned", False)
    inputs = _inputs(dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="bfloat16 in float16"):
        assert_close_to_reference(*_pair("tanh"), *inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recurrent_scan(*inputs).dtype == torch.bfloat16


def test_nothing_to_do(scan_kernels):
    for sizes in ({"tokens": 0}, {"videos": 0}):
        inputs = _inputs(**sizes)
        h = recurrent_scan(*inputs)
        assert h.shape == inputs[0].shape
        assert all(not g.any() for g in torch.autograd.grad(h.sum(), inputs))
    assert scan_kernels.launched == []
