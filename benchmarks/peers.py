"""Everything that is timed: the backends of rcv and their rivals, each with reasons why it cannot run a case."""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rcv import ops
from rcv.ops import reference, registry

from .cases import ELEMENTWISE

HALF = ("float16", "bfloat16")
# Loops over frames are unrolled by torch.compile: beyond this, compiling takes minutes.
MOST_COMPILED_FRAMES = {"frame_attention": 8, "recurrent_scan": 16, **dict.fromkeys(ELEMENTWISE, 32)}


def _none(case, device):
    return []


@dataclass(frozen=True)
class Candidate:
    """A way to compute an operation.

    Attributes
    ----------
    name : str
        "rcv:BACKEND" for rcv's own.
    operation : str
    prepare : callable
        ``prepare(case)`` returns a function with the operation's signature and gradients.
    reasons : callable
        ``reasons(case, device)``, see `why_not`.
    differs : str
        What it does besides or instead of the operation, or what is counted in its time; empty if nothing.
    compiles : bool
        Whether its first call takes long.
    """

    name: str
    operation: str
    prepare: Callable
    reasons: Callable = _none
    differs: str = ""
    compiles: bool = False

    @property
    def ours(self):
        """Whether it belongs to rcv."""
        return self.name.startswith("rcv:")

    def why_not(self, case, device):
        """Return the reasons, as sentences, why it cannot run `case` on `device`: empty if it can."""
        return self.reasons(case, torch.device(device))


@dataclass(frozen=True)
class Limits:
    """What a rival takes.

    Attributes
    ----------
    devices : tuple of str
    dtypes : tuple of str, or None
        None for all.
    capability : tuple of two int
        Smallest compute capability on CUDA.
    most_width : int or None
        Largest head dim.
    most_frames : int or None
    module : str or None
        What must be importable.
    cpu : str
        Why not on a CPU, where "cpu" is not among `devices`.
    """

    devices: tuple = ("cuda",)
    dtypes: tuple | None = None
    capability: tuple = (0, 0)
    most_width: int | None = None
    most_frames: int | None = None
    module: str | None = None
    cpu: str = "it runs on CUDA devices alone"

    def __call__(self, case, device):
        """Return the reasons, as sentences, why `case` cannot run on `device`."""
        reasons = []
        if self.module and not _importable(self.module):
            reasons.append(f"the package {self.module} is not installed")
        if device.type not in self.devices:
            reasons.append(self.cpu if device.type == "cpu" else f"it does not run on {device.type}")
        elif device.type == "cuda" and torch.cuda.get_device_capability(device) < self.capability:
            reasons.append(f"it needs compute capability {'.'.join(map(str, self.capability))} or more")
        if self.dtypes is not None and case.dtype not in self.dtypes:
            reasons.append(f"dtype is {case.dtype}, it takes {' or '.join(self.dtypes)}")
        if self.most_width is not None and case.head_dim > self.most_width:
            reasons.append(f"head dim is {case.head_dim}, it takes {self.most_width} at most")
        if self.most_frames is not None and case.frames > self.most_frames:
            reasons.append(f"{case.frames} unrolled frames compile for minutes, {self.most_frames} at most")
        return reasons


def candidates(operation):
    """Return every Candidate of an operation: rcv's backends, the eager reference, then the rivals."""
    from . import attention_peers, scan_peers, temporal_peers

    rivals = {
        "frame_attention": attention_peers.PEERS,
        "temporal_attention": temporal_peers.PEERS,
        "recurrent_scan": scan_peers.RECURRENT,
        "gated_scan": scan_peers.GATED,
        "mingru_scan": scan_peers.MINGRU,
        "rglru_scan": scan_peers.RGLRU,
    }
    own = [_backend(operation, name) for name in registry.BACKENDS]
    eager = Candidate("reference", operation, lambda case: getattr(reference, operation))
    return [*own, eager, *rivals[operation], _compiled(operation)]


def _backend(operation, name):
    def prepare(case):
        function = getattr(ops, operation)

        @functools.wraps(function)
        def run(*args, **options):
            with ops.backend(name):
                return function(*args, **options)

        return run

    def reasons(case, device):
        capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
        inputs = registry.Inputs(device.type, capability, case.torch_dtype)
        return registry.BACKENDS[name].why_not(operation, inputs)

    return Candidate(f"rcv:{name}", operation, prepare, reasons)


def _compiled(operation):
    return Candidate(
        "torch.compile(reference)",
        operation,
        lambda case: torch.compile(getattr(reference, operation), dynamic=False),
        Limits(
            capability=(7, 0),
            most_frames=MOST_COMPILED_FRAMES.get(operation),
            cpu="on a CPU its compilation takes longer than all other candidates together",
        ),
        compiles=True,
    )


@functools.cache
def _importable(module):
    return importlib.util.find_spec(module) is not None
