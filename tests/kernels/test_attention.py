"""frame_attention in Triton, against the reference."""

import functools

import pytest
import torch

from rcv.kernels import attention as kernels
from rcv.kernels import attention_dkv
from rcv.kernels.launch import recording
from rcv.ops import FrameTable, attention, frame_attention, reference
from rcv.ops.torch_backend import attention as torch_backend
from tests.ops.cases import TABLES, assert_close_to_reference, attention_inputs, normal, results
from tests.ops.test_registration import CHECKS

pytestmark = pytest.mark.usefixtures("triton_backend", "poisoned", "small_tiles")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.float16


def _leaf(t):
    return t.detach().to(DEVICE).requires_grad_(t.numel() > 0)


def _inputs(table, dtype=torch.float32, videos=1, tokens=17, keys=(33, 5), heads=1, width=40):
    q, pools = attention_inputs(table, videos, tokens, keys, heads, width, dtype)
    return _leaf(q), [tuple(map(_leaf, pair)) for pair in pools]


def _bias(heads, table):
    return _leaf(normal(heads, table.slots, seed=7, dtype=torch.float32))


def _with(function, table, **options):
    return lambda q, pools, bias=None: function(q, pools, table, logit_bias=bias, **options)


def _assert_close(table, q, pools, bias=None, **options):
    fixed = {**options, "logit_bias": None if bias is None else bias.detach()}
    ours, theirs = (
        lambda q, pools, function=function: function(q, pools, table, **fixed)
        for function in (frame_attention, reference.frame_attention)
    )
    assert_close_to_reference(ours, theirs, q, pools)
    if bias is not None:
        _assert_bias_gradient_close(table, q, pools, bias, **options)


def _in_float64(*items):
    return [
        _leaf(item.double())
        if isinstance(item, torch.Tensor)
        else [tuple(_in_float64(*pair)) for pair in item]
        for item in items
    ]


def _assert_bias_gradient_close(table, q, pools, bias, **options):
    """A sum whose terms cancel, over all queries: its rounding is that of its terms."""
    (o,), gradients = results(_with(frame_attention, table, **options), q, pools, bias)
    truths = results(_with(reference.frame_attention, table, **options), *_in_float64(q, pools, bias))[1]
    do = normal(*o.shape, seed=50).to(o.device)  # the one of `results`
    terms = (do * o).abs().sum()
    assert gradients[-1].dtype == bias.dtype
    assert (gradients[-1] - truths[-1]).abs().max() <= torch.finfo(q.dtype).eps * terms


def _assert_relative_error(table, q, pools, most=0.005, **options):
    ours = results(_with(frame_attention, table, **options), q, pools)
    truths = results(_with(reference.frame_attention, table, **options), *_in_float64(q, pools))
    for got, truth in zip((*ours[0], *ours[1]), (*truths[0], *truths[1]), strict=True):
        assert (got - truth).square().mean().sqrt() <= most * truth.square().mean().sqrt()


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables(table):
    _assert_close(table, *_inputs(table), _bias(1, table))


@pytest.mark.parametrize("width", [8, 20, 32, 40, 64, 80, 96, 128, 160])
def test_head_dims_in_float16(width):
    table = FrameTable.first_memory(2)
    q, pools = _inputs(table, HALF, width=width)
    _assert_close(table, q, pools)
    _assert_relative_error(table, q, pools)


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_head_dims_in_bfloat16(width):
    table = FrameTable.first_memory(2)
    _assert_close(table, *_inputs(table, torch.bfloat16, width=width), _bias(1, table))


@pytest.mark.parametrize("name", ["first_former", "rows of -1"])
def test_bias_videos_and_heads_in_float16(name):
    table = TABLES[name]
    q, pools = _inputs(table, HALF, videos=2, tokens=5, keys=(17, 5), heads=2, width=20)
    _assert_close(table, q, pools, _bias(2, table))


@pytest.mark.parametrize("tokens, keys", [(16, 32), (1, 1), (40, 3)])
def test_sizes_of_whole_blocks_and_of_one_token(tokens, keys):
    table = FrameTable.first_memory(2)
    q, pools = _inputs(table, tokens=tokens, keys=(keys, keys), width=16)
    ours, theirs = (results(_with(f, table), q, pools) for f in (frame_attention, reference.frame_attention))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("scale", [-0.7, 0.0, 2.0])
@pytest.mark.parametrize("keys", [16, 17])
def test_scales(scale, keys):
    table = FrameTable.first(2)
    _assert_close(table, *_inputs(table, tokens=3, keys=(keys,), width=8), _bias(1, table), scale=scale)


