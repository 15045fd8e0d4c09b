"""Functions of one number, against PyTorch in float64."""

import pytest
import torch
import triton
import triton.language as tl

from rcv.kernels import elementary

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def one_minus_exp_of(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, elementary.one_minus_exp(tl.load(x + at)))


@triton.jit
def tanh_of(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, elementary.tanh(tl.load(x + at)))


@pytest.mark.parametrize(
    ("kernel", "truth", "signs"),
    [
        pytest.param(one_minus_exp_of, lambda x: -torch.expm1(x), (-1.0,), id="one_minus_exp"),
        pytest.param(tanh_of, torch.tanh, (1.0, -1.0), id="tanh"),
    ],
)
def test_relative_error(kernel, truth, signs):
    magnitudes = torch.logspace(-12, 2, 1024, dtype=torch.float64)
    for sign in signs:
        x = (sign * magnitudes).float().to(DEVICE)
        y = torch.full_like(x, float("nan"))
        kernel[(1,)](x, y, BLOCK=1024)
        exact = truth(x.double())
        assert ((y - exact) / exact).abs().max() <= 5e-7
