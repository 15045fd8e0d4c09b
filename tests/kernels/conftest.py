"""Shared by the tests of Triton kernels: on a GPU if there is one, else in Triton's interpreter on CPU tensors."""

import pytest
import torch

from rcv.ops import backend
from tests import standing_in
from tests.kernels import interpreter


@pytest.fixture
def triton_backend():
    """The triton backend is asked for, and takes CPU tensors where the interpreter stands in for a GPU."""
    if torch.cuda.is_available():
        with backend("triton"):
            yield
    else:
        with standing_in.taking_cpu_tensors("triton"), interpreter.with_bfloat16():
            yield


@pytest.fixture
def poisoned():
    """New floating tensors hold NaN, so that what a kernel leaves unwritten shows."""
    with standing_in.poisoned():
        yield


@pytest.fixture
def small_tiles(monkeypatch):
    """Every kernel takes blocks of 16: small inputs then run its loop and its last, masked block."""
    tile = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 1, "num_stages": 2}
    monkeypatch.setattr("rcv.kernels.tiles._tile", lambda kernel, capability, shape: tile)
