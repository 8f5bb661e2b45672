"""Witnesses cosign what extends the log they saw, over HTTP; a policy says whose word it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from metering.cosignature import Cosigner, verify_cosignature
from metering.cosigning import collect_cosignatures
from metering.errors import NoteInvalid, NotIncluded, PolicyInvalid, ReceiptInvalid, WitnessRefused
from metering.log import consistency_proof, latest_checkpoint
from metering.log_key import rotate_key
from metering.note import COSIGNATURE, Checkpoint, NoteSigner, NoteVerifier, encode_base64, parse_vkey, split_note
from metering.receipt import build_receipt, verify_receipt
from metering.tiles import published_checkpoint
from metering.witness import Witness, serve
from metering.witness_policy import parse_policy

NOW = 1_795_000_000


@contextmanager
def listening(witness: Witness) -> Iterator[str]:
    """The URL of a witness that runs."""
    server = serve(witness, "127.0.0.1", 0, lambda: NOW)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def log(market, settler):
    """A log of a few entries."""
    market.events = market.serve(3)
    settler.drain()
    return market


def witness_of(log, tmp_path, number: int = 1) -> Witness:
    return Witness(tmp_path / f"w{number}", f"witness.example/w{number}", log.config.log_public_key_path.read_text())


def request(log, old: int) -> bytes:
    note = latest_checkpoint(log.ledger)
    size = int(note.split("\n")[1])
    proof = consistency_proof(log.ledger, old, size) if 0 < old < size else []
    return f"old {old}\n{''.join(encode_base64(value) + chr(10) for value in proof)}\n{note}".encode()


def test_a_receipt_with_a_quorum_of_witnesses(log, settler, tmp_path):
    """Two of three witnesses cosign over HTTP, one is down: the receipt carries both and verifies offline."""
    witnesses = [witness_of(log, tmp_path, number) for number in (1, 2, 3)]
    with listening(witnesses[0]) as first, listening(witnesses[1]) as second:
        urls = (first, second, "http://127.0.0.1:9")
        lines = [
            f"witness W{n} {w.public_key} {url}" for n, (w, url) in enumerate(zip(witnesses, urls, strict=True), 1)
        ]
        policy = parse_policy("\n".join([*lines, "group two 2 W1 W2 W3", "quorum two"]))
        with pytest.raises(NotIncluded):
            build_receipt(log.ledger, log.events[0].id, witnessed=True)
        asked = collect_cosignatures(log.ledger, list(policy.witnesses.values()))
        assert [one.time_seconds for one in asked] == [NOW, NOW, None]
        log.serve(2)
        settler.drain()  # the newest head is not cosigned yet; the one before still proves the request
        key = log.config.log_public_key_path.read_text()
        data = build_receipt(log.ledger, log.events[0].id, witnessed=True)
        verified = verify_receipt(data, key, policy)
        assert (verified.witnesses, verified.tree_size) == (("W1", "W2"), 6)
        assert [one.size for one in collect_cosignatures(log.ledger, list(policy.witnesses.values()))] == [8, 8, 8]
    assert published_checkpoint(log.ledger).count("witness.example/") == 2
    with pytest.raises(ReceiptInvalid) as failed:  # without a policy, nobody answers for those lines
        verify_receipt(data, key)
    assert failed.value.step == "checkpoint"
    every = parse_policy("\n".join([*lines, "group all3 all W1 W2 W3", "quorum all3"]))
    with pytest.raises(ReceiptInvalid) as failed:
        verify_receipt(data, key, every)
    assert failed.value.step == "witnesses"
    plain = build_receipt(log.ledger, log.events[0].id)
    assert verify_receipt(plain, key).witnesses == ()
    with pytest.raises(ReceiptInvalid):
        verify_receipt(plain, key, policy)


def test_every_changed_byte_of_a_witnessed_receipt_is_found(log, tmp_path):
    """With one witness of whom the policy knows, no byte of the proof can change unnoticed."""
    with listening(witness_of(log, tmp_path)) as url:
        policy = parse_policy(f"witness W {witness_of(log, tmp_path).public_key} {url}\nquorum W\n")
        collect_cosignatures(log.ledger, list(policy.witnesses.values()))
    key = log.config.log_public_key_path.read_text()
    data = build_receipt(log.ledger, log.events[0].id, witnessed=True)
    assert verify_receipt(data, key, policy).witnesses == ("W",)
    for position in range(data.index(b'"proof"'), len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x01
        with pytest.raises(ReceiptInvalid):
            verify_receipt(bytes(changed), key, policy)


def test_the_statuses_of_the_specification(log, settler, tmp_path):
    """Each wrong request has its status, and none of them moves what the witness has seen."""
    witness = witness_of(log, tmp_path)
    note = latest_checkpoint(log.ledger)
    stranger = NoteSigner("other.example/log", b"\1" * 32)
    thief = NoteSigner(log.config.log_origin, b"\1" * 32)
    head = Checkpoint(log.config.log_origin, 6, b"\1" * 32)
    signer = NoteSigner.load(log.config.log_key_path, log.config.log_origin)

    def status(body: bytes) -> tuple[int, str]:
        with pytest.raises(WitnessRefused) as refused:
            witness.add_checkpoint(body, NOW)
        return refused.value.status, refused.value.body

    assert status(b"")[0] == 400
    assert status(b"old 00\n\n" + note.encode())[0] == 400
    assert status(b"old 7\n\n" + note.encode())[0] == 400
    assert status(b"old 0\nAAAA\n\n" + note.encode())[0] == 400
    assert (
        status(f"old 0\n\n{stranger.sign('other.example/log' + chr(10) + note.split(chr(10), 1)[1])}".encode())[0]
        == 400
    )
    foreign = Checkpoint("other.example/log", 6, b"\1" * 32)
    assert status(f"old 0\n\n{stranger.sign(foreign.text())}".encode())[0] == 404
    assert status(f"old 0\n\n{thief.sign(head.text())}".encode())[0] == 403
    assert status(b"old 3\n\n" + note.encode()) == (409, "0\n")
    witness.add_checkpoint(request(log, 0), NOW)
    assert status(request(log, 0)) == (409, "6\n")
    assert status(f"old 6\n\n{signer.sign(head.text())}".encode())[0] == 409  # the same size with another root
    log.serve(2)
    settler.drain()
    assert status(b"old 6\n\n" + latest_checkpoint(log.ledger).encode())[0] == 422
    bad = request(log, 6).replace(b"old 6\n", b"old 6\n" + encode_base64(b"\2" * 32).encode() + b"\n")
    assert status(bad)[0] == 422
    again = witness_of(log, tmp_path)  # another process with the same folder
    text, [(_, raw)] = split_note(
        f"{split_note(latest_checkpoint(log.ledger))[0]}\n{again.add_checkpoint(request(log, 6), NOW)}"
    )
    assert verify_cosignature(text, raw, parse_vkey(witness.public_key, COSIGNATURE)[2]) == NOW


def test_over_http_a_wrong_size_has_its_own_type(log, tmp_path):
    """409 tells the size that the witness has, as text/x.tlog.size; other paths and endless bodies are refused."""
    with listening(witness_of(log, tmp_path)) as url:
        assert httpx.post(f"{url}/add-checkpoint", content=request(log, 0)).status_code == 200
        answer = httpx.post(f"{url}/add-checkpoint", content=request(log, 0))
        assert (answer.status_code, answer.headers["content-type"], answer.text) == (409, "text/x.tlog.size", "6\n")
        assert httpx.post(f"{url}/other", content=b"x").status_code == 404
        assert httpx.post(f"{url}/add-checkpoint", content=b"x" * 70_000).status_code == 413


def test_a_witness_follows_a_rotated_key(log, settler, tmp_path):
    """With the new list of keys it goes on; with the old one the new key is nobody's."""
    witness = witness_of(log, tmp_path)
    witness.add_checkpoint(request(log, 0), NOW)
    rotate_key(log.config, log.ledger)
    with pytest.raises(WitnessRefused):
        witness.add_checkpoint(request(log, 6), NOW)
    assert witness_of(log, tmp_path).add_checkpoint(request(log, 6), NOW).startswith("— witness.example/w1 ")


