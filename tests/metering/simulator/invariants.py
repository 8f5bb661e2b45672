"""What must hold after every step, whatever failed: read from the ledger, compared with the promises and the reference.

Each law has a name; the table in docs/RELIABILITY.md says which planted bug breaks which.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from typing import NamedTuple

from metering.config import MeteringConfig
from metering.journal_reader import JournalReader
from metering.store import Connection
from tests.metering.simulator.billing_laws import BillingWatch
from tests.metering.simulator.bus import SimulatedForwarder
from tests.metering.simulator.gateway import Promises
from tests.metering.simulator.keys import KeyWatch
from tests.metering.simulator.law import require
from tests.metering.simulator.market import BOOKS, DOCUMENTS, TENANTS
from tests.metering.simulator.months import Months
from tests.metering.simulator.reference import window_payouts

BOOK_JSON = {name: json.loads(body) for name, body in BOOKS.items()}
TERMS_JSON = {name: json.loads(body) for name, body in DOCUMENTS.items()}


class Settled(NamedTuple):
    """A usage row, as it was when it was first seen."""

    nanos: int
    tenant: str
    terms: str
    window: int


class Watch:
    """Follows one ledger from step to step, remembering what may never change."""

    def __init__(self, config: MeteringConfig, promises: Promises, forwarder: SimulatedForwarder | None) -> None:
        self._config = config
        self._promises = promises
        self._forwarder = forwarder
        self.keys = KeyWatch(config)
        self.months = Months()
        self.billing = BillingWatch(self.months)
        self._balances: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._transfers: dict[str, tuple[str, str, int]] = {}
        self._last_transfer = 0
        self._last_us = 0
        self._leaves: list[tuple[str, str]] = []
        self._usage: dict[str, Settled] = {}
        self._paid: dict[tuple[int, str], dict[tuple[str, str], int]] = {}
        self._windows: defaultdict[tuple[int, str], list] = defaultdict(lambda: [0, 0, Counter()])
        self._closed: set[int] = set()
        self._cursors: dict[str, int] = {}

    @property
    def settled(self) -> dict[str, Settled]:
        return self._usage

    @property
    def closed(self) -> set[int]:
        """Windows that were paid."""
        return self._closed

    def look(self, connection: Connection) -> None:
        """Raise Broken when any law does not hold in this snapshot."""
        self._accounts = {row[0]: row[1:] for row in connection.execute(
            "SELECT id, name, unit, credits, debits, held, overdraft FROM accounts")}  # fmt: skip
        payouts = self._look_transfers(connection)
        self._look_balances(connection)
        self._look_usage(connection)
        self._look_log(connection)
        self._look_windows(connection, payouts)
        self._look_quarantine(connection)
        self.billing.look(connection, self._transfers, self._balance, self._usage, self._paid)

    def _look_transfers(self, connection: Connection) -> list[tuple]:
        """time_forward, topped_up_once; the new payouts."""
        payouts = []
        rows = connection.execute(
            "SELECT seq, id, debit, credit, amount, code, time_us, window_id, terms FROM transfers WHERE seq > ?"
            " ORDER BY seq", (self._last_transfer,),
        )  # fmt: skip
        for seq, name, debit, credit, amount, code, time_us, window, terms in rows:
            self._last_transfer = seq
            self._balances[debit][1] += amount
            self._balances[credit][0] += amount
            self._transfers[name] = (self._accounts[debit][0], code, amount)
            if code in ("usage", "owed", "generated") or window is not None:
                require(time_us >= self._last_us, "time_forward", f"{name} at {time_us} after {self._last_us}")
                self._last_us = time_us
            if window is not None:
                payouts.append((window, terms, *self._accounts[credit][:2], amount))
        count = connection.execute("SELECT count(*) FROM transfers")[0][0]
        require(count == len(self._transfers), "transfers_stay", f"{count} rows, {len(self._transfers)} seen")
        return payouts

    def _look_balances(self, connection: Connection) -> None:
        """balances_are_transfers, never_overdrawn, held_are_holds, money_conserved."""
        pending = dict(
            connection.execute("SELECT account, sum(amount) FROM holds WHERE state = 'pending' GROUP BY account")
        )
        sums: Counter[str] = Counter()
        for number, (name, unit, credits, debits, held, overdraft) in self._accounts.items():
            require([credits, debits] == self._balances[number], "balances_are_transfers", (name, unit))
            require(bool(overdraft) or credits - debits - held >= 0, "never_overdrawn", name)
            require(held == pending.get(number, 0), "held_are_holds", (name, held, pending.get(number, 0)))
            sums[unit] += credits - debits
        require(not any(sums.values()), "money_conserved", dict(sums))

    def _look_usage(self, connection: Connection) -> None:
        """exactly_once, rated_right, debited_is_rated, tokens_issued."""
        seen = len(self._usage)
        rows = connection.execute(
            "SELECT id, event_digest, window_id, leaf_index, completion_tokens, amount_nanos, body FROM usage"
            " ORDER BY leaf_index LIMIT -1 OFFSET ?", (seen,),
        )  # fmt: skip
        for name, event_digest, window, leaf, tokens, nanos, body in rows:
            record = self._promises.records.get(name, b"")
            require(name not in self._usage, "exactly_once", name)
            require(event_digest == "sha256:" + hashlib.sha256(record).hexdigest(), "event_as_sealed", name)
            event = json.loads(record)
            receipt = json.loads(body)
            require(receipt["event"] == event, "receipt_of_event", name)
            lines = self.months.rate(event, receipt["settlement"]["time"], BOOK_JSON[event["data"]["price_book"]])
            rated = sum(quantity * unit for _, quantity, unit in lines)
            require(nanos == rated, "rated_right", (name, nanos, lines))
            moved = [self._transfers.get(f"{name}/{code}", ("", "", 0)) for code in ("usage", "owed", "tokens")]
            require(moved[0][2] + moved[1][2] == nanos, "debited_is_rated", (name, nanos, moved))
            require(moved[2][2] == tokens * 10**6, "tokens_issued", (name, tokens, moved))
            tenant, terms = event["data"]["tenant"], event["data"]["terms"]
            self._usage[name] = Settled(nanos, tenant, terms, window)
            require(window not in self._closed, "closed_windows_stay", (name, window))
            gathered = self._windows[window, terms]
            gathered[0] += nanos
            if event["data"]["purpose"] == "serve" and TERMS_JSON[terms]["declared"]:
                gathered[1] += tokens * 10**6
                gathered[2].update(event["data"]["scores"])
            digest = "sha256:" + hashlib.sha256(bytes(body)).hexdigest()
            self.months.add(event, receipt["settlement"]["time"], lines, digest, moved[1][2])
            found = connection.execute("SELECT kind, digest FROM log_leaves WHERE leaf_index = ?", (leaf,))
            require(found == [("usage", digest)], "leaf_is_receipt", (name, leaf))
        total = connection.execute("SELECT count(*), coalesce(sum(amount_nanos), 0) FROM usage")[0]
        expected = (len(self._usage), sum(settled.nanos for settled in self._usage.values()))
        require(total == expected, "usage_stays", (total, expected))
        codes = Counter()
        for _, code, amount in self._transfers.values():
            codes[code] += amount
        require(codes["usage"] + codes["owed"] == total[1], "debited_is_rated", (codes, total))

    def _look_log(self, connection: Connection) -> None:
        """log_appends_only, one_leaf_each, and those of the keys."""
        leaves = connection.execute("SELECT kind, digest FROM log_leaves ORDER BY leaf_index")
        require(leaves[: len(self._leaves)] == self._leaves, "log_appends_only", len(leaves))
        self.keys.look(connection, leaves)
        self._leaves = leaves
        usage = sum(kind == "usage" for kind, _ in leaves)
        require(usage == len(self._usage), "one_leaf_each", (usage, len(self._usage)))

    def _look_windows(self, connection: Connection, payouts: list[tuple]) -> None:
        """one_window_open, paid_once, paid_by_reference, clearing_is_open_window."""
        rows = connection.execute("SELECT id, closed_us FROM windows")
        open_now = {number for number, closed in rows if closed is None}
        require(len(open_now) <= 1, "one_window_open", open_now)
        paid: defaultdict[tuple[int, str], dict] = defaultdict(dict)
        for window, terms, account, unit, amount in payouts:
            require(window not in self._closed, "paid_once", (window, account))
            paid[window, terms][account, unit] = amount
        closing = {number for number, closed in rows if closed is not None} - self._closed
        for key, (nanos, microtokens, net) in self._windows.items():
            if key[0] in closing:
                expected = window_payouts(TERMS_JSON[key[1]], nanos, microtokens, net)
                require(paid.pop(key, {}) == expected, "paid_by_reference", (key, expected))
                self._paid[key] = expected
        require(not paid, "paid_by_reference", dict(paid))
        self._closed |= closing
        gathered: Counter[tuple[str, str]] = Counter()
        for (window, terms), (nanos, microtokens, _) in self._windows.items():
            if window in open_now:
                gathered[f"clearing:{terms}", "USD"] += nanos
                gathered[f"clearing:{terms}", "microtoken"] += microtokens
        for name, unit, credits, debits, _, _ in self._accounts.values():
            if name.startswith("clearing:"):
                require(credits - debits == gathered[name, unit], "clearing_is_open_window", (name, unit))

    def _look_quarantine(self, connection: Connection) -> None:
        """only_known_faults: nothing goes there but second bodies and events whose prices are not there yet."""
        for name, reason in connection.execute("SELECT event_id, reason FROM quarantine"):
            known = "price_book_unknown" in reason or (
                "event_conflict" in reason and name in self._promises.conflicting
            )
            require(known, "only_known_faults", (name, reason))

    def look_journal(self, connection: Connection) -> None:
        """cursors_forward, and acknowledged_is_kept: in the ledger, in quarantine, or still to be read."""
        missing = self._promises.acknowledged - self._usage.keys()
        cursors = dict(connection.execute("SELECT segment, next_offset FROM journal_cursors"))
        for segment, offset in cursors.items():
            require(offset >= self._cursors.get(segment, 0), "cursors_forward", (segment, offset))
        self._cursors = cursors
        if self._forwarder:  # whatever the bus has, the journal keeps until it is settled
            cursors = self._forwarder.state.settled_cursors
        if missing:
            waiting = {record.payload for record in JournalReader(self._config.journal_dir).read(cursors, 10**6)}
            aside = {bytes(row[0]) for row in connection.execute("SELECT record FROM quarantine")}
            lost = [name for name in missing if self._promises.records[name] not in waiting | aside]
            require(not lost, "acknowledged_is_kept", lost)

    def look_at_end(self, connection: Connection, running: str) -> None:
        """Once all faults are over: everything sealed is settled once, nothing is held, and the wallets add up."""
        unsettled = self._promises.records.keys() - self._usage.keys()
        require(not unsettled, "all_is_settled", unsettled)
        aside = {bytes(row[0]) for row in connection.execute("SELECT record FROM quarantine")}
        require(self._promises.refused <= aside, "second_body_is_refused", self._promises.refused - aside)
        require(not connection.execute("SELECT 1 FROM holds WHERE state = 'pending'"), "no_hold_stays", "")
        require(not connection.execute("SELECT 1 FROM windows WHERE closed_us IS NULL"), "windows_close", "")
        self.keys.look_at_end()
        self.billing.look_at_end(running)
        total = sum(settled.nanos for settled in self._usage.values())
        charged = total + self.billing.taxes - self.billing.credited  # what clients paid or owe, all in all
        wallets = {f"client:{tenant}" for tenant in TENANTS} | {f"receivable:{tenant}" for tenant in TENANTS}
        left = sum(c - d for name, _, c, d, _, _ in self._accounts.values() if name in wallets)
        require(left == self._promises.topped_up - charged, "wallets_add_up", (left, self._promises.topped_up, charged))
        earned = sum(c - d for name, unit, c, d, _, _ in self._accounts.values()
                     if unit == "USD" and name not in wallets and name != "funding")  # fmt: skip
        require(earned == charged, "paid_is_rated", (earned, charged))

    def _balance(self, name: str) -> int:
        """Of an account in nanos; 0 when there is none."""
        return next((c - d for n, unit, c, d, _, _ in self._accounts.values() if (n, unit) == (name, "USD")), 0)
