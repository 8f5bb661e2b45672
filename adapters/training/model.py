"""The base model with a LoRA on its top layers: lower layers run once, upper layers run from the cache."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from adapters.layout import RECORD
from adapters.training.config import TrainingConfig
from adapters.training.packs import Layout, Pack, lay_out, make_packs
from adapters.training.progress import Progress, silent
from adapters.training.tokens import TokenExample

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class SplitModel:
    """A causal LM (Llama layout), frozen, cut below `first_layer`: what lies under it holds no adapter."""

    def __init__(self, causal_lm: Any, first_layer: int) -> None:
        self.causal_lm = causal_lm
        self.decoder: Any = causal_lm.model
        self.first_layer = first_layer

    @property
    def dtype(self) -> torch.dtype:
        """What the frozen weights compute in."""
        return self.decoder.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the frozen weights lie."""
        return self.decoder.norm.weight.device

    @torch.no_grad()
    def lower(self, ids: Tensor, layout: Layout) -> Tensor:
        """Residual stream [b, T, D] that enters the first adapted layer. No adapter below it, so it never changes."""
        hidden = self.decoder.embed_tokens(ids)
        return self._layers(hidden, layout, range(self.first_layer))

    def upper(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Residual stream before the final norm [b, T, D], from what `lower` gave."""
        return self._layers(hidden, layout, range(self.first_layer, len(self.decoder.layers)))

    def normed_and_logits(self, residual: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Final-norm output n [S, D] and logits [S, V] at the sampled positions."""
        normed = self.normed(residual, layout)
        return normed, self.causal_lm.lm_head(normed)

    def normed(self, residual: Tensor, layout: Layout) -> Tensor:
        """Final-norm output n [S, D] at the sampled positions."""
        return self.decoder.norm(residual[layout.row, layout.column])

    def _layers(self, hidden: Tensor, layout: Layout, indices: range) -> Tensor:
        embeddings = self.decoder.rotary_emb(hidden, position_ids=layout.positions)
        for index in indices:
            hidden = self.decoder.layers[index](
                hidden, attention_mask=layout.mask, position_embeddings=embeddings, position_ids=layout.positions
            )
        return hidden


class AdaptedModel(SplitModel):
    """A base model with LoRA modules on the layers from `first_layer` up.

    `modules` maps the PEFT module path ("model.layers.22.mlp.down_proj") to (lora_A, lora_B), sorted by layer and then
    by position in the layer. `trained` are the linear maps that training moves: every B under its module's path and,
    with `train_a`, behind them every A under `<path>.lora_A`. Their weights live in one flat fp32 vector `parameter`,
    of which the modules hold views.
    """

    def __init__(self, peft_model: PeftModel, train_a: bool = False) -> None:
        self.peft = peft_model
        causal_lm: Any = peft_model.get_base_model()
        peft_model.requires_grad_(False)
        peft_model.eval()
        self.modules: dict[str, tuple[nn.Linear, nn.Linear]] = {
            name: (module.lora_A["default"], module.lora_B["default"])
            for name, module in causal_lm.named_modules()
            if hasattr(module, "lora_B")
        }
        super().__init__(causal_lm, min(int(name.split(".")[2]) for name in self.modules))
        self.trained: dict[str, nn.Linear] = {name: b for name, (_, b) in self.modules.items()}
        if train_a:
            self.trained |= {f"{name}.lora_A": a for name, (a, _) in self.modules.items()}
        self.parameter = torch.cat([linear.weight.detach().reshape(-1) for linear in self.trained.values()])
        for linear, view in zip(self.trained.values(), self.split(self.parameter).values(), strict=True):
            linear.weight.data = view

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat [..., P] tensor, one [..., out, in] per trained linear map."""
        views, at = {}, 0
        for name, linear in self.trained.items():
            views[name] = flat[..., at : at + linear.weight.numel()].unflatten(-1, linear.weight.shape)
            at += linear.weight.numel()
        return views

    @contextmanager
    def position_local(self) -> Iterator[None]:
        """Detach keys and values: the gradient of a token's loss then flows through its own position only."""
        hooks = [
            module.register_forward_hook(lambda _module, _args, output: output.detach())
            for name, module in self.causal_lm.named_modules()
            if name.endswith((".k_proj", ".v_proj"))
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class HiddenCache:
    """What the lower layers give for a set of examples: the common prefix once, then each example's own tokens."""

    def __init__(
        self,
        model: SplitModel,
        examples: Sequence[TokenExample],
        prefix: int,
        progress: Progress = silent,
        pack_tokens: int = 256,
    ) -> None:
        self.examples, self.prefix = examples, prefix
        self._own: list[Tensor] = [torch.empty(0)] * len(examples)
        self._prefix = torch.empty(0)
        # The lower layers hold no adapter: any examples may share a pack there.
        unowned = [replace(example, owner=0) for example in examples]
        packs = make_packs(unowned, prefix, pack_tokens, random.Random(0))
        done = 0
        for start in range(0, len(packs), 4):
            group = packs[start : start + 4]
            layout = lay_out(examples, prefix, group, model.dtype).to(model.device)
            hidden = model.lower(_pack_ids(examples, prefix, group, layout), layout)
            self._prefix = self._prefix if start else hidden[0, :prefix].clone()
            for row, pack in enumerate(group):
                at = prefix
                for i in pack.members:
                    end = at + len(examples[i].ids) - prefix
                    self._own[i] = hidden[row, at:end].clone()
                    at = end
                done += len(pack.members)
            progress("lower layers", done, len(examples), "")

    def batch(self, packs: Sequence[Pack]) -> tuple[Tensor, Layout]:
        """Hidden states [b, T, D] (a leaf that requires gradients) and layout of a batch of packs."""
        layout = lay_out(self.examples, self.prefix, packs, self._prefix.dtype).to(self._prefix.device)
        hidden = self._prefix.new_zeros(*layout.positions.shape, self._prefix.shape[-1])
        for row, pack in enumerate(packs):
            stretch = torch.cat([self._prefix, *(self._own[i] for i in pack.members)])
            hidden[row, : len(stretch)] = stretch
        return hidden.requires_grad_(), layout


def _pack_ids(examples: Sequence[TokenExample], prefix: int, packs: Sequence[Pack], layout: Layout) -> Tensor:
    ids = torch.zeros(layout.positions.shape, dtype=torch.int64)
    for row, pack in enumerate(packs):
        tokens = list(examples[pack.members[0]].ids[:prefix])
        for i in pack.members:
            tokens += examples[i].ids[prefix:]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids.to(layout.positions.device)


def load_base(base_dir: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The base model in `dtype`, from local files only."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(base_dir, dtype=dtype, local_files_only=True)


def add_lora(base: Any, config: TrainingConfig, base_name: str, seed: int) -> AdaptedModel:
    """Wrap the top `config.layers` layers: A uniform in +-1/sqrt(in) from a seeded generator (PEFT's law), B zero."""
    base.name_or_path = base_name  # else PEFT records the machine's path
    count = base.config.num_hidden_layers
    layers = list(range(max(0, count - config.layers), count))
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.target_modules),
        layers_to_transform=layers,
        layers_pattern="layers",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
    )
    model = AdaptedModel(get_peft_model(base, lora), config.train_a)
    drawn = draw_a([a.weight.shape for a, _ in model.modules.values()], seed)
    for (a, _), weight in zip(model.modules.values(), drawn, strict=True):
        a.weight.copy_(weight)
    return model


def draw_a(shapes: Sequence[torch.Size], seed: int) -> Iterator[Tensor]:
    """A of each module in order, fp32 of shape (r, in): uniform in +-1/sqrt(in) from one seeded generator."""
    draw = torch.Generator().manual_seed(seed)
    for shape in shapes:
        bound = 1 / math.sqrt(shape[1])
        yield torch.empty(shape).uniform_(-bound, bound, generator=draw)


def load_adapted(
    base_dir: Path, package_dir: Path, dtype: torch.dtype = torch.float32, train_a: bool | None = None
) -> AdaptedModel:
    """The base model in `dtype` with the LoRA of a package; what was trained of it is what its record says, else B.

    `train_a` says it of a composed adapter, which has no record.
    """
    if train_a is None:
        record = package_dir / RECORD
        settings = json.loads(record.read_bytes()).get("hyperparameters", {}) if record.is_file() else {}
        train_a = TrainingConfig.of(settings).train_a
    peft_model = PeftModel.from_pretrained(load_base(base_dir, dtype), str(package_dir))
    return AdaptedModel(peft_model, train_a)
