"""Publishing batches to JetStream: all messages at once, then what the server answers to each.

nats-py's own `publish_async` takes a refusal for silence (2.16: the error is raised in its callback and lost), and its
`publish` costs a task and a timer for every message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import Header

from metering.nats_stream import reason

ANSWER_SECONDS = 10.0


class Message(NamedTuple):
    """`name` is its Nats-Msg-Id."""

    name: str
    payload: bytes


class ServerError(msgspec.Struct):
    description: str = ""


class Answer(msgspec.Struct):
    """A PubAck: the message's sequence number (its first one, when it is a duplicate), or the error instead."""

    seq: int = 0
    duplicate: bool = False
    error: ServerError | None = None


NO_STREAM = Answer(error=ServerError("no stream takes the subject"))
NO_ANSWER = Answer(error=ServerError(f"no answer within {ANSWER_SECONDS:.0f} s"))
DECODER = msgspec.json.Decoder(Answer)


class Publisher:
    """Publishes on one connection. One batch at a time."""

    def __init__(self, client: Client, stream: str, subject: str) -> None:
        self._client = client
        self._stream = stream
        self._subject = subject
        self._inbox = client.new_inbox()
        self._batch = 0
        self._answers: dict[int, Answer] = {}
        self._wanted = 0
        self._complete = asyncio.Event()

    async def open(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*.*", cb=self._hear)

    async def publish(self, messages: Sequence[Message]) -> list[Answer]:
        """What the server says to each message, in their order. Raises nats.errors.Error on a lost connection."""
        self._batch += 1
        self._answers, self._wanted = {}, len(messages)
        self._complete.clear()
        for number, message in enumerate(messages):
            await self._client.publish(
                self._subject,
                message.payload,
                reply=f"{self._inbox}.{self._batch}.{number}",
                headers={Header.MSG_ID: message.name, Header.EXPECTED_STREAM: self._stream},
            )
        with suppress(TimeoutError):
            await asyncio.wait_for(self._complete.wait(), ANSWER_SECONDS)
        return [self._answers.get(number, NO_ANSWER) for number in range(len(messages))]

    async def _hear(self, message: Msg) -> None:
        batch, number = message.subject.rsplit(".", 2)[1:]
        if int(batch) != self._batch:
            return  # too late
        self._answers[int(number)] = _answer(message)
        if len(self._answers) == self._wanted:
            self._complete.set()


def _answer(message: Msg) -> Answer:
    if not message.data:
        return NO_STREAM  # a status without a body: nobody listens
    try:
        return DECODER.decode(message.data)
    except msgspec.MsgspecError as error:
        return Answer(error=ServerError(reason(error)))
