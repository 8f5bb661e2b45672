"""Attribution heads on the worker: read beside an adapter when it is loaded, dropped when it is.

The loader's thread loads and forgets; the engine's thread only looks heads up, of adapters that are not forgotten while
a request uses them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from adapters.head import FORMAT, head_shapes
from kernels.ops import head_scores

HEAD_FILE = "attribution_head.safetensors"
MIN_BANK_WIDTH = 8


class HeadMismatchError(ValueError):
    """A head whose taps, shapes or format don't fit the served base model or the adapter beside it."""


@dataclass(frozen=True)
class Head:
    """What the worker needs of a head, fp32 (docs/formats/head.md): m scores a token, before contributor factors.

    P [k, D]; K [m, taps, k, r], or [m, 1, k, d] with H [d, taps r]. `taps` are PEFT module paths in K's or H's order,
    `rank` the r of their activations.
    """

    taps: tuple[str, ...]
    rank: int
    K: torch.Tensor
    P: torch.Tensor
    H: torch.Tensor | None


def read_head(directory: Path) -> Head | None:
    """The head in an adapter package, or None where the package has none. Raises HeadMismatchError."""
    path = directory / HEAD_FILE
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise HeadMismatchError(f"{path}: format {metadata.get('format')!r} is not {FORMAT!r}")
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    contributors, taps = tuple(json.loads(metadata["contributors"])), tuple(json.loads(metadata["taps"]))
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        rank = found["H"][1] if "H" in found else found["K"][3]
        fits = found == head_shapes(found, len(contributors), len(taps), rank, found["P"][0])
    except (IndexError, KeyError):
        fits = False
    if not fits:
        raise HeadMismatchError(f"{path}: {found} don't fit {len(contributors)} contributors and {len(taps)} taps")
    H = tensors.get("H")
    return Head(
        taps=taps,
        rank=rank,
        K=tensors["K"].contiguous(),
        P=tensors["P"].T.contiguous(),
        H=None if H is None else H.flatten(0, 1).T.contiguous(),
    )


@lru_cache(maxsize=65536)
def _header(directory: str) -> tuple[tuple[str, ...], bool]:
    """Contributors of the head in a package, and whether it has factors; packages are immutable, so read once."""
    path = Path(directory) / HEAD_FILE
    if not path.exists():
        return (), False
    with safe_open(path, framework="numpy") as tensors:
        return tuple(json.loads((tensors.metadata() or {})["contributors"])), "Q" in tensors.keys()  # noqa: SIM118


def head_contributors(directory: str) -> tuple[str, ...]:
    """Contributor names of the head in a package, in the order of its scores; empty without a head."""
    return _header(directory)[0]


def head_factors(directory: str) -> np.ndarray | None:
    """Q transposed [m, contributors], fp64: what turns the worker's scores into the contributors'; None without Q."""
    return _factors(directory) if _header(directory)[1] else None


@lru_cache(maxsize=256)
def _factors(directory: str) -> np.ndarray:
    with safe_open(Path(directory) / HEAD_FILE, framework="numpy") as tensors:
        return tensors.get_tensor("Q").T.astype("f8")


