"""Attribution heads on the worker: read beside an adapter when it is loaded, dropped when it is."""

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open

HEAD_FILE = "attribution_head.safetensors"
HEAD_FORMAT = "openledger-head/1"


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

    @property
    def rank(self) -> int:
        return self.K.shape[3]

    def memory_bytes(self) -> int:
        return self.K.numel() * self.K.element_size() + self.P.numel() * self.P.element_size()


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


class HeadStore:
    """Heads of the adapters the worker holds, by vLLM's integer adapter id, and one W_P per distinct projection P."""

    def __init__(self, unembedding: torch.Tensor, norm_weight: torch.Tensor, taps: dict[str, int]):
        self._unembedding = unembedding
        self._g = norm_weight.float()
        self._tap_index = taps
        self._heads: dict[int, tuple[Head, torch.Tensor]] = {}
        self._projections: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def load(self, adapter_id: int, directory: Path) -> None:
        """Reads the head beside an adapter, if it has one. Raises HeadMismatchError."""
        head = read_head(directory)
        if head is None:
            return
        missing = [tap for tap in head.taps if tap not in self._tap_index]
        if missing or head.P.shape[0] != self._g.shape[0]:
            raise HeadMismatchError(
                f"{directory}: taps {missing[:3]} or width {head.P.shape[0]} unknown to this base model"
            )
        self._heads[adapter_id] = (head, torch.tensor([self._tap_index[tap] for tap in head.taps]))
        if head.basis not in self._projections:
            W_P = self._unembedding.float() @ (self._g[:, None] * head.P)
            self._projections[head.basis] = (W_P, head.P / self._g[:, None])

    def retain(self, adapter_ids: set[int]) -> None:
        """Forgets the heads of all other adapters, and the projections that no head uses any more."""
        self._heads = {i: entry for i, entry in self._heads.items() if i in adapter_ids}
        used = {head.basis for head, _ in self._heads.values()}
        self._projections = {basis: entry for basis, entry in self._projections.items() if basis in used}

    def get(self, adapter_id: int) -> tuple[Head, torch.Tensor] | None:
        """The head and its tap rows, or None for the base model and adapters without head."""
        return self._heads.get(adapter_id)

    def projection(self, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
        """W_P = W_U diag(g) P [vocab, k] and diag(1/g) P [D, k] of a head's basis."""
        return self._projections[head.basis]

    def memory_bytes(self) -> int:
        projections = sum(a.numel() * 4 + b.numel() * 4 for a, b in self._projections.values())
        return projections + sum(head.memory_bytes() for head, _ in self._heads.values())
