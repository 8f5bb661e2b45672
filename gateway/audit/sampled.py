"""The gateway's side of audits: which requests are put aside for the audit process, once they are answered."""

from pathlib import Path

from gateway.audit.sampling import Sampler, load_or_create_key
from gateway.audit.store import AuditStore, Sample
from gateway.flights import Ticket
from gateway.meter import Meter


class Audits:
    """Samples of one data directory. `store` is shared with the audit process."""

    def __init__(self, data: Path, share_ppm: int) -> None:
        self.store = AuditStore(data / "gateway")
        self._sampler = Sampler(load_or_create_key(data / "audit.key"), share_ppm)

    def takes(self, ticket: Ticket) -> bool:
        """Whether this request is one of the share: 11 us on a busy core, no store is asked."""
        return ticket.head is not None and ticket.purpose == "serve" and self._sampler.takes(ticket.request_id)

    def offer(self, ticket: Ticket, meter: Meter) -> bool:
        """Queues a request that was taken, unless its account opted out or its tokens are not known any more."""
        choices = meter.choices_token_ids()
        if ticket.adapter is None or not meter.prompts or not any(choices):
            return False
        scores = meter.scores_by_contributor()
        sample = Sample(ticket.request_id, ticket.adapter, ticket.base, meter.prompts, choices, scores)
        return self.store.offer(sample, ticket.account)

    def close(self) -> None:
        self.store.close()
