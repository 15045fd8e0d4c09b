"""What PyTorch sees of the operations: opcheck, compiled graphs, fake tensors, autocast, second derivatives."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rcv.ops import (
    FrameTable,
    attention,
    frame_attention,
    gated_scan,
    mingru_scan,
    recurrent_scan,
    rglru_scan,
    temporal_attention,
)
from tests.ops.cases import attention_inputs, leaves, normal, results

MEMORY = FrameTable.first_memory(3)
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def _frame_attention(q, pools, bias):
    return frame_attention(q, pools, MEMORY, logit_bias=bias)


def _calls(dtype=torch.float32):
    q, pools = attention_inputs(MEMORY, dtype=dtype)
    bias = normal(2, 2, seed=7, dtype=torch.promote_types(dtype, torch.float32))
    x, x2, x3 = (normal(2, 3, 5, 6, seed=seed, dtype=dtype) for seed in (1, 2, 5))
    state = normal(2, 5, 6, seed=3, dtype=dtype)
    wide_state, decay = (t.to(bias.dtype).detach().requires_grad_() for t in (state, normal(6, seed=6)))
    weight = normal(6, 6, seed=4, dtype=dtype)
    heads = [normal(2, 3, 5, 8, seed=i, dtype=dtype) for i in range(3)]
    return {
        "frame_attention": (_frame_attention, (q, pools, bias)),
        "temporal_attention": (
            temporal_attention,
            [normal(2, 3, 5, 2, 8, seed=i, dtype=dtype) for i in range(3)],
        ),
        "recurrent_scan": (recurrent_scan, (x, weight, state)),
        "gated_scan": (gated_scan, (x, x2, wide_state)),
        "mingru_scan": (mingru_scan, (x, x2, wide_state)),
        "rglru_scan": (rglru_scan, (x, x2, x3, decay, wide_state)),
        "attention": (attention, heads),
    }


OPS = tuple(_calls())


def _internal_calls():
    q, [(k, v), (k2, v2)] = attention_inputs(MEMORY)
    bias = normal(2, 2, seed=7)
    x, a, x2 = (normal(2, 3, 5, 6, seed=seed) for seed in (0, 1, 2))
    h0, weight, decay = normal(2, 5, 6), normal(6, 6), normal(6)
    t = [normal(2, 3, 5, 2, 8, seed=i) for i in range(3)]
    one = FrameTable.first_former(3).key
    k3, v3 = (normal(2, 3, 4, 2, 8, seed=i) for i in (8, 9))
    return {
        "frame_attention, two pools": (
            torch.ops.rcv.frame_attention,
            (q, k, v, k2, v2, MEMORY.key, bias, 0.4, "auto"),
        ),
        "frame_attention, one pool": (
            torch.ops.rcv.frame_attention,
            (q, k3, v3, None, None, one, None, 0.4, "torch"),
        ),
        "temporal_attention": (torch.ops.rcv.temporal_attention, (*t, True, 0.4, "auto")),
        "recurrent_scan": (torch.ops.rcv.recurrent_scan, (x, weight, h0, "tanh", "auto")),
        "recurrent_scan without h0": (torch.ops.rcv.recurrent_scan, (x, weight, None, "relu", "auto")),
        "gated_scan": (torch.ops.rcv.gated_scan, (a, x, h0, "auto")),
        "gated_scan without h0": (torch.ops.rcv.gated_scan, (a, x, None, "auto")),
        "mingru_scan": (torch.ops.rcv.mingru_scan, (a, x, h0, "auto")),
        "mingru_scan without h0": (torch.ops.rcv.mingru_scan, (a, x, None, "auto")),
        "rglru_scan": (torch.ops.rcv.rglru_scan, (a, x, x2, decay, h0, "auto")),
        "rglru_scan without h0": (torch.ops.rcv.rglru_scan, (a, x, x2, decay, None, "auto")),
    }


@pytest.mark.parametrize("name", _internal_calls())
def test_opcheck(name):
    op, arguments = _internal_calls()[name]
    assert set(torch.library.opcheck(op, arguments, test_utils=CHECKS).values()) == {"SUCCESS"}


def test_opcheck_of_the_backwards():
    q, [(k, v)] = attention_inputs(FrameTable.first_former(3))
    table, bias = FrameTable.first_former(3).key, normal(2, 2, seed=7)
    with torch.no_grad():
        o, lse = torch.ops.rcv.frame_attention(q, k, v, None, None, table, bias, 0.4, "auto")
        arguments = [torch.ones_like(o), q, k, v, None, None, bias, o, lse, table, 0.4, True, "auto"]
        torch.library.opcheck(torch.ops.rcv.frame_attention_backward, arguments, test_utils=CHECKS[::2])
        h, x = normal(2, 3, 5, 6), normal(2, 3, 5, 6)
        state, weight = normal(2, 5, 6), normal(6, 6)
        torch.library.opcheck(
            torch.ops.rcv.recurrent_scan_backward,
            (x, weight, h, state, "tanh", "auto"),
            test_utils=CHECKS[::2],
        )
        torch.library.opcheck(
            torch.ops.rcv.gated_scan_backward, (x, state, x, h, state, "auto"), test_utils=CHECKS[::2]
        )
        torch.library.opcheck(
            torch.ops.rcv.mingru_scan_backward, (x, state, h, x, h, state, "auto"), test_utils=CHECKS[::2]
        )
        torch.library.opcheck(
            torch.ops.rcv.rglru_scan_backward,
            (x, state, h, x, h, normal(6), h, state, "auto"),
            test_utils=CHECKS[::2],
        )
        torch.library.opcheck(
            torch.ops.rcv.temporal_attention_backward, (q, q, q, q, True, 0.4, "auto"), test_utils=CHECKS[::2]
        )


@pytest.mark.parametrize("name", OPS)
def test_compiles_to_one_graph(name):
    function, inputs = _calls()[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(results(compiled, *inputs), results(function, *inputs), strict=True):
        torch.testing.assert_close(list(got), list(wanted), rtol=0, atol=0)


@pytest.mark.parametrize("name", OPS)
def test_fake_tensors_pass_through_forward_and_backward(name):
    function, inputs = _calls(torch.bfloat16)[name]
    real = results(function, *inputs)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake = torch.utils._pytree.tree_map(
            lambda t: mode.from_tensor(t) if isinstance(t, torch.Tensor) else t, inputs
        )
        outputs = function(*fake)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        gradients = torch.autograd.grad([o.float().sum() for o in outputs], leaves(*fake))
    for side, truth in zip((outputs, gradients), real, strict=True):
        for got, wanted in zip(side, truth, strict=True):
            assert type(got) is torch._subclasses.FakeTensor
            assert (got.shape, got.dtype, got.stride()) == (wanted.shape, wanted.dtype, wanted.stride())


@pytest.mark.parametrize("name", OPS)
def test_autocast_casts_the_tensors_of_products(name):
    function, inputs = _calls()[name]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, gradients = results(function, *inputs)
    elementwise = name in ("gated_scan", "mingru_scan", "rglru_scan")
    assert outputs[0].dtype == (torch.float32 if elementwise else torch.bfloat16)
    assert all(g.dtype == t.dtype for g, t in zip(gradients, leaves(*inputs), strict=True))
    exact, exact_gradients = results(function, *inputs)
    torch.testing.assert_close(outputs[0].float(), exact[0], rtol=0.05, atol=0.05)
    for got, wanted in zip(gradients, exact_gradients, strict=True):
        assert (got - wanted).norm() <= 0.03 * wanted.norm()


def test_autocast_joins_mixed_dtypes():
    q, pools = attention_inputs(MEMORY, dtype=torch.float32)
    pools = [pools[0], tuple(t.bfloat16() for t in pools[1])]
    with torch.autocast("cpu", torch.bfloat16):
        assert frame_attention(q, pools, MEMORY).dtype == torch.bfloat16


@pytest.mark.parametrize("name", OPS)
def test_second_derivatives_are_refused_by_name(name):
    function, inputs = _calls(torch.float64)[name]
    output = function(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    first = torch.autograd.grad(output.square().sum(), leaves(*inputs)[0], create_graph=True)[0]
    operation = "frame_attention" if name == "attention" else name
    with pytest.raises(RuntimeError, match=f"rcv.{operation} has no second derivative"):
        first.sum().backward()


@pytest.mark.parametrize("name", OPS)
def test_unneeded_gradients_are_left_out(name):
    function, inputs = _calls(torch.float64)[name]
    wanted = results(function, *inputs)[1][0]
    first, *rest = inputs
    rest = torch.utils._pytree.tree_map(lambda t: t.detach(), rest)
    torch.testing.assert_close(results(function, first, *rest)[1][0], wanted)
    with torch.no_grad():
        assert not leaves(function(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_inductor(name):
    function, inputs = _calls()[name]
    torch._dynamo.reset()
    for got, wanted in zip(
        results(torch.compile(function), *inputs), results(function, *inputs), strict=True
    ):
        torch.testing.assert_close(list(got), list(wanted))
