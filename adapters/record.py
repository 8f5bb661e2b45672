"""training_record.json and fidelity.json: the members that settlement reads. docs/formats/adapter-package.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.canonical import parse_canonical
from adapters.digests import is_digest
from adapters.errors import BadFidelity, BadTrainingRecord, InvalidDocument, InvalidName
from adapters.names import check_name


@dataclass(frozen=True)
class TrainingRecord:
    """`weights` is the digest of the adapter_model.safetensors that came out; `tokens` trained per contributor."""

    base: str
    datanet: str
    datanet_version: str
    trainer: str
    host: str
    weights: str
    tokens: Mapping[str, int]


def parse_record(content: bytes) -> TrainingRecord:
    """The record in canonical bytes; further members are the trainer's own. Raises BadTrainingRecord."""
    try:
        value = parse_canonical(content)
        if not isinstance(value, dict) or value.get("type") != "training-record":
            raise BadTrainingRecord('training_record.json is not an object with "type": "training-record"')
        for member in ("base", "datanet_version", "weights"):
            if not is_digest(value.get(member)):
                raise BadTrainingRecord(f"training_record.json lacks the digest {member!r}")
        names = {member: check_name(value.get(member, ""), member) for member in ("datanet", "trainer", "host")}
        tokens = _tokens(value.get("contributors"))
    except (InvalidDocument, InvalidName) as error:
        raise BadTrainingRecord(f"training_record.json: {error}") from None
    digests = {member: value[member] for member in ("base", "datanet_version", "weights")}
    return TrainingRecord(**names, **digests, tokens=tokens)


def parse_fidelity(content: bytes) -> int:
    """`fidelity_ppm` of a canonical report: the lower bound of LDS over its ceiling, 0 while unmeasured.

    Raises BadFidelity.
    """
    try:
        value = parse_canonical(content)
    except InvalidDocument as error:
        raise BadFidelity(f"fidelity.json: {error}") from None
    ppm = value.get("fidelity_ppm") if isinstance(value, dict) else None
    if isinstance(ppm, bool) or not isinstance(ppm, int) or not 0 <= ppm <= 1_000_000:
        raise BadFidelity("fidelity.json lacks fidelity_ppm, an integer of 0 to 1,000,000")
    return ppm


def _tokens(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise BadTrainingRecord("training_record.json lacks contributors")
    tokens: dict[str, int] = {}
    for name in sorted(value):
        check_name(name, "contributor")
        count = value[name].get("tokens") if isinstance(value[name], dict) else None
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise BadTrainingRecord(f"training_record.json: the tokens of {name} are not a count")
        tokens[name] = count
    return tokens
