"""Everything that metering raises.

MeteringError
├── CanonicalError          bytes or value outside our canonical JSON
├── DocumentInvalid         a well-formed document that breaks its format page
│   ├── EventInvalid        docs/formats/usage-event.md
│   ├── TermsInvalid        docs/formats/terms.md
│   └── PriceBookInvalid    docs/formats/price-book.md
├── RatingError             an event that cannot be priced
├── JournalError
│   ├── JournalUnavailable  nothing was acknowledged; stop admission, retry later (HTTP 503)
│   ├── RecordTooLarge      the record can never fit a segment
│   └── JournalCorrupt      acknowledged records are damaged
├── LedgerError
│   ├── LedgerRefused       carries the named `Status` (see metering.status)
│   │   └── BillingRefused   carries the named `BillingStatus` (see metering.billing_status)
│   ├── LedgerUnavailable   the database cannot be reached, is full or busy; nothing was changed (HTTP 503)
│   ├── LedgerElsewhere     the data directory's ledger is of the other kind (embedded, on a server)
│   └── SchemaUnknown       the database was written by a newer release
├── SettlerRunning          another settler holds this ledger
├── ForwarderRunning        another forwarder publishes this journal
├── EventsError
│   ├── EventsUnavailable   the bus cannot be reached or refuses; nothing is lost, the journal has it
│   └── EventsMisconfigured the bus has a stream of that name that could lose events
├── LogError
│   ├── NoteInvalid         a signed note or key that does not parse or verify
│   ├── ProofInvalid        an inclusion or consistency proof that does not verify
│   ├── NotIncluded         the entry is not (yet) covered by a checkpoint
│   ├── TileUnknown         no such tile in the published tree
│   ├── LogKeyRetired       the signer was rotated out; read the log's key again
│   ├── LogInvalid          a copy of the log that does not verify; carries the failing `step`
│   ├── PolicyInvalid       a witness policy that does not parse
│   └── WitnessRefused      carries the HTTP `status` of C2SP tlog-witness
├── ReceiptInvalid          carries the failing `step`
├── StatementInvalid        carries the failing `step`
├── ExportInvalid           not a FOCUS export of ours: a column is missing, a cost is not an exact decimal
├── UsageUnknown            no settled usage event of that id (not settled yet, or never metered)
└── PeriodInvalid           a period that is not `YYYY-MM` or `YYYY-MM-DD`
"""

from __future__ import annotations


class MeteringError(Exception):
    """Root of the tree."""


class CanonicalError(MeteringError):
    pass


class DocumentInvalid(MeteringError):
    pass


class EventInvalid(DocumentInvalid):
    pass


class TermsInvalid(DocumentInvalid):
    pass


class PriceBookInvalid(DocumentInvalid):
    pass


class RatingError(MeteringError):
    pass


class JournalError(MeteringError):
    pass


class JournalUnavailable(JournalError):
    pass


class RecordTooLarge(JournalError):
    pass


class JournalCorrupt(JournalError):
    pass


class LedgerError(MeteringError):
    pass


class LedgerRefused(LedgerError):
    """A refused ledger command; `status` is the named reason."""

    def __init__(self, status: str, detail: str = "") -> None:
        super().__init__(f"{status}: {detail}" if detail else str(status))
        self.status = status


class BillingRefused(LedgerRefused):
    """A refused step of an invoice, credit note or dispute."""


class LedgerUnavailable(LedgerError):
    pass


class LedgerElsewhere(LedgerError):
    pass


class SchemaUnknown(LedgerError):
    pass


class SettlerRunning(MeteringError):
    pass


class ForwarderRunning(MeteringError):
    pass


class EventsError(MeteringError):
    pass


class EventsUnavailable(EventsError):
    pass


class EventsMisconfigured(EventsError):
    pass


class LogError(MeteringError):
    pass


class NoteInvalid(LogError):
    pass


class ProofInvalid(LogError):
    pass


class NotIncluded(LogError):
    pass


class TileUnknown(LogError):
    pass


class LogKeyRetired(LogError):
    pass


class LogInvalid(LogError):
    """A copy of the log that does not verify; `step` names the check that failed (docs/formats/checkpoint.md)."""

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.detail = detail


class PolicyInvalid(LogError):
    pass


class WitnessRefused(LogError):
    """A checkpoint that a witness does not cosign; `body` goes into the answer."""

    def __init__(self, status: int, detail: str, body: str = "") -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.body = body or detail + "\n"


class ReceiptInvalid(MeteringError):
    """A receipt that does not verify; `step` names the check that failed (docs/formats/receipt.md)."""

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.detail = detail


class StatementInvalid(MeteringError):
    """A statement whose proof does not verify; `step` names the check that failed (docs/formats/statement.md)."""

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.detail = detail


class ExportInvalid(MeteringError):
    pass


class UsageUnknown(MeteringError):
    pass


class PeriodInvalid(MeteringError):
    pass
