"""What a run's processes tell each other, and what is said when one of them is gone."""

import signal
import threading
from contextlib import contextmanager

import torch
from accelerate.utils import DistributedType

REPLICATED = (
    *(DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU),
    *(DistributedType.MULTI_XPU, DistributedType.MULTI_NPU),
)
LOST = ("closed by peer", "reset by peer", "gloo", "nccl", "timed out", "broken pipe")
"""How the libraries that connect processes say, in exceptions of no class of their own, that one is gone."""


class ProcessLostError(OSError):
    """Another process of the run has ended or does not answer; the newest checkpoint stands."""


def check_replicated(accelerator):
    """Raise a ValueError where `accelerate` was told to divide the model: every process must hold all of it."""
    if accelerator.distributed_type not in REPLICATED:
        known = ", ".join(kind.value for kind in REPLICATED)
        raise ValueError(
            f"accelerate: distributed_type is {accelerator.distributed_type.value}, expected one of {known}: what is "
            "trained is small, and every process holds all of it"
        )


def any_process(flag, accelerator):
    """Return whether `flag` is set in any process, known to all of them."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum").item())


@contextmanager
def naming_lost_processes(accelerator):
    """Turn what a collective operation raises when another process is gone into a ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not _tells_of_a_lost_process(error):
            raise
        told = " ".join(str(error).split())[:300]
        raise ProcessLostError(
            f"process {accelerator.process_index} of {accelerator.num_processes}: another process of this run has "
            f"ended or does not answer ({told}); what it said last says why"
        ) from error


def _tells_of_a_lost_process(error):
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or any(word in text for word in LOST)


@contextmanager
def stop_requests():
    """An event that Ctrl-C or SIGTERM sets, so that a step is never cut in half; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
