"""The attribution head's file, as far as it can be checked without running it. The format: docs/formats/head.md.

Safetensors with the F32 tensors K and P, at will H and Q, of the shapes of `head_shapes`, and this metadata (strings):

    format            "openledger-head/1"
    base              digest of the base model
    weights           digest of the bytes of adapter_model.safetensors
    taps              JSON list of module paths in PEFT's naming: "model.layers.20.mlp.down_proj"
    contributors      JSON list of names, sorted and unique: the rows of K, or of Q
    method            "influence", "trace" or "calibrated" (ATTRIBUTION.md section 4)
    datanet_version   digest of the Datanet version it was fitted for
    fidelity          digest of fidelity.json
"""

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.base import BaseModel
from adapters.digests import is_digest
from adapters.errors import BadHead, HeadMismatch, InvalidName
from adapters.names import check_name
from adapters.strict_json import parse_json
from adapters.tensors import TensorFile

FORMAT = "openledger-head/1"
METHODS = ("influence", "trace", "calibrated")
DIGESTS = ("base", "weights", "datanet_version", "fidelity")
TENSORS = ("K", "P", "H", "Q")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Head:
    """What a checked head says of itself: `k` readout directions, `taps` modules, one row per contributor."""

    base: str
    weights: str
    datanet_version: str
    fidelity: str
    method: str
    taps: tuple[str, ...]
    contributors: tuple[str, ...]
    k: int


def head_shapes(found: Shapes, contributors: int, taps: int, rank: int, hidden: int) -> Shapes:
    """The shapes that a head with tensors of the shapes `found` must have.

    P [hidden, k]. With tap directions H [taps, rank, d], K is [m, 1, k, d], without [m, taps, k, rank]. With
    contributor factors Q [contributors, m], m is what Q says, without it is the number of contributors.
    """
    last = {name: shape[-1] if shape else 0 for name, shape in found.items()}
    factors = last.get("Q", contributors)
    features = (1, last["P"], last["H"]) if "H" in found else (taps, last["P"], rank)
    shapes = {
        "K": (factors, *features),
        "P": (hidden, last["P"]),
        "H": (taps, rank, last.get("H", 0)),
        "Q": (contributors, factors),
    }
    return {name: shapes[name] for name in found}


def check_head(file: TensorFile, ranks: Mapping[str, int], weights: str, base: BaseModel) -> Head:
    """Check a head against the adapter it lies beside: `ranks` per adapted module, `weights` digest of its tensors.

    Raises BadHead for the file itself, HeadMismatch when it was built for another adapter or base model, NotFinite.
    """
    head = _read(file)
    if head.base != base.digest:
        raise HeadMismatch(f"the head was fitted on the base model {head.base}; {base.name}, {base.digest}, is served")
    if head.weights != weights:
        raise HeadMismatch(f"the head was fitted to adapter weights {head.weights}; the package holds {weights}")
    _check_shapes(file, head, ranks, base)
    for name in file.tensors:
        if not file.check_values(name) and name == "P":
            raise BadHead("P is all zero: the head cannot see the emitted token")
    return head


def _read(file: TensorFile) -> Head:
    metadata = file.metadata
    if metadata.get("format") != FORMAT:
        raise BadHead(f"the head's metadata has the format {metadata.get('format')!r} instead of {FORMAT!r}")
    for key in DIGESTS:
        if not is_digest(metadata.get(key)):
            raise BadHead(f"the head's metadata lacks the digest {key!r}")
    if metadata.get("method") not in METHODS:
        raise BadHead(f"the head's method is {metadata.get('method')!r}, not one of {', '.join(METHODS)}")
    contributors = _names(metadata, "contributors")
    if list(contributors) != sorted(contributors):
        raise BadHead("the head's contributors are not sorted")
    try:
        for name in contributors:
            check_name(name, "contributor")
    except InvalidName as error:
        raise BadHead(str(error)) from None
    names = set(file.tensors)
    if not {"K", "P"} <= names <= set(TENSORS) or any(tensor.dtype != "F32" for tensor in file.tensors.values()):
        raise BadHead("a head holds the F32 tensors K and P, at will H and Q, and no others")
    p = file.tensors["P"].shape
    return Head(
        **{key: metadata[key] for key in (*DIGESTS, "method")},
        taps=_names(metadata, "taps"),
        contributors=contributors,
        k=p[1] if len(p) == 2 else 0,
    )


def _names(metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        value = parse_json(metadata.get(key, "").encode())
    except ValueError:
        raise BadHead(f"the head's {key} are not a JSON list") from None
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise BadHead(f"the head's {key} are not a JSON list of at least one string")
    if len(set(value)) != len(value):
        raise BadHead(f"the head's {key} repeat a name")
    return tuple(value)


def _check_shapes(file: TensorFile, head: Head, ranks: Mapping[str, int], base: BaseModel) -> None:
    for tap in head.taps:
        if tap not in ranks:
            raise HeadMismatch(f"the head taps {tap}, which the adapter does not change")
    rank, *others = {ranks[tap] for tap in head.taps}
    if others:
        raise BadHead("the head taps modules of different ranks, which K cannot hold")
    found = {name: tensor.shape for name, tensor in file.tensors.items()}
    for name, expected in head_shapes(found, len(head.contributors), len(head.taps), rank, base.hidden_size).items():
        if found[name] != expected or 0 in expected:
            raise BadHead(f"the head's {name} has shape {found[name]} instead of {expected}")
