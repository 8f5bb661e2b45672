"""What the engine says it generated for one request: METER and METER_DELTA of docs/ARCHITECTURE.md."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Meter:
    """The running state of one request. Tokens are counted by the engine; nothing here counts text."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    contributors: list[str] = field(default_factory=list)
    scores: list[int] = field(default_factory=list)  # per contributor, micro-nats, over all choices so far
    final: bool = False
    finish_reasons: dict[int, str] = field(default_factory=dict)
    token_ids: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # by choice
    prompts: list[list[int]] | None = None  # token ids of each prompt; only the engine's last METER names them
    unshown: dict[int, list[dict]] = field(default_factory=lambda: defaultdict(list))  # scored tokens, by choice

    def add(self, meter: dict[str, Any]) -> None:
        """Takes a METER, a delta or a summary: counts and sums are totals so far, choices carry new tokens only."""
        self.prompt_tokens = meter["prompt_tokens"]
        self.cached_tokens = meter["cached_tokens"]
        self.completion_tokens = max(self.completion_tokens, meter["completion_tokens"])
        self.contributors = meter.get("contributors", self.contributors)
        self.scores = meter["score_sums"]
        self.final = self.final or meter["final"]
        self.prompts = meter.get("prompt_token_ids") or self.prompts
        for choice in meter["choices"]:
            self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = choice["index"]
        if choice.get("finish_reason"):
            self.finish_reasons[index] = choice["finish_reason"]
        self.token_ids[index] += choice.get("token_ids") or ()
        rows = choice.get("scores") or []
        for position, text in enumerate(choice.get("tokens") or ()):
            row = dict(zip(self.contributors, rows[position], strict=True)) if rows else {}
            self.unshown[index].append({"token": text, "scores": row})

    def take_tokens(self, index: int) -> list[dict]:
        """The tokens of a choice that arrived since the last call, each with its scores by contributor."""
        return self.unshown.pop(index, [])

    def scores_by_contributor(self) -> dict[str, int]:
        """Net score of each contributor over the request, in micro-nats."""
        return dict(zip(self.contributors, self.scores, strict=True))

    def choices_token_ids(self) -> list[list[int]]:
        """The token ids of each choice, in order of their index."""
        return [self.token_ids[index] for index in sorted(self.token_ids)]
