"""Constants, and functions of one number that Triton lacks on some backend or version, or computes too coarsely."""

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def one_minus_exp(x):
    """1 - e^x for float32 x <= 0, to a few units in the last place: without the cancellation near 0.

    Above -0.5 Taylor's polynomial of degree 8, whose remainder is below 0.5^8 / 9! = 1e-8 of the value. libdevice has
    expm1, but Triton's interpreter has no libdevice.
    """
    near = 1.0 + x * (1.0 / 8)
    near = 1.0 + x * (1.0 / 7) * near
    near = 1.0 + x * (1.0 / 6) * near
    near = 1.0 + x * (1.0 / 5) * near
    near = 1.0 + x * (1.0 / 4) * near
    near = 1.0 + x * (1.0 / 3) * near
    near = 1.0 + x * (1.0 / 2) * near
    return tl.where(x > -0.5, -x * near, 1.0 - tl.exp(x))


@triton.jit
def tanh(x):
    """Hyperbolic tangent of float32 x by (1 - e) / (1 + e), e = exp(-2 |x|): relative precision near 0 too.

    2 sigmoid(2 x) - 1 would be off by half a unit of 1 there: by 6e-5 of a value of 1e-3.
    """
    part = one_minus_exp(-2.0 * tl.abs(x))
    positive = part / (2.0 - part)
    return tl.where(x < 0, -positive, positive)
