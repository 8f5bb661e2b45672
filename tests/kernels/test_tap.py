"""The tap memory on a CPU."""

import torch

from kernels import checks
from kernels.tap import Taps


def test_modules_of_several_slices_are_found():
    """What each module left in a step of 37 tokens is gathered for the sampled tokens, and nothing else."""
    assert checks.sampled_error(slices=(3, 1, 2, 1), most=50, tokens=37, r=16, rank=6) == 0


def test_a_gather_that_forgets_the_steps_tokens_is_caught():
    """The check fails for slices that lie as far apart as the memory is wide."""

    def wide(kept, first, tokens, taps, positions, rank):
        return kept[taps[None, :], positions[:, None], :rank]

    sizes = {"most": 50, "tokens": 37, "r": 16, "rank": 6}
    assert checks.sampled_error(slices=(3, 1), **sizes, gather=wide) > 1
    assert checks.sampled_error(slices=(1, 1), **sizes, gather=wide) == 0


def test_without_a_step_every_slice_has_its_own_row():
    """h[i, l] = kept[taps[l], positions[i]], as the CPU's LoRA operations write it."""
    taps = Taps([0, 0, 2], 8, 2, "cpu")
    taps.kept.normal_()
    h = taps.sampled(torch.tensor([2, 1]), torch.tensor([5, 0]), 2)
    assert torch.equal(h, taps.kept[[2, 1]][:, [5, 0]].transpose(0, 1))


def test_the_rows_of_a_module_are_one_block_at_a_fixed_address():
    """A shrink writes [slices, tokens, r] contiguously, inside the module's own rows."""
    taps = Taps([0, 1, 1, 3], 8, 2, "cpu")
    rows = taps.rows(1, 2, 5)
    assert rows.is_contiguous()
    assert rows.data_ptr() == taps.kept[1].data_ptr()
    rows.fill_(1.0)
    assert taps.kept[[0, 3]].count_nonzero() == 0
    assert taps.kept.count_nonzero() == rows.numel()
