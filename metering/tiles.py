"""C2SP tlog-tiles: the log as static files, for anyone's monitor."""

from __future__ import annotations

from metering.ledger import Ledger


def tile(ledger: Ledger, path: str) -> tuple[bytes, str]:
    """Body and content type of `checkpoint`, `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`; TileUnknown otherwise."""
    raise NotImplementedError
