"""gated_scan, mingru_scan and rglru_scan: what is launched; `gated_kernels` holds the kernels."""

import torch
import torch.nn.functional as F
import triton

from rcv.kernels import gated_kernels as kernels
from rcv.kernels.launch import capability_of, launch
from rcv.kernels.tiles import tiles
from rcv.ops.gated import DECAY_SHARPNESS, INLET_FLOOR


def gated_forward(a, x, h0):
    """Return h [B, F, N, C] in x's dtype and the last state [B, N, C] in float32."""
    h, last = _outputs(x)
    _launch(kernels.gated_scan_fwd_kernel, x, *_at(a, x), h, last, *_state(h0))
    return h, last


def gated_backward(dh, dh_last, a, h, h0):
    """Return da, dx, dh0 (None without h0); reads the states as saved, rounded to h's dtype."""
    da, dx, dh0 = h.new_empty(h.shape), h.new_empty(h.shape), _like(h0)
    _launch(kernels.gated_scan_bwd_kernel, h, *_at(dh, a), dh_last.contiguous(), h, da, dx, dh0, *_state(h0))
    return da, dx, dh0


def mingru_forward(gate, candidate, h0):
    """Return h [B, F, N, C] in the candidate's dtype and the last state [B, N, C] in float32."""
    h, last = _outputs(candidate)
    _launch(kernels.mingru_scan_fwd_kernel, h, *_at(gate, candidate), h, last, *_state(h0))
    return h, last


def mingru_backward(dh, dh_last, gate, candidate, h, h0):
    """Return dgate, dcandidate, dh0 (None without h0); reads the states as saved, rounded to h's dtype."""
    dgate, dcandidate, dh0 = h.new_empty(h.shape), h.new_empty(h.shape), _like(h0)
    inputs = (*_at(dh, gate, candidate), dh_last.contiguous(), h)
    _launch(kernels.mingru_scan_bwd_kernel, h, *inputs, dgate, dcandidate, dh0, *_state(h0))
    return dgate, dcandidate, dh0


def rglru_forward(forget, inlet, candidate, decay, h0):
    """Return h [B, F, N, C] in the candidate's dtype and the last state [B, N, C] in float32."""
    h, last = _outputs(candidate)
    inputs = (*_at(forget, inlet, candidate), _rate(decay))
    _launch(kernels.rglru_scan_fwd_kernel, h, *inputs, h, last, *_state(h0), FLOOR=INLET_FLOOR)
    return h, last


def rglru_backward(dh, dh_last, forget, inlet, candidate, decay, h, h0):
    """Return dforget, dinlet, dcandidate, ddecay, dh0 (None without h0); reads the states as saved."""
    dforget, dinlet, dcandidate = (h.new_empty(h.shape) for _ in range(3))
    dh0 = _like(h0)
    # Summed over frames by the kernel, over videos and tokens afterwards: no atomics, the same order in every run.
    drate = torch.empty_like(dh_last, memory_format=torch.contiguous_format)
    inputs = (*_at(dh, forget, inlet, candidate), _rate(decay), dh_last.contiguous(), h)
    outputs = (dforget, dinlet, dcandidate, drate, dh0)
    _launch(kernels.rglru_scan_bwd_kernel, h, *inputs, *outputs, *_state(h0), FLOOR=INLET_FLOOR)
    ddecay = drate.sum((0, 1)).mul_(-DECAY_SHARPNESS).mul_(decay.float().sigmoid()).to(decay.dtype)
    return dforget, dinlet, dcandidate, ddecay, dh0


def _launch(kernel, h, *arguments, **constants):
    videos, frames, tokens, width = h.shape
    elements = videos * tokens * width
    tile = tiles(kernel.__name__, capability_of(h), elements=elements)
    programs = videos * triton.cdiv(tokens, tile["BLOCK_N"]) * triton.cdiv(width, tile["BLOCK_C"])
    launch(kernel, (programs,), *arguments, frames, tokens, width, **tile, **constants)


def _at(*tensors):
    """Tensors [B, F, N, C], each followed by its strides."""
    return [item for t in tensors for item in (t, *t.stride())]


def _state(h0):
    return (None, 0, 0, 0) if h0 is None else (h0, *h0.stride())


def _outputs(x):
    return x.new_empty(x.shape), x.new_empty((x.shape[0], *x.shape[2:]), dtype=torch.float32)


def _like(h0):
    return None if h0 is None else h0.new_empty(h0.shape)


def _rate(decay):
    # A number a channel: by PyTorch, whose log1p is exact where the exponential is small.
    return F.softplus(decay.float()).mul_(-DECAY_SHARPNESS)
