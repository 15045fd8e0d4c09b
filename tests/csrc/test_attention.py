"""frame_attention by the kernels of csrc/, emulated, against the reference in float64."""

import functools
import warnings

import pytest
import torch

from rcv.ops import FrameTable, attention, frame_attention, reference
from rcv.ops.cuda_backend import attention as cuda_attention
from rcv.ops.cuda_backend import parameters
from tests.ops.cases import TABLES, assert_close_to_reference, attention_inputs, normal, results

HALF = torch.float16
TWO_POOLS = FrameTable([[-1, -1], [0, 1], [2, 0]], (1, 2))


def _with(function, table, **options):
    return lambda q, pools, bias=None: function(q, pools, table, logit_bias=bias, **options)


def _inputs(table, **sizes):
    """Like `attention_inputs`, in float16; empty pools have no gradient to compare."""
    q, pools = attention_inputs(table, dtype=HALF, **sizes)
    return q, [pair if pair[0].numel() else tuple(t.detach() for t in pair) for pair in pools]


def _bias(table, heads=2):
    return normal(heads, table.slots, seed=7, dtype=torch.float32)


def _assert_close(table, q, pools, *bias, **options):
    ours, truth = _with(frame_attention, table, **options), _with(reference.frame_attention, table, **options)
    assert_close_to_reference(ours, truth, q, pools, *bias)


def _relative_rms(function, truth, *inputs):
    """Of outputs and gradients, each against the float64 truth for the same inputs."""
    wide = [_wide(item) for item in inputs]
    for mine, exact in zip(results(function, *inputs), results(truth, *wide), strict=True):
        for got, wanted in zip(mine, exact, strict=True):
            yield (((got.double() - wanted).square().mean() / wanted.square().mean()) ** 0.5).item()


def _wide(item):
    if isinstance(item, torch.Tensor):
        return item.detach().double().requires_grad_()
    return type(item)(_wide(t) for t in item)


@pytest.mark.parametrize("width", [40, 64, 80, 160])
def test_error_bounds(attention_kernels, width):
    inputs = attention_inputs(TWO_POOLS, 1, tokens=37, keys=(67, 21), width=width, dtype=HALF)
    _assert_close(TWO_POOLS, *inputs, _bias(TWO_POOLS))
    assert attention_kernels.launched[:2] == [
        f"frame_attention_fwd_kernel_d{width}",
        f"frame_attention_bwd_dq_kernel_d{width}",
    ]
    pair = _with(frame_attention, TWO_POOLS), _with(reference.frame_attention, TWO_POOLS)
    assert max(_relative_rms(*pair, *inputs, _bias(TWO_POOLS))) <= 0.005


@pytest.mark.parametrize("frames", [1, 4])
def test_more_queries_than_a_block(attention_kernels, frames):
    table = FrameTable.first_memory(frames)
    _assert_close(table, *_inputs(table, videos=1, tokens=131, keys=(65, 33), heads=1, width=40))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_table(attention_kernels, table):
    _assert_close(table, *_inputs(table, keys=(17, 9), width=32), _bias(table))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_table_under_a_fixed_bias(attention_kernels, table):
    _assert_close(table, *_inputs(table, keys=(17, 9), width=32), _bias(table).detach())


@pytest.mark.parametrize("width", [8, 40, 100])
def test_head_dims_between_are_padded(attention_kernels, width):
    table = FrameTable.first_former(2)
    _assert_close(table, *attention_inputs(table, 1, heads=1, keys=(9,), width=width, dtype=HALF))
    head_dim = parameters.head_dim_of(width)
    assert attention_kernels.launched[0].endswith(f"_d{head_dim}")


def test_strided_inputs_are_read_in_place(attention_kernels):
    b, f, n, h, d = 2, 2, 5, 2, 40
    qkv = normal(b * f, n, 3 * h * d, seed=3, dtype=HALF).detach()
    q, k, v = (t.unflatten(-1, (h, d)).unflatten(0, (b, f)) for t in qkv.chunk(3, dim=-1))
    for t in (q, k, v):
        assert parameters.readable(t, d).data_ptr() == t.data_ptr()
    table = FrameTable.first_former(f)
    assert torch.equal(
        frame_attention(q, [(k, v)], table),
        frame_attention(q.contiguous(), [(k.contiguous(), v.contiguous())], table),
    )
    heads_first = q.transpose(2, 3).contiguous().transpose(2, 3)
    last_stride = torch.empty(b, f, n, d, h, dtype=HALF).copy_(k.transpose(3, 4)).transpose(3, 4)
    odd_offset = torch.zeros(v.numel() + 1, dtype=HALF)[1:].view(v.shape).copy_(v)
    assert last_stride.stride(-1) == h
    assert torch.equal(
        frame_attention(heads_first, [(last_stride, odd_offset)], table), frame_attention(q, [(k, v)], table)
    )


