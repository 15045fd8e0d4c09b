"""Registration of operations with PyTorch: kernel, fake kernel, autograd, autocast.

`Library.define` and `impl` rather than `custom_op`, which costs twice as much a call.
"""

import torch

LIBRARY = torch.library.Library("rcv", "DEF")
_AUTOCAST = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


def define(schema, kernel, fake, *, setup_context=None, backward=None, autocast=None):
    """Register one operation under ``torch.ops.rcv`` and return its overload.

    Parameters
    ----------
    schema : str
        "name(arguments) -> returns".
    kernel, fake : callable
        The operation on real and on fake tensors.
    setup_context, backward : callable, optional
        As for `torch.library.register_autograd`. Without a backward, differentiating raises an error that names it.
    autocast : callable, optional
        ``autocast(dtype, *arguments)`` returns the arguments as they enter the operation under autocast.
    """
    name = LIBRARY.define(schema)
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"rcv::{name}", fake, lib=LIBRARY)
    overload = getattr(torch.ops.rcv, name).default
    if backward is None:
        setup_context, backward = None, _no_backward(name)
    torch.library.register_autograd(f"rcv::{name}", backward, setup_context=setup_context, lib=LIBRARY)
    if autocast is not None:
        for device, key in _AUTOCAST.items():
            LIBRARY.impl(name, _under_autocast(overload, autocast, device, key), key)
    return overload


def autocast_enabled(t):
    """Return whether operations on this tensor run under autocast; the meta device knows none and raises."""
    return not t.is_meta and torch.is_autocast_enabled(t.device.type)


def empty_like(*tensors):
    """Return an uninitialised contiguous tensor like each that is not None: what fake kernels return."""
    return [t.new_empty(t.shape) for t in tensors if t is not None]


def _under_autocast(overload, autocast, device, key):
    excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def call(*arguments):
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return overload(*autocast(torch.get_autocast_dtype(device), *arguments))

    return call


def _no_backward(name):
    operation = name.removesuffix("_backward")

    def backward(ctx, *gradients):
        raise RuntimeError(f"rcv.{operation} has no second derivative: call backward without create_graph")

    return backward
