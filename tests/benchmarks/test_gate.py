"""The gate lets through what computes the operation and nothing else."""

import math

import pytest
import torch

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.gate import Gate, bitwise_reproducible
from rcv.ops import reference

SCAN = Case("gated_scan", 3, 5, 2, 4, "bfloat16")
ATTENTION = Case("frame_attention", 3, 5, 2, 8, "float32", table="first_memory")
DTYPES = ("float32", "bfloat16", "float16")


def _gate(case):
    return Gate(case, cases.inputs_of(case, "cpu"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "operation", ["frame_attention", "temporal_attention", "recurrent_scan", *cases.ELEMENTWISE]
)
def test_the_reference_passes(operation, dtype):
    options = {"frame_attention": {"table": "causal"}, "recurrent_scan": {"activation": "tanh"}}
    case = Case(operation, 3, 5, 2, 8, dtype, **options.get(operation, {}))
    verdict = _gate(case).verdict(getattr(reference, operation))
    assert verdict.passed and 0 <= verdict.error_ratio <= 1


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t):
        return t.clone()

    @staticmethod
    def backward(ctx, g):
        return g * 1.001


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda q, pools, table: reference.frame_attention(q, pools, table, scale=0.36), "output 0: error"),
        (lambda q, pools, table: reference.frame_attention(q, pools[::-1], _swapped(table)), "output 0"),
        (
            lambda q, pools, table: reference.frame_attention(_WrongGradient.apply(q), pools, table),
            "gradient 0",
        ),
        (lambda q, pools, table: reference.frame_attention(q, pools, table)[:, :2], "outputs have shapes"),
        (
            lambda q, pools, table: reference.frame_attention(q, pools, table) * math.nan,
            "output 0 is not finite",
        ),
    ],
    ids=["scale", "pools exchanged", "gradient off by a thousandth", "shape", "NaN"],
)
def test_a_wrong_result_is_caught(wrong, said):
    verdict = _gate(ATTENTION).verdict(wrong)
    assert not verdict.passed
    assert verdict.reason.startswith(said)


def _swapped(table):
    return type(table)([[2, 0], [0, 1], [1, 2]], (2, 1))


def test_a_missing_output_is_caught():
    verdict = _gate(SCAN).verdict(lambda a, x: reference.gated_scan(a, x)[0])
    assert not verdict.passed
    assert verdict.reason == "outputs have shapes [[1, 3, 5, 8]], expected [[1, 3, 5, 8], [1, 5, 8]]"


def test_a_state_in_half_precision_is_caught():
    case = Case("gated_scan", 40, 5, 2, 8, "bfloat16")

    def rounded(a, x):
        h, states = torch.zeros_like(x[:, 0]), []
        for i in range(x.shape[1]):
            h = a[:, i] * h + x[:, i]
            states.append(h)
        return torch.stack(states, 1), h.float()

    assert not _gate(case).verdict(rounded).passed


def test_reproducibility_is_of_bits():
    gate = _gate(SCAN)
    assert bitwise_reproducible(gate, reference.gated_scan)
    calls = []

    def drifting(a, x):
        calls.append(None)
        h, last = reference.gated_scan(a, x)
        return h, last + 1e-6 * len(calls)

    assert not bitwise_reproducible(gate, drifting)
