"""Every parser of bytes from outside answers with a value or with its own error, whatever it is given."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.billing_profile import parse_profile
from metering.canonical import parse_canonical
from metering.chain.binding import Binding, parse_binding
from metering.chain.errors import BindingInvalid
from metering.errors import (
    BillingRefused,
    CanonicalError,
    EventInvalid,
    ExportInvalid,
    JournalCorrupt,
    MeteringError,
    NoteInvalid,
    PeriodInvalid,
    PolicyInvalid,
    PriceBookInvalid,
    ReceiptInvalid,
    StatementInvalid,
    TermsInvalid,
)
from metering.event import decode_event, decode_sound_event, encode_event, event_from_json
from metering.focus_agreement import DETAIL, disagreements
from metering.forwarder_state import FILE, ForwarderState, SegmentState, load_state
from metering.journal import JournalWriter
from metering.journal_reader import JournalReader
from metering.note import parse_checkpoint, parse_vkey, split_note
from metering.period import parse_period
from metering.pricebook import decode_price_book
from metering.receipt import build_receipt, verify_receipt
from metering.statement_proof import build_statement_proof, verify_statement_proof
from metering.terms import decode_terms
from metering.witness_policy import parse_policy
from tests.metering.conftest import BOOK, TERMS
from tests.metering.documents import almost, almost_bytes, damaged

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "usage-event.json").read_text())
EVENT = VECTORS["accepted"][0]["bytes"].encode()
BINDING = Binding("ada", "0x" + "11" * 20, 1, 1).document()
PROFILE = {"name": "Acme", "address": ["1 Road", "Town"], "tax_id": "1", "tax_rate_ppm": 200_000, "terms_days": 30}
EXPORT = (",".join((*DETAIL, "BilledCost")) + '\r\nINV-1-1,INV-1,2026-11,2026-12,USD,Usage,"0.100000000"\r\n').encode()
FORWARDED = asdict(ForwarderState("stream", "server", 3, segments={"a.seg": SegmentState(64, 3)}))
POLICY = "# witnesses\nlog {key}\nwitness one {key}\ngroup all 1 one\nquorum all\n"
ONE_SETUP = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=150
)


def answers(parse: Callable[[Any], Any], given_value: Any, *errors: type[MeteringError]) -> Any:
    """What `parse` returns, or None when it raised one of its errors; any other exception fails the test."""
    with contextlib.suppress(*errors):
        return parse(given_value)
    return None


@given(almost_bytes(TERMS.encode()))
def test_terms(data: bytes):
    """Terms that are accepted encode to the very bytes they came from."""
    terms = answers(decode_terms, data, TermsInvalid)
    assert terms is None or terms.encode() == data


@given(almost_bytes(BOOK.encode()))
def test_price_books(data: bytes):
    """So do price books."""
    book = answers(decode_price_book, data, PriceBookInvalid)
    assert book is None or book.encode() == data


@given(almost_bytes(EVENT))
def test_both_event_decoders_agree(data: bytes):
    """The typed decoder takes exactly what the plain one takes, as the same event."""
    event = answers(decode_event, data, EventInvalid)
    plain = answers(lambda given: event_from_json(parse_canonical(given)), data, EventInvalid, CanonicalError)
    assert decode_sound_event(data) == plain == event
    assert event is None or encode_event(event) == data


@given(almost(PROFILE))
def test_billing_profiles(value: Any):
    """A profile, or BillingRefused."""
    answers(parse_profile, value, BillingRefused)


@given(almost(BINDING))
def test_payout_bindings(value: Any):
    """A binding, or BindingInvalid."""
    binding = answers(parse_binding, value, BindingInvalid)
    assert binding is None or binding.document() == value


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{3,5}-[0-9]{1,3}(-[0-9]{1,3})?", fullmatch=True))
def test_periods(text: str):
    """A period, or PeriodInvalid."""
    answers(parse_period, text, PeriodInvalid)


@given(damaged(EXPORT))
def test_focus_exports(data: bytes):
    """Two exports are compared: equal ones agree, a damaged one differs or is refused."""
    assert disagreements(EXPORT, EXPORT) == []
    answers(lambda given_value: disagreements(given_value, EXPORT), data, ExportInvalid)


@ONE_SETUP
@given(data=st.data())
def test_receipts(market, settled, data):
    """A changed receipt is refused by ReceiptInvalid; what verifies says what the sound one says."""
    receipt, key = settled
    changed = data.draw(almost_bytes(receipt))
    verified = answers(lambda given: verify_receipt(given, key), changed, ReceiptInvalid)
    assert verified is None or verified == verify_receipt(receipt, key)


@ONE_SETUP
@given(data=st.data())
def test_statement_proofs(market, settled, data):
    """A changed statement proof verifies or is refused by StatementInvalid."""
    proof = build_statement_proof(market.ledger, "ada")
    answers(lambda given: verify_statement_proof(given, settled[1]), data.draw(almost_bytes(proof)), StatementInvalid)


@ONE_SETUP
@given(data=st.data())
def test_notes_keys_and_policies(market, settled, data):
    """Signed notes, checkpoints, public keys and witness policies: read, or refused by name."""
    key = settled[1].strip()
    note = json.loads(settled[0])["proof"].partition("\n\n")[2]
    for sound, parse, error in (
        (note, split_note, NoteInvalid),
        (note.partition("\n\n")[0] + "\n", parse_checkpoint, NoteInvalid),
        (key, parse_vkey, NoteInvalid),
        (POLICY.format(key=key), parse_policy, PolicyInvalid),
    ):
        answers(parse, data.draw(damaged(sound.encode())).decode("utf-8", "replace"), error)


@ONE_SETUP
@given(data=st.data())
def test_journal_segments(config, data):
    """A damaged segment gives whole records of the sound one, in order, no more; sealing may name damage."""
    if not config.journal_dir.exists():
        writer = JournalWriter(config, "fuzz")
        for number in range(4):
            writer.append(b"record %d" % number).result(timeout=10)
        writer.close()
        path = next(config.journal_dir.glob("*.seg"))
        (config.data_dir / "sound").write_bytes(path.read_bytes()[:512])
    path = next(config.journal_dir.glob("*.seg"))
    path.write_bytes(data.draw(damaged((config.data_dir / "sound").read_bytes())))
    payloads = [record.payload for record in JournalReader(config.journal_dir).read({}, 10)]
    assert payloads == [b"record %d" % number for number in range(len(payloads))]
    assert all(isinstance(damage, JournalCorrupt) for damage in JournalReader(config.journal_dir).seal_orphans())


@ONE_SETUP
@given(data=st.data())
def test_forwarder_state(tmp_path, data):
    """A torn or foreign state file is no state at all, or one of whole numbers: never an error."""
    (tmp_path / FILE).write_bytes(data.draw(almost_bytes(json.dumps(FORWARDED).encode())))
    assert isinstance(load_state(tmp_path), ForwarderState)


@pytest.fixture
def settled(market, settler) -> tuple[bytes, str]:
    """A receipt of a paid window and the log's public key."""
    events = market.serve(3)
    settler.drain()
    settler.close_window()
    return build_receipt(market.ledger, events[0].id), market.config.log_public_key_path.read_text()
