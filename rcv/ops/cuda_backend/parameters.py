"""Parameters of the kernels in csrc/ as ctypes structures: the same fields in the same order, tensors as views.

Kernels read halves whose last stride is 1 in 16-byte chunks: `readable` makes tensors so, without a copy where they
already are.
"""

import ctypes
import warnings

import torch

HEAD_DIMS = (32, 40, 64, 80, 128, 160)  # of the compiled kernels; others are padded to the next
CHUNK = 8  # halves in 16 bytes

_warned = False


class View(ctypes.Structure):
    """A tensor [video, frame, token, head, D]: address and strides in elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("video", ctypes.c_longlong),
        ("frame", ctypes.c_longlong),
        ("token", ctypes.c_longlong),
        ("head", ctypes.c_longlong),
    )

    @classmethod
    def of(cls, t):
        return cls(t.data_ptr(), *t.stride()[:4])


class Pool(ctypes.Structure):
    """Keys and values of a pool; an empty one where there is none."""

    _fields_ = (("k", View), ("v", View), ("frames", ctypes.c_int), ("tokens", ctypes.c_int))

    @classmethod
    def of(cls, k, v):
        return cls(View.of(k), View.of(v), k.shape[1], k.shape[2])


def head_dim_of(width):
    """Return the smallest head dim with kernels that holds `width` channels."""
    return next(d for d in HEAD_DIMS if d >= width)


def readable(t, head_dim):
    """Return t [..., D] as halves padded to `head_dim` channels, aligned for 16-byte loads."""
    t = in_half(t)
    if t.shape[-1] != head_dim:
        return torch.nn.functional.pad(t, (0, head_dim - t.shape[-1]))
    aligned = t.data_ptr() % 16 == 0 and t.stride(-1) == 1
    if not aligned or any(s % CHUNK for s, n in zip(t.stride()[:-1], t.shape[:-1], strict=True) if n > 1):
        return t.clone(memory_format=torch.contiguous_format)
    return t


def like(result, t):
    """Return what a kernel made for t [..., D]: without padded channels, in t's dtype, contiguous."""
    return result[..., : t.shape[-1]].to(t.dtype).contiguous()


def in_half(t):
    """Return t in float16; warns once of bfloat16, whose range float16 does not have."""
    global _warned
    if t.dtype == torch.bfloat16 and not _warned:
        _warned = True
        warnings.warn(
            "the cuda backend computes bfloat16 in float16: this chip has no bfloat16 products. "
            "Values beyond 65504 become infinite.",
            stacklevel=2,
        )
    return t.to(torch.float16)


def address(t):
    """Return the address of a tensor's first element, None for None."""
    return None if t is None else t.data_ptr()
