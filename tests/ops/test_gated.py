"""gated_scan, mingru_scan and rglru_scan against the reference."""

import pytest
import torch

from rcv.ops import gated_scan, mingru_scan, reference, rglru_scan
from rcv.ops.torch_backend import gated
from tests.ops.cases import DTYPES, assert_close_to_reference, normal, results

SCANS = {
    # name: the operation, the reference, tensors [B, F, N, C] of its inputs
    "gated": (gated_scan, reference.gated_scan, 2),
    "mingru": (mingru_scan, reference.mingru_scan, 2),
    "rglru": (rglru_scan, reference.rglru_scan, 3),
}
every_scan = pytest.mark.parametrize("name", SCANS)
carried_or_not = pytest.mark.parametrize("carried", [False, True], ids=["zero", "h0"])


def inputs_of(name, frames=3, carried=True, dtype=torch.float64, videos=2, tokens=5, width=6):
    """Return the inputs of a scan; the decay and the state that is carried in are float32 or wider."""
    wide = torch.promote_types(dtype, torch.float32)
    shape = (videos, frames, tokens, width)
    inputs = [normal(*shape, seed=seed, dtype=dtype) for seed in range(1, 1 + SCANS[name][2])]
    if name == "gated":
        inputs[0] = inputs[0].detach().sigmoid().requires_grad_()
    if name == "rglru":
        # softplus(decay) from 0.002 to 0.3: a from 0.1 to nearly 1
        inputs.append(torch.linspace(-6, -1, width, dtype=wide).requires_grad_())
    inputs.append(normal(videos, tokens, width, seed=9, dtype=wide) if carried else None)
    return inputs


def _assert_equal(ours, theirs):
    for got, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-12)


@carried_or_not
@pytest.mark.parametrize("frames", [1, 3])
@every_scan
def test_float64_equals_reference(name, frames, carried):
    scan, truth, _ = SCANS[name]
    inputs = inputs_of(name, frames, carried)
    _assert_equal(results(scan, *inputs), results(truth, *inputs))


@every_scan
def test_chunks_of_tokens_equal_the_whole(name, monkeypatch):
    scan, truth, _ = SCANS[name]
    inputs = inputs_of(name)
    monkeypatch.setitem(gated.CHUNK_ELEMENTS, "cpu", 2 * 2 * 3 * 6)  # two tokens a chunk, and one left over
    _assert_equal(results(scan, *inputs), results(truth, *inputs))


