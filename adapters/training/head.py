"""The attribution head and its file (docs/formats/head.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapters.head import FORMAT
from adapters.training.errors import BadHeadFile
from adapters.training.safetensors_file import write_safetensors


@dataclass(frozen=True)
class AttributionHead:
    """score_c = sum over taps l of u^T K[c, l] h_l, in nats. K [contributors, taps, k, r] and P [D, k], fp32.

    `base`, `weights`, `datanet_version` and `fidelity` are digests; `contributors` is sorted; `taps` are PEFT paths.
    """

    K: Tensor
    P: Tensor
    taps: tuple[str, ...]
    contributors: tuple[str, ...]
    base: str
    weights: str
    datanet_version: str
    fidelity: str
    method: str = "trace"

    def save(self, path: Path) -> None:
        """Write the safetensors file with its metadata: the same head gives the same bytes."""
        texts = {name: getattr(self, name) for name in ("base", "weights", "datanet_version", "fidelity", "method")}
        lists = {"taps": json.dumps(list(self.taps)), "contributors": json.dumps(list(self.contributors))}
        write_safetensors(path, {"K": self.K, "P": self.P}, {"format": FORMAT, **texts, **lists})

    @classmethod
    def load(cls, path: Path) -> AttributionHead:
        """Read a head. Raises BadHeadFile."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                K, P = file.get_tensor("K"), file.get_tensor("P")
            if metadata.pop("format", None) != FORMAT:
                raise BadHeadFile(f"{path} is not {FORMAT}")
            taps = tuple(json.loads(metadata.pop("taps")))
            contributors = tuple(json.loads(metadata.pop("contributors")))
            head = cls(K=K, P=P, taps=taps, contributors=contributors, **metadata)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadHeadFile(f"{path}: {error}") from None
        if K.shape[:3] != (len(contributors), len(taps), P.shape[-1]):
            raise BadHeadFile(f"{path}: K {tuple(K.shape)} and P {tuple(P.shape)} do not fit the lists")
        return head

    def score(self, u: Tensor, h: Tensor) -> Tensor:
        """Scores [N, C] in nats from u [N, k] and h [N, taps, r]."""
        return torch.einsum("nk,clkr,nlr->nc", u, self.K, h)
