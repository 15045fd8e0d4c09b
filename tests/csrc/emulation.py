"""The kernels of csrc/ compiled for the host by g++, in the place of the driver."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from rcv.ops.cuda_backend import driver
from tests.standing_in import poisoned

ROOT = Path(__file__).parent.parent.parent
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "emulation"
CHIPS = (70, 75)


class EmulationError(AssertionError):
    """A kernel did what a GPU would not forgive; the message says what."""


class Buffer(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("bytes", ctypes.c_longlong))


def compiled(source, chip, folder=CSRC):
    """Return the emulation of a source file as a library, compiled unless it is there already.

    Parameters
    ----------
    source : str
        Name of a file in `folder`, without ".cu".
    chip : int
        70 or 75: whose matrix instructions.
    folder : Path
        Holds the source and its headers.
    """
    compiler = os.environ.get("CXX", "g++")
    machine = CSRC / "emulation"
    files = [machine / "block.cpp", machine / "collectives.cpp", "-x", "c++", folder / f"{source}.cu"]
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-w", f"-DTENSOR_CORE={chip}"]
    command += [f"-I{machine}", *map(str, files)]
    # Of contents, not of places: a copy of the sources in a temporary folder is compiled once, too.
    digest = hashlib.sha256(f"{compiler} {chip}".encode())
    for path in sorted([*machine.iterdir(), *folder.glob("*.cu*")]):
        digest.update(path.name.encode() + path.read_bytes())
    BUILD.mkdir(parents=True, exist_ok=True)
    library = BUILD / f"{source}.{chip}.{digest.hexdigest()[:16]}.so"
    if not library.exists():
        if shutil.which(compiler) is None:
            raise FileNotFoundError(f"{compiler} was not found: the kernels' emulation needs a C++ compiler")
        unfinished = library.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", unfinished], check=True)
        unfinished.rename(library)
    return ctypes.CDLL(str(library))


class Emulator:
    """Stands in for `rcv.ops.cuda_backend.driver`: launches on CPU tensors run in the emulation."""

    def __init__(self, *libraries):
        self.libraries = libraries
        self.launched = []

    def tile(self, kernel, tensor):
        values = (ctypes.c_int * 3).in_dll(self._library(kernel), f"{kernel}_launch")
        return driver.Tile(*values)

    def of_chip(self, table, tensor):
        chip = ctypes.c_int.in_dll(self.libraries[0], "tensor_core").value
        return table[divmod(chip, 10)]

    def launch_each(self, kernel, blocks, several, tensors):
        for parameters in several:
            self.launch(kernel, blocks, parameters, tensors)

    def launch(self, kernel, blocks, parameters, tensors):
        self.launched.append(kernel)
        library = self._library(kernel)
        size = getattr(library, f"{kernel}_parameter_bytes")()
        assert size == ctypes.sizeof(parameters), f"{kernel} takes {size} bytes of parameters"
        buffers = [_extent(t) for t in tensors if t is not None and t.numel()]
        emulate = getattr(library, f"{kernel}_emulate")
        emulate.restype = ctypes.c_char_p
        wrong = emulate(
            ctypes.byref(parameters),
            ctypes.c_longlong(blocks),
            self.tile(kernel, None).shared_bytes,
            (Buffer * len(buffers))(*buffers),
            len(buffers),
        )
        if wrong is not None:
            raise EmulationError(f"{kernel}: {wrong.decode()}")

    def _library(self, kernel):
        return next(library for library in self.libraries if hasattr(library, f"{kernel}_emulate"))


def _extent(t):
    """The bytes from a tensor's first to its last element."""
    elements = 1 + sum(stride * (size - 1) for stride, size in zip(t.stride(), t.shape, strict=True))
    return Buffer(t.data_ptr(), elements * t.element_size())


@contextlib.contextmanager
def standing_in(*libraries):
    """Run the cuda backend's launches in these libraries, with poisoned outputs."""
    emulator = Emulator(*libraries)
    names = ("tile", "of_chip", "launch", "launch_each")
    former = {name: getattr(driver, name) for name in names}
    try:
        for name in names:
            setattr(driver, name, getattr(emulator, name))
        with poisoned():
            yield emulator
    finally:
        for name, function in former.items():
            setattr(driver, name, function)