def test_results_are_bitwise_the_same_every_time(attention_kernels):
    inputs = attention_inputs(TWO_POOLS, 1, tokens=37, keys=(67, 21), width=40, dtype=HALF)
    runs = [results(_with(frame_attention, TWO_POOLS), *inputs, _bias(TWO_POOLS)) for _ in range(2)]
    for first, second in zip(*((*outputs, *gradients) for outputs, gradients in runs), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("enough", [1, 10_000])
def test_a_frame_that_many_name_is_summed_from_slices(attention_kernels, monkeypatch, enough):
    monkeypatch.setattr(cuda_attention, "ENOUGH_BLOCKS", enough)
    table = FrameTable.first(5)
    assert cuda_attention._slices(2, table, 0) == (5 if enough > 1 else 1)
    _assert_close(table, *attention_inputs(table, 1, tokens=37, keys=(33,), width=40, dtype=HALF))


def test_the_drop_in(attention_kernels):
    query, key, value = (normal(1, 2, n, 40, seed=i, dtype=HALF) for i, n in enumerate((9, 33, 33)))
    assert_close_to_reference(attention, reference.attention, query, key, value)


def _scaled(t, exponent):
    return (t.detach() * 2.0**exponent).requires_grad_()


def _with_gradient(function, table, scale, exponent):
    """The operation with its output times a power of two: the gradient that enters the backward is as much larger."""
    return lambda q, pools: function(q, pools, table, scale=scale).double() * 2.0**exponent


@pytest.mark.parametrize(
    ("qk", "v", "gradient"),
    [
        pytest.param(8, 0, 0, id="logits beyond 65504 before the scale"),
        pytest.param(10, 12, 10, id="dS beyond 65504"),
        pytest.param(-8, -10, -10, id="dS below 2^-24"),
        pytest.param(0, 12, -10, id="large values, small gradients"),
        pytest.param(0, -12, 13, id="small values, large gradients"),
        pytest.param(0, 0, -12, id="small gradients"),
    ],
)
def test_float16_neither_overflows_nor_vanishes_where_the_mathematics_does_not(
    attention_kernels, qk, v, gradient
):
    table = FrameTable.first(2)
    queries, [(keys, values)] = attention_inputs(table, 1, tokens=9, keys=(65,), width=40, dtype=HALF)
    inputs = _scaled(queries, qk), [(_scaled(keys, qk), _scaled(values, v))]
    scale = 40**-0.5 * 2.0 ** (-2 * qk)
    ours, truth = (
        _with_gradient(f, table, scale, gradient) for f in (frame_attention, reference.frame_attention)
    )
    assert max(_relative_rms(ours, truth, *inputs)) <= 0.005


@pytest.mark.parametrize("gradient", [8, 12])
def test_values_of_little_weight_have_right_gradients(attention_kernels, gradient):
    """Key 0 takes nearly all of the mass: of the others, with 2^-19 to 2^-27, float16 would keep few bits or none."""
    table = FrameTable.first(2)
    q, [(k, v)] = attention_inputs(table, 1, tokens=9, keys=(65,), heads=1, width=40, dtype=HALF)
    q, k = q.detach().abs(), 0.1 * k.detach()
    k[:, :, 0] = 3.0
    inputs = q.requires_grad_(), [(k.requires_grad_(), v)]
    ours, truth = (
        _with_gradient(f, table, None, gradient) for f in (frame_attention, reference.frame_attention)
    )
    dv, exact = results(ours, *inputs)[1][-1][:, :, 1:], results(truth, *map(_wide, inputs))[1][-1][:, :, 1:]
    assert (dv - exact).square().mean().sqrt() <= 0.005 * exact.square().mean().sqrt()


def test_bfloat16_is_computed_in_float16_and_said_so_once(attention_kernels, monkeypatch):
    monkeypatch.setattr(parameters, "_warned", False)
    table = FrameTable.first(2)
    inputs = attention_inputs(table, 1, keys=(9,), width=40, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="bfloat16 in float16"):
        _assert_close(table, *inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frame_attention(*inputs, table).dtype == torch.bfloat16


def test_nothing_to_do(attention_kernels):
    table = FrameTable.first(2)
    for tokens, videos in ((0, 1), (3, 0)):
        q, pools = attention_inputs(table, videos, tokens=tokens, keys=(9,), width=40, dtype=HALF)
        o = frame_attention(q, pools, table)
        assert o.shape == q.shape
        gradients = torch.autograd.grad(o.sum(), [q, *pools[0]])
        assert all(not g.any() for g in gradients)
    assert attention_kernels.launched == []


def test_wider_heads_are_refused_by_name(attention_kernels):
    table = FrameTable.first(1)
    call = functools.partial(frame_attention, table=table)
    with pytest.raises(ValueError, match="cuda: the last dimension is 168, it takes 160 at most"):
        call(*attention_inputs(table, 1, keys=(9,), width=168, dtype=HALF))


@pytest.mark.parametrize("rows", [[[0], [1]], [[0], [0]]], ids=["one slice", "two slices"])
def test_opcheck_of_the_backward(attention_kernels, rows):
    table = FrameTable(rows, (2,))
    q, [(k, v)] = attention_inputs(table, 1, tokens=3, keys=(9,), width=40, dtype=HALF)
    bias = _bias(table)
    with torch.no_grad():
        o, lse = torch.ops.rcv.frame_attention(q, k, v, None, None, table.key, bias, 0.4, "cuda")
        arguments = [torch.ones_like(o), q, k, v, None, None, bias, o, lse, table.key, 0.4, True, "cuda"]
        found = torch.library.opcheck(
            torch.ops.rcv.frame_attention_backward, arguments, test_utils=("test_schema", "test_faketensor")
        )
    assert set(found.values()) == {"SUCCESS"}
