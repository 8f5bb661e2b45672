"""The checks that need a GPU; the same that `python -m kernels.bench` runs before it times anything."""

import pytest
import torch

from kernels.bench.device import device_checks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "check"), list(device_checks()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_on_the_device(name, check):
    """The compiled kernel is within rounding of the fp64 reference, or behaves the same inside a CUDA graph."""
    assert check() <= 1, name
