"""Signed notes and checkpoints in C2SP's formats."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import NoteInvalid
from metering.note import Checkpoint, NoteSigner, NoteVerifier, parse_checkpoint

# golang.org/x/mod/sumdb/note, package example: the key and the note that it signs
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = NoteSigner("example.com/log", b"\7" * 32)
CHECKPOINT = Checkpoint("example.com/log", 5, b"\1" * 32)
NOTE = SIGNER.sign(CHECKPOINT.text())
VERIFIER = NoteVerifier(SIGNER.public_key)


def test_a_published_note_verifies():
    """The example of Go's note package, signed by another implementation, is good here."""
    assert NoteVerifier(GO_KEY).open(GO_NOTE).endswith("your problem is.\n")


def test_a_checkpoint_round_trips():
    """What was signed is what is read."""
    assert VERIFIER.open_checkpoint(NOTE) == CHECKPOINT


def test_unknown_signatures_are_ignored_unless_strict():
    """As C2SP asks, a cosignature by an unknown witness does no harm; a receipt's strict reading refuses it."""
    cosigned = NOTE + NoteSigner("witness.example", b"\3" * 32).sign(CHECKPOINT.text()).rpartition("\n\n")[2]
    assert VERIFIER.open_checkpoint(cosigned) == CHECKPOINT
    with pytest.raises(NoteInvalid):
        VERIFIER.open_checkpoint(cosigned, strict=True)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        NOTE[:-1],
        NOTE.replace("\n5\n", "\n05\n"),
        NOTE.replace("\n5\n", "\n6\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("\n5", "\r\n5"),
        NoteSigner("example.com/log", b"\5" * 32).sign(CHECKPOINT.text()),
        SIGNER.sign("example.com/other\n5\n" + CHECKPOINT.text().split("\n")[2] + "\n"),
        SIGNER.sign(CHECKPOINT.text() + "extension\n"),
        SIGNER.sign("example.com/log\n-5\n" + CHECKPOINT.text().split("\n")[2] + "\n"),
        SIGNER.sign("example.com/log\n5\nAAAA\n"),
    ],
)
def test_bad_notes_are_refused(note):
    """A note that does not parse, is not signed by the key, or is no checkpoint of this log is NoteInvalid."""
    with pytest.raises(NoteInvalid):
        VERIFIER.open_checkpoint(note)


@given(st.text())
def test_no_text_breaks_the_parsers(text):
    """Whatever text comes, the parsers answer or raise NoteInvalid."""
    for parse in (VERIFIER.open, NoteVerifier, parse_checkpoint):
        try:
            parse(text)
        except NoteInvalid:
            continue


def test_the_key_is_made_once_and_kept_private(tmp_path):
    """The private key is readable by its owner only, found again, and never taken for another log's."""
    first = NoteSigner.load_or_create(tmp_path / "log.key", tmp_path / "log.pub", "a/log")
    assert stat.S_IMODE((tmp_path / "log.key").stat().st_mode) == 0o600
    assert NoteSigner.load_or_create(tmp_path / "log.key", tmp_path / "log.pub", "a/log").public_key == first.public_key
    assert (tmp_path / "log.pub").read_text() == first.public_key + "\n"
    with pytest.raises(NoteInvalid):
        NoteSigner.load_or_create(tmp_path / "log.key", tmp_path / "log.pub", "b/log")
