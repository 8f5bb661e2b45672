"""Where adapters are in the engine: in a slot, in host memory, being loaded, or on disk."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from adapters.errors import AdapterNotFound
from adapters.registry import RegisteredAdapter
from gateway.edge import Anyone, Held, answer, own_or_admin
from gateway.services import Services

router = APIRouter()
MEMORY = ("host_bytes", "host_limit_bytes")


@router.get("/residency", summary="Residency")
async def residency(services: Held, caller: Anyone, account: str | None = None) -> Response:
    """Where each adapter is that the engine has loaded since it started, most recently used last.

    A caller sees the adapters that it published; the operator sees all, or those of `account`, and the engine's memory.
    """
    everyone = caller.is_admin and account is None
    publisher = None if everyone else own_or_admin(caller, account)
    report = (await services.engine.facts())["residency"]
    rows = await services.call(_rows, services, report["adapters"], publisher)
    memory = {name: report[name] for name in MEMORY} if everyone else {}
    return answer({"object": "list", "data": rows, **memory})


def _rows(services: Services, reported: list[dict[str, Any]], publisher: str | None) -> list[dict[str, Any]]:
    names = _names(services)
    found = [(one, _registered(services, f"sha256:{one['digest']}")) for one in reported]
    return [
        one
        | {
            "object": "adapter_residency",
            "digest": f"sha256:{one['digest']}",
            "names": names.get(f"sha256:{one['digest']}", []),
            "publisher": adapter.publisher if adapter else None,
            "composed_of": dict(adapter.composed_of) if adapter else {},
        }
        for one, adapter in found
        if publisher is None or (adapter is not None and adapter.publisher == publisher)
    ]


def _registered(services: Services, digest: str) -> RegisteredAdapter | None:
    """None for one that was staged, asked its canary, and never got a name."""
    try:
        return services.compositions.by_digest(digest)
    except AdapterNotFound:
        return None


def _names(services: Services) -> dict[str, list[str]]:
    """The full names of each adapter, by its digest."""
    names: dict[str, list[str]] = {}
    for registered in services.registry.list():
        for tag, digest in sorted(registered.tags.items()):
            names.setdefault(digest, []).append(f"{registered.namespace}/{registered.adapter}:{tag}")
    return names
