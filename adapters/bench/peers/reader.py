"""Reads a world (adapters/bench/world.py) with torch, transformers, peft and safetensors alone.

The model that peers see starts at the first adapted layer: what lies below holds no adapter, never changes, and is run
once for all examples and all rows (no row's seconds count it). Gradients are those of the whole model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Line:
    """One example or query: owner indexes the contributors; supervised[i] says that token i is predicted and learnt."""

    owner: int
    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    text: str
    kind: str


@dataclass(frozen=True)
class Rows:
    """N sequences padded to one length, as tensors that a DataLoader can cut.

    hidden [N, T, D]: what enters the first adapted layer; at [N, S]: positions whose logits predict; target [N, S];
    weight [N, S]: 1 where there is such a position, 0 in the padding; index [N].
    """

    hidden: Tensor
    at: Tensor
    target: Tensor
    weight: Tensor
    index: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of Upper.forward, without the index."""
        return self.hidden, self.at, self.target, self.weight

    def __len__(self) -> int:
        return len(self.index)


class World:
    """A world directory; tensors and models are made on first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.facts: dict[str, Any] = json.loads((directory / "world.json").read_text())
        self.contributors: tuple[str, ...] = tuple(self.facts["contributors"])
        self.train = _lines(directory / "train.jsonl")
        self.queries = _lines(directory / "queries.jsonl")

    @property
    def owners(self) -> Tensor:
        """[N_train] int64."""
        return torch.tensor([line.owner for line in self.train])

    @property
    def query_tokens(self) -> int:
        """Supervised tokens of all queries: what scoring is timed over."""
        return sum(sum(line.supervised[1:]) for line in self.queries)

    def by_contributor(self, influence: Tensor) -> Tensor:
        """Scores [Q, C] from influences of examples [N_train, Q]: the sum over each contributor's examples."""
        total = torch.zeros(len(self.contributors), influence.shape[1], dtype=torch.float64)
        return total.index_add_(0, self.owners, influence.double()).T.contiguous()

    @cached_property
    def peft_model(self) -> Any:
        """The adapted base model, frozen but for B: the base in the dtype the run read it in, the LoRA in fp32."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        dtype = getattr(torch, self.facts["training"].get("dtype", "float32"))
        base = AutoModelForCausalLM.from_pretrained(
            self.facts["base"], dtype=dtype, local_files_only=True, attn_implementation="eager"
        )
        model = PeftModel.from_pretrained(base, str(self.directory / "package")).eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_B." in name)
        return model

    @cached_property
    def upper(self) -> Upper:
        """The model from its first adapted layer on."""
        first = min(int(name.split(".")[2]) for name in self.facts["lora"]["modules"])
        return Upper(self.peft_model.get_base_model(), first)

    @cached_property
    def rows(self) -> tuple[Rows, Rows]:
        """Training examples and queries, padded to the same length."""
        lines = [*self.train, *self.queries]
        longest = max(len(line.ids) for line in lines)
        most = max(sum(line.supervised[1:]) for line in lines)
        whole = _rows(lines, longest, most, self._enter)
        cut = len(self.train)
        parts = [
            Rows(*(tensor[part] for tensor in (*whole.tensors(), whole.index)))
            for part in (slice(0, cut), slice(cut, len(lines)))
        ]
        return parts[0], parts[1]

    def _enter(self, ids: Tensor) -> Tensor:
        """`Upper.enter` of all sequences, kept beside the world: no adapter is below, and every row needs it."""
        path = self.directory / "peers" / ".entered.safetensors"
        kept = load_file(path) if path.is_file() else None
        if kept is not None and torch.equal(kept["ids"], ids) and self.upper.norm.weight.dtype != torch.float64:
            return kept["hidden"]
        hidden = torch.cat([self.upper.enter(ids[i : i + 16]) for i in range(0, len(ids), 16)])
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        save_file({"hidden": hidden, "ids": ids}, temporary)
        temporary.replace(path)
        return hidden

    def segments(self) -> list[tuple[float, dict[str, Tensor], dict[str, Tensor]]]:
        """(sum of learning rates, B by `Upper` parameter name, in-run sums [C, out, r] by the same name)."""
        found = []
        for described in self.facts["segments"]:
            tensors = load_file(self.directory / described["file"])
            weights = {self.upper.parameter_of(m): tensors[f"{m}.lora_B.weight"] for m in self.facts["lora"]["modules"]}
            in_run = {self.upper.parameter_of(m): tensors[f"in_run.{m}"] for m in self.facts["lora"]["modules"]}
            found.append((float(described["learning_rate_sum"]), weights, in_run))
        return found


class Upper(nn.Module):
    """The adapted layers, final norm and head of a Llama-layout model with PEFT's LoRA on it."""

    def __init__(self, causal_lm: Any, first: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(causal_lm.model.layers[first:])
        self.norm, self.head = causal_lm.model.norm, causal_lm.lm_head
        self._first = first
        self._below = [causal_lm]  # in a list: the lower layers are no part of this module
        self._cache: dict[int, tuple[Tensor, tuple[Tensor, Tensor]]] = {}

    def parameter_of(self, module: str) -> str:
        """Name of B's parameter here, of a module path of the whole model ("model.layers.22.mlp.down_proj")."""
        parts = module.split(".")
        return ".".join(["layers", str(int(parts[2]) - self._first), *parts[3:], "lora_B", "default", "weight"])

    def lora_modules(self) -> list[str]:
        """Names of the B modules (nn.Linear, r -> out)."""
        return [name.removesuffix(".weight") for name, p in self.named_parameters() if p.requires_grad]

    @torch.no_grad()
    def enter(self, ids: Tensor) -> Tensor:
        """[b, T, D] at the first adapted layer. Padding on the right changes nothing to its left."""
        decoder = self._below[0].model
        hidden = decoder.embed_tokens(ids)  # what is returned is fp32 or wider: peers digest it, some through numpy
        mask, rotary = self._frame(hidden)
        for layer in decoder.layers[: self._first]:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return hidden.float() if hidden.dtype == torch.bfloat16 else hidden

    def residual(self, hidden: Tensor) -> Tensor:
        """[b, T, D] before the final norm."""
        hidden = hidden.to(self.norm.weight.dtype)
        mask, rotary = self._frame(hidden)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return hidden

    def forward(
        self,
        hidden: Tensor,
        at: Tensor,
        target: Tensor,
        weight: Tensor,
        margin: bool = False,
        index: Tensor | None = None,
    ) -> Tensor:
        """[b] summed log p of the targets, or their summed margin log p - log(1 - p), in nats.

        `index` changes nothing: it is for libraries that name a sequence by what the model was given.
        """
        residual = self.residual(hidden)
        chosen = residual.gather(1, at[:, :, None].expand(-1, -1, residual.shape[-1]))
        logits = self.head(self.norm(chosen)).to(weight.dtype)
        own = logits.gather(2, target[:, :, None])[:, :, 0]
        others = logits.scatter(2, target[:, :, None], -torch.inf) if margin else logits
        return ((own - others.logsumexp(2)) * weight).sum(1)

    def _frame(self, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Causal mask [1, 1, T, T] and rotary embeddings of positions 0..T-1."""
        length = hidden.shape[-2]
        if length not in self._cache:
            positions = torch.arange(length)[None]
            above = torch.ones(length, length, dtype=torch.bool).triu(1)
            lowest = torch.finfo(torch.bfloat16).min  # fits every dtype
            mask = hidden.new_zeros(1, 1, length, length).masked_fill(above, lowest)
            rotary = self._below[0].model.rotary_emb(hidden.new_zeros(1, length, hidden.shape[-1]), positions)
            self._cache[length] = mask, rotary
        return self._cache[length]


def _lines(path: Path) -> list[Line]:
    found = []
    for text in path.read_text().splitlines():
        row = json.loads(text)
        supervised = tuple(bool(flag) for flag in row["supervised"])
        found.append(Line(row["owner"], tuple(row["ids"]), supervised, row["text"], row.get("kind", "train")))
    return found


def _rows(lines: list[Line], longest: int, most: int, enter: Callable[[Tensor], Tensor]) -> Rows:
    ids = torch.zeros(len(lines), longest, dtype=torch.int64)
    at, target = (torch.zeros(len(lines), most, dtype=torch.int64) for _ in range(2))
    weight = torch.zeros(len(lines), most)
    for row, line in enumerate(lines):
        ids[row, : len(line.ids)] = torch.tensor(line.ids)
        learnt = [i for i in range(1, len(line.ids)) if line.supervised[i]]
        at[row, : len(learnt)] = torch.tensor(learnt) - 1
        target[row, : len(learnt)] = ids[row, learnt]
        weight[row, : len(learnt)] = 1
    return Rows(enter(ids), at, target, weight, torch.arange(len(lines)))
