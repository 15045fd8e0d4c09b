"""The choice among backends: limits, reasons, explicit and automatic choice."""

import dataclasses
import os
import subprocess
import sys
import warnings

import pytest
import torch

from rcv.ops import (
    BackendError,
    FrameTable,
    backend,
    frame_attention,
    gated_scan,
    registry,
    set_backend,
    why_not,
)
from rcv.ops.registry import BACKENDS, OPERATIONS, Backend, Inputs, Limits
from rcv.ops.torch_backend import gated

CPU = Inputs("cpu", None, torch.float32)
V100 = Inputs("cuda", (7, 0), torch.float16)
H100 = Inputs("cuda", (9, 0), torch.float16)


@pytest.fixture(autouse=True)
def automatic():
    set_backend("auto")
    registry.program.cache_clear()
    yield
    set_backend("auto")
    registry.program.cache_clear()


def _call():
    x = torch.randn(1, 2, 3, 4)
    return gated_scan(x, x)[0]


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_torch_runs_everything(op, dtype):
    assert why_not(op, torch.zeros(1, dtype=dtype), "torch") == []
    assert registry.choose(op, Inputs.of(torch.zeros(1, dtype=dtype))) == "torch"


@pytest.mark.parametrize("name", ["triton", "cuda"])
def test_reasons_are_true(name):
    reasons = " ".join(why_not("frame_attention", CPU, name))
    assert "inputs are on cpu, it runs on cuda" in reasons
    assert ("there is no CUDA device" in reasons) == (not torch.cuda.is_available())
    assert ("holds no such kernel" in reasons) == ("frame_attention" not in registry.BACKENDS[name].programs)


def test_reasons_of_a_device_without_enough_capability():
    assert any(
        "compute capability 7.0, it needs 8.0" in line for line in why_not("frame_attention", V100, "triton")
    )
    assert not any("capability" in line for line in why_not("gated_scan", V100, "triton"))
    assert not any("capability" in line for line in why_not("frame_attention", V100, "cuda"))
    assert any(
        "float64" in line for line in why_not("gated_scan", Inputs("cuda", (9, 0), torch.float64), "triton")
    )


@pytest.mark.parametrize("name", ["triton", "cuda"])
def test_reasons_of_heads_that_are_too_wide(name):
    device = V100 if name == "cuda" else H100
    for width, refused in ((160, False), (168, True)):
        inputs = Inputs("cuda", device.capability, torch.float16, width)
        reasons = why_not("frame_attention", inputs, name)
        assert any(f"last dimension is {width}, it takes 160 at most" in line for line in reasons) == refused
        assert not any("last dimension" in line for line in why_not("recurrent_scan", inputs, name))


def test_explicit_choice_raises_with_the_reasons_of_every_backend():
    """Also where TRITON_INTERPRET is set: the interpreter is not taken unasked."""
    for name in ("triton", "cuda"):
        with backend(name), pytest.raises(BackendError) as error:
            _call()
        assert f"backend '{name}' cannot run rcv.gated_scan" in str(error.value)
        assert "triton: inputs are on cpu, it runs on cuda" in str(error.value)
        assert "torch: can run" in str(error.value)


def test_backward_runs_where_its_forward_did():
    q = torch.randn(1, 2, 3, 1, 4, requires_grad=True)
    k = torch.randn(1, 1, 3, 1, 4)
    o = frame_attention(q, [(k, k)], FrameTable.first(2))
    with backend("cuda"):
        o.sum().backward()
    assert q.grad is not None


def test_backend_is_restored_after_an_error():
    with pytest.raises(KeyError), backend("torch"):
        assert registry.requested() == "torch"
        raise KeyError
    assert registry.requested() == "auto"


@pytest.mark.parametrize("name", ["tritn", "Torch"])
def test_unknown_backend_suggests_the_nearest(name):
    with pytest.raises(ValueError, match=f"unknown backend '{name}'.*did you mean 't"):
        set_backend(name)


def test_unknown_operation_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'frame_attention'"):
        why_not("frame_atention", CPU)


@pytest.mark.parametrize("op", registry.ATTENTION)
def test_a_v100_runs_attention_by_compiled_kernels(monkeypatch, op):
    built = dataclasses.replace(BACKENDS["cuda"], requires={}, machine=None)
    monkeypatch.setitem(BACKENDS, "cuda", built)
    assert why_not(op, V100, "cuda") == []
    assert registry.choose(op, V100) == "cuda"


def _kernels_for(monkeypatch, name, ops, device="cuda"):
    limits = {op: Limits((device,), (torch.float16, torch.float32), (7, 0)) for op in OPERATIONS}
    monkeypatch.setitem(BACKENDS, name, Backend(name, limits, dict.fromkeys(ops, "a module")))


def test_automatic_choice_takes_the_first_that_can(monkeypatch):
    _kernels_for(monkeypatch, "cuda", OPERATIONS)
    _kernels_for(monkeypatch, "triton", [])
    assert registry.choose("gated_scan", V100) == "cuda"
    _kernels_for(monkeypatch, "triton", ["gated_scan"])
    assert registry.choose("gated_scan", V100) == "triton"
    assert registry.choose("recurrent_scan", V100) == "cuda"
    assert registry.choose("recurrent_scan", CPU) == "torch"


def test_falling_back_on_a_cuda_device_warns_once(monkeypatch):
    _kernels_for(monkeypatch, "triton", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert registry.program("gated_scan", H100, "auto") is gated
            assert registry.program("gated_scan", CPU, "auto") is gated
            assert registry.program("gated_scan", H100, "torch") is gated
    assert len(caught) == 1
    assert "falls back to the torch backend (triton: " in str(caught[0].message)


@pytest.mark.parametrize(
    ("value", "said"), [("cuda", "backend 'cuda' cannot run"), ("crda", "from RCV_BACKEND")]
)
def test_environment_variable(value, said):
    program = "import torch, rcv.ops as o; x = torch.ones(1, 1, 1, 1); print(o.gated_scan(x, x)[1].item())"
    environment = {**os.environ, "RCV_BACKEND": value}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert said in run.stderr
