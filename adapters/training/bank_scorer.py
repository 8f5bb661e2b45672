"""A kept subset bank as an exact scorer: what retraining says of tokens that nobody fitted a head to.

Every run of the bank is asked for its margin of each token; the token's linear datamodel, which starts from exact
scorers (adapters.training.datamodel), is its scores. The best audit there is (docs/ATTRIBUTION.md) and the dearest: one
forward pass for each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from adapters.canonical import parse_canonical
from adapters.errors import AdaptersError
from adapters.training.bank import Bank, BankConfig, Subject
from adapters.training.datamodel import coefficients
from adapters.training.errors import BankCorrupted, BankIncomplete
from adapters.training.observe import Observations
from adapters.training.scorers import DirectionScorer
from adapters.training.subsets import FULL, HALF, NONE, Run
from adapters.training.tokens import TokenExample


def kept_bank(directory: Path, subject: Subject) -> tuple[Bank, tuple[Run, ...]]:
    """The bank in `directory` and what a datamodel is made of: all half subsets that it has trained, whatever size was
    asked for, the whole Datanet and nobody.

    Raises BankIncomplete where one of the three kinds is missing, BankMismatch, BankCorrupted.
    """
    if not (directory / "bank.json").is_file():
        raise BankIncomplete(f"no subset bank at {directory}: `openledger adapter bank` trains one")
    try:
        dtype = parse_canonical((directory / "bank.json").read_bytes())["hyperparameters"]["dtype"]
        subject = replace(subject, training=replace(subject.training, dtype=dtype))
    except (AdaptersError, KeyError, TypeError, ValueError) as error:
        raise BankCorrupted(f"{directory / 'bank.json'} is not what a bank writes ({error})") from None
    bank = Bank(directory, subject, BankConfig())
    runs = tuple(run for run in bank.kept() if run.kind in (HALF, FULL, NONE))
    lacking = {HALF, FULL, NONE} - {run.kind for run in runs}
    if lacking:
        raise BankIncomplete(f"the bank at {directory} has trained no run of: {', '.join(sorted(lacking))}")
    return bank, runs


@dataclass(frozen=True)
class BankScorer:
    """`runs` of a bank, and the exact scorers that its datamodel starts from."""

    bank: Bank
    runs: tuple[Run, ...]
    toward: tuple[DirectionScorer, ...]
    name = "retrained"

    def scores(self, texts: Sequence[TokenExample], seen: Observations) -> Tensor:
        """Scores [N, C] in nats of the supervised tokens of `texts`, which `seen` has the scores `toward` of.

        Nothing of the texts stays on disk. Raises what `Bank.margins` does.
        """
        try:
            margins = self.bank.margins(texts, self.runs)
        finally:
            self.bank.forget(texts)
        subject = self.bank.subject
        present = sorted({example.owner for example in subject.examples})
        start = [seen.scores[scorer.name] for scorer in self.toward]
        return coefficients(margins, self.runs, present, len(subject.contributors), start)
