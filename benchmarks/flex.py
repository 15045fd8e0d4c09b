"""frame_attention by FlexAttention: a FrameTable as its block mask, so that blocks no frame names are never read."""

import functools

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from .peers import Limits

BLOCK = 128
_LIMITS = Limits(capability=(8, 0), cpu="FlexAttention has no backward on a CPU")


def reasons(case, device):
    """Return the reasons, as sentences, why FlexAttention cannot run `case` on `device`."""
    found = _LIMITS(case, device)
    if any(
        len(set(row)) < len([p for p in row if p >= 0]) for row in case.frame_table().rows if min(row) >= 0
    ):
        found.append("a row names a frame twice, which a mask cannot say")
    return found


def frame_attention(q, pools, table, *, scale=None, attend=None):
    """frame_attention over all pool frames as one sequence of keys; a mask leaves what the table does not name.

    `attend` replaces the compiled `flex_attention`. Frames of both pools must hold equally many tokens. `logit_bias` is
    not taken.
    """
    tokens = pools[0][0].shape[2]
    if any(k.shape[2] != tokens for k, _ in pools):
        raise ValueError(f"pools' frames hold {[k.shape[2] for k, _ in pools]} tokens, expected equally many")
    keys, values = (
        (torch.cat([pair[i] for pair in pools], 1) if len(pools) == 2 else pools[0][i]).flatten(1, 2)
        for i in (0, 1)
    )
    folded = (t.transpose(1, 2) for t in (q.flatten(1, 2), keys, values))
    mask = block_mask(table, q.shape[2], tokens, q.device)
    o = (attend or _compiled())(*folded, block_mask=mask, scale=scale)
    return o.transpose(1, 2).unflatten(1, q.shape[1:3])


@functools.lru_cache(maxsize=8)
def block_mask(table, queries, keys, device):
    """Return the BlockMask of a table whose frames hold `queries` and `keys` tokens.

    Where frames are whole blocks it is written down directly: evaluating the mask point by point would take
    (F N)^2 booleans.
    """
    named = torch.zeros(table.frames, sum(table.frames_per_pool), dtype=torch.bool, device=device)
    for i, row in enumerate(table.rows):
        for p in row:
            if p >= 0:
                named[i, p] = True

    def allowed(b, h, q_index, kv_index):
        return named[q_index // queries, kv_index // keys]

    if queries % BLOCK or keys % BLOCK:
        lengths = table.frames * queries, named.shape[1] * keys
        return create_block_mask(allowed, None, None, *lengths, device=device, BLOCK_SIZE=BLOCK)
    blocks = named.repeat_interleave(queries // BLOCK, 0).repeat_interleave(keys // BLOCK, 1)
    counts = blocks.sum(1, dtype=torch.int32)[None, None]
    # Named blocks first, in order: the rest of each row is not read.
    indices = blocks.int().argsort(dim=1, descending=True, stable=True).int()[None, None]
    none = torch.zeros_like(counts), torch.zeros_like(indices)
    return BlockMask.from_kv_blocks(*none, counts, indices, BLOCK_SIZE=BLOCK, mask_mod=allowed)


@functools.cache
def _compiled():
    return torch.compile(flex_attention, dynamic=False)