def test_a_cosignature_is_the_specifications(tmp_path):
    """The signed bytes are header, time and checkpoint; the line is key id, big-endian time and signature."""
    cosigner = Cosigner(NoteSigner("witness.example.com/w1", b"\3" * 32))
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    name, identifier, key = parse_vkey(cosigner.public_key, COSIGNATURE)
    [(signed_by, raw)] = split_note(f"{text}\n{cosigner.cosign(text, 1679315147)}")[1]
    assert (signed_by, raw[:4], int.from_bytes(raw[4:12], "big"), len(raw)) == (name, identifier, 1679315147, 76)
    key.verify(raw[12:], b"cosignature/v1\ntime 1679315147\n" + text.encode())
    with pytest.raises(NoteInvalid):
        NoteVerifier(cosigner.public_key)  # a witness's key is no log's


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum W",
        "quorum none\nquorum none",
        "witness none {w1}\nquorum none",
        "witness W {w1}\nwitness W {w2}\nquorum none",
        "witness W {w1}\nwitness V {w1}\nquorum none",
        "witness W {log}\nquorum none",
        "log {w1}\nquorum none",
        "witness W {w1}\ngroup G 2 W\nquorum G",
        "witness W {w1}\ngroup G 0 W\nquorum G",
        "witness W {w1}\ngroup G any W V\nquorum G",
        "witness W {w1}\ngroup G any W\ngroup H any W\nquorum G",
        "group G any\nquorum none",
        "hello\nquorum none",
    ],
)
def test_a_policy_that_says_nothing_clear_is_refused(text):
    """Wrong lines are named; nothing is guessed."""
    keys = {
        "w1": Cosigner(NoteSigner("w/1", b"\1" * 32)).public_key,
        "w2": Cosigner(NoteSigner("w/2", b"\2" * 32)).public_key,
        "log": NoteSigner("a/log", b"\4" * 32).public_key,
    }
    with pytest.raises(PolicyInvalid):
        parse_policy(text.format(**keys))


def test_a_policy_may_ask_for_nobody_and_name_its_logs():
    """`quorum none`, comments and blank lines; the logs' keys are handed on."""
    key = NoteSigner("a/log", b"\4" * 32).public_key
    policy = parse_policy(f"# mine\n\n log {key} https://a.example/log\nquorum\tnone\n")
    assert (policy.logs, policy.witnesses) == (key, {})
