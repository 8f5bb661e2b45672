"""The attacks of Wang, Hu, Deng, Ma (Adversarial Attacks on Data Attribution, ICLR 2025), for examples of text.

Shadow attack: who knows the kind of text that is asked for trains a model of their own on such text, and changes their
examples by gradient so that they influence that model's answers more, hoping that it carries over. Here the influence
is the one that is paid for, EK-FAC, at the shadow model's weights, and changes are replaced tokens (HotFlip).

Outlier attack: who knows nothing asks the served model how likely the second half of each of their texts is, and
replaces words before it so that it becomes unlikely: outliers tend to be called influential. Black-box.

Both change at most a quarter of what they may, as published.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adapters.bench.attack_texts import Turn
from adapters.bench.attack_world import DAMPING, World, gradient_totals
from adapters.demo.contribution import chat
from adapters.example import Example
from adapters.training.kronecker import curvature
from adapters.training.model import AdaptedModel, HiddenCache
from adapters.training.packs import common_prefix, make_packs
from adapters.training.threads import threads
from adapters.training.tokens import TokenExample, tokenize

CHANGED = 0.25
ROUNDS = 3
CANDIDATES = 4


def shadow_attack(world: World, shadow_queries: Sequence[Turn], given: Sequence[Turn], thread_count: int) -> list[Turn]:
    """The turns with answers changed to influence the shadow world's adapter on the shadow queries."""
    with threads(thread_count):
        model, data, tokenizer = world.load()
        direction = _influence_direction(model, data, _tokens(shadow_queries, tokenizer))
        flips = _Flips(model, tokenizer, direction)
        best = _tokens(given, tokenizer)
        score, gradient = flips.influence(best)
        for _ in range(ROUNDS):
            tried = flips.flipped(best, gradient, CHANGED / ROUNDS)
            tried_score, tried_gradient = flips.influence(tried)
            better = tried_score > score
            best = [b if yes else a for a, b, yes in zip(best, tried, better.tolist(), strict=True)]
            score = torch.where(better, tried_score, score)
            gradient = [b if yes else a for a, b, yes in zip(gradient, tried_gradient, better.tolist(), strict=True)]
        return [(asked, _answer(example, tokenizer)) for (asked, _), example in zip(given, best, strict=True)]


