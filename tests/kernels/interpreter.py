"""bfloat16 in Triton's interpreter, which takes its bits for integers in products and cuts them off in conversions."""

import contextlib
from unittest import mock

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_Builder = interpreter.InterpreterBuilder


@contextlib.contextmanager
def with_bfloat16():
    """Within a `with` block, products of bfloat16 are those of its values, and float32 is rounded to the nearest."""
    dot, cast = _Builder.create_dot, _Builder.cast_impl

    def create_dot(self, a, b, d, *options):
        if a.dtype.scalar == tl.bfloat16:
            a, b = (interpreter.TensorHandle(_values(t.data), tl.float32) for t in (a, b))
        return dot(self, a, b, d, *options)

    def cast_impl(self, source, kind):
        if (source.dtype.scalar, kind.scalar) == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_rounded(source.data), tl.bfloat16)
        return cast(self, source, kind)

    with mock.patch.multiple(_Builder, create_dot=create_dot, cast_impl=cast_impl):
        yield


def _values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _rounded(values):
    """Bits of the nearest bfloat16, the even one of two; NaN stays NaN."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, nearest).astype(np.uint16)