@pytest.mark.parametrize("name", ["heads first", "tokens apart", "frames apart", "channels apart"])
def test_strided_views(name):
    table = FrameTable.first_former(2)

    def strided(seed):
        t = functools.partial(normal, 2, seed=seed, dtype=torch.float32)
        if name == "heads first":
            return t(2, 2, 17, 20).transpose(2, 3)
        if name == "tokens apart":
            return t(2, 34, 2, 20)[:, :, ::2]
        if name == "frames apart":
            return t(4, 17, 2, 20)[:, ::2]
        return t(2, 17, 20, 2).transpose(3, 4)

    q, k, v = (strided(seed).detach() for seed in (1, 2, 3))
    if DEVICE == "cuda":  # a copy would be contiguous
        q, k, v = (torch.empty_strided(t.shape, t.stride(), device=DEVICE).copy_(t) for t in (q, k, v))
    assert not q.is_contiguous()
    _assert_close(table, q.requires_grad_(), [(k.requires_grad_(), v.requires_grad_())])


@pytest.mark.parametrize("expanded", [True, False])
def test_strided_gradient_of_the_output(expanded):
    table = FrameTable.first_memory(2)
    q, pools = _inputs(table, tokens=5)
    o = frame_attention(q, pools, table)
    do = torch.ones((), device=DEVICE).expand(o.shape)
    if not expanded:
        do = normal(*reversed(o.shape), seed=9, dtype=o.dtype).detach().to(DEVICE).permute(4, 3, 2, 1, 0)
    gradients = torch.autograd.grad(o, [q, *pools[0], *pools[1]], do)
    truths = torch.autograd.grad(reference.frame_attention(q, pools, table), [q, *pools[0], *pools[1]], do)
    torch.testing.assert_close(gradients, truths, rtol=1e-4, atol=1e-5)


def test_offsets_beyond_int32():
    table = FrameTable.first_former(2)
    # Reserved, but hardly touched.
    far = torch.Tensor.new_empty.__wrapped__(torch.zeros((), dtype=HALF, device=DEVICE), (1 << 31) + 64)
    q = far.as_strided((1, 2, 5, 1, 8), (1, 8, 1 << 29, 1, 1))
    k = far.as_strided((1, 2, 5, 1, 8), (1, 1 << 30, 8, 1, 1), 1 << 30)
    v = normal(1, 2, 5, 1, 8, seed=3, dtype=HALF).detach().to(DEVICE)
    for seed, t in ((1, q), (2, k)):
        t.copy_(normal(*t.shape, seed=seed).detach())
    _assert_close(table, q.requires_grad_(), [(k.requires_grad_(), v.requires_grad_())])


@pytest.mark.parametrize("name", ["first", "first_memory", "causal", "repeated names"])
@pytest.mark.parametrize("length", [1, 2])
def test_slices_of_frames_that_many_name(name, length, monkeypatch):
    monkeypatch.setattr(attention_dkv, "slice_length", lambda *sizes: length)
    table = TABLES[name]
    assert attention_dkv.slices_of(table.key, length, torch.device(DEVICE)).count > 1
    q, pools = _inputs(table, videos=2, tokens=3, keys=(17, 5), width=20)
    _assert_close(table, q, pools, _bias(1, table))


