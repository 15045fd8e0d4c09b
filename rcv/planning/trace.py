"""A program's allocations in their order, each with what it was for."""

import contextlib
from dataclasses import dataclass

import torch

from rcv.planning.live_bytes import LiveBytes

_CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}


@dataclass(slots=True)
class Allocation:
    """One storage.

    Attributes
    ----------
    size : int
        Bytes.
    start, end : int
        Events of the trace that allocate and free it; `end` is None for what outlives the trace.
    stage : str
        "before" the program, or the stage in which it was allocated.
    module : str
        Path of the module at work.
    kind : str
        For what was there before: what it is.
    """

    size: int
    start: int
    end: int | None
    stage: str
    module: str
    kind: str | None = None


class Trace(LiveBytes):
    """Live bytes with their history.

    Parameters
    ----------
    workspaces : bool
        Whether a convolution is taken to copy its input and its output into another layout for as long as it runs, as
        cuDNN does for matrix units.

    Attributes
    ----------
    allocations : list of Allocation
        In the order of their `start`.
    events : list of (int, bool)
        Number of an allocation, and whether it is allocated or freed.
    stages : list of (str, int)
        Stages in their order, with the event at which each begins. A stage can come back.
    peak_event : int
        The event that first reached `peak`.
    """

    def __init__(self, workspaces=False):
        super().__init__()
        self.allocations, self.events = [], []
        self.stages, self.kind = [("before", 0)], None
        self.peak_event = 0
        self._open, self._workspaces = {}, workspaces
        self._path = [""]

    @contextlib.contextmanager
    def of(self, model):
        """Trace what runs in the `with` block, and name the model's modules."""
        with contextlib.ExitStack() as stack:
            for name, module in model.named_modules():
                if name:
                    before = module.register_forward_pre_hook(lambda *_, name=name: self._path.append(name))
                    stack.callback(before.remove)
                    stack.callback(module.register_forward_hook(self._leave).remove)
            stack.enter_context(self)
            yield self
        self._open = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = super().__torch_dispatch__(func, types, args, kwargs)
        if self._workspaces and func in _CONVOLUTIONS:
            self._note_workspace(args, returned)
        return returned

    @property
    def stage(self):
        """The stage that has begun last."""
        return self.stages[-1][0]

    def begin(self, stage):
        """Let a stage begin."""
        self.stages.append((stage, len(self.events)))

    def hold(self, tensors, kind):
        """Count tensors that are there before the program, as `kind`."""
        self.kind = kind
        for tensor in tensors:
            self.count(tensor)
        self.kind = None

    def hold_bytes(self, size, kind):
        """Count bytes that no tensor at hand stands for."""
        self.kind = kind
        self.allocated(object(), size)
        self.kind = None

    def allocated(self, identity, size):
        former = self.peak
        super().allocated(identity, size)
        if self.peak > former:
            self.peak_event = len(self.events)
        self._open[identity] = len(self.allocations)
        self.events.append((len(self.allocations), True))
        one = Allocation(size, len(self.events) - 1, None, self.stage, self._path[-1], self.kind)
        self.allocations.append(one)

    def freed(self, identity, size):
        if self._open is None:  # what is freed later is not the program's doing
            return
        super().freed(identity, size)
        number = self._open.pop(identity)
        self.events.append((number, False))
        self.allocations[number].end = len(self.events) - 1

    def _note_workspace(self, args, returned):
        tensors = [t for t in (*args[:2], *_listed(returned)) if isinstance(t, torch.Tensor)]
        size, identity = sum(t.numel() * t.element_size() for t in tensors), object()
        self.allocated(identity, size)
        self.freed(identity, size)

    def _leave(self, module, args, output):
        """Leave a module; its backward, which begins at its output, will be at work in it."""
        name = self._path.pop()
        for value in output if isinstance(output, tuple) else (output,):
            node = getattr(value, "grad_fn", None)
            if node is not None and self.stage != "backward":
                node.register_prehook(lambda _, name=name: self._path.__setitem__(0, name))


def _listed(returned):
    return returned if isinstance(returned, tuple | list) else (returned,)
