"""The attribution head and its file (docs/formats/head.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from adapters.head import FORMAT, head_shapes
from adapters.training.errors import BadHeadFile
from adapters.training.ridge import Bilinear
from adapters.training.safetensors_file import write_safetensors


@dataclass(frozen=True)
class AttributionHead:
    """The tensors of `Bilinear`, fp32, with what they are for.

    `base`, `weights`, `datanet_version` and `fidelity` are digests; `contributors` is sorted; `taps` are PEFT paths.
    """

    tensors: Bilinear
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
        tensors = {name: value for name, value in vars(self.tensors).items() if value is not None}
        write_safetensors(path, tensors, {"format": FORMAT, **texts, **lists})

    @classmethod
    def load(cls, path: Path) -> AttributionHead:
        """Read a head. Raises BadHeadFile."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                tensors = Bilinear(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            if metadata.pop("format", None) != FORMAT:
                raise BadHeadFile(f"{path} is not {FORMAT}")
            taps = tuple(json.loads(metadata.pop("taps")))
            contributors = tuple(json.loads(metadata.pop("contributors")))
            head = cls(tensors, taps=taps, contributors=contributors, **metadata)
        except (SafetensorError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadHeadFile(f"{path}: {error}") from None
        found = {name: tuple(value.shape) for name, value in vars(tensors).items() if value is not None}
        if found != head_shapes(found, len(contributors), len(taps), tensors.rank, len(tensors.P)):
            raise BadHeadFile(f"{path}: {found} do not fit {len(contributors)} contributors and {len(taps)} taps")
        return head
