"""Launching Triton kernels, or recording what would be launched for a compiler that has no GPU."""

import contextlib
from dataclasses import dataclass

import torch

INTERPRETED_CAPABILITY = (8, 0)  # whose tiles the interpreter runs
_recorder = None


@dataclass(frozen=True)
class Launch:
    """One launch, as recorded.

    Attributes
    ----------
    kernel : triton.runtime.JITFunction
    grid : tuple of int
    arguments : dict
        Tensors, numbers and None by parameter name.
    constants : dict
        Values of the kernel's `tl.constexpr` parameters.
    options : dict
        `num_warps`, `num_stages`, `enable_fp_fusion`, and `maxnreg` where it is given.
    """

    kernel: object
    grid: tuple
    arguments: dict
    constants: dict
    options: dict


class Recorder:
    """The launches inside a `recording` block (None: not kept), and the capability that they are for."""

    def __init__(self, capability, keep):
        self.capability = capability
        self.launches = [] if keep else None


@contextlib.contextmanager
def recording(capability, keep=True):
    """Record launches instead of making them: operations on meta tensors give what a device would run.

    Parameters
    ----------
    capability : tuple of two int
        Compute capability of the device to stand in for.
    keep : bool
        Whether launches are kept, and with them their tensors; for counting memory they are not.

    Yields
    ------
    Recorder
    """
    global _recorder
    former, _recorder = _recorder, Recorder(capability, keep)
    try:
        yield _recorder
    finally:
        _recorder = former


def capability_of(tensor):
    """Return the compute capability that a launch on this tensor is for: recorded, the device's, the interpreter's."""
    if _recorder is not None:
        return _recorder.capability
    if tensor.is_cuda:
        return torch.cuda.get_device_capability(tensor.device)
    return INTERPRETED_CAPABILITY


def launch(kernel, grid, *arguments, num_warps=4, num_stages=2, maxnreg=None, **constants):
    """Run a kernel on the device of its first tensor.

    Parameters
    ----------
    kernel : triton.runtime.JITFunction
    grid : tuple of int
        A size of 0 launches nothing.
    arguments
        In the order of the kernel's parameters.
    maxnreg : int, optional
        Registers that a thread may have. ptxas otherwise spills a few of them where one block more then fits a
        multiprocessor.
    constants
        Its `tl.constexpr` parameters by name.
    """
    if 0 in grid:
        return
    # Said, since Triton's default changes with its version: a multiply and an add become one instruction.
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    if maxnreg is not None:
        options["maxnreg"] = maxnreg
    if _recorder is not None:
        if _recorder.launches is not None:
            named = dict(zip(kernel.arg_names, arguments, strict=False))
            _recorder.launches.append(Launch(kernel, grid, named, constants, options))
        return
    with _device_of(arguments):
        kernel[grid](*arguments, **constants, **options)


def _device_of(arguments):
    tensor = next(a for a in arguments if isinstance(a, torch.Tensor))
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)
