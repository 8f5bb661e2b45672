"""openledger billing, dispute, invoice, statement and verify, against the gateway's real routes, ledger and log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from gateway.cli.main import run

Command = Callable[..., Awaitable[tuple[int, str]]]
PERIOD = "2025-11"


@pytest.fixture
async def command(operator: httpx.AsyncClient, alice: httpx.AsyncClient, monkeypatch, capsys, settings) -> Command:
    """Runs a command as alice, or as the operator, and gives its exit code and what it printed."""
    loop = asyncio.get_running_loop()
    clients = {"alice": alice, "operator": operator}

    def ask(method: str, url: str, **options) -> httpx.Response:
        caller = clients[options.pop("headers", {}).get("authorization", "Bearer operator").removeprefix("Bearer ")]
        options.pop("timeout", None)
        return asyncio.run_coroutine_threadsafe(caller.request(method, url, **options), loop).result(30)

    class Stream:
        def __init__(self, *arguments, **options) -> None:
            self.response = ask(*arguments, **options)

        def __enter__(self) -> httpx.Response:
            return self.response

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(httpx, "request", ask)
    monkeypatch.setattr(httpx, "stream", Stream)
    monkeypatch.setattr(httpx, "get", lambda url, **options: ask("GET", url, **options))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("OPENLEDGER_URL", "http://gateway/v1")
    monkeypatch.setenv("OPENLEDGER_DATA", str(settings.data))

    async def perform(*arguments: str, caller: str = "operator") -> tuple[int, str]:
        monkeypatch.setenv("OPENLEDGER_API_KEY", caller)
        status = await asyncio.to_thread(run, list(arguments))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return perform


async def test_a_month_from_draft_to_credit_note(command: Command, events: list, tmp_path: Path) -> None:
    """Closed by the operator, listed, downloaded in every form and credited; a second time each is refused by name."""
    status, text = await command("billing", "close", PERIOD, "--json")
    assert (status, [one["number"] for one in json.loads(text)]) == (0, ["INV-000001"])
    assert await command("billing", "close") == (0, "nothing is due\n")
    assert (await command("billing", "close", "2999-01"))[0] == 3
    status, text = await command("billing", "finalise", "alice", PERIOD)
    assert (status, "period_closed" in text) == (3, True)
    status, text = await command("billing", "list", caller="alice")
    assert (status, "INV-000001" in text) == (0, True)
    for suffix, start in ((".pdf", b"%PDF-"), (".html", b"<!doctype html>"), (".csv", b"InvoiceId"), (".json", b"{")):
        file = tmp_path / f"invoice{suffix}"
        assert (await command("billing", "get", "INV-000001", "-o", str(file), caller="alice"))[0] == 0
        assert file.read_bytes().lower().startswith(start.lower())
    status, text = await command("invoice", "--period", PERIOD, caller="alice")
    assert (status, "INVOICE INV-000001 (paid)" in text) == (0, True)
    status, text = await command("billing", "credit", "INV-000001", "1000", "--reason", "goodwill")
    assert (status, "CN-000001" in text) == (0, True)
    for suffix, start in ((".pdf", b"%PDF-"), (".html", b"<!doctype html>"), (".json", b"{")):
        file = tmp_path / f"note{suffix}"
        assert (await command("billing", "get", "CN-000001", "-o", str(file), caller="alice"))[0] == 0
        assert file.read_bytes().startswith(start)
    assert (await command("billing", "get", "CN-000001", "-o", str(tmp_path / "note.csv"), caller="alice"))[0] == 2
    status, text = await command("billing", "notes", caller="alice")
    assert (status, "CN-000001" in text, "INV-000001" in text) == (0, True, True)
    assert (await command("billing", "credit", "INV-000001", "999999999", "--reason", "all"))[0] == 3
    assert (await command("billing", "void", "INV-000001", "--reason", "wrong"))[0] == 3
    assert "invoice_is_draft" in (await command("billing", "void", PERIOD, "--reason", "wrong"))[1]
    assert (await command("billing", "close", caller="alice"))[0] == 3


async def test_two_exports_are_compared(command: Command, events: list, tmp_path: Path) -> None:
    """Exit code 0 when they agree, 1 when a cost differs, 2 for what is no export."""
    await command("billing", "close", PERIOD)
    files = [str(tmp_path / f"{dataset}.csv") for dataset in ("invoice_detail", "cost_and_usage")]
    for file in files:
        assert (
            await command("billing", "get", "INV-000001", "-o", file, "--dataset", Path(file).stem, caller="alice")
        )[0] == 0
    assert await command("billing", "compare", *files) == (0, "the exports agree\n")
    usage = Path(files[1])
    usage.write_text(usage.read_text().replace("0.000002100", "0.000002200", 1))
    status, text = await command("billing", "compare", *files)
    assert (status, "Usage: Invoice Detail has" in text) == (1, True)
    usage.write_text("nothing\n")
    assert (await command("billing", "compare", *files))[0] == 2


async def test_a_dispute_from_opening_to_part(command: Command, operator, events: list) -> None:
    """Opened by naming the receipt, listed, upheld in part, and not decided twice."""
    await operator.put("/v1/billing/profile", json={"name": "Issuer", "dispute_days": 3650})
    status, text = await command("dispute", events[0].id, "--reason", "empty", "--json", caller="alice")
    assert status == 0
    dispute = json.loads(text)["id"]
    assert "open" in (await command("dispute", "list", caller="alice"))[1]
    resolve = ("dispute", "resolve", dispute, "--uphold", "--reason", "half")
    assert "amount_exceeds_dispute" in (await command(*resolve, "--amount-nanos", "9999"))[1]
    status, text = await command(*resolve, "--amount-nanos", "1000")
    assert (status, "upheld" in text, "CN-000001" in text) == (0, True, True)
    assert "dispute_resolved" in (await command(*resolve))[1]
    assert (await command("dispute", "show", dispute, caller="alice"))[0] == 0
    assert (await command("dispute", "resolve", dispute, "--reject", caller="alice"))[0] == 3


async def test_what_was_given_verifies_and_what_was_changed_does_not(
    command: Command, events: list, settings, tmp_path: Path
) -> None:
    """Receipts one by one, as lines and as a folder; a statement's proof; a copy of the log that must hold them."""
    receipts, copy, key = tmp_path / "receipts", tmp_path / "copy", str(settings.data / "log.pub")
    receipts.mkdir()
    for event in events:
        file = receipts / f"{event.id}.json"
        assert (await command("receipt", event.id, "-o", str(file), caller="alice"))[0] == 0
    lines = tmp_path / "all.jsonl"
    lines.write_bytes(b"\n".join(file.read_bytes() for file in sorted(receipts.iterdir())) + b"\n")
    proof = tmp_path / "proof.json"
    assert (await command("billing", "proof", "-o", str(proof), "--account", "ada"))[0] == 0
    assert (await command("log", "fetch", str(copy), "--log-key", key))[0] == 0
    (tmp_path / "saved").write_bytes((copy / "checkpoint").read_bytes())
    given = [str(one) for one in (receipts, lines, proof, copy)]
    status, text = await command("verify", *given, "--log-key", key, "--saved", str(tmp_path / "saved"), "--json")
    found = json.loads(text)
    assert (status, found["verified"], len(found["results"])) == (0, True, 3 + 3 + 1 + 1)
    assert found["results"][-1]["receipts"] == 3
    status, text = await command("verify", str(lines), "--log", str(copy), "--log-key", key)
    assert (status, text.splitlines()[0]) == (0, "4 hold")
    one = sorted(receipts.iterdir())[0]
    one.write_text(json.dumps(json.loads(one.read_text()), indent=2))
    assert (await command("verify", str(one)))[0] == 0  # log.pub of the data directory; any layout
    one.write_text(one.read_text().replace('"total_nanos": 2161', '"total_nanos": 2160'))
    status, text = await command("verify", str(receipts))
    assert (status, "does NOT hold: inclusion" in text, "1 of 3 do not hold" in text) == (1, True, True)
    bundle = next((copy / "tile" / "entries").rglob("*.p/*"))
    bundle.write_bytes(bundle.read_bytes().replace(b"usage", b"usagf", 1))
    status, text = await command("verify", str(copy))
    assert (status, "does NOT hold: tiles" in text) == (1, True)
    assert (await command("verify", str(tmp_path / "empty")))[0] == 2
    (tmp_path / "empty").mkdir()
    assert (await command("verify", str(tmp_path / "empty")))[0] == 2
    assert (await command("verify", str(lines), "--saved", str(tmp_path / "saved")))[0] == 2


