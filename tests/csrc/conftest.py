"""The cuda backend on CPU tensors: its launches run in the emulation."""

import contextlib
import shutil

import pytest

from tests.csrc.emulation import CHIPS, compiled, standing_in
from tests.standing_in import taking_cpu_tensors


@contextlib.contextmanager
def _emulating(*libraries):
    with taking_cpu_tensors("cuda"), standing_in(*libraries) as emulator:
        yield emulator


@pytest.fixture
def emulating():
    """`with emulating(*libraries) as emulator`: rcv.ops runs on the cuda backend, launches in these libraries."""
    return _emulating


@pytest.fixture
def sources(tmp_path):
    """A folder for sources with a fault, gone afterwards: there are many."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(params=CHIPS, ids=["sm_70", "sm_75"])
def attention_kernels(request):
    """The emulator of one chip while rcv.ops runs frame_attention in it."""
    libraries = [compiled(source, request.param) for source in ("attention", "attention_backward")]
    with _emulating(*libraries) as emulator:
        yield emulator


@pytest.fixture(params=CHIPS, ids=["sm_70", "sm_75"])
def scan_kernels(request):
    """The emulator of one chip while rcv.ops runs recurrent_scan in it."""
    libraries = [compiled(source, request.param) for source in ("scan", "scan_frame")]
    with _emulating(*libraries) as emulator:
        yield emulator
