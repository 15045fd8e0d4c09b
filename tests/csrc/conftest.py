"""The cuda backend on CPU tensors: its launches run in the emulation."""

import contextlib
import dataclasses

import pytest

from rcv.ops import backend, registry
from tests.csrc.emulation import CHIPS, compiled, standing_in


@contextlib.contextmanager
def _taking_cpu_tensors():
    former = registry.BACKENDS["cuda"]
    limits = {
        op: dataclasses.replace(l, devices=("cpu",), capability=None) for op, l in former.limits.items()
    }
    registry.BACKENDS["cuda"] = dataclasses.replace(former, limits=limits, requires={}, machine=None)
    registry.program.cache_clear()
    try:
        with backend("cuda"):
            yield
    finally:
        registry.BACKENDS["cuda"] = former
        registry.program.cache_clear()


@contextlib.contextmanager
def _emulating(*libraries):
    with _taking_cpu_tensors(), standing_in(*libraries) as emulator:
        yield emulator


@pytest.fixture
def emulating():
    """`with emulating(*libraries) as emulator`: rcv.ops runs on the cuda backend, launches in these libraries."""
    return _emulating


@pytest.fixture(params=CHIPS, ids=["sm_70", "sm_75"])
def attention_kernels(request):
    """The emulator of one chip while rcv.ops runs frame_attention in it."""
    libraries = [compiled(source, request.param) for source in ("attention", "attention_backward")]
    with _emulating(*libraries) as emulator:
        yield emulator
