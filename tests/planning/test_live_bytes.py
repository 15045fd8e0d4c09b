"""Live bytes of programs whose tensors can be counted by hand."""

import math

import torch

from rcv.ops import FrameTable, frame_attention
from rcv.planning.live_bytes import LiveBytes


def test_live_bytes_of_a_known_program():
    held = torch.zeros(100)
    with LiveBytes(alive=[held, held.view(10, 10)]) as counted:
        assert counted.current == 400
        a = torch.zeros(1000)
        b = a.view(10, 100)[2:]
        assert counted.current == 4400  # a view is no new storage
        c = b + 1
        del a
        assert counted.current == 4400 + 3200  # b keeps a's storage
        del b, c
        assert counted.current == 400
    assert counted.peak == 4400 + 3200
    assert torch.zeros(10).sum() == 0  # uncounted
    assert counted.peak == 4400 + 3200


def test_live_bytes_of_a_backward():
    """exp keeps its output: two of them and the loss' gradients meet at the peak."""
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes(alive=[x]) as counted:
        y = x.exp().exp()
        forward = counted.current
        y.sum().backward()
    assert forward == 4000 * 3
    assert counted.peak >= 4000 * 4
    assert counted.current == 4000 * 3  # x, y, x.grad


def test_live_bytes_count_temporaries_of_our_operations():
    """Two slots are merged from partial outputs: more is alive within than before and after."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 3, 16, 2, 8, requires_grad=True) for _ in "qkv")
    table = FrameTable.first_former(3)
    expected = frame_attention(q, [(k, v)], table)
    with LiveBytes(alive=[q, k, v]) as counted:
        given = frame_attention(q, [(k, v)], table)
        within = counted.peak - counted.current
        given.sum().backward()
    assert torch.equal(given, expected)
    assert within >= given.numel() * 4
    assert all(math.isfinite(t.grad.sum()) for t in (q, k, v))
