"""The emulation itself: it finds what it says it finds."""

import ctypes
import re

import pytest
import torch

from tests.csrc.emulation import CSRC, ROOT, EmulationError, Emulator, compiled


class Parameters(ctypes.Structure):
    _fields_ = (("x", ctypes.c_void_p), ("thread", ctypes.c_int))


FOUND = {
    "shared_out_of_bounds": "shared access out of bounds",
    "shared_into_the_next_array": "shared access out of bounds",
    "global_out_of_bounds": "global access out of bounds",
    "misaligned": "misaligned global access",
    "uninitialised": "nothing wrote",
    "divergent_block": "divergent",
    "divergent_warp": "divergent",
    # The write comes first or not, as the threads happen to run.
    "read_before_barrier": "without a barrier between|nothing wrote",
    "written_before_barrier": "without a barrier between",
    "lane_before_warp_barrier": "without a barrier between|nothing wrote",
}
BETWEEN_BLOCKS = {
    "written_by_two_blocks": "written by two blocks",
    "read_from_another_block": "read that another block writes",
    "written_where_another_block_reads": "written that another block reads",
}


@pytest.fixture(scope="module")
def emulator():
    return Emulator(compiled("wrong", 70, folder=ROOT / "tests" / "csrc"))


def _run(emulator, kernel, thread, blocks=1):
    x = torch.arange(64, dtype=torch.float32)
    emulator.launch(kernel, blocks, Parameters(x.data_ptr(), thread), [x])
    return x


def test_threads_meet_at_barriers(emulator):
    assert _run(emulator, "nothing", -1).tolist() == list(range(63, -1, -1))


@pytest.mark.parametrize("thread", [0, 31, 33, 63])
@pytest.mark.parametrize(("kernel", "found"), FOUND.items())
def test_it_finds(emulator, kernel, found, thread):
    with pytest.raises(EmulationError, match=found):
        _run(emulator, kernel, thread)


@pytest.mark.parametrize("thread", [0, 17])
@pytest.mark.parametrize(("kernel", "found"), BETWEEN_BLOCKS.items())
def test_it_finds_what_no_order_of_blocks_is_sure_of(emulator, kernel, found, thread):
    with pytest.raises(EmulationError, match=found):
        _run(emulator, kernel, thread, blocks=2)


@pytest.mark.parametrize("kernel", [*FOUND, *BETWEEN_BLOCKS])
def test_it_finds_nothing_where_nobody_errs(emulator, kernel):
    _run(emulator, kernel, 64, blocks=2 if kernel in BETWEEN_BLOCKS else 1)


def test_both_machines_have_the_same_vocabulary():
    """A function that only one of them had would compile for one of host and device alone."""
    names = [
        set(re.findall(r"^(?:DEVICE|inline) [\w ]+? (\w+)\(", path.read_text(), re.MULTILINE))
        for path in (CSRC / "machine.cuh", CSRC / "emulation" / "machine.cuh")
    ]
    device, host = names
    # Those that the host declares alone, for its fibers, or writes as templates without a keyword.
    assert device - host <= {"block_index", "thread_index", "read", "write"}
    assert host - device <= {"make_uint4"}
