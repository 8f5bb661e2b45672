"""A tenant's volume: the tokens of each kind that choose its tier of a price (docs/formats/price-book.md)."""

from __future__ import annotations

from metering.period import current_month, previous_month
from metering.pricebook import KINDS
from metering.store import Connection


def read_volumes(connection: Connection, tenant: str, at_us: int) -> dict[str, int]:
    """Tokens of each kind that were settled for the tenant in the calendar month (UTC) before the one of `at_us`.

    Over all models, whatever they cost. A month that is over never changes: late events are settled in a later one.
    """
    month = current_month(at_us)
    rows = connection.execute(
        "SELECT kind, CAST(sum(quantity) AS BIGINT) FROM usage_totals WHERE tenant = ? AND day >= ? AND day < ?"
        " GROUP BY kind",
        (tenant, f"{previous_month(month)}-01", f"{month}-01"),
    )
    return {**dict.fromkeys(KINDS, 0), **dict(rows)}
