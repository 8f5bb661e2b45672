"""Clients and the operator at the gateway's counter: disputes, invoices, credit notes, withdrawals, a new log key.

Each is one call of the real code, in a process that may die in the middle of it; whoever asked asks again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

from metering import credit_note, invoice_lifecycle, log_key, month_end
from metering import dispute as disputes
from metering.billing_status import BillingStatus
from metering.config import MeteringConfig
from metering.errors import BillingRefused, LedgerUnavailable
from metering.ledger import Ledger
from metering.postings import Transfer
from tests.metering.simulator.database import Crash, CrashingStore
from tests.metering.simulator.law import require
from tests.metering.simulator.market import TENANTS


class Office:
    """What a run's people do besides asking for tokens. Every method gives back what came of it."""

    def __init__(self, config: MeteringConfig, ledger: Ledger, store: CrashingStore, dice: random.Random) -> None:
        self._config, self._ledger, self._store, self._dice = config, ledger, store, dice

    def dispute(self, settled: Mapping[str, Any]) -> str:
        """A client contests one of its receipts, maybe one of a window that is open, or a second time."""
        if not settled:
            return "nothing"
        name = self._dice.choice(sorted(settled))
        return self._attempt(lambda: disputes.open_dispute(self._ledger, settled[name].tenant, name, "contested")["id"])

    def resolve(self) -> str:
        """The operator decides a dispute, maybe one that was decided."""
        found = disputes.list_disputes(self._ledger)
        if not found:
            return "nothing"
        chosen = self._dice.choice(found)
        part = self._dice.randrange(1, chosen["amount_nanos"] + 1)
        return self._attempt(
            lambda: self._resolve(chosen["id"], *self._dice.choice(((False, None), (True, None), (True, part))))
        )

    def resolve_all(self) -> None:
        """disputes_end: what is open can be decided; a credit note may be too large for what is left of an invoice."""
        for one in disputes.list_disputes(self._ledger, state="open"):
            outcome = self._attempt(
                lambda name=one["id"]: self._resolve(name, self._dice.random() < 0.5, None), faults=False
            )
            require(
                not outcome.startswith("refused") or BillingStatus.CREDIT_EXCEEDS_INVOICE in outcome,
                "disputes_end",
                outcome,
            )

    def invoice(self, month: str) -> str:
        """The operator closes what is over, voids an invoice, finalises its month again, or the running one too early,
        or gives something back; a client looks at one."""
        invoices = invoice_lifecycle.list_invoices(self._ledger)
        if not invoices:
            tenant = self._dice.choice(list(TENANTS))
            return f"early: {self._attempt(lambda: self._finalise(tenant, month))}"
        due = [invoice for invoice in invoices if invoice["status"] == "open"]
        chosen = self._dice.choice(due if due and self._dice.random() < 0.5 else invoices)
        number = chosen["number"]
        act = self._dice.choice(("void", "void", "finalise", "early", "close", "credit", "get"))
        amount = self._dice.randrange(1, chosen["total_nanos"] + 2)
        acts: dict[str, Callable[[], Any]] = {
            "void": lambda: invoice_lifecycle.void_invoice(self._ledger, number, "wrong")["status"],
            "finalise": lambda: self._finalise(chosen["tenant"], chosen["period"]),
            "early": lambda: self._finalise(chosen["tenant"], month),
            "close": self.close,
            "credit": lambda: credit_note.credit_invoice(self._ledger, number, amount, "goodwill")["number"],
            "get": lambda: invoice_lifecycle.get_invoice(self._ledger, number)["status"],
        }
        return f"{act} {number}: {self._attempt(acts[act])}"

    def close(self) -> int:
        """`openledger billing close`: how many invoices it made."""
        return len(month_end.finalise_due(self._ledger))

    def withdraw(self, payees: list[str], identifier: str) -> str:
        """Someone who was paid takes all of it out."""
        name = self._dice.choice(payees)
        amount = self._ledger.account_balance(name, self._ledger.currency).available
        self._ledger.open_account("withdrawn", self._ledger.currency, overdraft=False)
        transfer = Transfer(identifier, name, "withdrawn", self._ledger.currency, amount, "withdrawal")
        return f"{name}: {self._ledger.transfer(transfer)}"

    def rotate_key(self) -> str:
        """The log's key is retired; whoever does it may die before, within and after the ledger's transaction, and
        between the two files that take the new key's place."""
        left = self._dice.choice((0, 1, 9, 9, 9))

        def replace(*paths: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            os.replace(*paths)

        with mock.patch.object(log_key, "os", SimpleNamespace(replace=replace)):
            return self._attempt(lambda: log_key.rotate_key(self._config, self._ledger)["until"])

    def _finalise(self, tenant: str, month: str) -> str:
        return invoice_lifecycle.finalise_invoice(self._ledger, tenant, month)["number"]

    def _resolve(self, name: str, uphold: bool, part: int | None) -> str:
        return disputes.resolve_dispute(self._ledger, name, uphold=uphold, reason="decided", amount_nanos=part)["state"]

    def _attempt(self, act: Callable[[], Any], *, faults: bool = True) -> str:
        if faults and self._dice.random() < 0.25:
            self._store.arm()
        try:
            return str(act())
        except Crash:
            return "crashed"
        except LedgerUnavailable as error:
            return str(error)
        except BillingRefused as refused:
            return f"refused: {refused.status}"
        finally:
            self._store.disarm()
