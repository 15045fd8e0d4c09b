"""What dispatch modes need to see below rcv's operations."""

import torch
from torch.utils._pytree import tree_iter

from rcv.ops import registry


def call_kernel(operation, args, kwargs, mode):
    """Return what the kernel of an rcv operation returns, its own calls seen by `mode`.

    A mode is off while it handles an operation. Rcv's kernels are PyTorch programs, whose calls and tensors count:
    the kernel is called past the mode, with the mode on. On meta tensors the torch backend's are not: PyTorch would
    choose another attention for them than for the device that they stand for.
    """
    first = next(value for value in tree_iter(args) if isinstance(value, torch.Tensor))
    if first.is_meta and not _has_kernel(operation, first):
        return operation(*args, **kwargs)
    on_cuda = any(isinstance(value, torch.Tensor) and value.is_cuda for value in tree_iter(args))
    key = torch._C.DispatchKey.CUDA if on_cuda else torch._C.DispatchKey.CPU
    with mode:
        return operation.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)


def _has_kernel(operation, tensor):
    name = operation.overloadpacket.__name__.removesuffix("_backward")
    return registry.choose(name, registry.Inputs.of(tensor)) != "torch"
