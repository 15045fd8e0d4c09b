"""Every rival computes the operation it is compared on, gradients included."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from benchmarks import attention_peers, cases, flex, lse_merge, peers, scan_peers
from benchmarks.cases import Case
from benchmarks.exact import reference_results
from benchmarks.gate import Gate
from rcv.ops import FrameTable, reference

ODD = {"tokens": 5, "heads": 2, "head_dim": 8, "videos": 2, "dtype": "float64"}
CASES = [
    *(Case("frame_attention", 4, table=table, **ODD) for table in cases.TABLES),
    Case("frame_attention", 1, table="first_memory", **ODD),
    Case("temporal_attention", 3, **ODD),
    *(Case("recurrent_scan", 3, activation=f, **ODD) for f in ("tanh", "relu")),
    *(Case("gated_scan", frames, **ODD) for frames in (1, 2, 7, 8)),
    *(Case(operation, 3, **ODD) for operation in ("mingru_scan", "rglru_scan")),
]


def _runnable():
    for case in CASES:
        for candidate in peers.candidates(case.operation):
            if not candidate.why_not(case, "cpu"):
                yield pytest.param(case, candidate, id=f"{case.label}-{candidate.name}")


def _whole_reference(case, inputs, gradients):
    outputs = cases.call(case, getattr(reference, case.operation), inputs)
    wanted = torch.autograd.grad(outputs, inputs, gradients, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outputs], list(wanted)


@pytest.mark.parametrize(("case", "candidate"), _runnable())
def test_equals_reference_in_float64(case, candidate):
    gate = Gate(case, cases.inputs_of(case, "cpu"))
    outputs, gradients = _whole_reference(case, gate.inputs, gate.gradients)
    results = gate.results(candidate.prepare(case))
    for got, wanted in zip(results, [*outputs, *gradients], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_every_rival_of_a_cpu_is_among_those_tested():
    names = {param.values[1].name for param in _runnable()}
    assert names >= {
        "rcv:torch",
        "reference",
        "concat+sdpa:math",
        "concat+sdpa:flash",
        "lse-merge:cpu",
        "sdpa:math",
        "sdpa:flash",
        "nn.RNN",
        "log-passes",
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
@pytest.mark.parametrize("piece", [1, 1 << 26], ids=["row by row", "whole"])
def test_reference_in_pieces_is_the_reference(case, piece, monkeypatch):
    monkeypatch.setattr("benchmarks.exact.PIECE_ELEMENTS", piece)
    inputs = cases.inputs_of(case, "cpu")
    with torch.no_grad():
        outputs = cases.call(case, getattr(reference, case.operation), inputs)
    d = cases.output_gradients(outputs)
    for side, truth in zip(
        reference_results(case, inputs, d), _whole_reference(case, inputs, d), strict=True
    ):
        for got, wanted in zip(side, truth, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "operation", ["frame_attention", "temporal_attention", "recurrent_scan", *cases.ELEMENTWISE]
)
def test_reasons_are_sentences_and_cuda_alone_is_refused_on_a_cpu(operation):
    case = next(replace(c, dtype="float32") for c in CASES if c.operation == operation)
    reasons = {c.name: c.why_not(case, "cpu") for c in peers.candidates(operation)}
    assert reasons["reference"] == []
    assert reasons["torch.compile(reference)"]
    assert "inputs are on cpu, it runs on cuda" in reasons["rcv:cuda"]
    assert all(" " in reason for why in reasons.values() for reason in why)


def test_limits_name_what_does_not_fit():
    limits = peers.Limits(
        devices=("cpu",), dtypes=("float16",), most_width=64, most_frames=2, module="no_such_package"
    )
    case = Case("gated_scan", 3, 4, 1, 80, "float32")
    assert limits(case, torch.device("cpu")) == [
        "the package no_such_package is not installed",
        "dtype is float32, it takes float16",
        "head dim is 80, it takes 64 at most",
        "3 unrolled frames compile for minutes, 2 at most",
    ]
    assert not peers.Limits(devices=("cpu",))(case, torch.device("cpu"))


@pytest.mark.parametrize("kernels", ["flash", "efficient"])
def test_calls_of_the_cuda_kernels_fit_their_schemas(kernels):
    case = Case("frame_attention", 3, 40, 2, 40, "float16", table="first_memory")
    inputs = [t.detach().to("meta").requires_grad_() for t in cases.inputs_of(case, "cpu")]

    def merged(q, pools, table):
        return lse_merge.merged(lse_merge.KERNELS[kernels], q, pools, table)

    (o,) = cases.call(case, merged, inputs)
    gradients = torch.autograd.grad(o, inputs, torch.empty_like(o))
    assert o.shape == inputs[0].shape and o.dtype == torch.float16
    assert [g.shape for g in gradients] == [t.shape for t in inputs]


@pytest.mark.parametrize("tokens", [flex.BLOCK, 5], ids=["whole blocks", "odd"])
@pytest.mark.parametrize("table", ["first_memory", "causal", "window"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_sees_what_the_table_names(table, tokens):
    case = Case("frame_attention", 4, tokens, 1, 16, "float32", table=table)
    inputs = [t.detach() for t in cases.inputs_of(case, "cpu")]  # it has no backward on a CPU

    def by_flex(q, pools, table):
        return flex.frame_attention(q, pools, table, attend=flex_attention)

    (got,), (wanted,) = (cases.call(case, f, inputs) for f in (by_flex, reference.frame_attention))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_flex_blocks_are_those_that_the_table_names():
    table = FrameTable([[2, 0], [1, -1]], (3,))
    mask = flex.block_mask(table, 2 * flex.BLOCK, flex.BLOCK, torch.device("cpu"))
    assert mask.to_dense()[0, 0].tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_flex_attention_refuses_a_frame_named_twice():
    case = Case("frame_attention", 3, 128, 1, 16, "float16", table="first_former")
    assert "a row names a frame twice, which a mask cannot say" in flex.reasons(case, torch.device("cpu"))


def test_concatenation_takes_rows_of_every_pattern():
    table = FrameTable([[-1, -1], [1, 0], [2, 0], [1, 3], [-1, 2]], (2, 2))
    q = torch.randn(2, 5, 3, 2, 8, dtype=torch.float64)
    pools = [tuple(torch.randn(2, 2, m, 2, 8, dtype=torch.float64) for _ in "kv") for m in (3, 4)]
    by_math = attention_peers.sdpa.attend_by("math")
    got = attention_peers.concatenated(by_math, q, pools, table, scale=0.3)
    torch.testing.assert_close(got, reference.frame_attention(q, pools, table, scale=0.3))


def test_scans_from_a_carried_state():
    x, a = torch.randn(2, 5, 3, 4).double(), torch.rand(2, 5, 3, 4).double()
    weight, h0 = torch.randn(4, 4).double(), torch.randn(2, 3, 4).double()
    got = scan_peers.by_nn_rnn(x, weight, h0, activation="relu")
    torch.testing.assert_close(got, reference.recurrent_scan(x, weight, h0, activation="relu"))
    torch.testing.assert_close(scan_peers.in_log_passes(a, x, h0), reference.gated_scan(a, x, h0))
