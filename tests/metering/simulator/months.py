"""What each tenant used in each month, by the reference: the volumes that choose tiers, and what invoices must say."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.metering.simulator.reference import lines_of, month_before

Line = tuple[str, int, int]  # kind, quantity, unit nanos


class Months:
    """Months are those of settlement, `YYYY-MM`."""

    def __init__(self) -> None:
        self._volumes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.lines: defaultdict[tuple[str, str], Counter[tuple]] = defaultdict(Counter)
        self.receipts: defaultdict[tuple[str, str], list[str]] = defaultdict(list)  # digests in log order
        self.owed: Counter[tuple[str, str]] = Counter()  # what wallets lacked

    def rate(self, event: dict, settled: str, book: dict) -> list[Line]:
        """The lines of an event that was settled at that time: its tiers are of the volume of the month before its own,
        or before that of settlement when its clock was ahead."""
        month = min(event["time"], settled)[:7]
        return lines_of(event, book, self._volumes[event["data"]["tenant"], month_before(month)])

    def add(self, event: dict, settled: str, lines: list[Line], digest: str, owed: int) -> None:
        """Count it where it was settled."""
        data = event["data"]
        key = (data["tenant"], settled[:7])
        for kind, quantity, unit in lines:
            self._volumes[key][kind] += quantity
            if quantity:
                self.lines[key][data["model"], data["adapter"], kind, unit] += quantity
        self.receipts[key].append(digest)
        self.owed[key] += owed

    def subtotal(self, tenant: str, month: str) -> int:
        """Nanos of all that was settled for the tenant in the month."""
        return sum(quantity * unit for (_, _, _, unit), quantity in self.lines[tenant, month].items())