def outlier_attack(world: World, given: Sequence[Turn], vocabulary: Sequence[str], thread_count: int) -> list[Turn]:
    """The turns with words of the answers' first halves changed so that the second halves become unlikely."""
    with threads(thread_count):
        model, _, tokenizer = world.load()
        changed = [answer.split() for _, answer in given]
        halves = [max(1, len(words) // 2) for words in changed]
        order = _important_words(model, tokenizer, given, changed, halves)
        for rank in range(max(round(CHANGED * len(words)) for words in changed)):
            turns = [n for n, words in enumerate(changed) if rank < min(len(order[n]), round(CHANGED * len(words)))]
            tried = []
            for n in turns:
                draw = random.Random(f"{given[n][1]}/{rank}")
                for word in draw.sample(list(vocabulary), CANDIDATES):
                    tried.append((n, [word if at == order[n][rank] else old for at, old in enumerate(changed[n])]))
            unlikely = _likelihood(model, tokenizer, [(given[n][0], words, halves[n]) for n, words in tried])
            for number, n in enumerate(turns):
                part = slice(number * CANDIDATES, (number + 1) * CANDIDATES)
                changed[n] = tried[part][int(unlikely[part].argmin())][1]
        return [(asked, " ".join(words)) for (asked, _), words in zip(given, changed, strict=True)]


def _influence_direction(model: AdaptedModel, data: Any, queries: Sequence[TokenExample]) -> Tensor:
    """C^-1 sum_q d log p(q) / dB [P]: what an example's gradient is multiplied with to become its influence on them."""
    cache = HiddenCache(model, data.examples, common_prefix(data.examples))
    packs = make_packs(data.examples, cache.prefix, 160, random.Random(0))
    found = curvature(model, cache, [packs[at : at + 2] for at in range(0, len(packs), 2)])
    asked = HiddenCache(model, queries, common_prefix(queries))
    packs = make_packs(queries, asked.prefix, 160, random.Random(0))
    total = gradient_totals(model, asked, [packs[at : at + 2] for at in range(0, len(packs), 2)], 1)
    return found.corrected(model, total, DAMPING)[0]


class _Flips:
    """Influence of texts along one direction of B, and its gradient in their token embeddings, by central differences.

    The influence of a text x is d/de log p(x; B + e d) at e = 0.
    """

    def __init__(self, model: AdaptedModel, tokenizer: Any, direction: Tensor) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._step = direction * (0.02 * model.parameter.norm() / direction.norm())
        self._embeddings = model.causal_lm.get_input_embeddings().weight.detach()
        self._words = torch.tensor(_words(tokenizer, len(self._embeddings)))

    def influence(self, texts: Sequence[TokenExample]) -> tuple[Tensor, list[Tensor]]:
        """[N], and per text [tokens, D]; in units of the step."""
        sides = []
        for sign in (1, -1):
            self._model.parameter.add_(self._step, alpha=sign)
            sides.append(self._log_likelihood(texts))
            self._model.parameter.sub_(self._step, alpha=sign)
        (high, high_gradient), (low, low_gradient) = sides
        return high - low, [a - b for a, b in zip(high_gradient, low_gradient, strict=True)]

    def _log_likelihood(self, texts: Sequence[TokenExample]) -> tuple[Tensor, list[Tensor]]:
        found, gradients = [], []
        for text in texts:
            ids = torch.tensor([text.ids])
            embedded = self._embeddings[ids].requires_grad_()
            value = _log_p(self._model.causal_lm(inputs_embeds=embedded, use_cache=False).logits[0], text)
            (gradient,) = torch.autograd.grad(value, embedded)
            found.append(value.detach())
            gradients.append(gradient[0])
        return torch.stack(found), gradients

    def flipped(self, texts: Sequence[TokenExample], gradients: Sequence[Tensor], part: float) -> list[TokenExample]:
        """Each text with the replacement of `part` of its answer's tokens that promises most to first order."""
        changed = []
        for text, gradient in zip(texts, gradients, strict=True):
            at = torch.tensor(text.supervised).nonzero()[:-1, 0]  # the end mark stays
            gain = gradient[at] @ self._embeddings[self._words].T
            gain -= (gradient[at] * self._embeddings[torch.tensor(text.ids)[at]]).sum(1, keepdim=True)
            best, word = gain.max(1)
            ids = list(text.ids)
            for place in best.topk(max(1, round(part * len(at)))).indices.tolist():
                ids[at[place]] = int(self._words[word[place]])
            changed.append(TokenExample(text.owner, tuple(ids), text.supervised))
        return changed


def _words(tokenizer: Any, count: int) -> list[int]:
    """Ids of tokens that are whole words: marked as such in a byte-level BPE, not marked in a tokenizer of words."""
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(list(range(count)))]
    word = re.compile("Ġ[a-z]{3,}" if any(piece.startswith("Ġ") for piece in pieces) else "[a-z]{3,}")
    return [token for token, piece in enumerate(pieces) if word.fullmatch(piece)]


def _important_words(
    model: AdaptedModel, tokenizer: Any, given: Sequence[Turn], words: Sequence[list[str]], halves: Sequence[int]
) -> list[list[int]]:
    """Places in each first half, those whose word the second half needs most first."""
    without = [
        (n, at, [word for place, word in enumerate(words[n]) if place != at])
        for n in range(len(given))
        for at in range(halves[n])
    ]
    left = _likelihood(model, tokenizer, [(given[n][0], rest, halves[n] - 1) for n, _, rest in without])
    found: list[list[tuple[float, int]]] = [[] for _ in given]
    for (n, at, _), value in zip(without, left.tolist(), strict=True):
        found[n].append((value, at))
    return [[at for _, at in sorted(ranked)] for ranked in found]


@torch.no_grad()
def _likelihood(model: AdaptedModel, tokenizer: Any, texts: Sequence[tuple[str, list[str], int]]) -> Tensor:
    """log p [N] of the words of each answer from the given place on."""
    examples = [_tail(asked, words, place, tokenizer) for asked, words, place in texts]
    cache = HiddenCache(model, examples, common_prefix(examples))
    packs = make_packs(examples, cache.prefix, 256, random.Random(0))
    found = torch.zeros(len(examples))
    for at in range(0, len(packs), 4):
        hidden, layout = cache.batch(packs[at : at + 4])
        _, logits = model.normed_and_logits(model.upper(hidden, layout), layout)
        log_p = logits.float().log_softmax(1).gather(1, layout.target[:, None])[:, 0]
        found.index_add_(0, layout.example, log_p)
    return found


def _tail(asked: str, words: Sequence[str], place: int, tokenizer: Any) -> TokenExample:
    """The turn as an example of which the words from `place` on, and the end mark, are learnt."""
    example = tokenize(Example.of(chat(asked, " ".join(words))), tokenizer, 0)
    tail = len(tokenizer(" " + " ".join(words[place:]), add_special_tokens=False)["input_ids"]) + 1
    own = [at for at, learnt in enumerate(example.supervised) if learnt][-tail:]
    return TokenExample(0, example.ids, tuple(at in own for at in range(len(example.ids))))


def _log_p(logits: Tensor, text: TokenExample) -> Tensor:
    """Summed log p of the supervised tokens, from logits [tokens, V]."""
    at = torch.tensor(text.supervised).nonzero()[:, 0]
    return logits[at - 1].float().log_softmax(1).gather(1, torch.tensor(text.ids)[at][:, None]).sum()


def _tokens(given: Sequence[Turn], tokenizer: Any) -> list[TokenExample]:
    return [tokenize(Example.of(chat(*turn)), tokenizer, 0) for turn in given]


def _answer(example: TokenExample, tokenizer: Any) -> str:
    ids = [token for token, learnt in zip(example.ids, example.supervised, strict=True) if learnt]
    return tokenizer.decode(ids, skip_special_tokens=True).strip()