async def test_the_public_log_by_command(command: Command, events: list, settings, tmp_path: Path) -> None:
    """Entries with their documents, none of them private; keys that lead from one that is trusted to today's."""
    status, text = await command("log", "entries", "--json")
    rows = json.loads(text)
    assert (status, {row["type"] for row in rows}) == (0, {"price_book", "terms"})
    status, text = await command("log", "entries", "--type", "terms")
    assert (status, "facts" in text, "hal" in text) == (0, True, True)
    digest = rows[0]["digest"]
    assert json.loads((await command("log", "show", digest))[1])["type"] == rows[0]["type"]
    assert (await command("log", "show", "sha256:" + "0" * 64))[0] == 3
    known, now = tmp_path / "known.pub", tmp_path / "now.pub"
    assert (await command("log", "key", "-o", str(known)))[0] == 0
    status, text = await command("log", "rotate-key", "--data", str(settings.data), "--json")
    assert (status, json.loads(text)["previous"]) == (0, known.read_text().strip())
    assert (await command("log", "key", "-o", str(now), "--trusted", str(known)))[0] == 0
    assert len(now.read_text().splitlines()) == 2
    (tmp_path / "other.pub").write_text("openledger.local/log+00000000+AAAA\n")
    assert (await command("log", "key", "--trusted", str(tmp_path / "other.pub")))[0] == 1
    file = tmp_path / "r.json"
    await command("receipt", events[0].id, "-o", str(file), caller="alice")
    assert (await command("verify", str(file), "--log-key", str(now)))[0] == 0
    assert (await command("verify", str(file), "--log-key", str(known)))[0] == 1  # the head is signed by the new key


async def test_the_log_tells_of_no_ones_invoice(command: Command, operator, events: list, settings) -> None:
    """An invoice is an entry, its document is not public."""
    await command("billing", "close")
    from metering.settler import Settler

    held = operator._transport.app.app.state.services
    settler = Settler(held.metering)
    settler.drain()
    settler.close()
    [row] = json.loads((await command("log", "entries", "--type", "invoice", "--json"))[1])
    assert row["document"] is None
    assert (await command("log", "show", row["digest"]))[0] == 3
