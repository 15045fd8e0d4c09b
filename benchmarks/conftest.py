"""Shapes and devices of the microbenchmarks: `python -m pytest benchmarks --benchmark-only [--shapes full]`.

On a shared CPU add `--benchmark-timer time.process_time`. `gpu_suite.py` is finer: it takes candidates in turn.
"""

import functools

import pytest
import torch

from . import cases, sdpa
from .devices import cache_bytes
from .gate import Gate
from .peers import candidates

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_addoption(parser):
    parser.addoption("--shapes", choices=("quick", "full"), default="quick", help="shapes of the benchmarks")


def pytest_generate_tests(metafunc):
    """Give every benchmark its module's operations, over the cases asked for, all candidates and both directions."""
    if "candidate" not in metafunc.fixturenames:
        return
    half = DEVICE.type == "cuda"
    if metafunc.config.getoption("--shapes") == "full":
        chosen = cases.full()
    else:
        chosen = cases.quick("float16" if half else "float32")
    chosen = [case for case in chosen if case.operation in metafunc.module.OPERATIONS]
    pairs = [
        pytest.param(case, candidate, id=f"{case.label}-{candidate.name}")
        for case in chosen
        for candidate in candidates(case.operation)
    ]
    metafunc.parametrize(("case", "candidate"), pairs)
    metafunc.parametrize("direction", ("forward", "backward"))


@functools.lru_cache(maxsize=1)
def _gate(case):
    return Gate(case, cases.inputs_of(case, DEVICE))


@functools.lru_cache(maxsize=1)
def _checked(case, candidate):
    """The candidate's function and the gate's verdict on it, once for both directions."""
    if candidate.compiles:
        torch.compiler.reset()
    function = candidate.prepare(case)
    return function, _gate(case).verdict(function)


@pytest.fixture
def measured(benchmark):
    """Return ``measure(case, candidate, direction)``: the gate first, then times over inputs that rotate."""

    def measure(case, candidate, direction):
        if reasons := candidate.why_not(case, DEVICE):
            pytest.skip("; ".join(reasons))
        try:
            function, verdict = _checked(case, candidate)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in sdpa.NO_KERNEL):
                pytest.skip(str(error))
            raise
        if not verdict.passed:
            pytest.fail(f"not timed, its results are wrong: {verdict.reason}")
        sets = cases.rotating_inputs(case, DEVICE, cache_bytes(DEVICE))
        gradients = None
        calls = 0

        def setup():
            nonlocal gradients, calls
            inputs = sets[calls % len(sets)]
            calls += 1
            if direction == "forward":
                return (lambda: cases.call(case, function, inputs),), {}
            outputs = cases.call(case, function, inputs)
            gradients = gradients or cases.output_gradients(outputs)
            _wait()
            return (lambda: torch.autograd.grad(outputs, inputs, gradients, allow_unused=True),), {}

        def run(work):
            work()
            _wait()

        benchmark.group = f"{case.label} {direction}"
        benchmark.extra_info |= {"error_ratio": verdict.error_ratio, "differs": candidate.differs}
        benchmark.pedantic(run, setup=setup, rounds=10, warmup_rounds=1)

    return measure


def _wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
