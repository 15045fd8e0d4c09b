"""Peak memory of PyTorch programs, counted tensor by tensor: the same number on every machine."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from rcv.planning.tracing import call_kernel


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensor storages alive within a `with` block.

    Storages are counted once however many tensors share them, from the operation that returns them until they are
    freed. Temporaries of rcv's operations count, those inside PyTorch's own kernels do not, nor do allocators'
    rounding and fragmentation.

    Parameters
    ----------
    alive : iterable of Tensor
        Tensors from before the block that count too, such as weights and inputs.

    Attributes
    ----------
    current, peak : int
        Bytes alive now, and at most so far.
    """

    def __init__(self, alive=()):
        super().__init__()
        self.current = self.peak = 0
        self._tracked = set()
        for tensor in alive:
            self.count(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = func.namespace == "rcv"
        returned = call_kernel(func, args, kwargs, self) if ours else func(*args, **kwargs)
        for value in tree_iter(returned):
            if isinstance(value, torch.Tensor):
                self.count(value)
        return returned

    def count(self, tensor):
        """Count a tensor's storage from now on, unless it counts already."""
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity in self._tracked:
            return
        self._tracked.add(identity)
        size = storage.nbytes()
        self.allocated(identity, size)
        # PyTorch keeps a storage's Python object for as long as the storage itself lives
        weakref.finalize(storage, self._forget, identity, size).atexit = False

    def allocated(self, identity, size):
        """Take note of a new storage of `size` bytes; `identity` is its own until it is freed."""
        self.current += size
        self.peak = max(self.peak, self.current)

    def freed(self, identity, size):
        """Take note that a storage is gone."""
        self.current -= size

    def _forget(self, identity, size):
        self._tracked.discard(identity)
        self.freed(identity, size)
