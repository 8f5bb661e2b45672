"""Settings of the chain client, read from the environment once and passed in. Keys are not settings: see keys.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """How to reach a node and when to believe it. Times in seconds. ValueError for values that cannot work."""

    rpc_url: str = field(repr=False)  # providers put API keys into it
    confirmations: int = 3  # blocks from the transaction's own, included, until it is final
    poll_seconds: float = 1.0
    request_seconds: float = 10.0  # one HTTP exchange
    outage_seconds: float = 120.0  # keep retrying an unreachable node this long
    backoff_seconds: float = 0.2  # first pause between tries; doubles up to 5 s
    final_seconds: float = 600.0  # wait this long for confirmations
    replace_seconds: float = 90.0  # offer a transaction that is not mined again with a higher fee after this long

    def __post_init__(self) -> None:
        if urlsplit(self.rpc_url).scheme not in ("http", "https") or not urlsplit(self.rpc_url).hostname:
            raise ValueError("rpc_url must be http://... or https://...")
        if type(self.confirmations) is not int or self.confirmations < 1:
            raise ValueError("confirmations must be at least 1")
        for name in ("poll_seconds", "request_seconds", "backoff_seconds", "final_seconds", "replace_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if self.outage_seconds < 0:
            raise ValueError("outage_seconds must not be negative")

    @property
    def node(self) -> str:
        """Host and port of the node: the part of the URL that may be printed."""
        parts = urlsplit(self.rpc_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], rpc_url: str | None = None) -> ChainConfig:
        """From OPENLEDGER_CHAIN_RPC, _CONFIRMATIONS, _POLL_, _OUTAGE_ and _FINAL_SECONDS; `rpc_url` overrides."""
        url = rpc_url or environment.get("OPENLEDGER_CHAIN_RPC", "")
        if not url:
            raise ValueError("no node: name one with --rpc or OPENLEDGER_CHAIN_RPC")
        return cls(
            rpc_url=url,
            confirmations=int(environment.get("OPENLEDGER_CHAIN_CONFIRMATIONS", "3")),
            poll_seconds=float(environment.get("OPENLEDGER_CHAIN_POLL_SECONDS", "1")),
            outage_seconds=float(environment.get("OPENLEDGER_CHAIN_OUTAGE_SECONDS", "120")),
            final_seconds=float(environment.get("OPENLEDGER_CHAIN_FINAL_SECONDS", "600")),
        )
