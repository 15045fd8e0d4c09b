"""Rivals of temporal_attention: sequences of one token made by a transpose, then one attention call."""

import functools

from . import sdpa
from .peers import Candidate


def transposed(attend, q, k, v, *, scale=None):
    """temporal_attention with tokens moved into the batch; the transposes and copies that this costs are counted."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    videos, _, tokens = q.shape[:3]
    sequences = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))  # [B N, F, H, D]
    o = attend(*sequences, scale)
    return o.unflatten(0, (videos, tokens)).transpose(1, 2).contiguous()


def _candidate(name, attend, reasons):
    function = functools.partial(transposed, attend)
    differs = "transposes tokens into the batch and back, which is counted"
    return Candidate(name, "temporal_attention", lambda case: function, reasons, differs)


PEERS = [
    *(_candidate(f"sdpa:{name}", sdpa.attend_by(name), sdpa.reasons_of(name)) for name in sdpa.BACKENDS),
    _candidate("xformers", sdpa.attend_by_xformers, sdpa.XFORMERS),
]
