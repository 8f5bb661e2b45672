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
│   └── SchemaUnknown       the database was written by a newer release
├── SettlerRunning          another settler holds this ledger
├── LogError
│   ├── NoteInvalid         a signed note or key that does not parse or verify
│   ├── ProofInvalid        an inclusion or consistency proof that does not verify
│   ├── NotIncluded         the entry is not (yet) covered by a checkpoint
│   └── TileUnknown         no such tile in the published tree
├── ReceiptInvalid          carries the failing `step`
├── StatementInvalid        carries the failing `step`
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


class SchemaUnknown(LedgerError):
    pass


class SettlerRunning(MeteringError):
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


class UsageUnknown(MeteringError):
    pass


class PeriodInvalid(MeteringError):
    pass
