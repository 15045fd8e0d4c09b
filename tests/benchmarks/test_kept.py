"""What attention to first frame and memory keeps for its backward, at Stable Diffusion's largest level."""

import functools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import sdpa
from benchmarks.attention_peers import concatenated
from rcv.models.attention import _AttentionToTokens
from rcv.ops import FrameTable, frame_attention

FRAMES, TOKENS, HEADS, WIDTH = 32, 4096, 8, 40
TABLE = FrameTable.first_memory(FRAMES)
CHANNELS = HEADS * WIDTH


def kept_bytes(function, leaves):
    """Bytes of the distinct storages kept: all of them, and those beyond queries and outputs; nothing is computed."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage()._cdata] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = function(*leaves)
    storages = {cdata: t.untyped_storage().nbytes() for cdata, t in kept.items()}
    own = {t.untyped_storage()._cdata for t in (leaves[0], output)}
    statistics = {cdata for cdata, t in kept.items() if t.dtype == torch.float32}
    pools = sum(size for cdata, size in storages.items() if cdata not in own | statistics)
    return sum(storages.values()), pools


def tensors(*frames):
    return [
        torch.empty(1, held, TOKENS, HEADS, WIDTH, dtype=torch.float16, requires_grad=True) for held in frames
    ]


@pytest.fixture(scope="module")
def concatenation():
    """What concat + SDPA keeps: all, and keys and values."""
    attend = functools.partial(concatenated, sdpa.attend_by("flash"))
    with FakeTensorMode():
        q, k, v, k2, v2 = tensors(FRAMES, 1, 1, FRAMES - 1, FRAMES - 1)
        total, _ = kept_bytes(lambda *_: attend(q, [(k, v), (k2, v2)], TABLE), [q, k, v, k2, v2])
        # the keys and values of frame 0, and of first frame and memory for each of the others
        pools = 2 * (1 + 2 * (FRAMES - 1)) * k.nbytes
        assert total >= q.nbytes + pools
    return total, pools


def test_two_pools_keep_half_of_the_keys_and_values(concatenation):
    with FakeTensorMode():
        leaves = tensors(FRAMES, 1, 1, FRAMES - 1, FRAMES - 1)
        total, pools = kept_bytes(
            lambda q, k, v, k2, v2: frame_attention(q, [(k, v), (k2, v2)], TABLE), leaves
        )
    assert pools == 2 * FRAMES * TOKENS * CHANNELS * 2
    assert pools <= 0.52 * concatenation[1]
    assert total <= 0.69 * concatenation[0]


def test_memory_kept_as_tokens_halves_all_of_it(concatenation):
    with FakeTensorMode():
        q, k, v = tensors(FRAMES, 1, 1)
        m = torch.empty(1, FRAMES - 1, TOKENS, CHANNELS, dtype=torch.float16, requires_grad=True)
        weights = [torch.empty(CHANNELS, CHANNELS, dtype=torch.float16) for _ in "kv"]
        total, _ = kept_bytes(
            lambda *_: _AttentionToTokens.apply(q, k, v, m, *weights, None, TABLE, WIDTH**-0.5), [q, k, v, m]
        )
        total -= sum(weight.nbytes for weight in weights)
    assert total <= 0.52 * concatenation[0]
