"""frame_attention and the drop-in over it, against the reference."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcv.ops import FrameTable, attention, frame_attention, reference
from rcv.ops.torch_backend import partials
from tests.ops.cases import DTYPES, TABLES, assert_close_to_reference, attention_inputs, normal, results


def _with(function, table, **options):
    return lambda q, pools, bias=None: function(q, pools, table, logit_bias=bias, **options)


def _assert_equal_in_float64(table, q, pools, *bias, **options):
    ours = results(_with(frame_attention, table, **options), q, pools, *bias)
    theirs = results(_with(reference.frame_attention, table, **options), q, pools, *bias)
    for side, truth in zip(ours, theirs, strict=True):
        for got, wanted in zip(side, truth, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_float64_equals_reference(table):
    _assert_equal_in_float64(table, *attention_inputs(table))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_bias_in_float64_equals_reference(table):
    _assert_equal_in_float64(table, *attention_inputs(table), normal(2, table.slots, seed=7))


@pytest.mark.parametrize("bias", [None, normal(2, 2, seed=7)], ids=["no bias", "bias"])
def test_gradcheck(bias):
    table = FrameTable.first_memory(2)
    q, pools = attention_inputs(table, videos=1, tokens=3, keys=(2, 3), width=3)
    flat = [q, *pools[0], *pools[1], *([] if bias is None else [bias])]

    def call(q, k, v, k2, v2, bias=None):
        return frame_attention(q, [(k, v), (k2, v2)], table, logit_bias=bias)

    assert torch.autograd.gradcheck(call, flat)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["first", "first_former", "first_memory", "causal", "repeated names"])
def test_error_bounds(name, dtype):
    table = TABLES[name]
    q, pools = attention_inputs(table, tokens=17, keys=(17, 21), width=40, dtype=dtype)
    bias = normal(2, table.slots, seed=7, dtype=torch.float32)
    assert_close_to_reference(
        _with(frame_attention, table), _with(reference.frame_attention, table), q, pools
    )
    assert_close_to_reference(
        _with(frame_attention, table), _with(reference.frame_attention, table), q, pools, bias
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_random_tables(data):
    integers = functools.partial(data.draw)
    pools = integers(st.lists(st.integers(0, 3), min_size=1, max_size=2))
    frames, slots = integers(st.integers(1, 5)), integers(st.integers(1, 3))
    name = st.integers(-1, sum(pools) - 1)
    rows = integers(
        st.lists(st.lists(name, min_size=slots, max_size=slots), min_size=frames, max_size=frames)
    )
    table = FrameTable(rows, pools)
    bias = [normal(2, slots, seed=7)] if integers(st.booleans()) else []
    videos, tokens = integers(st.integers(1, 3)), integers(st.integers(1, 4))
    _assert_equal_in_float64(table, *attention_inputs(table, videos, tokens, width=4), *bias)


@pytest.mark.parametrize("videos", [1, 3])
@pytest.mark.parametrize(
    "layout", ["heads first", "tokens apart", "frames apart", "fused projection", "channels apart"]
)
def test_strided_views(layout, videos):
    table = FrameTable.first_former(4)

    def strided(seed):
        shape = (videos, 4, 5, 2, 8)
        if layout == "heads first":
            return normal(videos, 4, 2, 5, 8, seed=seed).transpose(2, 3)
        if layout == "tokens apart":
            return normal(videos, 4, 10, 2, 8, seed=seed)[:, :, ::2]
        if layout == "frames apart":
            return normal(videos, 8, 5, 2, 8, seed=seed)[:, ::2]
        if layout == "fused projection":
            return normal(*shape[:3], 3, *shape[3:], seed=seed)[:, :, :, 1]
        return normal(*shape[:3], 8, 2, seed=seed).transpose(3, 4)

    _assert_equal_in_float64(table, strided(1), [(strided(2), strided(3))], scale=0.7)


def test_strided_gradient_of_the_output():
    table = FrameTable.first_memory(3)
    q, pools = attention_inputs(table)
    results_by = []
    for function in (frame_attention, reference.frame_attention):
        # sum() expands its gradient from one number, transpose() turns it: neither is contiguous
        o = function(q, pools, table)
        loss = o.sum() + (o.transpose(1, 4) * torch.arange(3.0)).sum()
        results_by.append(torch.autograd.grad(loss, [q, *pools[0], *pools[1]]))
    torch.testing.assert_close(*results_by, rtol=1e-12, atol=1e-12)


def test_more_than_65536_sequences():
    table = FrameTable.first_memory(4)
    q, pools = attention_inputs(
        table, videos=8200, tokens=1, keys=(2, 1), heads=2, width=4, dtype=torch.float32
    )
    assert q.shape[:4].numel() > 1 << 16
    assert_close_to_reference(
        _with(frame_attention, table), _with(reference.frame_attention, table), q, pools
    )


def test_rows_without_a_frame_are_zero_and_give_no_gradient():
    table = TABLES["rows of -1"]
    q, pools = attention_inputs(table)
    (o,), (dq, *_) = results(_with(frame_attention, table), q, pools)
    assert o[:, ::2][:, :2].abs().max() == 0
    assert dq[:, [0, 2]].abs().max() == 0
    assert dq[:, [1, 3]].abs().min() > 0


def test_a_frame_named_twice_counts_twice():
    q, pools = attention_inputs(FrameTable([[0, 1]], (2,)))
    twice = frame_attention(q, pools, FrameTable([[0, 0, 1]], (2,)))
    log2 = torch.tensor([[2.0, 1.0]] * 2, dtype=torch.float64).log()
    weighted = frame_attention(q, pools, FrameTable([[0, 1]], (2,)), logit_bias=log2)
    torch.testing.assert_close(twice, weighted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bitwise_reproducible(dtype):
    table = FrameTable.causal(4)
    q, pools = attention_inputs(table, tokens=33, keys=(33,), width=16, dtype=dtype)
    bias = normal(2, 4, seed=7, dtype=torch.float32)
    first, second = (results(_with(frame_attention, table), q, pools, bias) for _ in range(2))
    for a, b in zip(first[0] + list(first[1]), second[0] + list(second[1]), strict=True):
        assert torch.equal(a, b)


def test_keeps_inputs_output_and_lse_alone():
    table = FrameTable.first_memory(6)
    q, pools = attention_inputs(table, tokens=16, keys=(16, 16), dtype=torch.float16)
    bias = normal(2, 2, seed=7, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        o = frame_attention(q, pools, table, logit_bias=bias)
    inputs = [q, *pools[0], *pools[1], bias]
    size = sum(t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in kept}.values())
    lse = 4 * q.shape[:4].numel()
    assert size == sum(t.nbytes for t in inputs) + o.nbytes + lse


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_log_sum_exp_of_the_internal_operation(dtype):
    table = FrameTable.first_former(3)
    q, [(k, v)] = attention_inputs(table, dtype=dtype)
    _, lse = torch.ops.rcv.frame_attention(q, k, v, None, None, table.key, None, 1.0, "auto")
    logits = torch.einsum("bfnhd,bpmhd->bfnhpm", q.double(), k.double())
    named = torch.stack(
        [logits[:, i, ..., list(row), :].flatten(-2).logsumexp(-1) for i, row in enumerate(table.rows)], 1
    )
    assert lse.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(lse.double(), named, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1 << 26, 100, 1], ids=["one chunk", "chunks", "row by row"])
def test_products_equal_the_flash_kernel(chunk, monkeypatch):
    monkeypatch.setattr(partials, "CHUNK_ELEMENTS", chunk)
    q, k, v, do = (normal(2, n, 3, 5, seed=n).detach() for n in (7, 4, 4, 7))
    k = k + 1
    o, lse = partials.forward(q, k, v, 0.3)
    o_products, lse_products = partials.products_forward(q, k, v, 0.3)
    torch.testing.assert_close((o_products, lse_products), (o, lse), rtol=1e-12, atol=1e-12)
    flash = partials.backward(do, q, k, v, o, lse, 0.3)
    products = partials.products_backward(do, q, k, v, o, lse, 0.3)
    torch.testing.assert_close(list(products), list(flash), rtol=1e-12, atol=1e-12)


def test_attention_is_scaled_dot_product_attention():
    q, k, v = normal(2, 3, 5, 8, seed=1), normal(2, 3, 7, 8, seed=2), normal(2, 3, 7, 8, seed=3)
    for scale in (None, 0.2):
        ours = results(functools.partial(attention, scale=scale), q, k, v)
        torchs = results(
            functools.partial(torch.nn.functional.scaled_dot_product_attention, scale=scale), q, k, v
        )
        for got, wanted in zip((*ours[0], *ours[1]), (*torchs[0], *torchs[1]), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("attn_mask", torch.ones(5, 7)), ("dropout_p", 0.1), ("is_causal", True), ("enable_gqa", True)],
)
def test_attention_refuses_by_name(argument, value):
    q, k = normal(2, 3, 5, 8), normal(2, 3, 7, 8)
    with pytest.raises(ValueError, match=argument):
        attention(q, k, k, **{argument: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q": torch.randn(2, 3, 5, 16)}, r"q has shape \[2, 3, 5, 16\], expected \[B, F, N, H, D\]"),
        ({"q": torch.randn(2, 4, 5, 2, 8)}, "table has 3 rows and q has 4 frames"),
        ({"q": torch.ones(2, 3, 5, 2, 8, dtype=torch.int64)}, "q is torch.int64, expected float32"),
        (
            {"k": torch.randn(2, 2, 4, 2, 8)},
            r"keys\) has shape \[2, 2, 4, 2, 8\], expected \[B=2, P=3, M, H=2, D=8\]",
        ),
        ({"k": torch.randn(2, 3, 4, 2, 9)}, r"keys\) has shape .* D=8"),
        ({"v": torch.randn(2, 3, 5, 2, 8)}, r"values\) has shape .* M=4"),
        ({"k": torch.randn(2, 3, 4, 2, 8).half()}, r"keys\) is torch.float16 and q is torch.float32"),
        ({"k": torch.randn(2, 3, 0, 2, 8), "v": torch.randn(2, 3, 0, 2, 8)}, "expected one token or more"),
        ({"bias": torch.zeros(2, 3)}, r"logit_bias has shape \[2, 3\], expected \[H=2, S=2\]"),
        ({"table": [[0, 1]]}, "table is list, expected an rcv.ops.FrameTable"),
        ({"table": FrameTable.first_memory(3)}, r"pools holds 1 \(k, v\) pairs, the table expects 2"),
    ],
)
def test_errors_name_argument_shape_and_expectation(change, said):
    good = {
        "q": torch.randn(2, 3, 5, 2, 8),
        "k": torch.randn(2, 3, 4, 2, 8),
        "v": torch.randn(2, 3, 4, 2, 8),
        "table": FrameTable.first_former(3),
        "bias": None,
    }
    given = {**good, **change}
    with pytest.raises(ValueError, match=said):
        frame_attention(given["q"], [(given["k"], given["v"])], given["table"], logit_bias=given["bias"])
