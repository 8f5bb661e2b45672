"""What the engine says it generated: METER bodies and deltas (docs/ARCHITECTURE.md, engine protocol), summed up."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Meter:
    """The running sum of one request. Tokens are counted by the engine; nothing here counts text."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    contributors: list[str] = field(default_factory=list)
    head: str | None = None
    final: bool = False
    scores: list[int] = field(default_factory=list)  # per contributor, micro-nats
    finish_reasons: dict[int, str] = field(default_factory=dict)
    token_ids: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # by choice
    pending: dict[int, list[dict]] = field(default_factory=lambda: defaultdict(list))  # tokens not yet shown, by choice

    def add(self, delta: dict[str, Any]) -> None:
        """Takes a METER or METER_DELTA: counts are totals so far, choices carry new tokens only."""
        self.prompt_tokens = delta["prompt_tokens"]
        self.cached_tokens = delta["cached_tokens"]
        self.completion_tokens = max(self.completion_tokens, delta["completion_tokens"])
        self.contributors = delta["contributors"] or self.contributors
        self.head = delta["head"] or self.head
        self.final = self.final or delta["final"]
        self.scores = self.scores or [0] * len(self.contributors)
        for choice in delta.get("choices", ()):
            self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        rows = choice.get("scores") or []
        self.token_ids[choice["index"]] += choice.get("token_ids") or ()
        for row in rows:
            self.scores = [total + score for total, score in zip(self.scores, row, strict=True)]
        if choice.get("finish_reason"):
            self.finish_reasons[choice["index"]] = choice["finish_reason"]
        for position, text in enumerate(choice.get("tokens") or ()):
            row = rows[position] if rows else []
            self.pending[choice["index"]].append(
                {"token": text, "scores": dict(zip(self.contributors, row, strict=True)) if row else {}}
            )

    def add_summary(self, summary: dict[str, Any]) -> None:
        """Takes the METER of a finished request, whose choices are replaced by sums of scores."""
        self.add({**summary, "choices": (), "final": True})
        self.scores = list(summary.get("scores") or [0] * len(self.contributors))

    def take_tokens(self, index: int) -> list[dict]:
        """The tokens of a choice that arrived since the last call, each with its scores by contributor."""
        return self.pending.pop(index, [])

    def scores_by_contributor(self) -> dict[str, int]:
        """Net score of each contributor over the request, in micro-nats."""
        return dict(zip(self.contributors, self.scores, strict=True))
