"""temporal_attention by the kernels of csrc/, emulated, against the reference in float64."""

import functools
import warnings

import pytest
import torch

from rcv.ops import reference, temporal_attention
from rcv.ops.cuda_backend import parameters, temporal
from rcv.ops.torch_backend import temporal as torch_backend
from tests.ops.cases import assert_close_to_reference, normal, results

HALF = torch.float16
causal_or_not = pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
# 40 frames are one block of rows in most kernels, and two blocks that it walks over.
SHORT_AND_LONG = pytest.mark.parametrize("frames", [5, 40], ids=["short", "long"])


def _inputs(frames, width=40, videos=1, tokens=7, heads=2, dtype=HALF):
    return [normal(videos, frames, tokens, heads, width, seed=s, dtype=dtype) for s in (1, 2, 3)]


def _pair(**options):
    return [functools.partial(f, **options) for f in (temporal_attention, reference.temporal_attention)]


def _assert_close(inputs, **options):
    assert_close_to_reference(*_pair(**options), *inputs)


def _assert_relative_error(pair, inputs, bound=0.005):
    """Hold the relative RMS error of outputs and gradients against the float64 truth for the same inputs."""
    ours, truth = pair
    exact = results(truth, *(t.detach().double().requires_grad_() for t in inputs))
    mine = results(ours, *inputs)
    for got, wanted in zip((*mine[0], *mine[1]), (*exact[0], *exact[1]), strict=True):
        assert got.isfinite().all()
        assert (got - wanted).square().mean().sqrt() <= bound * wanted.square().mean().sqrt()


@causal_or_not
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("width", [40, 64, 80, 160])
def test_error_bounds(temporal_kernels, width, frames, causal):
    inputs = _inputs(frames, width, videos=2)
    _assert_close(inputs, causal=causal)
    assert temporal_kernels.launched == [
        f"temporal_attention_{part}_kernel_d{width}" for part in ("fwd", "bwd")
    ]
    if frames > 1:  # of one frame the gradients of q and k are zero
        _assert_relative_error(_pair(causal=causal), inputs)


@causal_or_not
@pytest.mark.parametrize("frames", [16, 17, 32, 33, 128])
@pytest.mark.parametrize("width", [40, 64, 80, 160])
def test_more_frames(temporal_kernels, width, frames, causal):
    _assert_close(_inputs(frames, width, tokens=3 if frames <= 32 else 1, heads=1), causal=causal)
    parts = ("fwd", "bwd") if frames <= 32 else ("long_fwd", "long_bwd_dq", "long_bwd_dkv")
    assert temporal_kernels.launched == [f"temporal_attention_{part}_kernel_d{width}" for part in parts]


@pytest.mark.parametrize("width", [40, 160])
def test_more_frames_than_a_block_holds(temporal_kernels, width):
    _assert_close(_inputs(131, width, tokens=1, heads=1), causal=True)


@pytest.mark.parametrize(("frames", "tokens"), [(1, 131), (12, 33)])
def test_more_tokens_than_a_warp_holds(temporal_kernels, frames, tokens):
    _assert_close(_inputs(frames, tokens=tokens, videos=2))


@SHORT_AND_LONG
@pytest.mark.parametrize("width", [8, 32, 36, 100, 128])
def test_head_dims_between_are_padded(temporal_kernels, width, frames):
    _assert_close(_inputs(frames, width, tokens=2, heads=1), causal=True)
    assert temporal_kernels.launched[0].endswith(f"_d{parameters.head_dim_of(width)}")


@SHORT_AND_LONG
def test_strided_inputs_are_read_in_place(temporal_kernels, frames):
    b, n, h, d = 2, 3, 2, 40
    fused = normal(b, 2 * frames, n, 3 * h * d, seed=3, dtype=HALF).detach()[:, ::2]
    q, k, v = (t.unflatten(-1, (h, d)) for t in fused.chunk(3, dim=-1))
    folded = q.contiguous().transpose(1, 2).contiguous().transpose(1, 2)
    heads_first = k.transpose(2, 3).contiguous().transpose(2, 3)
    for t in (q, k, v, folded, heads_first):
        assert parameters.readable(t, d).data_ptr() == t.data_ptr()
    channels_apart = torch.empty(*v.shape[:-1], 2 * d, dtype=HALF)[..., ::2].copy_(v)
    odd_offset = torch.zeros(v.numel() + 1, dtype=HALF)[1:].view(v.shape).copy_(v)
    plain = [t.contiguous().requires_grad_() for t in (q, k, v)]
    wanted = results(temporal_attention, *plain)
    for inputs in ((q, k, v), (folded, heads_first, channels_apart), (q, k, odd_offset)):
        got = results(temporal_attention, *(t.detach().requires_grad_() for t in inputs))
        for mine, theirs in zip((*got[0], *got[1]), (*wanted[0], *wanted[1]), strict=True):
            assert torch.equal(mine, theirs)
    expanded = torch.autograd.grad(temporal_attention(*plain).sum(), plain)  # its gradient has strides of 0
    ones = torch.autograd.grad(temporal_attention(*plain), plain, torch.ones_like(plain[0]))
    assert all(map(torch.equal, expanded, ones))


