"""A matrix product on tensor cores that keeps fp32 accuracy."""

import triton
import triton.language as tl

# Triton's interpreter multiplies bf16 tiles as if they were integers; there the rounded parts are widened before they
# meet.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def product(a, b):
    """a @ b with fp32 accuracy: a [M, K] fp32, b [K, N] fp32, bf16 or fp16. Returns [M, N] fp32.

    A bf16 b meets a in two parts, a = high + low, so that 16 bits of a survive; any other b takes three TF32 products.
    """
    if b.dtype == tl.bfloat16:
        high = a.to(tl.bfloat16)
        low = (a - high.to(tl.float32)).to(tl.bfloat16)
        if INTERPRETED:
            result = tl.dot(high.to(tl.float32), b.to(tl.float32)) + tl.dot(low.to(tl.float32), b.to(tl.float32))
        else:
            result = tl.dot(low, b, tl.dot(high, b))
    else:
        result = tl.dot(a, b.to(tl.float32), input_precision="tf32x3")
    return result
