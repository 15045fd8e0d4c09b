"""What the forward keeps for the backward waits in main memory, on its way while the GPU computes."""

import weakref

import torch

LEAST_BYTES = 1 << 20  # smaller tensors cost more launches than they free memory


class OffloadedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Within a `with` block, tensors that autograd keeps leave the device for pinned main memory.

    Copies run on a stream of their own: out while the forward goes on, and back one tensor ahead of the backward, which
    reads them in reverse. Parameters, small tensors, and those of other devices stay.

    Parameters
    ----------
    devices : sequence of str
        Types of devices whose tensors are moved. Meta tensors stand for a GPU's when memory is planned.
    """

    def __init__(self, devices=("cuda", "meta")):
        super().__init__(self._pack, self._unpack)
        self._devices = devices
        self._stream = self._last = None
        self._handles = ()

    def attach(self, module):
        """Let every forward of a module run in such a block; returns self."""
        self._handles = (
            module.register_forward_pre_hook(lambda *_: self.__enter__() and None),
            module.register_forward_hook(lambda *_: self.__exit__(), always_call=True),
        )
        return self

    def detach(self):
        """Take that back."""
        for handle in self._handles:
            handle.remove()

    def _pack(self, tensor):
        stays = tensor.device.type not in self._devices or tensor.is_leaf or tensor.nbytes < LEAST_BYTES
        if stays:
            return tensor
        packed = _Packed(tensor, self._last, self._stream_of(tensor))
        self._last = weakref.ref(packed)
        return packed

    def _unpack(self, packed):
        if isinstance(packed, torch.Tensor):
            return packed
        packed.start_to_return()
        before = packed.before and packed.before()
        if before is not None:
            before.start_to_return()
        return packed.returned()

    def _stream_of(self, tensor):
        if tensor.is_cuda and self._stream is None:
            self._stream = torch.cuda.Stream(tensor.device)
        return self._stream


class _Packed:
    """A tensor in main memory. `before` is a weak reference to the one that was packed before it, or None."""

    def __init__(self, tensor, before, stream):
        self.before, self._stream, self._coming = before, stream, None
        self._shape, self._strides, self._dtype = tensor.shape, tensor.stride(), tensor.dtype
        self._device, self._host = tensor.device, None
        if tensor.is_meta:  # which has nothing to keep but its shape
            return
        self._host = self._empty("cpu", pin_memory=stream is not None)
        if stream is None:
            self._host.copy_(tensor)
            return
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            self._host.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)  # its memory is another's only when the copy is done

    def start_to_return(self):
        """Begin the copy back, unless it has begun."""
        if self._coming is not None:
            return
        if self._stream is None:
            self._coming = self._back(), None
            return
        with torch.cuda.stream(self._stream):  # behind the copy out, on the same stream
            self._coming = self._back(), self._stream.record_event()

    def returned(self):
        """Return the tensor, which the current stream waits for."""
        (tensor, arrived), self._coming = self._coming, None
        if arrived is not None:
            current = torch.cuda.current_stream(tensor.device)
            current.wait_event(arrived)
            tensor.record_stream(current)
        return tensor

    def _back(self):
        tensor = self._empty(self._device)
        return tensor if self._host is None else tensor.copy_(self._host, non_blocking=True)

    def _empty(self, device, **options):
        return torch.empty_strided(self._shape, self._strides, dtype=self._dtype, device=device, **options)
