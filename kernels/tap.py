"""The tap: keeps the LoRA shrink output of the tapped modules where the scores will look for it.

    kept[first + j, i, b] = y[j, i, b]        j < slices, i < tokens, b < r

`kept` [taps, tokens, r] is allocated once, so its address is the same in every step and inside a CUDA graph. Inside a
compiled graph the copy is one opaque operator, `openledger::keep(Tensor(a!) y, int handle, int first)`. It finds `kept`
by handle when it runs, and it claims to write y, which it only reads: an operator that claims nothing and returns
nothing is dropped by Inductor.

Where the shrink can write into `Taps.rows` itself there is nothing to copy and `keep` is not needed; called anyway, it
sees that y already is the kept memory.
"""

import itertools
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_library = torch.library.Library("openledger", "DEF")
_library.define("keep(Tensor(a!) y, int handle, int first) -> ()")
_handles = itertools.count()
_owners: "WeakValueDictionary[int, Taps]" = WeakValueDictionary()


class Taps:
    """The kept activations of one engine: `kept` [taps, tokens, r], zero until written.

    A handle dies with its owner; `keep` on a dead handle raises KeyError.
    """

    def __init__(self, taps: int, tokens: int, r: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.kept = torch.zeros(taps, tokens, r, dtype=dtype, device=device)
        self.handle = next(_handles)
        _owners[self.handle] = self

    def rows(self, first: int, slices: int, tokens: int) -> Tensor:
        """The kept memory [slices, tokens, r] of taps first .. first + slices, for a shrink that writes in place."""
        return self.kept[first : first + slices, :tokens]

    def keep(self, y: Tensor, first: int) -> None:
        """Copy y [slices, tokens, r] to taps first .. first + slices. Safe under torch.compile and in a CUDA graph."""
        torch.ops.openledger.keep(y, self.handle, first)

    def sampled(self, positions: Tensor) -> Tensor:
        """h [n, taps, r] of the sampled positions [n], as `attribution_scores` takes it."""
        return self.kept.index_select(1, positions).transpose(0, 1)


def _keep(y: Tensor, handle: int, first: int) -> None:
    slices, tokens, _ = y.shape
    rows = _owners[handle].rows(first, slices, tokens)
    if y.data_ptr() == rows.data_ptr():
        return
    if y.is_cuda:
        from kernels.copy_rows import copy_rows

        copy_rows(y, rows)
    else:
        rows.copy_(y)


_library.impl("keep", _keep, "CPU")
_library.impl("keep", _keep, "CUDA")
torch.library.register_fake("openledger::keep", lambda y, handle, first: None, lib=_library)