@carried_or_not
@every_scan
def test_gradcheck(name, carried):
    assert torch.autograd.gradcheck(SCANS[name][0], inputs_of(name, 3, carried, videos=1, tokens=2, width=3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_scan
def test_error_bounds(name, dtype):
    scan, truth, _ = SCANS[name]
    assert_close_to_reference(scan, truth, *inputs_of(name, frames=12, dtype=dtype, tokens=17, width=40))


@every_scan
def test_strided_views(name):
    scan, truth, gates = SCANS[name]
    inputs = inputs_of(name)
    for place in range(1, gates):
        inputs[place] = normal(2, 6, 5, 12, seed=20 + place)[:, ::2, :, ::2]
    inputs[0] = normal(3, 6, 5, 2, seed=20).permute(3, 0, 2, 1)
    ours = results(scan, *inputs)
    _assert_equal(ours, results(truth, *inputs))
    assert ours[0][0].is_contiguous()
    # sum() expands its gradients from one number: stride 0
    expanded, wanted = (torch.autograd.grad(f(*inputs)[0].sum(), inputs) for f in (scan, truth))
    torch.testing.assert_close(expanded, wanted, rtol=1e-11, atol=1e-12)


@every_scan
def test_two_windows_equal_one(name):
    scan, _, gates = SCANS[name]
    inputs = [t.detach() for t in inputs_of(name, frames=5)]

    def window(frames, state):
        return scan(*[t[:, frames] for t in inputs[:gates]], *inputs[gates:-1], state)

    whole, last = window(slice(0, 5), inputs[-1])
    former, state = window(slice(0, 2), inputs[-1])
    latter, end = window(slice(2, 5), state)
    torch.testing.assert_close(torch.cat([former, latter], 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=1e-12, atol=1e-12)


def test_the_inlet_has_no_slope_on_its_floor():
    """Where 1 - a^2 is below it: of the gradients of `forget` and `decay` the former state alone is left."""
    inputs = inputs_of("rglru")
    inputs[3] = torch.full_like(inputs[3], -20.0).requires_grad_()
    ours = results(rglru_scan, *inputs)[1]
    exact = results(reference.rglru_scan, *(t.detach().double().requires_grad_() for t in inputs))[1]
    for got, wanted in zip(ours, exact, strict=True):
        assert (got - wanted).norm() <= 1e-3 * wanted.norm()


@every_scan
def test_bitwise_reproducible(name):
    inputs = inputs_of(name, frames=9, dtype=torch.bfloat16)
    first, second = (results(SCANS[name][0], *inputs) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_scan
def test_state_is_float32(name, dtype):
    scan, truth, _ = SCANS[name]
    inputs = inputs_of(name, frames=40, dtype=dtype)
    h, last = scan(*inputs)
    assert h.dtype == dtype
    assert last.dtype == torch.float32
    assert last.untyped_storage().data_ptr() != h.untyped_storage().data_ptr()
    assert last._base is None
    exact = truth(*(t.double() for t in inputs))[1]
    torch.testing.assert_close(last.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
@every_scan
def test_last_state_is_not_the_input(name, frames):
    inputs = [None if t is None else t.detach() for t in inputs_of(name, frames, False, torch.float32)]
    before = [None if t is None else t.clone() for t in inputs]
    SCANS[name][0](*inputs)[1].add_(1)
    assert all(a is b or torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@every_scan
def test_what_is_kept_for_the_backward(name):
    inputs = inputs_of(name, 9)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        h, _ = SCANS[name][0](*inputs)
    needed = [inputs[0], inputs[2]] if name == "gated" else inputs  # the gradient of x needs no x
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in (h, *needed)}


@pytest.mark.parametrize("gate", [-200.0, 200.0], ids=["closed", "open"])
@pytest.mark.parametrize("name", ["mingru", "rglru"])
def test_gates_at_their_ends_give_finite_gradients(name, gate):
    inputs = inputs_of(name, dtype=torch.float32)
    inputs[0] = torch.full_like(inputs[0], gate).requires_grad_()
    outputs, gradients = results(SCANS[name][0], *inputs)
    assert all(t.isfinite().all() for t in (*outputs, *gradients))
    exact = results(SCANS[name][1], *(t.detach().double().requires_grad_() for t in inputs))
    for got, wanted in zip((*outputs, *gradients), (*exact[0], *exact[1]), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: gated_scan(x[:, :2], x), r"a has shape \[2, 2, 5, 6\], expected \[B=2, F=3, N=5, C=6\]"),
        (lambda x: gated_scan(x.half(), x), "a is torch.float16 and x is torch.float32"),
        (lambda x: gated_scan(x, x, x[0]), r"h0 has shape \[3, 5, 6\], expected \[B=2, N=5, C=6\]"),
        (lambda x: gated_scan(x, 1.0), "x is float, expected a tensor"),
        (lambda x: mingru_scan(x[..., :2], x), r"gate has shape .* expected \[B=2, F=3, N=5, C=6\]"),
        (lambda x: mingru_scan(x[:, :0], x[:, :0]), "candidate has shape .* expected one frame or more"),
        (lambda x: mingru_scan(x, x.half()), "gate is torch.float32 and candidate is torch.float16"),
        (lambda x: rglru_scan(x, x[0], x, x[0, 0, 0]), r"inlet has shape \[3, 5, 6\]"),
        (lambda x: rglru_scan(x, x, x, x[0, 0]), r"decay has shape \[5, 6\], expected \[C=6\]"),
        (lambda x: rglru_scan(x, x, x, x[0, 0, 0], x), "h0 has shape"),
    ],
)
def test_errors_name_argument_shape_and_expectation(call, said):
    with pytest.raises(ValueError, match=said):
        call(torch.randn(2, 3, 5, 6))
