"""composition.json: the adapters that a composed adapter is made of, and their weights. docs/formats/composition.md."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from adapters.canonical import canonical_json, parse_canonical
from adapters.digests import is_digest
from adapters.errors import BadComposition, InvalidDocument

UNIT_PPM = 1_000_000
MAX_WEIGHT_PPM = 100 * UNIT_PPM
MAX_PARTS = 16


@dataclass(frozen=True)
class Composition:
    """`parts` maps adapter digests, sorted, to weights in parts per million: the factor before a part's B A.

    `base` and `weights` are digests: of the base model, and of the adapter_model.safetensors that came out.
    """

    base: str
    weights: str
    parts: Mapping[str, int]

    def encode(self) -> bytes:
        """Canonical bytes; their digest is what a composed head names instead of a Datanet version."""
        parts = [{"adapter": adapter, "weight_ppm": weight_ppm} for adapter, weight_ppm in self.parts.items()]
        return canonical_json({"base": self.base, "parts": parts, "type": "composition", "weights": self.weights})


def check_parts(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Adapter digests to weights, sorted by digest: the order of the parts says nothing.

    Raises BadComposition unless 2 to 16 different adapters have weights of 1 to 100,000,000 ppm.
    """
    chosen: dict[str, int] = {}
    for adapter, weight_ppm in parts:
        if adapter in chosen:
            raise BadComposition(f"{adapter} is named twice: add its weights up")
        if isinstance(weight_ppm, bool) or not isinstance(weight_ppm, int) or not 1 <= weight_ppm <= MAX_WEIGHT_PPM:
            raise BadComposition(f"the weight of {adapter} must be more than 0 and at most 100, to 6 decimals")
        chosen[adapter] = weight_ppm
    if not 2 <= len(chosen) <= MAX_PARTS:
        raise BadComposition(f"a composition has 2 to {MAX_PARTS} parts, not {len(chosen)}")
    return dict(sorted(chosen.items()))


def weight_ppm(number: str) -> int:
    """A decimal number, such as 0.7, in parts per million.

    Raises BadComposition unless it is more than 0, at most 100, and has at most 6 decimals.
    """
    try:
        ppm = Decimal(number) * UNIT_PPM
    except InvalidOperation:
        ppm = Decimal("NaN")
    if not ppm.is_finite() or not 1 <= ppm <= MAX_WEIGHT_PPM or ppm != ppm.to_integral_value():
        raise BadComposition(f"{number} is no weight: more than 0, at most 100, to 6 decimals")
    return int(ppm)


def parse_composition(content: bytes) -> Composition:
    """The composition in canonical bytes. Raises BadComposition."""
    try:
        value = parse_canonical(content)
    except InvalidDocument as error:
        raise BadComposition(f"composition.json: {error}") from None
    if not isinstance(value, dict) or value.keys() != {"base", "parts", "type", "weights"}:
        raise BadComposition("composition.json has not exactly the members base, parts, type, weights")
    if value["type"] != "composition" or not is_digest(value["base"]) or not is_digest(value["weights"]):
        raise BadComposition('composition.json lacks "type": "composition" or the digests base and weights')
    parts = value["parts"]
    if not isinstance(parts, list) or not all(_is_part(part) for part in parts):
        raise BadComposition("composition.json: parts are not objects of exactly adapter and weight_ppm")
    chosen = check_parts((part["adapter"], part["weight_ppm"]) for part in parts)
    if list(chosen) != [part["adapter"] for part in parts]:
        raise BadComposition("composition.json: the parts are not sorted by digest")
    return Composition(value["base"], value["weights"], chosen)


def _is_part(part: object) -> bool:
    return isinstance(part, dict) and part.keys() == {"adapter", "weight_ppm"} and is_digest(part["adapter"])
