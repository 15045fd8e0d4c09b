"""The most memory that a piece of work takes."""

import ctypes
import gc
import os
from contextlib import contextmanager
from pathlib import Path

import torch


class Peak:
    """`bytes`: the most that was taken beyond what was there before; None where that cannot be known."""

    bytes = None


@contextmanager
def peak_memory():
    """Measure the peak of the block: allocated memory on a GPU, resident memory of the process on Linux."""
    peak = Peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated() - before
        return
    before = _reset_resident_peak()
    yield peak
    if before is not None:
        peak.bytes = _status("VmHWM") - before


def _reset_resident_peak():
    """Start the process's high-water mark again; returns what is resident now, None where the system cannot do it.

    What earlier work has freed is given back first, or this one would fill it unseen.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")
        return _status("VmRSS")
    except (OSError, AttributeError, StopIteration):
        return None


def _status(name):
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
