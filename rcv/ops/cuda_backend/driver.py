"""Loading the kernels of csrc/ and launching them, through the CUDA driver on PyTorch's context and stream."""

import contextlib
import ctypes
import functools
import json
import os
from pathlib import Path
from typing import NamedTuple

import torch

FOLDER = Path(__file__).parent.parent.parent / "csrc"
NATIVE = {(7, 0): "sm_70", (7, 2): "sm_70", (7, 5): "sm_75"}
NEWER = "compute_75"  # PTX, which the driver compiles for whatever the device is
_planned = None


class Tile(NamedTuple):
    """Launch bounds of a kernel, as compiled: threads of a block, rows that it works on, bytes of shared memory."""

    threads: int
    rows: int
    shared_bytes: int


@functools.cache
def manifest():
    """Return the manifest of the compiled kernels, {"kernels": {}} where the build left them out."""
    path = FOLDER / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"kernels": {}}


@functools.cache
def _tiles(target):
    # PTX holds the same sources as the cubin of its number.
    chip = target.replace("compute", "sm")
    return {
        name: Tile(*(kernel["resources"][chip][key] for key in Tile._fields))
        for name, kernel in manifest()["kernels"].items()
    }


@functools.cache
def obstacles():
    """Return why no kernel can run on this machine, as sentences: empty if nothing stands in the way."""
    reasons = []
    kernels = manifest()["kernels"].values()
    if not kernels:
        reasons.append(
            "rcv was built without its CUDA kernels (on Linux, without RCV_BUILD_CUDA=0, it has them)"
        )
    files = {f"{kernel['source']}.{target}" for kernel in kernels for target in {*NATIVE.values(), NEWER}}
    missing = sorted(name for name in files if not (FOLDER / name).exists())
    if missing:
        reasons.append(
            f"compiled kernels are missing from {FOLDER}: {', '.join(missing)}. Install rcv-video again"
        )
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        reasons.append("there is no NVIDIA driver (libcuda.so.1)")
    return tuple(reasons)


def target_of(capability):
    """Return which of the builds ("sm_70", "sm_75", "compute_75") runs on a device of this compute capability."""
    return NATIVE.get(tuple(capability), NEWER)


@contextlib.contextmanager
def planning(capability):
    """Launch nothing: operations on meta tensors allocate what they would on a device of this compute capability."""
    global _planned
    former, _planned = _planned, capability
    try:
        yield
    finally:
        _planned = former


def tile(kernel, tensor):
    """Return the Tile of a kernel on the device of a tensor."""
    return _tiles(target_of(_capability(tensor)))[kernel]


def of_chip(table, tensor):
    """Return the entry of a table by compute capability for the device of a tensor: the highest not above its own."""
    capability = _capability(tensor)
    return table[max(c for c in table if c <= capability)]


def _capability(tensor):
    return _planned or torch.cuda.get_device_capability(tensor.device)


class Loaded(NamedTuple):
    """The kernels on one device: its primary context, the functions and the tiles by kernel."""

    context: object
    functions: dict
    tiles: dict


@functools.cache
def functions(index):
    """Return all kernels, Loaded on the CUDA device of this index.

    Raises
    ------
    RuntimeError
        If a graph is being captured, which must not load; or if the driver refuses: then nothing stays loaded, and
        the next call tries again.
    """
    from cuda.bindings import driver as cuda

    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "rcv's CUDA kernels are not loaded yet and a graph is being captured: run the operation once before"
        )
    torch.cuda.current_stream(index).query()  # PyTorch makes its context on first use
    capability = torch.cuda.get_device_capability(index)
    target = target_of(capability)
    place = f"device {index} of compute capability {capability[0]}.{capability[1]}"
    (device,) = _check(cuda, cuda.cuDeviceGet(index), f"looking for {place}")
    (context,) = _check(cuda, cuda.cuDevicePrimaryCtxRetain(device), f"taking the context of {place}")
    modules = {}
    try:
        _check(cuda, cuda.cuCtxSetCurrent(context), f"taking the context of {place}")
        found = _load(cuda, target, place, modules)
    except Exception:
        for module in modules.values():
            cuda.cuModuleUnload(module)
        cuda.cuDevicePrimaryCtxRelease(device)
        raise
    return Loaded(context, found, _tiles(target))


