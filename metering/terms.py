"""Terms: what settlement must know of an adapter, content-addressed and named by each event (docs/formats/terms.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metering.canonical import canonical_bytes, digest, is_digest, parse_canonical
from metering.errors import CanonicalError, TermsInvalid
from metering.event import NAME
from metering.shares import PPM

HOLDERS = {"trainer": "trainer", "host": "host", "governance": "datanet"}
"""Roles that one account or Datanet holds, and the member that names it."""

ROLES = ("contributors", "trainer", "host", "governance", "treasury")
METHODS = ("declared", "influence", "trace", "calibrated")
WEIGHT_MAX = 2**53


@dataclass(frozen=True, slots=True)
class Terms:
    """Who is paid for an adapter's (or, with adapter None, the base model's) tokens, and how.

    `declared` are relative weights of contributors; `split_ppm` divides each window's money among the five roles and
    adds up to 10^6; `fidelity_ppm` is f of ATTRIBUTION.md section 4. `holders` divides a role among several by relative
    weights (composed adapters), instead of the one in `trainer`, `host` or `datanet`. Construction raises TermsInvalid
    naming the field.
    """

    adapter: str | None
    head: str | None
    method: str | None
    fidelity_ppm: int
    base: str
    datanet: str | None
    datanet_version: str | None
    publisher: str | None
    declared: Mapping[str, int]
    split_ppm: Mapping[str, int]
    trainer: str | None
    host: str
    holders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_identities()
        self._check_declared()
        self._check_holders()
        self._check_split()

    def encode(self) -> bytes:
        """Canonical document bytes; their digest is what events name."""
        document: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        document["declared"] = dict(self.declared)
        document["split_ppm"] = dict(self.split_ppm)
        document["holders"] = {role: dict(weights) for role, weights in self.holders.items()}
        if not self.holders:
            del document["holders"]
        return canonical_bytes({"type": "terms", **document})

    @property
    def digest(self) -> str:
        return digest(self.encode())

    def holders_of(self, role: str) -> Mapping[str, int]:
        """Who receives a role's part, by relative weight: trainer, host or governance. Empty for nobody."""
        if role in self.holders:
            return self.holders[role]
        holder = getattr(self, HOLDERS[role])
        return {} if holder is None else {holder: 1}

    def _check_identities(self) -> None:
        for name in ("adapter", "head", "datanet_version"):
            value = getattr(self, name)
            if value is not None and not is_digest(value):
                raise TermsInvalid(f"{name}: {value!r} is neither null nor a digest")
        if not is_digest(self.base):
            raise TermsInvalid(f"base: {self.base!r} is not a digest")
        for name in ("datanet", "publisher", "trainer", "host"):
            value = getattr(self, name)
            if (value is not None or name == "host") and not (isinstance(value, str) and NAME.match(value)):
                raise TermsInvalid(f"{name}: {value!r} is not a name")
        if self.adapter is None and any((self.head, self.method, self.datanet, self.datanet_version, self.declared)):
            raise TermsInvalid("adapter: the base model has no head, method, datanet or contributors")
        if self.adapter is not None and self.method not in METHODS:
            raise TermsInvalid(f"method: {self.method!r} is not one of {', '.join(METHODS)}")
        if type(self.fidelity_ppm) is not int or not 0 <= self.fidelity_ppm <= PPM:
            raise TermsInvalid("fidelity_ppm: not an integer in [0, 1000000]")
        if self.head is None and self.fidelity_ppm:
            raise TermsInvalid("fidelity_ppm: only a head has a fidelity")

    def _check_declared(self) -> None:
        for name, weight in self.declared.items():
            if not isinstance(name, str) or not NAME.match(name):
                raise TermsInvalid(f"declared: {name!r} is not a name")
            if type(weight) is not int or not 0 <= weight <= WEIGHT_MAX:
                raise TermsInvalid(f"declared: weight {weight!r} of {name} is not an integer in [0, 2^53]")
        if self.adapter is not None and sum(self.declared.values()) <= 0:
            raise TermsInvalid("declared: an adapter needs at least one contributor of positive weight")

    def _check_holders(self) -> None:
        for role, weights in self.holders.items():
            if role not in HOLDERS:
                raise TermsInvalid(f"holders: {role!r} is not one of {', '.join(HOLDERS)}")
            if not isinstance(weights, Mapping) or len(weights) < 2:
                raise TermsInvalid(f"holders: {role} needs at least two; one is named by {HOLDERS[role]}")
            for name, weight in weights.items():
                if not isinstance(name, str) or not NAME.match(name):
                    raise TermsInvalid(f"holders: {name!r} is not a name")
                if type(weight) is not int or not 1 <= weight <= WEIGHT_MAX:
                    raise TermsInvalid(f"holders: weight {weight!r} of {name} is not an integer in [1, 2^53]")
            if role != "host" and getattr(self, HOLDERS[role]) is not None:
                raise TermsInvalid(f"holders: {HOLDERS[role]} must be null where {role} has several")

    def _check_split(self) -> None:
        if self.split_ppm.keys() != set(ROLES):
            raise TermsInvalid(f"split_ppm: members must be exactly {', '.join(ROLES)}")
        if any(type(part) is not int or part < 0 for part in self.split_ppm.values()):
            raise TermsInvalid("split_ppm: not integers >= 0")
        if sum(self.split_ppm.values()) != PPM:
            raise TermsInvalid(f"split_ppm: adds up to {sum(self.split_ppm.values())}, not {PPM}")
        for role, present in (
            ("contributors", bool(self.declared)),
            ("trainer", bool(self.holders_of("trainer"))),
            ("governance", bool(self.holders_of("governance"))),
        ):
            if self.split_ppm[role] and not present:
                raise TermsInvalid(f"split_ppm: {role} has a part but nobody is named for it")


def decode_terms(data: bytes) -> Terms:
    """The terms of canonical document bytes; TermsInvalid otherwise."""
    try:
        document = parse_canonical(data)
    except CanonicalError as error:
        raise TermsInvalid(str(error)) from error
    if not isinstance(document, dict) or {"holders"} | document.keys() != {"type", *Terms.__slots__}:
        raise TermsInvalid(f"members: not exactly type, {', '.join(Terms.__slots__)} (holders may be absent)")
    if document.pop("type") != "terms":
        raise TermsInvalid("type: not 'terms'")
    for name in ("declared", "split_ppm", "holders"):
        if not isinstance(document.get(name, {}), dict):
            raise TermsInvalid(f"{name}: not an object")
    if document.get("holders") == {}:
        raise TermsInvalid("holders: absent when there are none")
    return Terms(**document)
