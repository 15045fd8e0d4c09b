"""Times of several programs taken in turn in one process, so that drifts of clock and load hit all alike."""

import statistics
import time
from dataclasses import dataclass

import torch

from .cases import call, output_gradients
from .devices import cache_bytes, cpu_clock

FLUSH_FACTOR = 4  # bytes written between two calls on CUDA, in sizes of the L2 cache


@dataclass(frozen=True)
class Time:
    """Median and quartiles of a number of calls, in seconds."""

    median: float
    first_quartile: float
    third_quartile: float
    calls: int

    @staticmethod
    def of(seconds):
        """Return the Time of a list of measured seconds, two or more."""
        first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
        return Time(median, first, third, len(seconds))


class Clock:
    """Seconds of one call on a device, from a cold cache on CUDA.

    On CUDA: events around the call, after a buffer larger than the L2 cache was written. While the device writes it the
    host already launches the call, so that launch time counts only where it exceeds that of the work. On a CPU:
    `devices.cpu_clock`; let inputs rotate.

    Parameters
    ----------
    device : torch.device or str
    flush : bool
        Whether to write that buffer, which this object holds.
    """

    def __init__(self, device, flush=True):
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        size = FLUSH_FACTOR * cache_bytes(self.device) if self.cuda and flush else 0
        self._flush = torch.empty(size, dtype=torch.uint8, device=self.device)

    def seconds(self, function, *args, **options):
        """Return (seconds, result) of one call."""
        if not self.cuda:
            now = cpu_clock()
            started = now()
            result = function(*args, **options)
            return now() - started, result
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        self._flush.zero_()
        start.record()
        result = function(*args, **options)
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3, result


class Failed(Exception):
    """A program raised while it was timed; `candidate` is its name, the cause its exception."""

    def __init__(self, candidate):
        super().__init__(candidate)
        self.candidate = candidate


def forward_and_backward(case, functions, input_sets, clock, budget_s, least_calls=5, most_calls=50):
    """Time forward and backward of every function, separately, all in turn on the same inputs.

    Parameters
    ----------
    case : Case
    functions : dict of str to callable
        With the operation's signature.
    input_sets : list of tuples of Tensor
        Each round takes the next.
    clock : Clock
    budget_s : float
        No round starts later, once there were `least_calls`.

    Returns
    -------
    dict of (name, "forward" or "backward") to Time

    Raises
    ------
    Failed
        From the exception of the first function that raises.
    """
    seconds = {(name, direction): [] for name in functions for direction in ("forward", "backward")}
    gradients = None
    names = list(functions)
    started = time.perf_counter()
    # The first round warms up: libraries choose algorithms, allocators grow.
    for number in range(most_calls + 1):
        if number > least_calls and time.perf_counter() - started > budget_s:
            break
        inputs = input_sets[number % len(input_sets)]
        # Each round begins with another function: none always follows the same one.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            try:
                forward, outputs = clock.seconds(call, case, functions[name], inputs)
                if gradients is None:
                    gradients = output_gradients(outputs)
                # Its gradients go at once: the next program may need their memory.
                backward = clock.seconds(torch.autograd.grad, outputs, inputs, gradients, allow_unused=True)[
                    0
                ]
            except Exception as error:
                raise Failed(name) from error
            del outputs
            if number:
                seconds[name, "forward"].append(forward)
                seconds[name, "backward"].append(backward)
    return {key: Time.of(taken) for key, taken in seconds.items()}
