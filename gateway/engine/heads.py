"""Attribution heads on the worker: read beside an adapter when it is loaded, dropped when it is.

The loader's thread loads and forgets; the engine's thread only looks heads up, of adapters that are not forgotten while
a request uses them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

HEAD_FILE = "attribution_head.safetensors"
HEAD_FORMAT = "openledger-head/1"
MIN_BANK_CONTRIBUTORS = 8


class HeadMismatchError(ValueError):
    """A head whose taps, shapes or format don't fit the served base model or the adapter beside it."""


@dataclass(frozen=True)
class Head:
    """K [contributors, taps, k, r] and P [D, k], fp32; `taps` are PEFT module paths in K's order."""

    contributors: tuple[str, ...]
    taps: tuple[str, ...]
    K: torch.Tensor
    P: torch.Tensor
    basis: str


def read_head(directory: Path) -> Head | None:
    """The head in an adapter package, or None where the package has none. Raises HeadMismatchError."""
    path = directory / HEAD_FILE
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as tensors:
        metadata = tensors.metadata() or {}
        if metadata.get("format") != HEAD_FORMAT:
            raise HeadMismatchError(f"{path}: format {metadata.get('format')!r} is not {HEAD_FORMAT!r}")
        K, P = tensors.get_tensor("K").float().contiguous(), tensors.get_tensor("P").float().contiguous()
    contributors, taps = tuple(json.loads(metadata["contributors"])), tuple(json.loads(metadata["taps"]))
    if K.ndim != 4 or P.ndim != 2 or K.shape[:3] != (len(contributors), len(taps), P.shape[1]):
        raise HeadMismatchError(
            f"{path}: K {tuple(K.shape)} and P {tuple(P.shape)} don't fit its contributors and taps"
        )
    return Head(contributors, taps, K, P, sha256(P.numpy().tobytes()).hexdigest())


@lru_cache(maxsize=65536)
def head_contributors(directory: str) -> tuple[str, ...]:
    """Contributor names of the head in a package, in the order of its scores; empty without a head.

    Packages are immutable, so the API process reads each header once.
    """
    path = Path(directory) / HEAD_FILE
    if not path.exists():
        return ()
    with safe_open(path, framework="numpy") as tensors:
        return tuple(json.loads((tensors.metadata() or {})["contributors"]))


class Bank:
    """The K of all heads of one shape, stacked so that one call scores tokens of different adapters.

    K [capacity, m, taps, k, r]; m is the heads' number of contributors rounded up, the rows beyond it zero.
    """

    def __init__(self, taps: torch.Tensor, shape: tuple[int, int, int, int], device: torch.device):
        self.taps = taps
        self.rank = shape[3]
        self.K = torch.zeros(0, *shape, device=device)
        self._free: list[int] = []

    def place(self, K: torch.Tensor) -> int:
        """Copies a head in and returns its row; the stack doubles when it is full."""
        if not self._free:
            grown = torch.zeros(max(1, 2 * len(self.K)), *self.K.shape[1:], device=self.K.device)
            grown[: len(self.K)] = self.K
            self._free = list(range(len(self.K), len(grown)))
            self.K = grown
        row = self._free.pop()
        self.K[row].zero_()
        self.K[row, : len(K)] = K
        return row

    def free(self, row: int) -> None:
        self._free.append(row)


class Seated(NamedTuple):
    """A loaded head: its width, the basis of its projection, and where its K lies."""

    contributors: int
    basis: str
    bank: Bank
    row: int


class HeadStore:
    """Heads of the adapters the worker holds, by vLLM's integer adapter id, and one W_P per distinct projection P."""

    def __init__(self, unembedding: torch.Tensor, norm_weight: torch.Tensor, taps: dict[str, int]):
        self._unembedding = unembedding
        self._g = norm_weight.float()
        self._tap_index = taps
        self.tapped: set[int] = set()  # rows of the tap buffer that some head reads
        self._heads: dict[int, Seated] = {}
        self._banks: dict[tuple, Bank] = {}
        self._projections: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def load(self, adapter_id: int, directory: Path, ranks: Mapping[str, int]) -> int:
        """Reads the head beside an adapter, if it has one; returns the bytes its K takes. Raises HeadMismatchError.

        `ranks` are the adapter's ranks by tap: beyond them, and in modules it leaves alone, the tap buffer holds what
        others left there.
        """
        head = read_head(directory)
        if head is None:
            return 0
        missing = [tap for tap in head.taps if tap not in self._tap_index]
        if missing or head.P.shape[0] != self._g.shape[0]:
            raise HeadMismatchError(f"{directory}: taps {missing[:3]} or width {head.P.shape[0]} unknown to this base")
        narrow = [tap for tap in head.taps if ranks.get(tap, 0) < head.K.shape[3]]
        if narrow:
            raise HeadMismatchError(f"{directory}: the adapter's rank in {narrow[:3]} is below {head.K.shape[3]}")
        self.forget(adapter_id)
        # Nothing is kept before all is allocated: whoever runs out of memory leaves no half-seated head behind.
        tables = self._projections.get(head.basis) or self._project(head.P.to(self._g.device))
        bank = self._bank(head)
        row = bank.place(head.K.to(self._g.device))
        self._projections[head.basis] = tables
        self._heads[adapter_id] = Seated(len(head.contributors), head.basis, bank, row)
        return bank.K[0].numel() * bank.K.element_size()

    def _project(self, P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """W_P and diag(1/g) P."""
        W_P = self._unembedding.float() @ (self._g[:, None] * P)
        # u is a difference of averages of rows, so a constant row drops out of it; without the mean row the sum over
        # the vocabulary rounds less.
        W_P -= W_P.mean(dim=0)
        return W_P, P / self._g[:, None]

    def _bank(self, head: Head) -> Bank:
        m = max(MIN_BANK_CONTRIBUTORS, 1 << (len(head.contributors) - 1).bit_length())
        key = (head.taps, m, *head.K.shape[2:])
        if key not in self._banks:
            rows = [self._tap_index[tap] for tap in head.taps]
            self.tapped.update(rows)
            taps = torch.tensor(rows, device=self._g.device)
            self._banks[key] = Bank(taps, (m, *head.K.shape[1:]), self._g.device)
        return self._banks[key]

    def forget(self, adapter_id: int) -> None:
        """Frees an adapter's head, and its projection when no other head uses it."""
        gone = self._heads.pop(adapter_id, None)
        if gone is None:
            return
        gone.bank.free(gone.row)
        if not any(seated.basis == gone.basis for seated in self._heads.values()):
            self._projections = {b: tables for b, tables in self._projections.items() if b != gone.basis}

    def get(self, adapter_id: int) -> Seated | None:
        """The head of an adapter; None for the base model and adapters without head."""
        return self._heads.get(adapter_id)

    def projection(self, basis: str) -> tuple[torch.Tensor, torch.Tensor]:
        """W_P = W_U diag(g) P [vocab, k], less its mean row, and diag(1/g) P [D, k]."""
        return self._projections[basis]

    def shared_bytes(self) -> int:
        """Bytes of the projections, which heads of one basis share."""
        return sum(_bytes(table) for pair in self._projections.values() for table in pair)

    def memory_bytes(self) -> int:
        """Bytes of everything, free rows of the banks included."""
        return self.shared_bytes() + sum(_bytes(bank.K) for bank in self._banks.values())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
