"""Named refusals of invoices, credit notes and disputes: one per wrong step."""

from __future__ import annotations

from enum import StrEnum

from metering.errors import BillingRefused


class BillingStatus(StrEnum):
    """Why a step was refused; nothing was changed."""

    # there is no such thing (for this caller)
    INVOICE_UNKNOWN = "invoice_unknown"
    CREDIT_NOTE_UNKNOWN = "credit_note_unknown"
    DISPUTE_UNKNOWN = "dispute_unknown"
    RECEIPT_OF_OTHER_TENANT = "receipt_of_other_tenant"
    # the request alone
    PERIOD_NOT_A_MONTH = "period_not_a_month"  # only calendar months are finalised
    PROFILE_INVALID = "profile_invalid"
    REASON_MISSING = "reason_missing"
    AMOUNT_INVALID = "amount_invalid"
    # the request against what stands
    PERIOD_NOT_OVER = "period_not_over"
    PERIOD_CLOSED = "period_closed"  # it has its invoice
    INVOICE_IS_DRAFT = "invoice_is_draft"  # only a finalised one is paid, voided, credited
    INVOICE_NOT_DRAFT = "invoice_not_draft"  # only a draft is finalised
    NOTHING_TO_INVOICE = "nothing_to_invoice"
    INVOICE_NOT_OPEN = "invoice_not_open"
    INVOICE_HAS_CREDIT_NOTES = "invoice_has_credit_notes"
    CREDIT_EXCEEDS_INVOICE = "credit_exceeds_invoice"
    DISPUTE_EXISTS = "dispute_exists"
    DISPUTE_RESOLVED = "dispute_resolved"
    DISPUTE_TOO_LATE = "dispute_too_late"  # the issuer's time for disputes is over
    AMOUNT_EXCEEDS_DISPUTE = "amount_exceeds_dispute"
    NOTHING_TO_DISPUTE = "nothing_to_dispute"
    WINDOW_OPEN = "window_open"  # nobody was paid yet: dispute again once the settlement window is closed

    def refuse(self, detail: str) -> BillingRefused:
        """The exception to raise."""
        return BillingRefused(self, detail)
