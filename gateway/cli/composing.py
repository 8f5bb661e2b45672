"""Composing adapters on this machine: which packages are meant, and with what weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.composition import weight_ppm
from adapters.errors import BadComposition
from gateway.cli.api import Api, data_directory
from gateway.cli.failures import USAGE, Failure


def compose_locally(api: Api | None, parts: Sequence[str], base: Path, out: Path) -> dict[str, Any]:
    """Writes the composition of `name=weight` parts to `out`; what came out. Raises Failure, leaving nothing."""
    from adapters.base import BaseModel
    from adapters.compose import compose
    from adapters.errors import AdaptersError

    chosen = [(_package(api, name), weight_ppm) for name, weight_ppm in map(parse_part, parts)]
    try:
        package = compose(chosen, BaseModel.from_directory(base), out)
    except AdaptersError as error:
        raise Failure(USAGE, f"{error.message} ({error.code})") from error
    except OSError as error:
        raise Failure(USAGE, f"{out}: {error.strerror}") from error
    assert package.composition is not None
    return {
        "package": str(out),
        "digest": package.digest,
        "rank": package.rank,
        "modules": len(package.target_modules),
        "head": package.head,
        "contributors": list(package.contributors),
        "parts": dict(package.composition.parts),
    }


def parse_part(text: str) -> tuple[str, int]:
    """`name=weight`: the name, and the weight in ppm. Raises Failure."""
    name, separator, number = text.rpartition("=")
    try:
        if not separator or not name:
            raise BadComposition("there is no name before a weight")
        return name, weight_ppm(number)
    except BadComposition as error:
        raise Failure(USAGE, f"{text!r} is not NAME=WEIGHT, such as facts/demo=0.7: {error.message}") from None


def _package(api: Api | None, name: str) -> Path:
    """A directory as it is; else the installed package of a registered name or digest."""
    if Path(name).is_dir():
        return Path(name)
    if api is None:
        raise Failure(USAGE, f"{name} is no package directory")
    shown = api.get(f"/adapters/{name}")
    adapter = shown.get("leads_to") or shown
    if "digest" not in adapter:
        raise Failure(USAGE, f"{name} leads to no adapter: {shown.get('reason')}")
    directory = data_directory() / "adapters" / adapter["digest"].removeprefix("sha256:")
    if not directory.is_dir():
        raise Failure(USAGE, f"the package of {name} is not on this machine: no {directory}")
    return directory
