"""Named outcomes of ledger commands: one per invalid input, documented in the order in which they are tested."""

from __future__ import annotations

from enum import StrEnum

from metering.errors import LedgerRefused


class Status(StrEnum):
    """Outcome of one ledger command. The first that applies, from top to bottom, is the one returned.

    What is wrong with the request itself comes first, then replay, then what the ledger holds: so a replayed request
    is answered `EXISTS` whatever has happened to its accounts since.
    """

    # accepted
    OK = "ok"
    EXISTS = "exists"  # the same id with the same body was applied before; nothing was done again
    # the request alone
    ID_INVALID = "id_invalid"
    AMOUNT_NOT_INTEGER = "amount_not_integer"
    AMOUNT_NOT_POSITIVE = "amount_not_positive"
    AMOUNT_TOO_LARGE = "amount_too_large"
    UNIT_UNKNOWN = "unit_unknown"
    ACCOUNT_NAME_INVALID = "account_name_invalid"
    ACCOUNTS_SAME = "accounts_same"
    EXPIRY_NOT_IN_FUTURE = "expiry_not_in_future"
    # the request against its id
    EXISTS_WITH_OTHER_BODY = "exists_with_other_body"
    # the request against the accounts
    DEBIT_ACCOUNT_UNKNOWN = "debit_account_unknown"
    DEBIT_ACCOUNT_OTHER_UNIT = "debit_account_other_unit"
    CREDIT_ACCOUNT_UNKNOWN = "credit_account_unknown"
    CREDIT_ACCOUNT_OTHER_UNIT = "credit_account_other_unit"
    INSUFFICIENT_CREDIT = "insufficient_credit"
    BALANCE_OVERFLOW = "balance_overflow"
    # the request against a hold
    HOLD_UNKNOWN = "hold_unknown"
    HOLD_ALREADY_POSTED = "hold_already_posted"
    HOLD_ALREADY_VOIDED = "hold_already_voided"
    HOLD_EXPIRED = "hold_expired"
    POST_EXCEEDS_HOLD = "post_exceeds_hold"

    @property
    def accepted(self) -> bool:
        """True when the command stands in the ledger, now or from before."""
        return self in (Status.OK, Status.EXISTS)

    def require(self, detail: str = "") -> None:
        """Raise LedgerRefused unless accepted."""
        if not self.accepted:
            raise LedgerRefused(self, detail)
