"""Laws of invoices, credit notes and disputes: said by the reference from what was used, compared with the tables."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from metering.store import Connection
from tests.metering.simulator.law import require
from tests.metering.simulator.market import TAX_PPM
from tests.metering.simulator.months import Months
from tests.metering.simulator.reference import divide, tax_of, tree_root

Transfers = Mapping[str, tuple[str, str, int]]  # id to debited account, code, amount
STEPS = {("open", "paid"), ("open", "void"), ("open", "upheld"), ("open", "rejected")}


class BillingWatch:
    """Follows the documents of billing from step to step."""

    def __init__(self, months: Months) -> None:
        self._months = months
        self._states: dict[str, str] = {}
        self._documents: dict[str, dict[str, Any]] = {}  # of invoices, by number
        self._invoiced: set[tuple[str, str]] = set()
        self.taxes = 0
        self.credited = 0

    def look(
        self,
        connection: Connection,
        transfers: Transfers,
        balance: Callable[[str], int],
        usage: Mapping[str, Any],
        paid: Mapping[tuple[int, str], dict[tuple[str, str], int]],
    ) -> None:
        """All laws of billing in this snapshot; `paid`: what each window paid, by account and unit."""
        self._moved = lambda name: transfers.get(name, ("", "", 0))[2]
        self._balance, self._usage, self._paid = balance, usage, paid
        self._notes = connection.execute(
            "SELECT number, tenant, invoice, period, request_id, amount_nanos, tax_nanos FROM credit_notes"
            " ORDER BY number"
        )
        self._look_disputes(connection)
        self._look_invoices(connection)
        self._look_notes()

    def _look_disputes(self, connection: Connection) -> None:
        """dispute_is_receipt, frozen_is_disputed."""
        rows = connection.execute("SELECT id, request_id, tenant, amount_nanos, state, credit_note FROM disputes")
        for name, request, tenant, amount, state, note in rows:
            settled = self._usage[request]
            require((tenant, amount) == (settled.tenant, settled.nanos), "dispute_is_receipt", name)
            frozen = self._balance(f"frozen:{name}")
            require(frozen == (amount if state == "open" else 0), "frozen_is_disputed", (name, state, frozen))
            if name not in self._states:
                self._look_freeze(name, settled)
            if self._step(name, state, "open") and state != "open":
                self._look_release(name, amount, state, note)

    def _look_freeze(self, name: str, settled: Any) -> None:
        """frozen_from_payees: in proportion to what the window paid them; what one lacks, the issuer advances."""
        paid = self._paid[settled.window, settled.terms]
        parts = {account: Fraction(amount) for (account, unit), amount in paid.items() if unit == "USD"}
        for account, share in divide(settled.nanos, parts).items():
            moved = self._moved(f"{name}/freeze/{account}")
            gave = moved == share or (moved < share and not self._balance(account))
            require(gave, "frozen_from_payees", (name, account, moved, share))
            settled = settled._replace(nanos=settled.nanos - moved)
        advanced = self._moved(f"{name}/freeze/corrections")
        require(advanced == settled.nanos, "frozen_from_payees", (name, "corrections", advanced, settled.nanos))

    def _look_release(self, name: str, amount: int, state: str, note: str | None) -> None:
        """released_in_proportion: what was not upheld goes back where it came from; credited_once."""
        upheld = [row for row in self._notes if row[0] == note]
        require(len(upheld) == (state == "upheld"), "credited_once", (name, state, note))
        rest = amount - sum(row[5] for row in upheld)
        settled = self._usage[f"req_{name.removeprefix('dsp_')}"]
        payees = {account for account, unit in self._paid[settled.window, settled.terms] if unit == "USD"}
        parts = {account: Fraction(self._moved(f"{name}/freeze/{account}")) for account in (*payees, "corrections")}
        for account, share in divide(rest, {key: part for key, part in parts.items() if part}).items():
            back = self._moved(f"{name}/release/{account}")
            require(back == share, "released_in_proportion", (name, account, back, share))

    def _look_invoices(self, connection: Connection) -> None:
        """one_invoice_a_month, closed_months_stay, adjusted_once, tax_is_moved, paid_is_paid, numbers_without_gaps."""
        rows = connection.execute(
            "SELECT number, tenant, period, state, digest, tax_nanos, tax_owed_nanos FROM invoices ORDER BY number"
        )
        _gapless("INV", [row[0] for row in rows])
        valid = Counter((row[1], row[2]) for row in rows if row[3] != "void")
        require(not valid or max(valid.values()) == 1, "one_invoice_a_month", valid)
        self._invoiced = {(row[1], row[2]) for row in rows}
        self.taxes = 0
        for number, tenant, period, state, digest, tax, tax_owed in rows:
            if number not in self._documents:
                self._documents[number] = self._read(connection, number, digest)
            self._step(number, state, "open")
            document, used = self._documents[number], self._months.subtotal(tenant, period)
            require(
                document["subtotal_nanos"] == used, "closed_months_stay", (number, document["subtotal_nanos"], used)
            )
            if state != "void":
                self.taxes += tax
                adjusted = sum(row[5] for row in self._notes if row[1:4] == (tenant, None, period))
                said = sum(one["amount_nanos"] for one in document["adjustments"])
                require(said == adjusted, "adjusted_once", (number, said, adjusted))
            moved = [self._moved(f"invoice/{number}/{part}") for part in ("tax", "tax-owed", "void")]
            expected = (tax, tax_owed, tax if state == "void" else 0)
            require((moved[0] + moved[1], moved[1], moved[2]) == expected, "tax_is_moved", (number, moved, expected))
        for number, tenant, period, state, _, _, tax_owed in rows:
            if state == "paid" and tax_owed + self._months.owed[tenant, period]:
                self._look_paid(number, tenant, period, rows)

    def _read(self, connection: Connection, number: str, digest: str) -> dict[str, Any]:
        """invoiced_when_over; invoice_is_usage: a new one says what the reference counted, by line, and adds up."""
        body = bytes(connection.execute("SELECT body FROM documents WHERE digest = ?", (digest,))[0][0])
        require(digest == "sha256:" + hashlib.sha256(body).hexdigest(), "invoice_is_usage", digest)
        document = json.loads(body)
        require(document["issued"] >= document["to"], "invoiced_when_over", (number, document["issued"]))
        key = (document["tenant"], document["period"])
        lines = {
            (one["model"], one["adapter"], one["kind"], one["unit_nanos"]): one["quantity"] for one in document["lines"]
        }
        require(lines == dict(self._months.lines[key]), "invoice_is_usage", (number, lines, self._months.lines[key]))
        net = self._months.subtotal(*key) - sum(one["amount_nanos"] for one in document["adjustments"])
        said = (document["net_nanos"], document["tax"]["amount_nanos"], document["total_nanos"])
        tax = tax_of(net, TAX_PPM)
        require(said == (net, tax, net + tax), "invoice_is_usage", (number, said, net, tax))
        receipts = self._months.receipts[key]
        root = tree_root([f'{{"digest":"{name}","type":"usage"}}'.encode() for name in receipts])
        said = (document["receipts"]["count"], document["receipts"]["root"])
        require(said == (len(receipts), base64.b64encode(root).decode()), "invoice_is_usage", (number, said))
        return document

    def _look_paid(self, number: str, tenant: str, period: str, rows: list[tuple]) -> None:
        """paid_is_paid: where a month owed anything, what was repaid covers all until then, voided taxes first."""
        taxes = [(row[2], row[3], row[6]) for row in rows if row[1] == tenant]
        owed = {month: amount for (name, month), amount in self._months.owed.items() if name == tenant}
        repaid = sum(owed.values()) + sum(tax for *_, tax in taxes) + self._balance(f"receivable:{tenant}")
        voided = sum(tax for _, state, tax in taxes if state == "void")
        until = sum(amount for month, amount in owed.items() if month <= period)
        until += sum(tax for month, state, tax in taxes if state != "void" and month <= period)
        require(until <= repaid - voided, "paid_is_paid", (number, until, repaid, voided))

    def _look_notes(self) -> None:
        """credited_once, credited_is_moved, credit_tax_adds_up."""
        _gapless("CN", [row[0] for row in self._notes])
        requests = [row[4] for row in self._notes if row[4]]
        require(len(requests) == len(set(requests)), "credited_once", requests)
        before: Counter[str] = Counter()
        self.credited = 0
        for number, _, invoice, _, _, amount, tax in self._notes:
            moved = [self._moved(f"credit-note/{number}/{part}") for part in ("amount", "tax")]
            require(moved == [amount, tax], "credited_is_moved", (number, moved, amount, tax))
            whole, before[invoice] = before[invoice], before[invoice] + amount
            part = tax_of(whole + amount, TAX_PPM) - tax_of(whole, TAX_PPM) if invoice else 0
            require(tax == part, "credit_tax_adds_up", (number, tax, part))
            self.credited += amount + tax
        for number, amount in before.items():
            if number:
                require(amount <= self._documents[number]["net_nanos"], "credit_within_invoice", (number, amount))

    def look_at_end(self, running: str) -> None:
        """months_are_invoiced: each month before the running one in which a tenant paid for something."""
        due = {key for key in self._months.lines if key[1] < running and self._months.subtotal(*key)}
        require(due <= self._invoiced, "months_are_invoiced", due - self._invoiced)

    def _step(self, name: str, state: str, first: str) -> bool:
        """final_stays: states only go forward; whether this one is new."""
        before = self._states.setdefault(name, first)
        self._states[name] = state
        require(state == before or (before, state) in STEPS, "final_stays", (name, before, state))
        return state != before


def _gapless(series: str, numbers: list[str]) -> None:
    expected = [f"{series}-{n:06d}" for n in range(1, len(numbers) + 1)]
    require(numbers == expected, "numbers_without_gaps", numbers)
