"""Packs: several short examples of one contributor in one row, behind one copy of their common prefix.

Every chat example of a base model starts with the same system prompt (21 of 49 tokens on the demo facts). A pack holds
that prefix once; each example attends to the prefix and to itself only, and its positions continue after the prefix, so
losses and gradients are those of separate rows. A pack has one owner: the gradient through the shared prefix belongs
to that contributor alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.training.tokens import TokenExample


@dataclass(frozen=True)
class Pack:
    """Indices of examples of one owner that share a row."""

    owner: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch of packs lie. b packs, T padded length, S supervised tokens.

    positions [b, T] int64; mask [b, 1, T, T] fp, 0 where a row may attend and -inf elsewhere; row, column [S] the
    sampled position of each supervised token (the position whose logits predict it); target [S] its id; example [S]
    the index of its example.
    """

    positions: Tensor
    mask: Tensor
    row: Tensor
    column: Tensor
    target: Tensor
    example: Tensor

    def to(self, device: torch.device) -> Layout:
        """The same layout on a device."""
        return Layout(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def repeated(self, times: int, rows: int) -> Layout:
        """The layout of the same `rows` rows, `times` times over."""
        shift = torch.arange(times, device=self.row.device).repeat_interleave(len(self.row)) * rows
        return Layout(
            positions=self.positions.repeat(times, 1),
            mask=self.mask.repeat(times, 1, 1, 1),
            row=self.row.repeat(times) + shift,
            column=self.column.repeat(times),
            target=self.target.repeat(times),
            example=self.example.repeat(times),
        )


def common_prefix(examples: Sequence[TokenExample]) -> int:
    """Number of leading tokens all examples share, leaving each at least one own token before its first target."""
    limit = min(_first_target(example) - 1 for example in examples)
    first = examples[0].ids
    length = 0
    while length < limit and all(example.ids[length] == first[length] for example in examples):
        length += 1
    return length


def make_packs(
    examples: Sequence[TokenExample],
    prefix: int,
    pack_tokens: int,
    draw: random.Random,
    chosen: Sequence[int] | None = None,
) -> list[Pack]:
    """Shuffled packs of at most `pack_tokens` tokens each, filled per owner in a drawn order.

    Of all examples, or of the `chosen` ones.
    """
    order = list(range(len(examples)) if chosen is None else chosen)
    draw.shuffle(order)
    waiting: dict[int, tuple[list[int], int]] = {}
    packs: list[Pack] = []
    for index in order:
        owner, own = examples[index].owner, len(examples[index].ids) - prefix
        members, used = waiting.get(owner, ([], prefix))
        if members and used + own > pack_tokens:
            packs.append(Pack(owner, tuple(members)))
            members, used = [], prefix
        waiting[owner] = ([*members, index], used + own)
    packs.extend(Pack(owner, tuple(members)) for owner, (members, _) in waiting.items())
    draw.shuffle(packs)
    return packs


def lay_out(examples: Sequence[TokenExample], prefix: int, packs: Sequence[Pack], dtype: torch.dtype) -> Layout:
    """The layout of one batch. Padding attends to itself only, so that no row of the mask is empty."""
    length = max(prefix + sum(len(examples[i].ids) - prefix for i in pack.members) for pack in packs)
    positions = torch.zeros(len(packs), length, dtype=torch.int64)
    allowed = torch.eye(length, dtype=torch.bool).repeat(len(packs), 1, 1)
    targets: list[tuple[int, int, int, int]] = []
    for row, pack in enumerate(packs):
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        positions[row, :prefix] = torch.arange(prefix)
        allowed[row, :prefix, :prefix] = causal[:prefix, :prefix]
        start = prefix
        for index in pack.members:
            own = len(examples[index].ids) - prefix
            end = start + own
            positions[row, start:end] = torch.arange(prefix, prefix + own)
            allowed[row, start:end, :prefix] = True
            allowed[row, start:end, start:end] = causal[:own, :own]
            targets += [(row, start - prefix + at - 1, token, index) for at, token in _targets(examples[index])]
            start = end
    mask = torch.zeros(len(packs), 1, length, length, dtype=dtype)
    mask.masked_fill_(~allowed[:, None], torch.finfo(dtype).min)
    row_of, column, target, example = torch.tensor(targets, dtype=torch.int64).reshape(-1, 4).unbind(1)
    return Layout(positions, mask, row_of, column, target, example)


def _targets(example: TokenExample) -> list[tuple[int, int]]:
    return [(at, token) for at, token in enumerate(example.ids) if example.supervised[at]]


def _first_target(example: TokenExample) -> int:
    return example.supervised.index(True)
