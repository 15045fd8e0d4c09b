"""A CUDA driver of no device: stands in for `cuda.bindings.driver`, answers as told and notes what it was asked."""

import contextlib
import ctypes

import cuda.bindings
import torch
from cuda.bindings import driver as real

from rcv.ops.cuda_backend import driver

SUCCESS = real.CUresult.CUDA_SUCCESS


class FakeDriver:
    """What of the driver's functions rcv calls.

    Parameters
    ----------
    fails : dict of str to CUresult
        Functions, or kernels at their launch, that answer with an error.
    """

    CUresult = real.CUresult
    CUfunction_attribute = real.CUfunction_attribute

    def __init__(self, fails):
        self.fails = fails
        self.modules = {}  # those loaded, by number: the code
        self.launches = []  # (kernel, blocks, threads, shared bytes, parameters as bytes)
        self.contexts = 0
        self.shared_bytes = {}

    def _answer(self, name, *values):
        status = self.fails.get(name, SUCCESS)
        return (status, *values) if status == SUCCESS else (status, *[None] * len(values))

    def cuGetErrorString(self, status):
        return SUCCESS, status.name.encode()

    def cuDeviceGet(self, index):
        return self._answer("cuDeviceGet", index)

    def cuDevicePrimaryCtxRetain(self, device):
        answer = self._answer("cuDevicePrimaryCtxRetain", "context")
        self.contexts += answer[0] == SUCCESS
        return answer

    def cuDevicePrimaryCtxRelease(self, device):
        self.contexts -= 1
        return self._answer("cuDevicePrimaryCtxRelease")

    def cuCtxSetCurrent(self, context):
        assert context == "context"
        return self._answer("cuCtxSetCurrent")

    def cuModuleLoadData(self, code):
        answer = self._answer("cuModuleLoadData", len(self.modules))
        if answer[0] == SUCCESS:
            self.modules[len(self.modules)] = code
        return answer

    def cuModuleUnload(self, module):
        del self.modules[module]
        return self._answer("cuModuleUnload")

    def cuModuleGetFunction(self, module, name):
        assert name in self.modules[module]
        return self._answer("cuModuleGetFunction", name.decode())

    def cuFuncSetAttribute(self, function, attribute, value):
        assert attribute == real.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self.shared_bytes[function] = value
        return self._answer("cuFuncSetAttribute")

    def cuLaunchKernel(self, function, *rest):
        blocks, _, _, threads, _, _, shared_bytes, stream, arguments, _ = rest
        assert stream == 7
        answer = self._answer(function)
        if answer[0] == SUCCESS:
            (argument,) = (ctypes.c_void_p * 1).from_address(arguments)
            self.launches.append((function, blocks, threads, shared_bytes, argument))
        return answer


class _Stream:
    cuda_stream = 7

    def query(self):
        return True


@contextlib.contextmanager
def driver_answering(monkeypatch, capability=(7, 0), capturing=False, **fails):
    """Give PyTorch's CPU device a CUDA device's manners and a FakeDriver; rcv's own code runs as it is."""
    fake = FakeDriver(fails)
    monkeypatch.setattr(cuda.bindings, "driver", fake)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Stream())
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    driver.functions.cache_clear()
    yield fake
    driver.functions.cache_clear()
