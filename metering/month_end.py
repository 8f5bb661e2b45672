"""The end of a month: every tenant's invoice is finalised, by whoever notices first that the month is over."""

from __future__ import annotations

from typing import Any

from metering.billing_record import ISSUER
from metering.billing_status import BillingStatus
from metering.errors import BillingRefused
from metering.invoice_lifecycle import CLOSING_US, finalise_invoice
from metering.ledger import Ledger, now_us
from metering.period import current_month, parse_period

DONE_ALREADY = (BillingStatus.PERIOD_CLOSED, BillingStatus.NOTHING_TO_INVOICE)


class MonthEnd:
    """Finalises what is due once a month, and once at the start; asking at every turn costs nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen = ""

    def turn(self, at_us: int) -> list[dict[str, Any]]:
        """The invoices that it finalised. After an exception the next turn tries again."""
        month = current_month(at_us - CLOSING_US)
        if month == self._seen:
            return []
        made = finalise_due(self._ledger, at_us=at_us)
        self._seen = month
        return made


def finalise_due(
    ledger: Ledger, period: str | None = None, issuer: str = ISSUER, at_us: int | None = None
) -> list[dict[str, Any]]:
    """Finalise each month that is over and was never invoiced, of every tenant (or only `period`); the new invoices.

    Run twice, or by several at once, it makes each invoice once. A month in which all was free has none, and one whose
    invoice was voided is left to the operator. Refuses `period_not_a_month`, `period_not_over`; raises PeriodInvalid.
    """
    time_us = now_us() if at_us is None else at_us
    if period is not None:
        span = parse_period(period)
        if span.first == span.last:
            raise BillingStatus.PERIOD_NOT_A_MONTH.refuse(period)
        if not span.is_over(time_us - CLOSING_US):
            raise BillingStatus.PERIOD_NOT_OVER.refuse(period)
    running = current_month(time_us - CLOSING_US)
    with ledger.store.read() as connection:
        due = connection.execute(
            "SELECT u.tenant, substr(u.day, 1, 7) FROM usage_totals u WHERE u.day < ? AND NOT EXISTS"
            " (SELECT 1 FROM invoices i WHERE i.tenant = u.tenant AND i.period = substr(u.day, 1, 7))"
            " GROUP BY u.tenant, substr(u.day, 1, 7) HAVING sum(u.amount_nanos) > 0 ORDER BY 2, 1",
            (f"{running}-01",),
        )
    made = []
    for tenant, month in due:
        if period in (None, month):
            try:
                made.append(finalise_invoice(ledger, tenant, month, issuer, at_us=time_us))
            except BillingRefused as refused:
                if refused.status not in DONE_ALREADY:
                    raise
    return made
