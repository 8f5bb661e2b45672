"""Server-sent events, as far as an OpenAI stream uses them: the data of each event, from bytes in any pieces."""

from collections.abc import Iterator

DONE = b"[DONE]"


class EventReader:
    """Collects bytes until whole events are there. An event is a block of lines that a blank line ends."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The data of each event that is now complete; other fields and comments are dropped."""
        self._buffer = (self._buffer + received).replace(b"\r\n", b"\n")
        *blocks, self._buffer = self._buffer.split(b"\n\n")
        for block in blocks:
            lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines)
