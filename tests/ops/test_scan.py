"""recurrent_scan and gated_scan against the reference."""

import functools

import pytest
import torch

from rcv.ops import gated_scan, recurrent_scan, reference
from tests.ops.cases import DTYPES, assert_close_to_reference, normal, results


def _recurrent(frames=3, carried=True, dtype=torch.float64, videos=2, tokens=5, width=6):
    x = normal(videos, frames, tokens, width, seed=1, dtype=dtype)
    weight = (normal(width, width, seed=2).detach() / width**0.5).to(dtype).requires_grad_()
    h0 = normal(videos, tokens, width, seed=3, dtype=dtype) if carried else None
    return x, weight, h0


def _gated(frames=3, carried=True, dtype=torch.float64, videos=2, tokens=5, width=6):
    a = torch.sigmoid(normal(videos, frames, tokens, width, seed=1).detach()).to(dtype).requires_grad_()
    x = normal(videos, frames, tokens, width, seed=2, dtype=dtype)
    h0 = (
        normal(videos, tokens, width, seed=3, dtype=torch.promote_types(dtype, torch.float32))
        if carried
        else None
    )
    return a, x, h0


def _pairs():
    for activation in ("tanh", "relu"):
        yield pytest.param(
            functools.partial(recurrent_scan, activation=activation),
            functools.partial(reference.recurrent_scan, activation=activation),
            _recurrent,
            id=activation,
        )
    yield pytest.param(gated_scan, reference.gated_scan, _gated, id="gated")


@pytest.mark.parametrize("carried", [False, True], ids=["zero", "h0"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("scan", "truth", "inputs"), _pairs())
def test_float64_equals_reference(scan, truth, inputs, frames, carried):
    inputs = inputs(frames, carried)
    ours, theirs = results(scan, *inputs), results(truth, *inputs)
    for got, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("carried", [False, True], ids=["zero", "h0"])
@pytest.mark.parametrize(("scan", "truth", "inputs"), _pairs())
def test_gradcheck(scan, truth, inputs, carried):
    assert torch.autograd.gradcheck(scan, inputs(3, carried, videos=1, tokens=2, width=3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("scan", "truth", "inputs"), _pairs())
def test_error_bounds(scan, truth, inputs, dtype):
    assert_close_to_reference(scan, truth, *inputs(frames=12, dtype=dtype, tokens=17, width=40))


@pytest.mark.parametrize(("scan", "truth", "inputs"), _pairs())
def test_strided_views(scan, truth, inputs):
    first, second, h0 = inputs()
    wide = normal(2, 6, 5, 12, seed=9)
    view = wide[:, ::2, :, ::2]
    inputs = (view, second, h0) if first.ndim == 4 and second.ndim == 2 else (first, view, h0)
    ours, theirs = results(scan, *inputs), results(truth, *inputs)
    for got, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert ours[0][0].is_contiguous()


@pytest.mark.parametrize(("scan", "truth", "inputs"), _pairs())
def test_two_windows_equal_one(scan, truth, inputs):
    first, second, h0 = (None if t is None else t.detach() for t in inputs(frames=5))

    def outputs(i, j, state):
        x = second[:, i:j] if second.ndim == 4 else second
        h = scan(first[:, i:j], x, state)
        return h if isinstance(h, tuple) else (h, h[:, -1])

    whole, _ = outputs(0, 5, h0)
    former, state = outputs(0, 2, h0)
    latter, _ = outputs(2, 5, state)
    torch.testing.assert_close(torch.cat([former, latter], 1), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("scan", "truth", "inputs"), _pairs())
def test_bitwise_reproducible(scan, truth, inputs):
    inputs = inputs(frames=9, dtype=torch.bfloat16)
    first, second = (results(scan, *inputs) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_state_of_the_gated_scan_is_float32(dtype):
    a, x, h0 = _gated(frames=40, dtype=dtype)
    h, last = gated_scan(a, x, h0)
    assert h.dtype == dtype
    assert last.dtype == torch.float32
    assert last.untyped_storage().data_ptr() != h.untyped_storage().data_ptr()
    assert last._base is None
    exact = reference.gated_scan(a.double(), x.double(), h0.double())[1]
    torch.testing.assert_close(last.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
def test_last_state_is_not_the_input(frames):
    a, x, _ = _gated(frames=frames, dtype=torch.float32)
    x = x.detach()
    before = x.clone()
    gated_scan(a.detach(), x)[1].add_(1)
    assert torch.equal(x, before)


def test_what_is_kept_for_the_backward():
    for scan, inputs, names in ((recurrent_scan, _recurrent(9), (1, 2)), (gated_scan, _gated(9), (0, 2))):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            h = scan(*inputs)
        h = h[0] if isinstance(h, tuple) else h
        assert {t.data_ptr() for t in kept} == {h.data_ptr(), *(inputs[i].data_ptr() for i in names)}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: recurrent_scan(x[0], torch.eye(6)), r"x has shape \[3, 5, 6\], expected \[B, F, N, C\]"),
        (lambda x: recurrent_scan(x[:, :0], torch.eye(6)), "expected one frame or more"),
        (lambda x: recurrent_scan(x, torch.eye(5)), r"weight has shape \[5, 5\], expected \[C=6, C=6\]"),
        (lambda x: recurrent_scan(x, torch.eye(6).half()), "weight is torch.float16 and x is torch.float32"),
        (
            lambda x: recurrent_scan(x, torch.eye(6), x[:, :2, 0]),
            r"h0 has shape .* expected \[B=2, N=5, C=6\]",
        ),
        (lambda x: recurrent_scan(x, torch.eye(6), activation="tanhh"), "did you mean 'tanh'"),
        (lambda x: gated_scan(x[:, :2], x), r"a has shape \[2, 2, 5, 6\], expected \[B=2, F=3, N=5, C=6\]"),
        (lambda x: gated_scan(x.half(), x), "a is torch.float16 and x is torch.float32"),
        (lambda x: gated_scan(x, x, x[0]), r"h0 has shape \[3, 5, 6\], expected \[B=2, N=5, C=6\]"),
        (lambda x: gated_scan(x, 1.0), "x is float, expected a tensor"),
    ],
)
def test_errors_name_argument_shape_and_expectation(call, said):
    with pytest.raises(ValueError, match=said):
        call(torch.randn(2, 3, 5, 6))
