"""Faults put into the sources on purpose: the tests' comparison, or the emulation's checks, must find each."""

import pytest
import torch

from rcv.ops import FrameTable, frame_attention, reference
from tests.csrc.emulation import CSRC, EmulationError, compiled
from tests.csrc.faults import OTHER_HEAD_DIMS, with_fault
from tests.ops.cases import assert_close_to_reference, attention_inputs, normal

FORWARD = {
    "dropped barrier": ("block_barrier();  // keys are there, values and probabilities are free", ""),
    "forgotten rescale": ("o.v[b][i] *= correction[lane_row(i)];", ";"),
    "key beyond the last": ("8 * b + column_of(i) >= valid", "8 * b + column_of(i) > valid"),
    "row beyond the last": ("if (row < valid) r = read", "if (row <= valid) r = read"),
    "wrong lane of the row": (
        "return reduction(x, shuffle_xor(x, 2));",
        "return reduction(x, shuffle_xor(x, 4));",
    ),
    "wrong lane of b": ("b + (lane_index() % 4) * stride", "b + (lane_index() % 4 ^ 1) * stride"),
}
BACKWARD = {
    "dropped warp barrier": (
        "store_rows(ds_rows + first_column, T::S_ROW, ds);\n    meet_in_rows<T::SPLIT>();",
        ";",
    ),
    "delta of another row": ("read<float>(deltas + row);", "read<float>(deltas + (row ^ 1));"),
    "gradient not scaled back": ("const float back = p.scale / gradient;", "const float back = p.scale;"),
    "slice that overlaps": ("all * (slice + 1) / slices", "all * (slice + 1) / slices + 1"),
}


def _differs(emulating, folder, source):
    """Run forward and backward with `source` from a folder and the rest as it is."""
    libraries = [
        compiled(name, 70, folder=folder if name == source else CSRC)
        for name in ("attention", "attention_backward")
    ]
    table = FrameTable([[-1, -1], [0, 1], [2, 0], [0, 0]], (1, 2))
    q, pools = attention_inputs(table, 1, tokens=67, keys=(67, 21), heads=1, width=40, dtype=torch.float16)
    bias = normal(1, 2, seed=7, dtype=torch.float32)

    def ours(q, pools, bias):
        return frame_attention(q, pools, table, logit_bias=bias)

    def truth(q, pools, bias):
        return reference.frame_attention(q, pools, table, logit_bias=bias)

    with emulating(*libraries):
        assert_close_to_reference(ours, truth, q, pools, bias)


def test_without_a_fault_nothing_differs(emulating, sources):
    with_fault(sources, ("forward", "forward"), OTHER_HEAD_DIMS)
    _differs(emulating, sources, "attention")


@pytest.mark.parametrize("fault", FORWARD.values(), ids=FORWARD)
def test_forward_fault_is_found(emulating, sources, fault):
    with_fault(sources, fault, OTHER_HEAD_DIMS)
    with pytest.raises((EmulationError, AssertionError)):
        _differs(emulating, sources, "attention")


@pytest.mark.parametrize("fault", BACKWARD.values(), ids=BACKWARD)
def test_backward_fault_is_found(emulating, sources, fault):
    with_fault(sources, fault, OTHER_HEAD_DIMS)
    with pytest.raises((EmulationError, AssertionError)):
        _differs(emulating, sources, "attention_backward")
