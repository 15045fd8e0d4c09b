"""The least work of each operation, and how fast a device could do it: the bound that a figure is compared with."""

from dataclasses import dataclass

import torch

from .devices import Device

DIRECTIONS = ("forward", "backward")
LSE_BYTES = 4  # the log-sum-exp is float32


@dataclass(frozen=True)
class Work:
    """What any program for a case must do at least.

    Attributes
    ----------
    flops : int
        Of matrix products, two a multiply-add.
    exponentials : int
        exp or tanh, one a value.
    bytes : int
        Inputs read once and outputs written once, in device memory.
    """

    flops: int
    exponentials: int
    bytes: int


@dataclass(frozen=True)
class Bound:
    """The time that no program can beat on a device, and what sets it: "matrix", "exp" or "memory"."""

    seconds: float
    kind: str


def work(case, direction):
    """Return the Work of a case, "forward" or "backward".

    Notes
    -----
    Attention's forward is two products over the scores, its backward five (the scores again, dP, dV, dK, dQ). A
    backward without atomics in two passes does seven; the bound does not grant it those. The scans' backwards read
    the states that the forward wrote. No state is carried in.
    """
    size = torch.finfo(case.torch_dtype).bits // 8
    counted = {
        "frame_attention": _frame_attention,
        "temporal_attention": _temporal_attention,
        "recurrent_scan": _recurrent_scan,
    }
    return counted.get(case.operation, _elementwise_scan)(case, direction, size)


def bound(work, device: Device, dtype):
    """Return the Bound of `work` on a device, products in `dtype` (a name)."""
    seconds = {
        "matrix": work.flops / device.flops[dtype] if work.flops else 0.0,
        "exp": work.exponentials / device.exponentials,
        "memory": work.bytes / device.bytes,
    }
    kind = max(seconds, key=seconds.get)
    return Bound(seconds[kind], kind)


def _attention(case, direction, size, scores, q_elements, kv_elements, lse):
    """`scores` over all heads; `lse` bytes are written by the forward and read by the backward."""
    if direction == "forward":
        return Work(4 * scores * case.head_dim, scores, (2 * q_elements + kv_elements) * size + lse)
    # Read q, do, k, v and, with a log-sum-exp, o; write dq, dk, dv.
    elements = (4 if lse else 3) * q_elements + 2 * kv_elements
    return Work(10 * scores * case.head_dim, scores, elements * size + lse)


def _frame_attention(case, direction, size):
    table = case.frame_table()
    named = sum(p >= 0 for row in table.rows for p in row)
    scores = case.videos * case.heads * case.tokens * case.keys * named
    rows = case.videos * case.frames * case.tokens * case.heads
    pools = 2 * case.videos * sum(table.frames_per_pool) * case.keys * case.channels
    return _attention(case, direction, size, scores, rows * case.head_dim, pools, rows * LSE_BYTES)


def _temporal_attention(case, direction, size):
    rows = case.videos * case.frames * case.tokens * case.heads
    elements = rows * case.head_dim
    # A token's softmax is short enough to recompute whole: no log-sum-exp, and the output is not read again.
    return _attention(case, direction, size, rows * case.frames, elements, 2 * elements, 0)


def _recurrent_scan(case, direction, size):
    states = case.videos * case.frames * case.tokens * case.channels
    # The first frame has no state before it.
    product = 2 * case.videos * (case.frames - 1) * case.tokens * case.channels**2
    weight = case.channels**2
    if direction == "forward":
        exponentials = states if case.activation == "tanh" else 0
        return Work(product, exponentials, (2 * states + weight) * size)
    return Work(2 * product, 0, (3 * states + 2 * weight) * size)


# Tensors of all states that are read and written forward and backward, and exponentials of each state. The fused
# scans compute their sigmoids again in the backward; rglru's gate takes one more, its root another.
_ELEMENTWISE = {"gated_scan": (3, 5, 0), "mingru_scan": (3, 6, 1), "rglru_scan": (4, 8, 4)}


def _elementwise_scan(case, direction, size):
    states = case.videos * case.frames * case.tokens * case.channels
    last = max(4, size) * states // case.frames
    forward, backward, exponentials = _ELEMENTWISE[case.operation]
    tensors = forward if direction == "forward" else backward
    return Work(0, exponentials * states, tensors * states * size + last)
