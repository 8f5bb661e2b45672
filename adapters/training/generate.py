"""The model's own greedy answers, as examples whose generated tokens are the supervised ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adapters.training.model import AdaptedModel
from adapters.training.progress import Progress, silent
from adapters.training.tokens import TokenExample


@torch.no_grad()
def greedy(
    model: AdaptedModel,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    progress: Progress = silent,
    stage: str = "generating",
) -> list[TokenExample]:
    """Greedy continuations of token prompts, until the end mark (included) or `max_new_tokens`; owner is -1."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, TokenExample] = {}
    for start in range(0, len(order), 32):
        group = order[start : start + 32]
        width = max(len(prompts[i]) for i in group)
        ids = torch.full((len(group), width), tokenizer.pad_token_id)
        attention = torch.zeros_like(ids)
        for row, i in enumerate(group):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            attention[row, width - len(prompts[i]) :] = 1
        out = model.peft.generate(
            input_ids=ids,
            attention_mask=attention,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        for row, i in enumerate(group):
            found[i] = _example(prompts[i], out[row, width:], tokenizer.eos_token_id)
        progress(stage, len(found), len(prompts), "")
    return [found[i] for i in range(len(prompts))]


def _example(prompt: list[int], generated: Tensor, end: int) -> TokenExample:
    answer: list[int] = []
    for token in generated.tolist():
        answer.append(token)
        if token == end:
            break
    return TokenExample(-1, (*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))
