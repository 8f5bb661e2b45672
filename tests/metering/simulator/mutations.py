"""Planted bugs: each changes the source of one real function, and the simulator must notice it."""

from __future__ import annotations
import __future__

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

USERS = (
    "billing_record", "catalog", "check", "credit_note", "dispute", "freeze", "invoice", "invoice_lifecycle",
    "invoice_payment", "journal", "journal_reader", "ledger", "log", "log_key", "month_end", "postings", "pricebook",
    "segment", "settlement", "settler", "shares", "volume", "windows",
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """`old` occurs exactly once in the source of `function` (of metering.`module`) and becomes `new`."""

    name: str
    module: str
    function: str
    old: str
    new: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While entered, every module of metering uses the changed function."""
        module = importlib.import_module(f"metering.{self.module}")
        owner_name, _, name = self.function.rpartition(".")
        owner = getattr(module, owner_name) if owner_name else module
        source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        assert source.count(self.old) == 1, f"{self.name}: {self.old!r} occurs {source.count(self.old)} times"
        code = compile(
            source.replace(self.old, self.new), f"<{self.name}>", "exec", __future__.annotations.compiler_flag
        )
        scope: dict[str, object] = {}
        exec(code, vars(module), scope)
        users = [importlib.import_module(f"metering.{user}") for user in USERS]
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(owner, name, scope[name]))
            for user in users:
                if not owner_name and hasattr(user, name):
                    stack.enter_context(mock.patch.object(user, name, scope[name]))
            yield


MUTATIONS = (
    Mutation("skip dedupe", "settlement", "Batch.add", "if self._known(", "if False and self._known("),
    Mutation(
        "accept a second body", "settlement", "Batch._known",
        "if earlier != event_digest:", "if False:",
    ),
    Mutation(
        "cursor before commit", "settler", "Settler._settle",
        "with self._ledger.store.write(",
        "self.source.acknowledge(records)\n    with self._ledger.store.write(",
    ),
    Mutation(
        "cursor in a transaction before its events", "settler", "Settler._settle",
        "with self._ledger.store.write(",
        "with self._ledger.store.write() as connection:\n"
        "        self.source.store_position(connection, records)\n"
        "    with self._ledger.store.write(",
    ),
    Mutation(
        "receipts before commit", "settler", "Settler._batch",
        "return batch.finish(self._signer, self._config.batch_size)",
        "late, batch.postings.flush = batch.postings.flush, lambda: None\n"
        "    done = batch.finish(self._signer, self._config.batch_size)\n"
        "    connection.execute('COMMIT')\n"
        "    connection.execute('BEGIN IMMEDIATE')\n"
        "    late()\n"
        "    return done",
    ),
    Mutation(
        "admit on a nearly full disk", "journal", "JournalWriter.can_accept",
        ">= self._config.min_free_bytes", ">= 0",
    ),
    Mutation(
        "a published segment counts as settled", "forwarder_state", "ForwarderState.settle",
        "segment.last_sequence <= floor", "True",
    ),
    Mutation(
        "a bus that was killed is trusted", "forwarder_state", "ForwarderState.start_over",
        "if segment.settled", "",
    ),
    Mutation("drop fsync", "journal", "JournalWriter._commit_some", "self._segment.sync()", "pass"),
    Mutation(
        "acknowledge a failed write", "journal", "JournalWriter._commit",
        'future.set_exception(JournalUnavailable(f"not durable: {error}"))', "future.set_result(None)",
    ),
    Mutation("take a torn frame for whole", "segment", "decode_frame", "if check != _check(", "if not _check("),
    Mutation("seal a living writer", "journal_reader", "_seal_if_orphan", "return  # its writer lives", "pass"),
    Mutation(
        "remove a segment before it is settled", "journal_reader", "JournalReader.remove_settled",
        "if frame is not None and frame.kind == SEAL:", "if True:",
    ),
    Mutation(
        "pass a seal before its records are stored", "journal_reader", "JournalReader.read",
        "len(records) == unread and", "",
    ),
    Mutation(
        "pass a seal read ahead", "journal_reader", "JournalReader.read", " and segment not in ahead", "",
    ),
    Mutation(
        "keep what was read ahead of a failed commit", "settler", "Settler.step",
        "self._decoder.begin(_payloads(ahead))", "self._decoder.begin(_payloads(ahead)); self._ahead = ahead",
    ),
    Mutation(
        "double post", "postings", "Postings.post",
        "deltas[credit.id][0] += amount", "deltas[credit.id][0] += 2 * amount",
    ),
    Mutation(
        "keep a settled hold", "postings", "Postings.release",
        "self._held(hold.account, -hold.amount_nanos)", "pass",
    ),
    Mutation(
        "hold without looking at the balance", "ledger", "Ledger.hold",
        "if account.available < amount_nanos:", "if False:",
    ),
    Mutation(
        "forget what is owed", "settlement", "Batch._charge", "if owed:", "if False:",
    ),
    Mutation("lose residue", "windows", "payouts", 'yield Payout("residue"', 'Payout("residue"'),
    Mutation(
        "wrong largest remainder", "shares", "largest_remainder",
        "sorted(remainders)[:left]", "sorted(remainders, reverse=True)[:left]",
    ),
    Mutation(
        "negative scores earn", "shares", "share_weights",
        "score for name, score in scores.items() if score > 0", "abs(score) for name, score in scores.items() if score",
    ),
    Mutation(
        "window closed twice", "windows", "find_open_window", " WHERE closed_us IS NULL", " ORDER BY id DESC LIMIT 1",
    ),
    Mutation(
        "late events into a closed window", "windows", "open_window", "or 0) + 1", "or 1)",
    ),
    Mutation("charge a canary", "pricebook", "rate_tokens", 'if purpose == "serve"', "if True"),
    Mutation(
        "a receipt framed before its rating", "catalog", "Catalog.known_frame",
        "rate_event(event, book)", "rate_event(event, book)._replace(lines=())",
    ),
    Mutation(
        "leaves shifted by the inbox", "settlement", "Batch.finish",
        "tree.append(entries) + len(inbox)", "tree.append(entries)",
    ),
    Mutation(
        "checkpoint of an older tree", "log", "sign_checkpoint",
        "tree.root(tree.size)", "tree.root(max(1, tree.size - 1))",
    ),
    Mutation(
        "time runs backwards", "settler", "Settler._take_turn",
        "max(self._last_us, last_settled_us(connection), now_us())", "now_us()",
    ),
    Mutation(
        "quarantine is never retried", "settler", "Settler.tick", "last_entry != self._retried_at", "False",
    ),
    Mutation(
        "quarantine is retried by whoever wrote the entry", "settler", "Settler.tick",
        "last_entry != self._retried_at", "done.entries",
    ),
    Mutation("holds never expire", "settler", "Settler.tick", "self._ledger.expire_holds(now_us())", "pass"),
    Mutation(
        "tiers by the running month", "volume", "read_volumes",
        'f"{previous_month(month)}-01", f"{month}-01"', 'f"{month}-01", "9999"',
    ),
    Mutation(
        "a clock set back reopens a month", "windows", "last_settled_us",
        "parse_period(month).end_us if month else 0", "0",
    ),
    Mutation(
        "invoice a month that goes on", "invoice_lifecycle", "finalise_invoice",
        "if not span.is_over(time_us - CLOSING_US):", "if False:",
    ),
    Mutation("month end comes once", "month_end", "MonthEnd.turn", "month == self._seen", "self._seen"),
    Mutation(
        "two invoices for a month", "invoice_lifecycle", "_require_no_invoice", "if rows:", "if False:",
    ),
    Mutation("skip a number", "billing_record", "next_number", "last + 1", "last + 2"),
    Mutation(
        "forget what was credited before the invoice", "invoice", "compose_invoice",
        "adjustments = _adjustments(connection, tenant, span)", "adjustments = []",
    ),
    Mutation("void a paid invoice", "invoice_lifecycle", "void_invoice", 'if state != "open":', "if False:"),
    Mutation("keep the tax of a void invoice", "invoice_lifecycle", "void_invoice", "if tax_nanos:", "if False:"),
    Mutation(
        "paid although it is owed", "invoice_payment", "mark_paid",
        "if outstanding_nanos(connection, currency, tenant, period, tax_owed_nanos) == 0:", "if True:",
    ),
    Mutation(
        "credit notes without tax", "credit_note", "issue_credit_note",
        "_tax_part(connection, invoice, amount_nanos) if invoice else 0", "0",
    ),
    Mutation(
        "credit more than was invoiced", "credit_note", "_tax_part",
        'if before + amount_nanos > invoice["net_nanos"]:', "if False:",
    ),
    Mutation("decide a dispute twice", "dispute", "resolve_dispute", 'if rows[0][0] != "open":', "if False:"),
    Mutation(
        "freeze the money of one for all", "freeze", "freeze",
        "largest_remainder(amount_nanos, paid)", "{max(paid): amount_nanos}",
    ),
    Mutation(
        "freeze before it was paid", "freeze", "freeze", "if not closed or closed[0][0] is None:", "if False:",
    ),
    Mutation(
        "release in equal parts", "freeze", "release", 'move["amount"] for move', "1 for move",
    ),
    Mutation(
        "a retired key signs on", "log", "sign_checkpoint",
        "if last and not (replaces or signer).signed(last[0][0]):", "if False:",
    ),
    Mutation(
        "a rotation that was cut stays so", "log_key", "_load",
        "if head and following.signed(head[0][0]):", "if False:",
    ),
    Mutation(
        "forget the retired keys", "log_key", "key_list", "[current, *lines]", "[current]",
    ),
)  # fmt: skip
