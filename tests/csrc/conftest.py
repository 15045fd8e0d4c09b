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
def chip(request):
    return request.param


@pytest.fixture
def attention_kernels(chip):
    """The emulator of one chip while rcv.ops runs frame_attention in it."""
    with _emulating(*(compiled(source, chip) for source in ("attention", "attention_backward"))) as emulator:
        yield emulator


@pytest.fixture
def scan_kernels(chip):
    """The emulator of one chip while rcv.ops runs recurrent_scan in it."""
    with _emulating(*(compiled(source, chip) for source in ("scan", "scan_frame"))) as emulator:
        yield emulator


@pytest.fixture
def temporal_kernels(chip):
    """The emulator of one chip while rcv.ops runs temporal_attention in it."""
    sources = ("temporal", "temporal_long", "temporal_long_backward")
    with _emulating(*(compiled(source, chip) for source in sources)) as emulator:
        yield emulator