def _load(cuda, target, place, modules):
    """Return the functions of a target by kernel; adds what it loads to `modules`."""
    opt_in = cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    found = {}
    for name, kernel in manifest()["kernels"].items():
        source = kernel["source"]
        doing = f"loading {source}.{target} on {place}"
        if source not in modules:
            # The driver takes PTX as text that ends in a zero byte.
            code = (FOLDER / f"{source}.{target}").read_bytes() + b"\0"
            (modules[source],) = _check(cuda, cuda.cuModuleLoadData(code), doing)
        (found[name],) = _check(cuda, cuda.cuModuleGetFunction(modules[source], name.encode()), doing)
        shared_bytes = _tiles(target)[name].shared_bytes
        _check(cuda, cuda.cuFuncSetAttribute(found[name], opt_in, shared_bytes), f"{doing}, {name}")
    return found


def launch(kernel, blocks, parameters, tensors):
    """Run a kernel on PyTorch's current stream; nothing waits.

    Parameters
    ----------
    kernel : str
    blocks : int
        Length of the grid.
    parameters : ctypes.Structure
        The kernel's one argument.
    tensors : sequence of (Tensor or None)
        Those whose addresses the parameters hold; the first decides on the device.
    """
    launch_each(kernel, blocks, [parameters], tensors)


def launch_each(kernel, blocks, several, tensors):
    """Run a kernel once for each of several parameters, in order: what precedes a launch is done once for all.

    Raises
    ------
    ValueError
        If a tensor is on another device than the first.
    RuntimeError
        If the driver refuses, `torch.OutOfMemoryError` for want of memory; names the kernel and the tensors.
    """
    if _planned is not None:
        return
    from cuda.bindings import driver as cuda

    device = tensors[0].device
    if any(t is not None and t.device != device for t in tensors):
        raise ValueError(f"{kernel} takes tensors on one device, not {_described(tensors)}")
    with torch.cuda.device(device):
        loaded = functions(device.index)
        size = loaded.tiles[kernel]
        stream = torch.cuda.current_stream(device).cuda_stream
        function = loaded.functions[kernel]
        answer = cuda.cuCtxSetCurrent(loaded.context)
        for parameters in several:
            if answer[0] != cuda.CUresult.CUDA_SUCCESS:
                break
            arguments = (ctypes.c_void_p * 1)(ctypes.addressof(parameters))
            answer = cuda.cuLaunchKernel(
                function,
                *(blocks, 1, 1),
                *(size.threads, 1, 1),
                size.shared_bytes,
                stream,
                ctypes.addressof(arguments),
                0,
            )
        if answer[0] != cuda.CUresult.CUDA_SUCCESS:
            _check(cuda, answer, f"launching {kernel} on {_described(tensors)}{_later()}")


def _described(tensors):
    """Shapes, dtypes and devices of tensors, those of the same kind once."""
    kinds = dict.fromkeys(
        f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)} ({t.device})" for t in tensors if t is not None
    )
    return ", ".join(kinds)


def _later():
    """A kernel fails after its launch: another may be the one that reports it."""
    if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":
        return ""
    return (
        ". It may be an earlier kernel that failed; with CUDA_LAUNCH_BLOCKING=1 each reports its own errors"
    )


def _check(cuda, answer, doing):
    """Return what a driver call gave besides its status, which must be success."""
    status, *values = answer
    if status != cuda.CUresult.CUDA_SUCCESS:
        text = cuda.cuGetErrorString(status)[1]
        error = torch.OutOfMemoryError if status == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY else RuntimeError
        raise error(f"CUDA driver: {text.decode() if text else status}, {doing}")
    return values
