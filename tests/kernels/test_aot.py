"""Ahead-of-time compilation for sm_80 and sm_90, without a GPU."""

import pytest
import torch

from kernels import aot, readout, scores, trace
from kernels.bench import cases

SPILL_BYTES = 16  # none with the ptxas of triton 3.9, 8 and 12 bytes in two kernels with that of 3.6
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}  # what one program may have, CUDA programming guide, compute capabilities


@pytest.fixture(scope="module")
def compiled() -> list[aot.Compiled]:
    return list(cases.compiled())


def test_every_kernel_compiles_for_both_architectures(compiled):
    """Every kernel compiles for sm_80 and sm_90."""
    kernels = {"statistics", "select", "combine", "plan", "products", "contract", "gather", "step", "sampled"}
    assert {(c.kernel, c.arch) for c in compiled} == {(name, arch) for name in kernels for arch in aot.ARCHITECTURES}


def test_no_kernel_spills_at_serving_sizes(compiled):
    """Nothing to speak of goes from registers to memory; the shared memory of a program fits at least twice,
    so that one program loads while another computes."""
    for c in compiled:
        print(c)
        assert c.spill_bytes <= SPILL_BYTES, c
        assert 2 * c.shared_bytes <= SHARED_BYTES[c.arch], c


def test_odd_sizes_compile():
    """k, r and m that are no powers of two, and every table dtype, compile as well."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    half, one = empty(13, 5, dtype=torch.float16), (empty(5), empty(5, dtype=torch.float16))
    emitted, slot = empty(3, dtype=torch.int64), empty(3, dtype=torch.int64)
    list(aot.compile_case("fp16", readout.readout, empty(3, 13, dtype=torch.bfloat16), emitted, half[:3], half, *one))
    heads = empty(2, 3, 2, 5, 3, dtype=torch.float16)
    list(aot.compile_case("odd", scores.attribution_scores, empty(3, 5), empty(3, 2, 3), heads, slot))
    list(aot.compile_case("one", trace.trace_update, *cases.Step("", 1, 1, 1).states("meta")))
    heads = empty(2, 5, 7), empty(2, 3, 6, dtype=torch.bfloat16), empty(2, 4, 1, 5, 3)
    list(aot.compile_case("two dtypes", scores.head_scores, empty(3, 7), empty(3, 2, 3), *heads, slot))
