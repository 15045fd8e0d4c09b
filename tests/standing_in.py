"""Backends on CPU tensors, where something stands in for their device: Triton's interpreter, the CUDA emulation."""

import contextlib
import dataclasses
import functools

import torch

from rcv.ops import backend, registry


@contextlib.contextmanager
def taking_cpu_tensors(name):
    """Ask for a backend and let it take CPU tensors, whatever this machine lacks for it."""
    former = registry.BACKENDS[name]
    limits = {
        op: dataclasses.replace(limit, devices=("cpu",), capability=None)
        for op, limit in former.limits.items()
    }
    registry.BACKENDS[name] = dataclasses.replace(former, limits=limits, requires={}, machine=None)
    registry.program.cache_clear()
    try:
        with backend(name):
            yield
    finally:
        registry.BACKENDS[name] = former
        registry.program.cache_clear()


@contextlib.contextmanager
def poisoned():
    """Fill what `torch.empty` and its like return with NaN, so that outputs left unwritten show."""
    places = ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty"))
    former = {place: getattr(*place) for place in places}

    def poisoning(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            t = function(*arguments, **options)
            return t.fill_(float("nan")) if t.is_floating_point() else t

        return call

    try:
        for place, function in former.items():
            setattr(*place, poisoning(function))
        yield
    finally:
        for place, function in former.items():
            setattr(*place, function)
