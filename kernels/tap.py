"""The tap: memory at a fixed address in which every LoRA module leaves its shrink output, to be read by the scores.

A module of s slices (three for a packed q/k/v projection) owns s rows of `kept`, which follow each other. Its shrink
writes there directly, nothing is copied: in a step of T tokens, slice j of the module whose first row is f lies at

    kept[f].flatten()[j T r : (j + 1) T r]

as one contiguous block [slices, T, r], the form that the LoRA kernels ask for. T is kept on the device, written by
`begin` in the step itself, so that all of it can be inside a CUDA graph that is replayed without Python.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Taps:
    """The kept activations of one engine: `kept` [taps, most tokens, r] fp32, zero until written.

    `first` names the first row of each tap's module.
    """

    def __init__(self, first: Sequence[int], most: int, r: int, device: torch.device | str) -> None:
        self.kept = torch.zeros(len(first), most, r, dtype=torch.float32, device=device)
        self.first = torch.tensor(first, dtype=torch.int64, device=device)
        self.tokens = torch.full((1,), most, dtype=torch.int64, device=device)

    def begin(self, tokens: int) -> None:
        """Says how many tokens the modules write in this step; without it, each slice has its own row of `kept`."""
        self.tokens.fill_(tokens)

    def rows(self, first: int, slices: int, tokens: int) -> Tensor:
        """Where the module whose first row is `first` leaves its output: [slices, tokens, r], contiguous."""
        r = self.kept.shape[2]
        return self.kept[first : first + slices].flatten()[: slices * tokens * r].view(slices, tokens, r)

    def sampled(self, taps: Tensor, positions: Tensor, rank: int) -> Tensor:
        """h [n, taps, rank] of the given taps (int64) at the token positions [n] (int64), contiguous."""
        if self.kept.is_cuda:
            from kernels.sampled import sampled

            return sampled(self.kept, self.first, self.tokens, taps, positions, rank)
        first = self.first[taps]
        of_tap = first * self.kept.shape[1] + (taps - first) * self.tokens
        return self.kept.flatten(0, 1)[of_tap[None, :] + positions[:, None], :rank]
