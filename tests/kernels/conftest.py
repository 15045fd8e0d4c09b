"""Shared by the tests of Triton kernels: on a GPU if there is one, else in Triton's interpreter on CPU tensors."""

import dataclasses
import functools

import pytest
import torch

from rcv.ops import backend, registry
from rcv.ops.registry import Limits


@pytest.fixture
def triton_backend(monkeypatch):
    """The triton backend is asked for, and takes CPU tensors where the interpreter stands in for a GPU."""
    if not torch.cuda.is_available():
        triton = registry.BACKENDS["triton"]
        limits = {op: Limits(("cpu",), limit.dtypes) for op, limit in triton.limits.items()}
        monkeypatch.setitem(registry.BACKENDS, "triton", dataclasses.replace(triton, limits=limits))
    registry.program.cache_clear()
    with backend("triton"):
        yield
    registry.program.cache_clear()


@pytest.fixture
def poisoned(monkeypatch):
    """New floating tensors hold NaN, so that what a kernel leaves unwritten shows."""

    def poison(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            t = function(*arguments, **options)
            return t.fill_(float("nan")) if t.is_floating_point() else t

        return call

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poison(getattr(owner, name)))


@pytest.fixture
def small_tiles(monkeypatch):
    """Every kernel takes blocks of 16: small inputs then run its loop and its last, masked block."""
    tile = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 1, "num_stages": 2}
    monkeypatch.setattr("rcv.kernels.tiles._tile", lambda kernel, capability, shape: tile)
