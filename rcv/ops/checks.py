"""Checks of operation inputs: a ValueError that names the argument, what it is, and what was expected."""

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def floating(op, name, t):
    """Refuse what is no floating tensor."""
    if not isinstance(t, torch.Tensor):
        raise ValueError(f"{op}: {name} is {type(t).__name__}, expected a tensor")
    if t.dtype not in FLOATS:
        raise ValueError(f"{op}: {name} is {t.dtype}, expected float32, float16, bfloat16 or float64")


def shaped(op, name, t, layout, **sizes):
    """Refuse a shape that is not `layout`.

    Parameters
    ----------
    layout : str
        Letters of the axes, such as "BFNHD".
    sizes : int
        Sizes by letter; letters without one are free.
    """
    floating(op, name, t)
    if t.ndim == len(layout):
        for axis, letter in enumerate(layout):
            if t.shape[axis] != sizes.get(letter, t.shape[axis]):
                break
        else:
            return
    expected = ", ".join([f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in layout])
    raise ValueError(f"{op}: {name} has shape {list(t.shape)}, expected [{expected}]")


def has_frames(op, name, t):
    """Refuse a tensor [B, F, ...] without frames."""
    if t.shape[1] == 0:
        raise ValueError(f"{op}: {name} has shape {list(t.shape)}, expected one frame or more")


def like(op, name, t, other_name, other):
    """Refuse another dtype or device than that of `other`."""
    if t.dtype != other.dtype:
        raise ValueError(
            f"{op}: {name} is {t.dtype} and {other_name} is {other.dtype}: cast them to one dtype, or use autocast"
        )
    on_device(op, name, t, other_name, other)


def on_device(op, name, t, other_name, other):
    """Refuse another device than that of `other`."""
    if t.device != other.device:
        raise ValueError(f"{op}: {name} is on {t.device} and {other_name} is on {other.device}")
