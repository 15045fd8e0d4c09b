"""Faults put into the sources of recurrent_scan: the tests' comparison, or the emulation's checks, must find each."""

import functools

import pytest
import torch

from rcv.ops import recurrent_scan, reference
from rcv.ops.cuda_backend import scan as cuda_scan
from tests.csrc.emulation import CHIPS, EmulationError, compiled
from tests.csrc.faults import with_fault
from tests.ops.cases import assert_close_to_reference, normal

# Compiled without the widths and tiles that the faults don't need.
OTHERS = ["\nWALK(64)", "\nWALK(256)", "\nWALK(320)", "\nFRAME(Wide, 128)"]

BOTH = {
    "dropped barrier before the sum": ("block_barrier();  // what is added is there", ""),
    "dropped barrier before the states": ("block_barrier();  // ... and has been read", ""),
    "dropped barrier before the copy": ("block_barrier();                      // the tile is whole", ""),
    "wrong lane of the weight": ("(lane_index() % 4) * stride + 4", "(lane_index() % 4 ^ 1) * stride + 4"),
    "wrong lane of the weight on 7.5": (
        "load_matrix_transposed(b + (lane_index() % 8)",
        "load_matrix_transposed(b + (lane_index() % 8 ^ 1)",
    ),
    "the upper operand twice": (
        "load_operand(a + (WARP_ROWS * a_stride + 8 * k)",
        "load_operand(a + (0 * a_stride + 8 * k)",
    ),
    "slope of the neighbour": ("read<unsigned>(x + (row * stride", "read<unsigned>(x + ((row ^ 1) * stride"),
    "row beyond the last": ("row < rows && column < columns", "row <= rows && column < columns"),
    "column beyond the last": ("row < rows && column < columns", "row < rows && column <= columns"),
    "columns that are none left as they come": ("8 * b + column_of(i) >= valid", "false"),
    "slope of tanh at half of the state": ("1.0f - h * h", "1.0f - h * h * 0.5f"),
    "slope of relu at 0": ("h <= 0.0f ? 0.0f : gradient", "h < 0.0f ? 0.0f : gradient"),
}
WALKING = {
    "dropped barrier between slabs": ("block_barrier();  // the next slab is there; this one", "//"),
    "the former slab again": ("current ^= 1;", ""),
    "slab off by one row": (
        "slab.fetch(weight + next * p.weight_row",
        "slab.fetch(weight + (next + 1) * p.weight_row",
    ),
    "row of the weight beyond the last": ("contracted - next);", "contracted - next + 1);"),
    "state off by one chunk": ("(c, state + k, T::ROW", "(c, state + (k ? k - 8 : 0), T::ROW"),
    "next frame": (
        "p.added.at(video, frame, first_token)",
        "p.added.at(video, (frame + 1) % p.frames, first_token)",
    ),
    "states of the next frame": (
        "p.states.at(video, frame, first",
        "p.states.at(video, (frame + 1) % p.frames, first",
    ),
    "written into the former frame": (
        "p.out.at(video, frame, first",
        "p.out.at(video, frame ? frame - 1 : 0, first",
    ),
    "backward forwards": ("REVERSED ? p.frames - 1 - step : step", "step"),
    "state forgotten": ("carried = true;", ""),
    "first state forgotten": ("bool carried = p.former.data;", "bool carried = false;"),
    "next video": ("p.former.at(video, 0", "p.former.at(video ^ 1, 0"),
}
BY_FRAMES = {
    "dropped barrier between depths": ("block_barrier();  // the next ones are there, these are free", ""),
    "the former depth again": ("current ^= 1;", ""),
    "row of the weight beyond the last": ("contracted - next);", "contracted - next + 1);"),
    "channel of the state beyond the last": (
        "next + a.column() < p.channels",
        "next + a.column() <= p.channels",
    ),
    "state not carried on to the next depth": ("a.fetch(former + next", "a.fetch(former"),
    "columns of the first warp": ("T::WEIGHT + warp_column)", "T::WEIGHT)"),
    "first columns again": (
        "p.added.at(video, frame, first_token) + first_column",
        "p.added.at(video, frame, first_token)",
    ),
    "next frame": (
        "p.added.at(video, frame, first_token)",
        "p.added.at(video, (frame + 1) % p.frames, first_token)",
    ),
    "the frame before the one before": (
        "p.out.at(video, before,",
        "p.out.at(video, REVERSED ? before : before / 2,",
    ),
    "the first frame not told from others": (
        "before == p.frames : before < 0",
        "before == p.frames : before == 0",
    ),
    "next video": ("p.former.at(video, 0", "p.former.at(video ^ 1, 0"),
}
HOST = {
    "wrong frame before": lambda order: order[1:] + order[:1],
    "backward forwards": lambda order: order[::-1],
}