@SHORT_AND_LONG
def test_results_are_bitwise_the_same_every_time(temporal_kernels, frames):
    first, second = (results(temporal_attention, *_inputs(frames)) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


@SHORT_AND_LONG
def test_results_are_as_the_torch_backend_lays_them_out(temporal_kernels, frames):
    q, k, v = (t.detach().transpose(2, 3) for t in _inputs(frames, 36))
    found = []
    for program in (temporal, torch_backend):
        o = program.forward(q, k, v, True, 0.3)
        found.append([(t.shape, t.dtype, t.stride()) for t in (o, *program.backward(o, q, k, v, True, 0.3))])
    assert found[0] == found[1]


@SHORT_AND_LONG
def test_a_causal_frame_does_not_see_the_future(temporal_kernels, frames):
    q, k, v = (t.detach() for t in _inputs(frames))
    changed = [torch.cat([t[:, : frames - 2], t[:, frames - 2 :] + 1], 1) for t in (k, v)]
    before, after = (temporal_attention(q, *pair, causal=True) for pair in ((k, v), changed))
    assert torch.equal(before[:, : frames - 2], after[:, : frames - 2])
    assert not torch.equal(before, after)


@SHORT_AND_LONG
@pytest.mark.parametrize("scale", [0.7, -0.7, 0.0])
def test_any_scale(temporal_kernels, frames, scale):
    _assert_close(_inputs(frames, tokens=2), scale=scale)


@SHORT_AND_LONG
@pytest.mark.parametrize(
    ("qk", "v", "gradient"),
    [
        pytest.param(8, 0, 0, id="logits beyond 65504 before the scale"),
        pytest.param(10, 12, 10, id="dS beyond 65504"),
        pytest.param(-8, -10, -10, id="dS below 2^-24"),
        pytest.param(0, 12, -10, id="large values, small gradients"),
        pytest.param(0, -12, 12, id="small values, large gradients"),
        pytest.param(0, 0, -12, id="small gradients"),
    ],
)
def test_float16_neither_overflows_nor_vanishes_where_the_mathematics_does_not(
    temporal_kernels, frames, qk, v, gradient
):
    inputs = [
        (t.detach() * 2.0**exponent).requires_grad_()
        for t, exponent in zip(_inputs(frames, tokens=2), (qk, qk, v), strict=True)
    ]
    pair = [
        lambda *qkv, f=f: f(*qkv).double() * 2.0**gradient for f in _pair(scale=40**-0.5 * 2.0 ** (-2 * qk))
    ]
    _assert_relative_error(pair, inputs)


def test_frames_of_other_sizes_in_a_long_sequence(temporal_kernels):
    """The power of two that dS has in float16 follows the largest so far, down and never up."""
    for exponents in (torch.arange(40.0) / 2 - 10, 10 - torch.arange(40.0) / 2):
        q, k, v = (t.detach() for t in _inputs(40, tokens=2))
        v = (v * 2.0 ** exponents.view(1, -1, 1, 1, 1)).to(HALF)
        _assert_close([t.requires_grad_() for t in (q, k, v)])


@SHORT_AND_LONG
def test_values_of_little_weight_have_right_gradients(temporal_kernels, frames):
    """Frame 0 takes nearly all of the mass: of the others, with 2^-19 to 2^-27, float16 would keep few bits or none."""
    q, k, v = (t.detach() for t in _inputs(frames, tokens=9, heads=1))
    k = 0.1 * k
    k[:, 0] = 3.0
    inputs = [t.requires_grad_() for t in (q.abs(), k, v)]
    ours, truth = (lambda *qkv, f=f: f(*qkv).double() * 2.0**12 for f in _pair())
    dv = results(ours, *inputs)[1][-1][:, 1:]
    exact = results(truth, *(t.detach().double().requires_grad_() for t in inputs))[1][-1][:, 1:]
    assert (dv - exact).square().mean().sqrt() <= 0.005 * exact.square().mean().sqrt()


def test_bfloat16_is_computed_in_float16_and_said_so_once(temporal_kernels, monkeypatch):
    monkeypatch.setattr(parameters, "_warned", False)
    inputs = _inputs(5, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="bfloat16 in float16"):
        _assert_close(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert temporal_attention(*inputs).dtype == torch.bfloat16


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_nothing_to_do(temporal_kernels, axis):
    shape = [2, 3, 4, 2, 40]
    shape[axis] = 0
    q = torch.zeros(shape, dtype=HALF, requires_grad=True)
    o = temporal_attention(q, q, q)
    assert o.shape == q.shape
    assert torch.autograd.grad(o.sum(), q)[0].shape == q.shape
    assert temporal_kernels.launched == []


def test_wider_heads_are_refused_by_name(temporal_kernels):
    with pytest.raises(ValueError, match="cuda: the last dimension is 168, it takes 160 at most"):
        temporal_attention(*_inputs(2, 168))


@SHORT_AND_LONG
def test_opcheck(temporal_kernels, frames):
    inputs = _inputs(frames, tokens=2)
    found = torch.library.opcheck(torch.ops.rcv.temporal_attention, (*inputs, True, 0.4, "cuda"))
    assert set(found.values()) == {"SUCCESS"}
    do, *rest = (t.detach() for t in (inputs[0], *inputs))
    checks = ("test_schema", "test_faketensor")
    backward = torch.ops.rcv.temporal_attention_backward
    found = torch.library.opcheck(backward, (do, *rest, True, 0.4, "cuda"), test_utils=checks)
    assert set(found.values()) == {"SUCCESS"}
