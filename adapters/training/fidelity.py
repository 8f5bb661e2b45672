"""The fidelity report: how far a head can be believed, measured on questions nothing was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from adapters.training.baselines import bm25, data_size, oracle, uniform
from adapters.training.calibration import PHRASES, prompts_behind
from adapters.training.config import HeadConfig
from adapters.training.dataset import TokenDataset
from adapters.training.measures import mean_reciprocal_rank, pearson, recall_at_1
from adapters.training.observe import Observations
from adapters.training.question import Question
from adapters.training.ridge import Bilinear
from adapters.training.tokens import TokenExample, chat_prompt


@dataclass(frozen=True)
class Asked:
    """Q prompts as text and as token ids, the true contributor of each, and the value a right answer holds."""

    texts: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    truth: tuple[int, ...]
    values: tuple[str | None, ...]
    given: bool


@dataclass(frozen=True)
class Answers:
    """What the adapter answered to `asked`, observed token by token; `correct` where the value is known."""

    asked: Asked
    texts: tuple[str, ...]
    seen: Observations

    @property
    def correct(self) -> Tensor | None:
        """[Q] bool, or None where no question has a value to compare with."""
        values = self.asked.values
        if all(value is None for value in values):
            return None
        return torch.tensor([v is not None and v in text for v, text in zip(values, self.texts, strict=True)])

    def summed(self, scores: Tensor) -> Tensor:
        """Scores per answer [Q, C] from scores per token [N, C]."""
        total = torch.zeros(len(self.texts), scores.shape[1], dtype=torch.float64)
        return total.index_add_(0, self.seen.example, scores.double())


def ask(questions: Sequence[Question] | None, data: TokenDataset, tokenizer: Any, config: HeadConfig) -> Asked:
    """The given questions, or prompts of the Datanet itself behind phrases that calibration did not use."""
    index = {name: i for i, name in enumerate(data.contributors)}
    if questions:
        messages = [[{"role": "user", "content": question.prompt}] for question in questions]
        return Asked(
            texts=tuple(question.prompt for question in questions),
            prompts=tuple(tuple(chat_prompt(turn, tokenizer)) for turn in messages),
            truth=tuple(index[question.contributor] for question in questions),
            values=tuple(question.value for question in questions),
            given=True,
        )
    found = prompts_behind(
        data.version.examples, tokenizer, PHRASES[2:], limit=config.report_examples, seed=config.seed + 1
    )
    return Asked(
        texts=tuple(text for _, text, _ in found),
        prompts=tuple(tuple(ids) for _, _, ids in found),
        truth=tuple(index[contributor] for contributor, _, _ in found),
        values=(None,) * len(found),
        given=False,
    )


def answered(asked: Asked, generated: Sequence[TokenExample], seen: Observations, tokenizer: Any) -> Answers:
    """Put the generated texts beside their observations."""
    texts = [
        tokenizer.decode([i for i, own in zip(e.ids, e.supervised, strict=True) if own], skip_special_tokens=True)
        for e in generated
    ]
    return Answers(asked, tuple(texts), seen)


def fidelity_report(
    head: Bilinear, answers: Answers, data: TokenDataset, seed: int, described: dict[str, Any]
) -> dict[str, Any]:
    """The members of fidelity.json (docs/formats/head.md). Without a bank there is no LDS and `fidelity_ppm` is 0."""
    seen = answers.seen
    scores = head.scores(seen.u, seen.h)
    exact = {name: table.double() for name, table in seen.scores.items()}
    correct = answers.correct
    return {
        "fidelity_ppm": 0,
        "lds": None,
        **described,
        "head_bytes": head.bytes,
        "type": "fidelity",
        "date": datetime.now(UTC).date().isoformat(),
        "held_out": {
            "answers": len(answers.texts),
            "correct": None if correct is None else int(correct.sum()),
            "questions": "given" if answers.asked.given else "re-contextualised",
            "tokens": len(seen.example),
        },
        **{f"pearson_with_{name}": pearson(scores, table, seen.example).record() for name, table in exact.items()},
        **{
            f"pearson_with_{name}_per_answer": pearson(answers.summed(scores), answers.summed(table)).record()
            for name, table in exact.items()
        },
        "rows": attribution_rows(answers, {"head": scores} | exact, data),
        "seeds": {"head": seed},
    }


def attribution_rows(answers: Answers, scores: dict[str, Tensor], data: TokenDataset) -> dict[str, Any]:
    """recall@1 and MRR of each scorer [N, C] and of the baselines, over all answers and over the right ones."""
    truth, count = answers.asked.truth, len(data.contributors)
    queries = len(truth)
    texts = [item.example.content.decode() for item in data.version.examples]
    index = {name: i for i, name in enumerate(data.contributors)}
    owner = [index[item.contributor] for item in data.version.examples]
    tokens = [data.counts()[name]["tokens"] for name in data.contributors]
    with_answer = [f"{ask} {text}" for ask, text in zip(answers.asked.texts, answers.texts, strict=True)]
    rows = {name: answers.summed(table) for name, table in scores.items()} | {
        "oracle": oracle(truth, count),
        "constant": uniform(queries, count),
        "data_size": data_size(queries, tokens),
        "bm25_question": bm25(answers.asked.texts, texts, owner, count),
        "bm25_question_and_answer": bm25(with_answer, texts, owner, count),
    }
    correct = answers.correct
    return {name: _row(table, torch.tensor(truth), correct) for name, table in rows.items()}


def _row(table: Tensor, truth: Tensor, correct: Tensor | None) -> dict[str, Any]:
    row = {
        "mrr": mean_reciprocal_rank(table, truth.tolist()).record(),
        "recall_at_1": recall_at_1(table, truth.tolist()).record(),
    }
    if correct is not None and bool(correct.any()):
        row["recall_at_1_of_right_answers"] = recall_at_1(table[correct], truth[correct].tolist()).record()
    return row
