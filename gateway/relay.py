"""Relaying answers. A request's work is a task of its own: it goes on to the usage event when the client leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import orjson

from gateway import sse
from gateway.admission import Admitted
from gateway.answers import StoredAnswer
from gateway.closing import Closing
from gateway.errors import EngineUnavailable, GatewayError
from gateway.flights import Ticket
from gateway.meter import Meter
from gateway.services import Services
from gateway.settling import Settling
from gateway.stream_answer import StreamAnswer
from gateway.timing import Timing
from gateway.upstream import EngineLost

ABORT_AGAIN_SECONDS = 0.5
END = None
T = TypeVar("T")


class Relay:
    """The requests that this worker is answering.

    A client that leaves has its request aborted, drained to the engine's last count and billed for what was generated.
    With an Idempotency-Key it has announced to come back: then the answer is completed and kept for it.
    """

    def __init__(self, services: Services, settling: Settling) -> None:
        self._services = services
        self._settling = settling
        self._running: dict[str, asyncio.Task] = {}
        self._leaving: set[asyncio.Task] = set()

    async def whole(
        self, admitted: Admitted, client_gone: Callable[[], Awaitable[None]], timing: Timing | None = None
    ) -> bytes:
        """The complete JSON answer, its event durable."""
        task = self._start(admitted, self._whole(admitted, timing or Timing()))
        leaving = asyncio.ensure_future(client_gone())
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await self._leave(admitted)
            return await asyncio.shield(task)
        finally:
            leaving.cancel()

    async def stream(self, admitted: Admitted, timing: Timing) -> AsyncIterator[bytes]:
        """Starts a stream and returns its bytes once the engine has accepted it. Raises the engine's refusal."""
        channel: asyncio.Queue[bytes | None] = asyncio.Queue()
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._start(admitted, self._stream(admitted, channel, accepted, timing))
        try:
            await asyncio.wait({accepted, task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._left(admitted)
            raise
        if not accepted.done():
            await task  # raises
        return self._read(admitted, channel)

    async def drain(self, seconds: float) -> None:
        """At shutdown: lets answers end for a while, then aborts the rest; all are metered."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)
        for request_id in list(self._running):
            await self._services.engine.abort(request_id)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)
        await self._settling.finish()

    def _start(self, admitted: Admitted, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        request_id = admitted.ticket.request_id
        task = asyncio.create_task(self._guarded(request_id, work))
        self._running[request_id] = task
        task.add_done_callback(lambda _: self._running.pop(request_id, None))
        return task

    async def _guarded(self, request_id: str, work: Coroutine[Any, Any, T]) -> T:
        """The work; when it fails in a way that nobody foresaw, recovery meters the request."""
        try:
            return await work
        except GatewayError:
            raise
        except BaseException:
            await self._services.call(self._services.flights.abandon, request_id)
            raise

    def _left(self, admitted: Admitted) -> None:
        task = asyncio.create_task(self._leave(admitted))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, admitted: Admitted) -> None:
        """The client is gone: stops the engine, again until it has, because an early abort finds nothing to stop."""
        if admitted.ticket.idempotency_key_digest is not None:
            return
        task = self._running.get(admitted.ticket.request_id)
        while task and not task.done():
            await self._services.engine.abort(admitted.ticket.request_id)
            await asyncio.wait({task}, timeout=ABORT_AGAIN_SECONDS)

    async def _whole(self, admitted: Admitted, timing: Timing) -> bytes:
        ticket, meter = admitted.ticket, Meter()
        timing.ask()
        try:
            body = await self._services.engine.generate(
                admitted.generation.kind,
                admitted.engine_body,
                ticket.request_id,
                tokens=admitted.generation.token_scores,
            )
        except (GatewayError, EngineLost) as error:
            raise await self._give_up(admitted, meter, error) from error
        timing.accept()
        meter.add(body.pop("openledger"))
        closing = await self._settling.seal(ticket, meter)
        answer = orjson.dumps(_whole_body(admitted, meter, body, closing))
        await self._keep(admitted, "application/json", answer)
        await self._settling.append(ticket, closing)
        timing.first_byte(timing.accepted)
        return answer

    async def _stream(
        self, admitted: Admitted, channel: asyncio.Queue, accepted: asyncio.Future, timing: Timing
    ) -> None:
        ticket, meter = admitted.ticket, Meter()
        answer, sent = StreamAnswer(admitted, meter), list[bytes]()

        def send(out: bytes) -> None:
            if ticket.idempotency_key_digest is not None:
                sent.append(out)
            channel.put_nowait(out)

        try:
            await self._forward(admitted, answer, accepted, send, timing)
            if answer.refusal:
                raise answer.refusal
            closing = await self._settling.seal(ticket, meter)
            last = answer.last(closing)
            await self._keep(admitted, sse.MEDIA_TYPE, b"".join([*sent, last]))
            await self._settling.append(ticket, closing)
            channel.put_nowait(last)
        except (GatewayError, EngineLost) as error:
            ended = meter.final and not answer.refusal  # then it is the journal that stopped, and recovery's turn
            shown = _as_answer(error, ticket) if ended else await self._give_up(admitted, meter, error)
            if not accepted.done():
                raise shown from error
            channel.put_nowait(sse.write(shown.body()))
        finally:
            channel.put_nowait(END)

    async def _forward(
        self,
        admitted: Admitted,
        answer: StreamAnswer,
        accepted: asyncio.Future,
        send: Callable[[bytes], None],
        timing: Timing,
    ) -> None:
        generation, request_id = admitted.generation, admitted.ticket.request_id
        timing.ask()
        async with self._services.engine.stream(
            generation.kind, admitted.engine_body, request_id, tokens=generation.token_scores
        ) as received:
            timing.accept()
            accepted.set_result(None)
            began = False
            async for events in received:
                arrived = time.perf_counter()
                if out := b"".join(map(answer.take, events)):
                    send(out)
                    if not began:
                        timing.first_byte(arrived)
                        began = True
        if not answer.done:
            raise EngineLost("the stream ended without [DONE]")

    async def _read(self, admitted: Admitted, channel: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        ended = False
        try:
            while not ended:
                waiting = [await channel.get()]
                while not channel.empty():
                    waiting.append(channel.get_nowait())
                ended = waiting[-1] is END
                if out := b"".join(piece for piece in waiting if piece is not END):
                    yield out
        finally:
            if not ended:
                self._left(admitted)

    async def _give_up(self, admitted: Admitted, meter: Meter, error: GatewayError | EngineLost) -> GatewayError:
        """Settles what a failed answer generated; returns the error for the client."""
        try:
            await self._settling.broken(admitted.ticket, meter)
        except GatewayError as worse:
            return worse
        return _as_answer(error, admitted.ticket)

    async def _keep(self, admitted: Admitted, media_type: str, body: bytes) -> None:
        ticket = admitted.ticket
        if ticket.idempotency_key_digest is not None:
            answer = StoredAnswer(ticket.request_id, 200, media_type, body)
            await self._services.call(self._services.answers.store, answer)


def _as_answer(error: GatewayError | EngineLost, ticket: Ticket) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    billed = "tokens it had generated are billed" if ticket.cut_off() is ticket else "nothing is billed, try again"
    return EngineUnavailable(f"The engine stopped while it answered; {billed}.")


def _whole_body(admitted: Admitted, meter: Meter, body: dict[str, Any], closing: Closing) -> dict[str, Any]:
    """The engine's body under our id and the name the client asked for, with the closing."""
    if admitted.generation.token_scores:
        for choice in body["choices"]:
            choice["attribution"] = {"tokens": meter.take_tokens(choice["index"])}
    named = {"id": admitted.ticket.request_id, "model": admitted.ticket.model}
    return {**body, **named, **closing.shown}