def test_bitwise_reproducible(monkeypatch):
    monkeypatch.setattr(attention_dkv, "slice_length", lambda *sizes: 1)
    table = FrameTable.first_former(3)
    q, pools = _inputs(table, HALF)
    first, second = (results(_with(frame_attention, table), q, pools, _bias(1, table)) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


def test_logits_of_200_in_float16():
    table = FrameTable.first_memory(2)
    q, pools = _inputs(table, HALF)
    size = (200 / 40**0.5) ** 0.5
    signs = (torch.arange(33, device=DEVICE) % 2 * 2 - 1)[:, None, None]
    q = (torch.full_like(q, size) * signs[:17]).detach().requires_grad_()
    pools = [
        ((torch.full_like(k, size) * signs[: k.shape[2]]).detach().requires_grad_(), v) for k, v in pools
    ]
    for t in results(_with(frame_attention, table), q, pools):
        assert all(torch.isfinite(one).all() for one in t)
    _assert_close(table, q, pools)


def test_products_beyond_float16():
    table = FrameTable.first(1)
    q = _leaf(60 + normal(1, 1, 5, 1, 40, seed=1).to(HALF))
    k = _leaf(60 + normal(1, 1, 5, 1, 40, seed=2).to(HALF))
    v = _leaf(normal(1, 1, 5, 1, 40, seed=3, dtype=HALF))
    assert torch.isinf((q.float() @ k.float().mT).half()).any()
    (o,), gradients = results(_with(frame_attention, table, scale=0.001), q, [(k, v)])
    truth = reference.frame_attention(q.double(), [(k.double(), v.double())], table, scale=0.001)
    assert (o - truth).abs().max() <= 0.002
    assert all(torch.isfinite(t).all() for t in gradients)


def test_log_sum_exp_is_that_of_the_torch_backend():
    for table in (TABLES["rows of -1"], TABLES["first_memory"]):
        q, pools = _inputs(table)
        bias = _bias(1, table).detach()
        with torch.no_grad():
            o, lse = kernels.forward(q, pools, table.key, bias, 0.3)
            expected = torch_backend.forward(q, pools, table.key, bias, 0.3)
        assert o.is_contiguous() and lse.is_contiguous()
        torch.testing.assert_close((o, lse), expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_some_inputs_alone():
    table = FrameTable.first_memory(2)
    q, pools = _inputs(table, tokens=5)
    bias = _bias(1, table)
    every = results(_with(frame_attention, table), q, pools, bias)[1]
    tensors = [q, *pools[0], *pools[1], bias]
    for wanted in ([0], [3, 4], [5]):
        parts = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
        inputs = parts[0], [tuple(parts[1:3]), tuple(parts[3:5])], parts[5]
        for i, gradient in zip(wanted, results(_with(frame_attention, table), *inputs)[1], strict=True):
            torch.testing.assert_close(gradient, every[i], rtol=0, atol=0)
    with torch.no_grad():
        assert not frame_attention(q, pools, table).requires_grad


def test_attention_is_scaled_dot_product_attention():
    q, k, v = (_leaf(normal(2, 1, n, 8, seed=n, dtype=torch.float32)) for n in (5, 7, 7))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    ours, torchs = results(attention, q, k, v), results(sdpa, q, k, v)
    for got, wanted in zip((*ours[0], *ours[1]), (*torchs[0], *torchs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_empty_inputs():
    table = FrameTable.first(2)
    for videos, tokens in ((0, 3), (1, 0)):
        q, pools = _inputs(table, videos=videos, tokens=tokens, keys=(4,), width=8)
        with torch.no_grad():
            o, lse = kernels.forward(q, pools, table.key, None, 0.3)
            dq, [(dk, dv)], _ = kernels.backward(o, q, pools, o, lse, table.key, None, 0.3, False)
        assert o.shape == dq.shape == q.shape
        assert dk.shape == dv.shape == pools[0][0].shape
        assert dk.abs().sum() == dv.abs().sum() == 0


def test_tiles_of_the_table(monkeypatch):
    monkeypatch.undo()
    table = FrameTable.first_memory(2)
    q, pools = attention_inputs(table, 1, 17, (33, 5), 1, 40, HALF)
    q, pools = _leaf(q), [tuple(map(_leaf, pair)) for pair in pools]
    with torch.no_grad():
        o, lse = kernels.forward(q, pools, table.key, None, 0.3)
        dq, of_pools, _ = kernels.backward(o, q, pools, o, lse, table.key, None, 0.3, False)
        o2, lse2 = torch_backend.forward(q, pools, table.key, None, 0.3)
        dq2, of_pools2, _ = torch_backend.backward(o2, q, pools, o2, lse2, table.key, None, 0.3, False)
    torch.testing.assert_close((o, lse, dq), (o2, lse2, dq2), rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(of_pools, [tuple(pair) for pair in of_pools2], rtol=5e-3, atol=5e-3)


def test_opcheck():
    table = FrameTable.first_memory(2)
    q, [(k, v), (k2, v2)] = _inputs(table, tokens=3, keys=(4, 5), width=8)
    arguments = (q, k, v, k2, v2, table.key, _bias(1, table), 0.4, "triton")
    checked = torch.library.opcheck(torch.ops.rcv.frame_attention, arguments, test_utils=CHECKS)
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.parametrize("videos", [1, 70_000])
def test_grids_are_flat(videos):
    table = FrameTable.first_memory(8)
    q, k, k2 = (torch.zeros(()).expand(videos, frames, 64, 8, 160).to("meta") for frames in (8, 1, 7))
    bias = torch.zeros(8, 2, device="meta")
    pools = [(k, k), (k2, k2)]
    with recording((9, 0)) as recorded:
        o, lse = kernels.forward(q, pools, table.key, bias, 0.1)
        kernels.backward(o, q, pools, o, lse, table.key, bias, 0.1, True)
    names = [recorded_launch.kernel.__name__ for recorded_launch in recorded.launches]
    assert names[:3] == [f"frame_attention_{part}_kernel" for part in ("fwd", "bwd_dq", "bwd_dkv")]
    assert all(len(one.grid) == 1 and one.grid[0] < 1 << 31 for one in recorded.launches)
