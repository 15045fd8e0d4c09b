"""Counts of what a program does that do not depend on the machine's mood: calls, products, copies, bytes kept.

Counted below rcv's operations too: their kernels' own calls are seen, not the operation alone.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rcv.planning.tracing import call_kernel

COPIES = (
    "cat",
    "stack",
    "clone",
    "copy_",
    "_to_copy",
    "repeat",
    "repeat_interleave",
    "index_select",
    "gather",
    "index",
)
"""Names of aten operations that move values without computing with them."""
FREE = (
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "detach",
    "_local_scalar_dense",
    "lift_fresh",
    "promote_types",
)


@dataclass
class Counts:
    """What happened while `counting()` was open.

    Attributes
    ----------
    calls : Counter
        Calls by aten operation; views and allocations left out, as they launch nothing.
    flops : int
        Floating-point operations of matrix products, convolutions and attention, a multiply-add being two.
    copies : Counter
        Bytes written by each kind of copy: keys (operation, shape, where), `where` being the module in whose forward
        it happened, or "backward".
    kept : int
        Bytes of the distinct storages that autograd kept for the backward, parameters left out.
    """

    calls: Counter = field(default_factory=Counter)
    flops: int = 0
    copies: Counter = field(default_factory=Counter)
    kept: int = 0

    @property
    def dispatched(self):
        """Calls in all."""
        return self.calls.total()

    @property
    def copied(self):
        """Bytes copied in all."""
        return self.copies.total()


@contextmanager
def counting(model=None):
    """Count what runs inside the `with` block; yields the Counts, complete when it ends.

    Parameters
    ----------
    model : torch.nn.Module, optional
        Names the modules in which copies happen, and its parameters do not count as kept.
    """
    counts, path, kept = Counts(), [], {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()} if model is not None else set()

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # held: a freed storage's address would be given to another one
            kept[storage.data_ptr()] = storage
        return tensor

    hooks = []
    for name, module in model.named_modules() if model is not None else ():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: _drop_last(path)))
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _Counting(counts, path):
            yield counts
    finally:
        counts.kept = sum(storage.nbytes() for storage in kept.values())
        for hook in hooks:
            hook.remove()


class _Counting(TorchDispatchMode):
    def __init__(self, counts, path):
        super().__init__()
        self.counts, self.path = counts, path

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "rcv":
            return call_kernel(func, args, kwargs, self)
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if func.is_view or name in FREE:
            return out
        self.counts.calls[name] += 1
        if func.overloadpacket in flop_registry:
            self.counts.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        elif name in _CPU_ATTENTION:
            self.counts.flops += _CPU_ATTENTION[name](*args)
        if name in COPIES:
            where = self.path[-1] if self.path else "backward"
            self.counts.copies[name, tuple(out.shape), where] += out.nbytes
        return out


def _drop_last(path):
    path.pop()  # what a forward hook returns would take the place of the module's output


def _attention_flops(q, k, *rest):
    """Two products of [n,D] with [D,m] for each head: q, k [b,H,n,D], [b,H,m,D]."""
    return 4 * q.numel() * k.shape[2]


def _attention_backward_flops(do, q, k, *rest):
    """Five products: the logits again, dP, dV, dQ, dK."""
    return 10 * q.numel() * k.shape[2]


_CPU_ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention_flops,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward_flops,
}
