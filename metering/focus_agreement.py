"""Whether an Invoice Detail and a Cost and Usage export agree: linters of FOCUS look at one data set, this at both."""

from __future__ import annotations

import csv
import io
import re
from decimal import Context, Decimal

from metering.errors import ExportInvalid

GROUP = ("InvoiceId", "BillingPeriodStart", "BillingPeriodEnd", "BillingCurrency", "ChargeCategory")
DETAIL = ("InvoiceDetailId", *GROUP)
EXACT = Context(prec=60)  # no sum of ours is rounded
COST = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,18})?\Z")


def disagreements(detail: bytes, usage: bytes) -> list[str]:
    """What the exports (CSV) say differently; empty when they agree.

    For every invoice, billing period, currency and charge category, and for every row of Invoice Detail, both must
    have the same sum of BilledCost, exactly; what one names the other must name. Raises ExportInvalid.
    """
    found = []
    for columns in (GROUP, DETAIL):
        ours, theirs = _sums("Invoice Detail", detail, columns), _sums("Cost and Usage", usage, columns)
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in ours or key not in theirs:
                found.append(f"{' '.join(key)}: only in {'Invoice Detail' if key in ours else 'Cost and Usage'}")
            elif ours[key] != theirs[key]:
                found.append(f"{' '.join(key)}: Invoice Detail has {ours[key]}, Cost and Usage {theirs[key]}")
    return found


def _sums(name: str, data: bytes, columns: tuple[str, ...]) -> dict[tuple[str, ...], Decimal]:
    try:
        rows = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
        missing = [column for column in (*columns, "BilledCost") if column not in (rows.fieldnames or ())]
        if missing:
            raise ExportInvalid(f"{name}: no column {', '.join(missing)}")
        sums: dict[tuple[str, ...], Decimal] = {}
        for number, row in enumerate(rows, 2):
            if not COST.match(row["BilledCost"] or ""):
                raise ExportInvalid(f"{name}, line {number}: BilledCost {row['BilledCost']!r} is not an exact decimal")
            key = tuple(row[column] or "" for column in columns)
            sums[key] = EXACT.add(sums.get(key, Decimal(0)), Decimal(row["BilledCost"]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExportInvalid(f"{name}: {error}") from error
    return sums
