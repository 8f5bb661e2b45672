"""Which requests are audited: a share of all, chosen by a secret, so that nobody can serve just those honestly."""

import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PPM = 1_000_000
KEY_BYTES = 32


@dataclass(frozen=True)
class Sampler:
    """Takes a request when HMAC-SHA256(key, request id), as a number below 1, is below `share_ppm` / 10^6.

    The choice follows from the id alone: asked again it is the same, and it cannot be known without the key.
    """

    key: bytes
    share_ppm: int

    def takes(self, request_id: str) -> bool:
        drawn = int.from_bytes(hmac.digest(self.key, request_id.encode(), "sha256")[:8], "big")
        return drawn * PPM < self.share_ppm << 64


def load_or_create_key(path: Path) -> bytes:
    """The key of this data directory, made once with mode 600; workers that start together get the same one."""
    with suppress(FileNotFoundError):
        return bytes.fromhex(path.read_text().strip())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
    return bytes.fromhex(path.read_text().strip())
