"""The suite's `check` and `ops` parts: every candidate against float64, then the times of those that passed."""

import contextlib

import torch

from . import cases, sdpa
from .bounds import bound, work
from .devices import cache_bytes
from .gate import Gate, bitwise_reproducible
from .peers import candidates
from .results import Row
from .timing import Clock, Failed, forward_and_backward

SECONDS_PER_CASE = {"cuda": 2.0, "cpu": 1.0}
COMPILING_SECONDS = 60  # left of the budget, or nothing is compiled any more
LOST = "lost the device: "
MOST_LOSSES = 2
# Below 8.0 alone are the products of rcv's CUDA kernels instructions of the chip.
NATIVE_OF_CUDA_BACKEND = ((7, 0), (7, 5))


class DeviceLost(Exception):
    """The CUDA context is unusable: this process can measure nothing more."""


def check(case, suite):
    """Compare rcv's backends with float64 on one case, twice for the same bits, and record it."""
    gate = Gate(case, cases.inputs_of(case, suite.device))
    for candidate in candidates(case.operation):
        if not candidate.ours or _is_refused(candidate, case, suite, quietly=True):
            continue
        with _recorded(case, candidate, suite):
            function = candidate.prepare(case)
            verdict = gate.verdict(function)
            reason = verdict.reason
            if verdict.passed and not bitwise_reproducible(gate, function):
                reason = "two calls differ in their bits"
            _add(suite, case, candidate, "failed" if reason else "passed", reason, verdict.error_ratio)


def measure(case, suite):
    """Gate every candidate of one case, time in turn those that passed, and record all of it."""
    # Compiled code of former cases counts towards the limit beyond which PyTorch silently runs uncompiled.
    if suite.device.type == "cuda":
        torch.compiler.reset()
    sets = cases.rotating_inputs(case, suite.device, cache_bytes(suite.device))
    passed, functions, ratios = {}, {}, {}
    gate = Gate(case, sets[0])
    for candidate in candidates(case.operation):
        if _is_refused(candidate, case, suite):
            continue
        with _recorded(case, candidate, suite):
            function = candidate.prepare(case)
            verdict = gate.verdict(function)
            if not verdict.passed:
                _add(suite, case, candidate, "failed", verdict.reason, verdict.error_ratio)
            elif _emulated(candidate, suite.device):
                reason = "functional here: this device emulates the instructions of these kernels"
                _add(suite, case, candidate, "passed", reason, verdict.error_ratio)
            else:
                passed[candidate.name], functions[candidate.name] = candidate, function
                ratios[candidate.name] = verdict.error_ratio
    del gate  # its float64 results are memory that the candidates may need
    times = _times(case, suite, sets, passed, functions)
    for (name, direction), time in times.items():
        least = bound(work(case, direction), suite.peak, case.dtype)
        suite.results.rows.append(
            Row.of(
                case,
                direction,
                name,
                "timed",
                reason=passed[name].differs,
                median_s=time.median,
                q1_s=time.first_quartile,
                q3_s=time.third_quartile,
                bound_s=least.seconds,
                bound_kind=least.kind,
                share=least.seconds / time.median,
                error_ratio=ratios[name],
            )
        )


def _times(case, suite, sets, passed, functions):
    budget = min(SECONDS_PER_CASE[suite.device.type], max(0.0, suite.remaining()) / 4)
    clock = Clock(suite.device)
    while functions:
        try:
            return forward_and_backward(case, functions, sets, clock, budget)
        except Failed as failed:
            with _recorded(case, passed[failed.candidate], suite):
                raise failed.__cause__ from None
            del functions[failed.candidate]
    return {}


@contextlib.contextmanager
def _recorded(case, candidate, suite):
    """Turn an exception into a row; DeviceLost where the device did not survive it."""
    reason, status = None, "failed"
    try:
        yield
        suite.wait()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if any(words in reason for words in sdpa.NO_KERNEL):
            status = "refused"
    if reason is None:
        return
    # Outside the handler: the exception's frames would keep the tensors alive.
    alive = suite.is_alive()
    _add(suite, case, candidate, status if alive else "failed", reason if alive else LOST + reason)
    if not alive:
        raise DeviceLost(reason)
    if out_of_memory:
        torch.cuda.empty_cache()


def _is_refused(candidate, case, suite, quietly=False):
    """Whether a candidate cannot run or already failed here; its reasons become a row, unless `quietly`."""
    failed = [row for row in suite.results.rows if row.candidate == candidate.name and row.status == "failed"]
    reference = Row.of(case, "both", candidate.name, "failed")
    if suite.resumed and any(row.case == reference.case for row in failed):
        return True
    reasons = candidate.why_not(case, suite.device)
    if sum(row.reason.startswith(LOST) for row in failed) >= MOST_LOSSES:
        reasons.append(f"it lost the device {MOST_LOSSES} times in this run")
    if candidate.compiles and not suite.compiling:
        reasons.append("rivals that a compiler makes were left out")
    elif candidate.compiles and suite.remaining() < COMPILING_SECONDS and not reasons:
        reasons.append("too little was left of the time budget to compile it")
    if reasons and not quietly:
        _add(suite, case, candidate, "refused", "; ".join(reasons))
    return bool(reasons)


def _emulated(candidate, device):
    if candidate.name != "rcv:cuda":
        return False
    return torch.cuda.get_device_capability(device) not in NATIVE_OF_CUDA_BACKEND


def _add(suite, case, candidate, status, reason, error_ratio=None):
    row = Row.of(case, "both", candidate.name, status, reason=reason, error_ratio=error_ratio)
    suite.results.rows.append(row)
