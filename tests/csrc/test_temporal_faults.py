"""Faults put into temporal_attention's sources on purpose: comparison, or the emulation's checks, must find each."""

import functools

import pytest
import torch

from rcv.ops import reference, temporal_attention
from tests.csrc.emulation import CSRC, EmulationError, compiled
from tests.csrc.faults import OTHER_HEAD_DIMS, with_fault
from tests.ops.cases import assert_close_to_reference, normal

SHORT = {
    "dropped barrier before values": ("warp_barrier();  // queries and keys have been read", ""),
    "dropped barrier in a product": ("warp_barrier();  // a and this part of b have been read", ""),
    "wrong row of a transpose": (
        "* stride + row_of(i));\n      write(place,",
        "* stride + (row_of(i) ^ 1));\n      write(place,",
    ),
    "wrong lanes of the largest": (
        "for (int mask = 16; mask; mask /= 2) x = fmaxf",
        "for (int mask = 2; mask; mask /= 2) x = fmaxf",
    ),
    "wrong row of a tile's elements": ("sums[lane_row(i)] +=", "sums[0] +="),
    "frame of another token": ("return row * reciprocal >> 16", "return (row + 1) * reciprocal >> 16"),
    "token beyond the last": ("first_token + token < tokens", "first_token + token <= tokens"),
    "one key too many": ("first + frames}", "first + frames + 1}"),
    "one frame of the future": ("causal ? row + 1 :", "causal ? row + 2 :"),
    "dS not scaled back": ("p.scale * exp2f(-exponent)", "p.scale"),
    "probabilities not scaled back": ("of_dv[r] = exp2f(-LARGEST_EXPONENT)", "of_dv[r] = 1.0f"),
    "sum forgotten": ("softmax.sum[r] = 1.0f / row_sum(softmax.sum[r]);", "softmax.sum[r] = 1.0f;"),
}
LONG = {
    "dropped barrier after a step": ("block_barrier();  // the former rows have been read", ""),
    "dropped barrier before a step": ("block_barrier();  // these are there", ""),
    "forgotten rescale": ("scale_rows(o, correction);", ";"),
    "frame beyond the last": ("a_stride, frames - next)", "a_stride, frames - next + 1)"),
    "one frame of the future": ("last < frames ? last + 1", "last < frames ? last + 2"),
}
LONG_BACKWARD = {
    "dropped warp barrier": (
        "warp_barrier();\n    multiply<T::KEYS>(dq,",
        "multiply<T::KEYS>(dq,",
    ),
    "forgotten rescale of delta": ("delta[r] *= correction[r];", ";"),
    "forgotten rescale of sums of dS": ("scale_all(sum, exp2f(exponent_of_next - exponent));", ";"),
    "log-sum-exp of another query": ("read<float>(lses + column)", "read<float>(lses + (column ^ 1))"),
    "delta of another query": (
        "(deltas + (8 * b + column_of(i)))",
        "(deltas + (8 * b + (column_of(i) ^ 1)))",
    ),
    "queries that attend left out": ("/ T::QUERIES * T::QUERIES : 0", "/ T::QUERIES * T::QUERIES + 32 : 0"),
    "query beyond the last": ("exists = query < p.frames", "exists = query <= p.frames"),
    "gradient of the other warp": (
        "const bool of_dk = warp_index() % 2",
        "const bool of_dk = warp_index() / 2",
    ),
}


def _compare(emulating, libraries, frames, tokens):
    """Compare forward and backward, causal and not."""
    q, k, v = (normal(1, frames, tokens, 2, 40, seed=s, dtype=torch.float16).detach() for s in (1, 2, 3))
    v[:, 32:] *= 8  # sums of dS begin with the smaller ones
    inputs = [t.requires_grad_() for t in (q, k, v)]
    with emulating(*libraries):
        for causal in (False, True):
            ours, truth = (
                functools.partial(f, causal=causal)
                for f in (temporal_attention, reference.temporal_attention)
            )
            assert_close_to_reference(ours, truth, *inputs)


def _compare_short(emulating, folder):
    """5 frames: six tokens a warp, two rows empty, and one token in the last warp."""
    _compare(emulating, [compiled("temporal", 70, folder)], 5, 13)


def _compare_long(emulating, folder, forward_folder):
    libraries = [
        compiled("temporal", 70),  # what is long, its tiles say
        compiled("temporal_long", 70, forward_folder),
        compiled("temporal_long_backward", 70, folder),
    ]
    _compare(emulating, libraries, 70, 1)


def test_without_a_fault_nothing_differs(emulating, sources):
    with_fault(sources, ("forward", "forward"), OTHER_HEAD_DIMS)
    _compare_short(emulating, sources)
    _compare_long(emulating, sources, sources)


@pytest.mark.parametrize("fault", SHORT.values(), ids=SHORT)
def test_fault_in_short_sequences_is_found(emulating, sources, fault):
    with_fault(sources, fault, OTHER_HEAD_DIMS)
    with pytest.raises((EmulationError, AssertionError)):
        _compare_short(emulating, sources)


@pytest.mark.parametrize("fault", LONG.values(), ids=LONG)
def test_fault_in_long_sequences_is_found(emulating, sources, fault):
    with_fault(sources, fault, OTHER_HEAD_DIMS)
    with pytest.raises((EmulationError, AssertionError)):
        _compare_long(emulating, sources, sources)


@pytest.mark.parametrize("fault", LONG_BACKWARD.values(), ids=LONG_BACKWARD)
def test_fault_in_the_backward_of_long_sequences_is_found(emulating, sources, fault):
    with_fault(sources, fault, OTHER_HEAD_DIMS)
    with pytest.raises((EmulationError, AssertionError)):
        _compare_long(emulating, sources, CSRC)
