"""recurrent_scan against the reference."""

import functools

import pytest
import torch

from rcv.ops import recurrent_scan, reference
from tests.ops.cases import DTYPES, assert_close_to_reference, normal, results

scans = pytest.mark.parametrize(
    ("scan", "truth"),
    [
        pytest.param(
            functools.partial(recurrent_scan, activation=activation),
            functools.partial(reference.recurrent_scan, activation=activation),
            id=activation,
        )
        for activation in ("tanh", "relu")
    ],
)
carried_or_not = pytest.mark.parametrize("carried", [False, True], ids=["zero", "h0"])


def _inputs(frames=3, carried=True, dtype=torch.float64, videos=2, tokens=5, width=6):
    x = normal(videos, frames, tokens, width, seed=1, dtype=dtype)
    weight = (normal(width, width, seed=2).detach() / width**0.5).to(dtype).requires_grad_()
    h0 = normal(videos, tokens, width, seed=3, dtype=dtype) if carried else None
    return x, weight, h0


def _assert_equal(ours, theirs):
    for got, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@carried_or_not
@pytest.mark.parametrize("frames", [1, 3])
@scans
def test_float64_equals_reference(scan, truth, frames, carried):
    inputs = _inputs(frames, carried)
    _assert_equal(results(scan, *inputs), results(truth, *inputs))


@carried_or_not
@scans
def test_gradcheck(scan, truth, carried):
    assert torch.autograd.gradcheck(scan, _inputs(3, carried, videos=1, tokens=2, width=3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@scans
def test_error_bounds(scan, truth, dtype):
    assert_close_to_reference(scan, truth, *_inputs(frames=12, dtype=dtype, tokens=17, width=40))


@scans
def test_strided_views(scan, truth):
    _, weight, h0 = _inputs()
    inputs = (normal(2, 6, 5, 12, seed=9)[:, ::2, :, ::2], weight, h0)
    ours = results(scan, *inputs)
    _assert_equal(ours, results(truth, *inputs))
    assert ours[0][0].is_contiguous()


@scans
def test_two_windows_equal_one(scan, truth):
    x, weight, h0 = (t.detach() for t in _inputs(frames=5))
    whole = scan(x, weight, h0)
    former = scan(x[:, :2], weight, h0)
    latter = scan(x[:, 2:], weight, former[:, -1])
    torch.testing.assert_close(torch.cat([former, latter], 1), whole, rtol=1e-12, atol=1e-12)


@scans
def test_bitwise_reproducible(scan, truth):
    inputs = _inputs(frames=9, dtype=torch.bfloat16)
    first, second = (results(scan, *inputs) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True)
    )


def test_what_is_kept_for_the_backward():
    x, weight, h0 = _inputs(9)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        h = recurrent_scan(x, weight, h0)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in (h, weight, h0)}


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
    ],
)
def test_errors_name_argument_shape_and_expectation(call, said):
    with pytest.raises(ValueError, match=said):
        call(torch.randn(2, 3, 5, 6))