class Bank:
    """The heads of one shape, stacked so that one call scores tokens of different adapters.

    P [capacity, k, D], H [capacity, d, taps r], K [capacity, m, taps, k, r]. m is the heads' rounded up, the rows
    beyond a head's own are zero.
    """

    def __init__(self, taps: torch.Tensor, rank: int, shapes: Mapping[str, tuple[int, ...]], device: torch.device):
        self.taps = taps
        self.rank = rank
        self._stacks = {name: torch.zeros(0, *shape, device=device) for name, shape in shapes.items()}
        self._free: list[int] = []

    def place(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """Copies a head in and returns its row; the stacks double when they are full."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        for name, tensor in tensors.items():
            self._stacks[name][row].zero_()
            self._stacks[name][row, : len(tensor)] = tensor
        return row

    def _grow(self) -> None:
        capacity = len(self._stacks["K"])
        grown = {name: stack.new_zeros(max(1, 2 * capacity), *stack.shape[1:]) for name, stack in self._stacks.items()}
        for name, stack in self._stacks.items():
            grown[name][:capacity] = stack
        self._stacks = grown
        self._free = list(range(capacity, max(1, 2 * capacity)))

    def free(self, row: int) -> None:
        self._free.append(row)

    def scores(self, u: torch.Tensor, h: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Scores [n, m] in nats; u [n, D], h [n, taps, r], `slot` [n] the head of each token."""
        stacks = self._stacks
        return head_scores(u, h, stacks["P"], stacks.get("H"), stacks["K"], slot)

    def row_bytes(self) -> int:
        return sum(_bytes(stack[0]) for stack in self._stacks.values())

    def memory_bytes(self) -> int:
        return sum(_bytes(stack) for stack in self._stacks.values())


class Seated(NamedTuple):
    """A loaded head: how many scores a token has, and where its tensors lie."""

    width: int
    bank: Bank
    row: int


class HeadStore:
    """Heads of the adapters the worker holds, by vLLM's integer adapter id, over one unembedding and final norm."""

    def __init__(self, unembedding: torch.Tensor, norm_weight: torch.Tensor, taps: dict[str, int]):
        self.unembedding = unembedding
        self.mean_row = unembedding.float().mean(0)
        self.g = norm_weight.float()
        self._tap_index = taps
        self.tapped: set[int] = set()  # rows of the tap buffer that some head reads
        self._heads: dict[int, Seated] = {}
        self._banks: dict[tuple, Bank] = {}

    def load(self, adapter_id: int, directory: Path, ranks: Mapping[str, int]) -> int:
        """Reads the head beside an adapter, if it has one; returns the bytes it takes. Raises HeadMismatchError.

        `ranks` are the adapter's ranks by tap: beyond them, and in modules it leaves alone, the tap buffer holds what
        others left there.
        """
        head = read_head(directory)
        if head is None:
            return 0
        missing = [tap for tap in head.taps if tap not in self._tap_index]
        if missing or head.P.shape[1] != self.g.shape[0]:
            raise HeadMismatchError(f"{directory}: taps {missing[:3]} or width {head.P.shape[1]} unknown to this base")
        narrow = [tap for tap in head.taps if ranks.get(tap, 0) < head.rank]
        if narrow:
            raise HeadMismatchError(f"{directory}: the adapter's rank in {narrow[:3]} is below {head.rank}")
        self.forget(adapter_id)
        tensors = {"P": head.P, "K": head.K} | ({} if head.H is None else {"H": head.H})
        bank = self._bank(head, tensors)
        # Nothing is kept before all is allocated: whoever runs out of memory leaves no half-seated head behind.
        self._heads[adapter_id] = Seated(len(head.K), bank, bank.place(tensors))
        return bank.row_bytes()

    def _bank(self, head: Head, tensors: Mapping[str, torch.Tensor]) -> Bank:
        m = max(MIN_BANK_WIDTH, 1 << (len(head.K) - 1).bit_length())
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes["K"] = (m, *shapes["K"][1:])
        key = (head.taps, head.rank, *shapes.values())
        if key not in self._banks:
            rows = [self._tap_index[tap] for tap in head.taps]
            self.tapped.update(rows)
            self._banks[key] = Bank(torch.tensor(rows, device=self.g.device), head.rank, shapes, self.g.device)
        return self._banks[key]

    def forget(self, adapter_id: int) -> None:
        """Frees an adapter's head."""
        gone = self._heads.pop(adapter_id, None)
        if gone is not None:
            gone.bank.free(gone.row)

    def get(self, adapter_id: int) -> Seated | None:
        """The head of an adapter; None for the base model and adapters without head."""
        return self._heads.get(adapter_id)

    def memory_bytes(self) -> int:
        """Bytes of everything, free rows of the banks included."""
        return _bytes(self.mean_row) + sum(bank.memory_bytes() for bank in self._banks.values())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
