"""Small kernels whose compilation is known, and the cases that launch them: what the offline compiler is tested on."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from rcv.kernels.launch import launch, recording

FACTOR = tl.constexpr(2.0)


@triton.jit
def doubled(x):
    return x * FACTOR


@triton.jit
def product_kernel(a, b, c, stride, SIZE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """c = 2 a b; a is [SIZE, DEPTH], b [DEPTH, SIZE]."""
    i = tl.arange(0, SIZE)
    k = tl.arange(0, DEPTH)
    left = tl.load(a + i[:, None] * stride + k[None])
    right = tl.load(b + k[:, None] * SIZE + i[None])
    o = doubled(tl.dot(left, right, input_precision=PRECISION))
    tl.store(c + i[:, None] * SIZE + i[None], o.to(c.dtype.element_ty))


@triton.jit
def scaled_kernel(x, o, factor, bias, size, step, BLOCK: tl.constexpr):
    """o = factor x, plus a bias if there is one; every `step`-th element."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i * step, i < size) * factor
    if bias is not None:
        value += tl.load(bias + i, i < size)
    tl.store(o + i * step, value, i < size)


@triton.jit
def without_name(x):
    return x + missing  # noqa: F821


@triton.jit
def broken_kernel(x):
    tl.store(x, without_name(tl.load(x)))


@dataclass(frozen=True)
class Broken:
    """A case of `broken_kernel`, which does not compile."""

    capabilities: tuple = ((8, 0),)
    dtype: str = "float16"
    shape: str = "4"
    operation: str = "broken"

    def launches(self, capability):
        with recording(capability) as recorder:
            launch(broken_kernel, (1,), torch.empty(4, device="meta", dtype=torch.float16))
        return recorder.launches


@dataclass(frozen=True)
class Product:
    """A case of `product_kernel`."""

    capabilities: tuple
    size: int = 64
    depth: int = 64
    dtype: str = "float16"
    precision: str = "ieee"
    warps: int = 4
    operation: str = "product"

    @property
    def shape(self):
        return f"{self.size}x{self.depth}"

    def launches(self, capability):
        shape = (self.size, self.depth)
        a, b, c = (torch.empty(shape, device="meta", dtype=getattr(torch, self.dtype)) for _ in "abc")
        constants = {"SIZE": self.size, "DEPTH": self.depth, "PRECISION": self.precision}
        with recording(capability) as recorder:
            launch(product_kernel, (1,), a, b, c, self.depth, num_warps=self.warps, **constants)
        return recorder.launches


@dataclass(frozen=True)
class Scaled:
    """A case of `scaled_kernel`."""

    capabilities: tuple
    size: int = 1000
    step: int = 1
    bias: bool = False
    dtype: str = "float32"
    operation: str = "scaled"

    @property
    def shape(self):
        return str(self.size)

    def launches(self, capability):
        x, o, bias = (torch.empty(4, device="meta", dtype=getattr(torch, self.dtype)) for _ in "xob")
        with recording(capability) as recorder:
            arguments = (x, o, 0.5, bias if self.bias else None, self.size, self.step)
            launch(scaled_kernel, (-(-self.size // 128),), *arguments, BLOCK=128)
        return recorder.launches
