"""What `openledger serve` asks of the ledger's server and the event bus before it starts anything."""

import asyncio
import os

from gateway.config import Settings
from gateway.errors import ConfigurationError
from metering.config import MeteringConfig
from metering.errors import EventsError, LedgerError
from metering.ledger import Ledger
from metering.store import refuse_other_ledger


def refuse_missing_servers(settings: Settings) -> None:
    """Raises ConfigurationError for settings of the meter that cannot work together, and servers out of reach."""
    try:
        config = MeteringConfig.from_environment(settings.data, {**os.environ, **settings.environment()})
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if settings.settlers > 1 and not config.many_settlers:
        raise ConfigurationError(
            f"{settings.settlers} settlers need --events nats://... and --ledger postgresql://...:"
            " a journal is read, and an embedded ledger written, by one"
        )
    try:
        refuse_other_ledger(config)
        if config.ledger_url:
            Ledger.open(config).close()
        if config.events_url:
            from metering.nats_stream import probe  # the client is loaded only by those who use it

            asyncio.run(probe(config))
    except (LedgerError, EventsError) as error:
        raise ConfigurationError(f"{type(error).__name__}: {error}") from None
