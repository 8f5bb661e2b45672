"""Asks the worker's loader thread to load and drop adapters: one line of JSON each way, over a Unix socket.

{"load": id, "digest": hex, "path": str}  ->  {"bytes": n}  or  {"code": str, "message": str}
{"drop": id}                              ->  {}
"""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from gateway.engine.errors import BY_CODE, AdapterLoadFailed


class LoaderClient:
    """A connection made at the first load; one request at a time, because the loader is one thread."""

    def __init__(self, socket: Path):
        self._socket = socket
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def load(self, adapter_id: int, digest: str, path: Path) -> int:
        """Loads a package into the worker's host memory; the bytes it takes there. Raises EngineError."""
        return (await self._ask({"load": adapter_id, "digest": digest, "path": str(path)}))["bytes"]

    async def drop(self, adapter_id: int) -> None:
        """Frees an adapter."""
        await self._ask({"drop": adapter_id})

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            try:
                if self._streams is None:
                    self._streams = await asyncio.open_unix_connection(self._socket)
                reader, writer = self._streams
                writer.write(orjson.dumps(question) + b"\n")
                await writer.drain()
                line = await reader.readline()
            except OSError as error:
                self._streams = None
                raise AdapterLoadFailed(f"the engine's worker does not answer: {error}") from error
        if not line:
            self._streams = None
            raise AdapterLoadFailed("the engine's worker is gone")
        reply = orjson.loads(line)
        if "code" in reply:
            raise BY_CODE.get(reply["code"], AdapterLoadFailed)(reply["message"])
        return reply
