"""Rivals of frame_attention: keys gathered and concatenated, and partial attentions merged by their log-sum-exp."""

import functools

import torch

from . import flex, lse_merge, sdpa
from .peers import Candidate


def concatenated(attend, q, pools, table, *, scale=None):
    """frame_attention by gathering and concatenating every frame's keys, then one attention call a run of frames.

    Parameters
    ----------
    attend : callable
        ``attend(q, k, v, scale)`` over [b, n, H, D].

    Notes
    -----
    Frames whose rows name the same pools make one call with frames as the batch. `logit_bias` is not taken: the fast
    attention backends have no such argument.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    outputs = []
    for start, stop, pattern in _runs(table):
        rows = table.rows[start:stop]
        slots = [s for s, pool in enumerate(pattern) if pool >= 0]
        if not slots:
            outputs.append(torch.zeros_like(q[:, start:stop]))
            continue
        keys, values = (
            _folded([_gathered(pools, kv, table, rows, s, pattern[s]) for s in slots]) for kv in (0, 1)
        )
        o = attend(q[:, start:stop].flatten(0, 1), keys, values, scale)
        outputs.append(o.unflatten(0, (q.shape[0], stop - start)))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)


@functools.lru_cache(maxsize=256)
def _runs(table):
    """(start, stop, pool of every slot or -1) of consecutive frames with the same pools."""
    first = table.frames_per_pool[0]
    patterns = [tuple(-1 if p < 0 else int(p >= first) for p in row) for row in table.rows]
    runs = []
    for i, pattern in enumerate(patterns):
        if runs and runs[-1][2] == pattern:
            runs[-1] = (runs[-1][0], i + 1, pattern)
        else:
            runs.append((i, i + 1, pattern))
    return tuple(runs)


def _gathered(pools, kv, table, rows, slot, pool):
    t = pools[pool][kv]
    offset = pool * table.frames_per_pool[0]
    names = [row[slot] - offset for row in rows]
    if len(set(names)) == 1:
        return t[:, names[0] : names[0] + 1].expand(-1, len(names), -1, -1, -1)
    if names == list(range(names[0], names[0] + len(names))):
        return t[:, names[0] : names[0] + len(names)]
    return t.index_select(1, _index(tuple(names), t.device))


@functools.lru_cache(maxsize=256)
def _index(names, device):
    return torch.tensor(names, device=device)


def _folded(slots):
    return (slots[0] if len(slots) == 1 else torch.cat(slots, 2)).flatten(0, 1)


def _candidate(name, function, reasons, differs, **options):
    return Candidate(name, "frame_attention", lambda case: function, reasons, differs, **options)


_GATHERS = "gathers and concatenates keys and values, which is counted"
PEERS = [
    *(
        _candidate(
            f"concat+sdpa:{name}",
            functools.partial(concatenated, sdpa.attend_by(name)),
            sdpa.reasons_of(name),
            _GATHERS,
        )
        for name in sdpa.BACKENDS
    ),
    _candidate(
        "concat+xformers",
        functools.partial(concatenated, sdpa.attend_by_xformers),
        sdpa.XFORMERS,
        _GATHERS,
    ),
    *(
        _candidate(
            f"lse-merge:{name}",
            functools.partial(lse_merge.merged, kernels),
            lse_merge.LIMITS[name],
            "two attention calls merged by their log-sum-exp, as in xformers' merge_training",
        )
        for name, kernels in lse_merge.KERNELS.items()
    ),
    _candidate(
        "flex_attention",
        flex.frame_attention,
        flex.reasons,
        "concatenates the two pools, which is counted; its block mask is made beforehand",
        compiles=True,
    ),
]