def _scans(activation):
    return [functools.partial(f, activation=activation) for f in (recurrent_scan, reference.recurrent_scan)]


def _check():
    """Compare with the reference: values, and an infinite state, of which nothing but infinity comes."""
    x = normal(2, 3, 67, 72, seed=1, dtype=torch.float16)
    weight = (normal(72, 72, seed=2).detach() / 72**0.5).to(torch.float16).requires_grad_()
    h0 = normal(2, 67, 72, seed=3, dtype=torch.float16)
    assert_close_to_reference(*_scans("tanh"), x, weight, h0)
    # Half of the states are 0, all others far from it: rounding decides on no slope.
    signs = torch.where(x.detach() < 0, -50.0, 1.0).to(torch.float16).requires_grad_()
    positive = weight.detach().abs().requires_grad_()
    assert_close_to_reference(*_scans("relu"), signs, positive, h0.detach().abs().requires_grad_())
    large, ones = (
        torch.full((1, 4, 67, 12), 6e4, dtype=torch.float16),
        torch.ones(12, 12, dtype=torch.float16),
    )
    ours, truth = (f(large, ones) for f in _scans("relu"))
    assert torch.equal(ours, truth)
    assert ours[:, 1:].isinf().all()


def _run(emulating, folder, chip, walks, patch):
    patch.setattr(cuda_scan, "_walks", lambda t: walks)
    patch.setattr(cuda_scan, "WALK_WIDTHS", (128,))
    patch.setattr(cuda_scan, "WIDE_TILES", dict.fromkeys([(7, 0), (7, 5)], 99))
    with emulating(compiled("scan" if walks else "scan_frame", chip, folder=folder)):
        _check()


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("walks", [True, False], ids=["walking", "by frames"])
def test_without_a_fault_nothing_differs(emulating, sources, monkeypatch, walks, chip):
    with_fault(sources, ("REVERSED", "REVERSED"), OTHERS)
    _run(emulating, sources, chip, walks, monkeypatch)


FAULTS = [
    pytest.param(
        fault, walks, 75 if "7.5" in name else 70, id=f"{'walking' if walks else 'by frames'}: {name}"
    )
    for walks, own in ((True, WALKING), (False, BY_FRAMES))
    for name, fault in {**BOTH, **own}.items()
]


@pytest.mark.parametrize(("fault", "walks", "chip"), FAULTS)
def test_fault_is_found(emulating, sources, monkeypatch, fault, walks, chip):
    with_fault(sources, fault, OTHERS)
    with pytest.raises((EmulationError, AssertionError)):
        _run(emulating, sources, chip, walks, monkeypatch)


@pytest.mark.parametrize("wrong", HOST.values(), ids=HOST)
def test_launches_in_the_wrong_order_are_found(emulating, monkeypatch, wrong):
    monkeypatch.setattr(cuda_scan, "_walks", lambda t: False)
    # The emulator puts back what it replaces: what is patched within must be gone by then.
    with emulating(compiled("scan_frame", 70)) as emulator, monkeypatch.context() as patch:
        patch.setattr(
            cuda_scan.driver,
            "launch_each",
            lambda kernel, blocks, several, tensors: emulator.launch_each(
                kernel, blocks, wrong(several), tensors
            ),
        )
        with pytest.raises(AssertionError):
            _check()
