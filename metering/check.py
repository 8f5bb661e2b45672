"""Both conservation laws and every invariant between journal, ledger and log (`openledger check`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metering.config import MeteringConfig
from metering.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken invariant: a stable name and what was found, with the numbers."""

    name: str
    detail: str


def run_checks(config: MeteringConfig, ledger: Ledger, generated: Mapping[str, int] | None = None) -> list[Finding]:
    """All findings; empty when clean. `generated` is the engine's tally: request id -> completion_tokens.

    A request with an open hold is in flight, not a finding.
    """
    raise NotImplementedError
