"""What is uploaded in adapters/bench/attacks.py: by the attackers, and by an honest contributor of as many examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adapters.bench import attack_texts
from adapters.bench.attack_market import Market
from adapters.bench.attack_models import outlier_attack, shadow_attack
from adapters.bench.attack_texts import Turn, duplicates, paraphrases
from adapters.bench.attack_world import Given
from adapters.canonical import canonical_json
from adapters.digests import digest

SECOND, COPIER = "second-name", "copier"

Uploaded = list[tuple[str, Sequence[Turn]]]


@dataclass(frozen=True)
class Attack:
    """An attack: all contributions in their order, and the accounts whose pay is the attacker's."""

    name: str
    given: Given
    accounts: tuple[str, ...]


class Uploads:
    """The attacks on a market by one of its sources; `victim` is another."""

    def __init__(self, market: Market, attacker: str, victim: str) -> None:
        self._market, self._attacker = market, attacker
        self._own, self._theirs = market.turns[attacker], market.turns[victim]
        self._shadow_given, self._shadow_queries = attack_texts.shadow_market(market.cache_dir)
        self._new = {name: self._shadow_given[name][: len(self._own)] for name in (attacker, victim)}
        self._victim = victim

    def attack(self, name: str) -> Attack:
        """One of ATTACKS or HONEST."""
        uploaded = {**ATTACKS, **HONEST}[name](self)
        rest = [(other, turns) for other, turns in self._market.honest if other != self._attacker]
        accounts = (COPIER,) if COPIER in dict(uploaded) else tuple(dict(uploaded))
        return Attack(name, [*rest, *uploaded], accounts)

    def times(self, times: int, second: str | None = None) -> Uploaded:
        return [(self._attacker, self._own), (second or self._attacker, duplicates(self._own, times))]

    def paraphrased(self) -> Uploaded:
        return [(self._attacker, self._own), (self._attacker, self._reworded(self._own))]

    def split(self) -> Uploaded:
        half = len(self._own) // 2
        return [(self._attacker, self._own[:half]), (SECOND, self._own[half:])]

    def outlier(self) -> Uploaded:
        return [(self._attacker, self._kept("outlier", self._outlier))]

    def shadow(self) -> Uploaded:
        return [(self._attacker, self._kept("shadow", self._shadow))]

    def copied(self) -> Uploaded:
        return [(self._attacker, self._own), (COPIER, duplicates(self._theirs, 2))]

    def copied_and_paraphrased(self) -> Uploaded:
        return [(self._attacker, self._own), (COPIER, self._reworded(self._theirs))]

    def more(self) -> Uploaded:
        return [(self._attacker, self._own), (self._attacker, self._new[self._attacker])]

    def newcomer(self) -> Uploaded:
        return [(self._attacker, self._own), (COPIER, self._new[self._victim])]

    def _reworded(self, turns: Sequence[Turn]) -> list[Turn]:
        return paraphrases(turns, attack_texts.wordnet_synonyms(self._market.cache_dir))

    def _outlier(self) -> list[Turn]:
        market = self._market
        words = sorted({word for turns in market.turns.values() for _, answer in turns for word in answer.split()})
        return outlier_attack(market.world(market.honest), self._own, words, market.config.threads)

    def _shadow(self) -> list[Turn]:
        shadow = self._market.world(list(self._shadow_given.items()))
        return shadow_attack(shadow, self._shadow_queries, self._own, self._market.config.threads)

    def _kept(self, name: str, make: Callable[[], list[Turn]]) -> list[Turn]:
        """The changed turns, made once."""
        known = digest(canonical_json([self._market.config.record(), [list(turn) for turn in self._own]]))[7:23]
        path = self._market.work_dir / f"{name}-{known}.json"
        if not path.exists():
            content = json.dumps(make(), indent=1)
            path.with_suffix(".tmp").write_text(content)
            path.with_suffix(".tmp").rename(path)
        return [(asked, answer) for asked, answer in json.loads(path.read_text())]


ATTACKS: Mapping[str, Callable[[Uploads], Uploaded]] = {
    "own examples 2x": lambda uploads: uploads.times(2),
    "own examples 4x": lambda uploads: uploads.times(4),
    "own examples 8x": lambda uploads: uploads.times(8),
    "own examples 2x, second name": lambda uploads: uploads.times(2, SECOND),
    "own examples 2x, paraphrased": Uploads.paraphrased,
    "split in two names": Uploads.split,
    "outlier attack": Uploads.outlier,
    "shadow attack": Uploads.shadow,
    "another's examples": Uploads.copied,
    "another's examples, paraphrased": Uploads.copied_and_paraphrased,
}
HONEST: Mapping[str, Callable[[Uploads], Uploaded]] = {
    "no attack: as many new examples": Uploads.more,
    "no attack: a newcomer": Uploads.newcomer,
}
"""Who gives as many examples as a paraphraser, and writes them: what else an honest contributor would earn."""
