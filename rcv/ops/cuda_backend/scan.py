"""recurrent_scan by the kernels of csrc/scan.cu, which walk the frames, and csrc/scan_frame.cu, one launch a frame."""

import ctypes
from typing import NamedTuple

import torch

from rcv.ops.cuda_backend import driver
from rcv.ops.cuda_backend.parameters import CHUNK, address, in_half, readable
from rcv.ops.torch_backend.scan import weight_and_state_gradients

WALK_WIDTHS = (64, 128, 256, 320)  # of the kernels that walk; between them, columns stay empty
WALK_TILES = {(7, 0): 40, (7, 5): 20}
"""Fewest tiles of 64 tokens, over all videos, at which a block walks the frames of more than 256 channels: half of
the multiprocessors of a V100, of a T4. Computed for the V100: a walking block's frame of 320 channels is 12.8 thousand
clocks of products and about 3 of activation and barriers, 10.5 us at 1.5 GHz, whether few blocks do that or 80. A
launch a frame takes about 5 us from kernel to kernel and, for tile after tile, 0.14 us to read the former state and x
and write h at 0.9 TB/s: the two meet at 40 tiles. Up to 256 channels a walking block's frame, 7 us and less, is no
longer than a launch and the smallest kernel. Inside a CUDA graph the gap is shorter and they meet later, which the
choice does not look at."""
WIDE_TILES = {(7, 0): 52, (7, 5): 26}
"""Fewest whole tiles of 128 tokens by 128 columns at which a frame is cut into those, not into 64 by 64. Computed: the
second cache lets narrow tiles run at 0.64 of the products' peak, wide ones at all of it, but on no more multiprocessors
than there are tiles: 0.64 of 80, of 40."""


class States(ctypes.Structure):
    """A tensor [video, frame, token, C]: address and strides in elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("video", ctypes.c_longlong),
        ("frame", ctypes.c_longlong),
        ("token", ctypes.c_longlong),
    )

    @classmethod
    def of(cls, t):
        """The null tensor of None."""
        return cls() if t is None else cls(t.data_ptr(), *t.stride()[:3])


class ScanParameters(ctypes.Structure):
    _fields_ = (
        ("former", States),
        ("added", States),
        ("states", States),
        ("out", States),
        ("weight", ctypes.c_void_p),
        ("weight_row", ctypes.c_longlong),
        ("frames", ctypes.c_int),
        ("tokens", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("tanh", ctypes.c_int),
        ("frame", ctypes.c_int),
    )


class Scan(NamedTuple):
    """Tensors of one direction, as halves in rows of whole chunks; `carried` and `states` may be None.

    ``out_i = f(out_{i-1} weight + added_i)``, the first from `carried`; or, where there are `states`, the frames in
    reverse and the slope of f at the states in the place of f.
    """

    added: torch.Tensor
    weight: torch.Tensor
    out: torch.Tensor
    carried: torch.Tensor | None
    states: torch.Tensor | None


def recurrent_forward(x, weight, h0, activation):
    """Return h [B, F, N, C], contiguous; each state is rounded to float16 before the next frame reads it."""
    carried = None if h0 is None else _in_chunks(h0).unsqueeze(1)
    return _scanned(x, weight.mT, activation, carried=carried).to(x.dtype)


def recurrent_backward(dh, weight, h, h0, activation):
    """Return dx, dweight, dh0 (None without h0). dweight is one matrix product over all frames, by PyTorch."""
    dx = _scanned(dh, weight, activation, states=_in_chunks(h))
    halves = [None if t is None else in_half(t) for t in (weight, h, h0)]
    dweight, dh0 = weight_and_state_gradients(dx, *halves)
    return dx.to(h.dtype), dweight.to(h.dtype), None if h0 is None else dh0.to(h.dtype)


def _scanned(added, weight, activation, carried=None, states=None):
    """Return `out` of a Scan, contiguous, with as many channels as `added` has."""
    width = added.shape[-1]
    halves = _in_chunks(added)
    out = torch.empty(halves.shape, dtype=torch.float16, device=added.device)
    if out.numel():
        scan = Scan(halves, _in_chunks(weight), out, carried, states)
        (_walk if _walks(added) else _one_by_one)(scan, width, activation == "tanh")
    return out[..., :width].contiguous()


def _walks(t):
    videos, _, tokens, width = t.shape
    if width > WALK_WIDTHS[-1]:
        return False
    return width <= 256 or videos * _tiles(tokens, 64) >= driver.of_chip(WALK_TILES, t)


def _walk(scan, width, tanh):
    """All frames in one launch."""
    compiled = next(w for w in WALK_WIDTHS if w >= width)
    kernel = f"recurrent_scan_{'fwd' if scan.states is None else 'bwd'}_kernel_c{compiled}"
    videos, _, tokens, _ = scan.added.shape
    blocks = videos * _tiles(tokens, driver.tile(kernel, scan.added).rows)
    driver.launch(kernel, blocks, _parameters(scan, width, tanh), scan)


def _one_by_one(scan, width, tanh):
    """A launch a frame."""
    videos, frames, tokens, _ = scan.added.shape
    wide = videos * (tokens // 128) * (width // 128) >= driver.of_chip(WIDE_TILES, scan.added)
    columns = 128 if wide else 64
    kernel = f"recurrent_scan_frame_{'fwd' if scan.states is None else 'bwd'}_kernel_n{columns}"
    blocks = videos * _tiles(tokens, driver.tile(kernel, scan.added).rows) * _tiles(width, columns)
    common, several = bytes(_parameters(scan, width, tanh)), []
    for frame in range(frames) if scan.states is None else range(frames - 1, -1, -1):
        several.append(ScanParameters.from_buffer_copy(common))
        several[-1].frame = frame
    driver.launch_each(kernel, blocks, several, scan)


def _parameters(scan, width, tanh):
    return ScanParameters(
        States.of(scan.carried),
        States.of(scan.added),
        States.of(scan.states),
        States.of(scan.out),
        address(scan.weight),
        scan.weight.stride(0),
        scan.added.shape[1],
        scan.added.shape[2],
        width,
        tanh,
    )


def _in_chunks(t):
    return readable(t, CHUNK * _tiles(t.shape[-1], CHUNK))


def _tiles(extent, size):
    return -(-extent // size)
