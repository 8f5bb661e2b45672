"""One request's served scores against recomputed and exact ones: used by the audit process and by `openledger audit`.

Loads torch when an adapter is loaded, not before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.audit.correlation import PPM, Correlation
from gateway.audit.store import Result

MICRO_NATS = 1_000_000
SERVED_TOLERANCE_PPM = 50_000
"""Served sums may differ from recomputed ones by this part of the largest: an engine in bf16 reads other last bits."""

LEAST_TOKENS = 8
"""A shorter answer says nothing about a correlation, one way or the other."""


@dataclass(frozen=True)
class Bench:
    """An adapter ready to be audited: the loaded model, and what its report says of the scorer in use (or None)."""

    adapter: str
    model: Any  # adapters.training.audit.AuditModel
    reported: dict[str, int] | None

    @classmethod
    def load(cls, adapter: str, package: Path, base: Path, **where: Any) -> "Bench":
        """See adapters.training.audit.AuditModel.load, which raises the named errors."""
        from adapters.training.audit import AuditModel, reported_scorers

        model = AuditModel.load(package, base, adapter=adapter, **where)
        return cls(adapter, model, reported_scorers(package).get(model.scorer.name))

    def audit(
        self,
        request_id: str,
        prompts: Sequence[Sequence[int]],
        choices: Sequence[Sequence[int]],
        served: Mapping[str, int],
    ) -> tuple[Result, list[dict[str, Any]]]:
        """The result, and per contributor the sums served, recomputed by the head and exact, in micro-nats."""
        scored = self.model.rescore(prompts, choices)
        head, exact = ((table.double().sum(0) * MICRO_NATS).round().tolist() for table in (scored.head, scored.exact))
        given = [served.get(name, 0) for name in scored.contributors]
        columns = zip(scored.contributors, given, head, exact, strict=True)
        rows = [
            {"contributor": name, "served": own, "recomputed": int(a), "exact": int(b)} for name, own, a, b in columns
        ]
        largest = max(map(abs, head)) or 1
        error_ppm = round(max(abs(own - a) for own, a in zip(given, head, strict=True)) * PPM / largest)
        estimate = scored.correlation()
        correlation = Correlation(estimate.value, estimate.low, estimate.high, estimate.count)
        status, detail = self._verdict(correlation, error_ppm, len(scored.head))
        result = Result(
            request_id=request_id,
            adapter=self.adapter,
            status=status,
            detail=detail,
            scorer=scored.scorer,
            tokens=len(scored.head),
            served_error_ppm=error_ppm,
            correlation=correlation.record(),
            reported=self.reported,
            moments=scored.moments(),
        )
        return result, rows

    def _verdict(self, correlation: Correlation, error_ppm: int, tokens: int) -> tuple[str, str]:
        if error_ppm > SERVED_TOLERANCE_PPM:
            return "served_mismatch", f"served sums differ from the head's by {error_ppm / 10_000:.2f}%"
        if self.reported is None:
            return "unmeasured", f"the fidelity report does not compare the head with {self.model.scorer.name}"
        if tokens < LEAST_TOKENS:
            return "ok", f"{tokens} tokens are too few to judge the correlation"
        if correlation.is_below(Correlation.of(self.reported)):
            return "drift", "the correlation lies below the reported interval"
        return "ok", ""
