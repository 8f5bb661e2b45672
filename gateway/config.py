"""The gateway's settings: one frozen dataclass, read from the environment once, checked at construction, passed in."""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gateway.errors import ConfigurationError


@dataclass(frozen=True)
class Settings:
    """Every field is read from OPENLEDGER_<NAME>; `from_environment` also honours the short DATA, HOST and PORT."""

    data: Path = Path("data")
    base: str = ""  # directory of the base model; data/base when empty
    base_name: str = ""  # name it is served under; what base.json says when empty
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    ledger: str = ""  # postgresql://...; the embedded file under `data` when empty
    events: str = ""  # nats://...; the settler tails the journal when empty
    settlers: int = 1  # on this machine; several need both of the above
    public_url: str = ""  # what receipts and snippets show; http://host:port when empty
    default_max_tokens: int = 512  # when a chat request names no limit; the hold must be finite
    max_body_bytes: int = 4 << 20
    max_upload_bytes: int = 1 << 30
    max_lora_rank: int = 16  # of the engine and of what is registered
    max_choices: int = 16  # n times the number of prompts
    compositions_bytes: int = 4 << 30  # of files that requests with several adapters made; the least recently used go
    composition_wait_seconds: float = 30.0  # how long the first such request waits for them; then 503 and retry-after
    requests_per_minute: int = 6_000  # per API key
    tokens_per_minute: int = 4_000_000  # per API key, prompt and completion together
    engine_connect_seconds: float = 5.0
    engine_silence_seconds: float = 300.0  # longest wait between two bytes of one answer
    recovery_period_seconds: float = 15.0
    recovery_grace_seconds: float = 120.0  # a hold that nobody can account for is voided after this
    answer_kept_seconds: int = 86_400  # how long an Idempotency-Key replays its answer
    audit_share_ppm: int = 10_000  # of scored requests that are scored again by the audit process; 0: none
    audit_traces: str = ""  # directory of training traces (*.work); data/trained when empty

    def __post_init__(self) -> None:
        numbers = [f.name for f in fields(self) if f.type in (int, float) and f.name != "audit_share_ppm"]
        positive = [name for name in numbers if getattr(self, name) <= 0]
        if positive:
            raise ConfigurationError(f"settings must be greater than zero: {', '.join(positive)}")
        if not 0 <= self.audit_share_ppm <= 1_000_000:
            raise ConfigurationError(f"audit_share_ppm {self.audit_share_ppm} is not in 0..1000000")
        if not 0 < self.port < 65536:
            raise ConfigurationError(f"port {self.port} is not in 1..65535")

    @classmethod
    def from_environment(cls, **overrides) -> "Settings":
        """Settings of this process; keyword arguments win over the environment. Raises ConfigurationError by name."""
        values: dict = {}
        for field in fields(cls):
            name = field.name.upper()
            short = os.environ.get(name) if field.name in ("data", "host", "port") else None
            raw = os.environ.get(f"OPENLEDGER_{name}", short)
            if raw is not None and field.name not in overrides:
                values[field.name] = _parse(f"OPENLEDGER_{name}", raw, field.type)
        settings = cls(**values, **overrides)
        return replace(settings, data=settings.data.resolve())

    def environment(self) -> dict[str, str]:
        """The variables from which a child process reads the same settings back."""
        return {f"OPENLEDGER_{f.name.upper()}": str(getattr(self, f.name)) for f in fields(self)}

    @property
    def local_host(self) -> str:
        """The address under which this machine reaches the gateway."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host

    @property
    def base_url(self) -> str:
        """The OpenAI base URL."""
        return self.public_url or f"http://{self.local_host}:{self.port}/v1"

    @property
    def base_directory(self) -> Path:
        return Path(self.base) if self.base else self.data / "base"

    @property
    def engine_socket(self) -> Path:
        return self.data / "engine" / "engine.sock"

    @property
    def tally_directory(self) -> Path:
        return self.data / "engine" / "tally"

    @property
    def audit_works(self) -> Path:
        return Path(self.audit_traces) if self.audit_traces else self.data / "trained"

    @property
    def operator_key_file(self) -> Path:
        return self.data / "operator.key"


def _parse(name: str, raw: str, kind: object) -> object:
    assert isinstance(kind, type)
    try:
        return kind(raw)
    except ValueError:
        raise ConfigurationError(f"{name}={raw!r} is not a {kind.__name__}") from None
