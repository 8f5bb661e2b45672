"""A witness of logs (c2sp.org/tlog-witness): it cosigns a head only if that extends the last one it saw of the log."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from metering import merkle
from metering.cosignature import Cosigner
from metering.errors import NoteInvalid, ProofInvalid, WitnessRefused
from metering.note import SIZE, Checkpoint, NoteVerifier, decode_base64, parse_checkpoint, split_note

REQUEST_BYTES_MAX = 64 * 1024
PROOF_LINES_MAX = 63
KEY_NAME, STATE_NAME = "witness.key", "seen"


class Witness:
    """One key and the last checkpoint of each log it knows, under `directory`; safe from any thread and process."""

    def __init__(self, directory: Path, name: str, logs: str) -> None:
        """`logs`: the text of log.pub, or of several. NoteInvalid when they or the stored key are malformed."""
        self._directory = directory
        (directory / STATE_NAME).mkdir(parents=True, exist_ok=True)
        self._cosigner = Cosigner.load_or_create(directory / KEY_NAME, name)
        self._logs = NoteVerifier(logs)
        self._lock = threading.Lock()

    @property
    def public_key(self) -> str:
        return self._cosigner.public_key

    def add_checkpoint(self, request: bytes, time_seconds: int) -> str:
        """The cosignature line for the body of an `add-checkpoint`. The new head is durable before this returns.

        WitnessRefused with the status of the specification: 400 malformed, 403 not signed by the log, 404 unknown log,
        409 another old size (its body is the right one) or another root of the same size, 422 inconsistent.
        """
        old_size, proof, note = _parse(request)
        checkpoint = self._open(note)
        if old_size > checkpoint.size:
            raise WitnessRefused(400, f"old size {old_size} is beyond {checkpoint.size}")
        with self._state(checkpoint.origin) as path:
            seen = parse_checkpoint(path.read_text()) if path.exists() else None
            if old_size != (seen.size if seen else 0):
                raise WitnessRefused(409, "another old size", f"{seen.size if seen else 0}\n")
            _require_consistent(seen, checkpoint, proof)
            _replace(path, checkpoint.text())
        return self._cosigner.cosign(checkpoint.text(), time_seconds)

    def _open(self, note: str) -> Checkpoint:
        try:
            origin = parse_checkpoint(split_note(note)[0]).origin
        except NoteInvalid as error:
            raise WitnessRefused(400, str(error)) from error
        if not self._logs.knows(origin):
            raise WitnessRefused(404, f"unknown log {origin}")
        try:
            return self._logs.open_checkpoint(note)
        except NoteInvalid as error:
            raise WitnessRefused(403, str(error)) from error

    @contextmanager
    def _state(self, origin: str) -> Iterator[Path]:
        """The file of a log's last head, while nobody else has it."""
        path = self._directory / STATE_NAME / hashlib.sha256(origin.encode()).hexdigest()
        with self._lock, path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path


def serve(witness: Witness, host: str, port: int, clock: object) -> ThreadingHTTPServer:
    """An HTTP server with POST /add-checkpoint; the caller runs `serve_forever`. `clock()`: POSIX seconds."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30  # of a client that sends slowly

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if self.path != "/add-checkpoint" or not length.isascii() or not length.isdigit():
                self.close_connection = True
                return self._answer(404 if length.isdigit() else 411, "no such call\n")
            if int(length) > REQUEST_BYTES_MAX:
                self.close_connection = True
                return self._answer(413, "too long\n")
            try:
                line = witness.add_checkpoint(self.rfile.read(int(length)), int(clock()))  # type: ignore[operator]
            except WitnessRefused as refused:
                return self._answer(refused.status, refused.body)
            return self._answer(200, line)

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            size = status == 409 and text.strip().isdigit()
            self.send_header("content-type", "text/x.tlog.size" if size else "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return ThreadingHTTPServer((host, port), Handler)


def _parse(request: bytes) -> tuple[int, list[bytes], str]:
    """Old size, consistency proof and checkpoint of an `add-checkpoint` body; WitnessRefused 400."""
    try:
        head, separator, note = request.decode().partition("\n\n")
        lines = head.split("\n")
        word, _, size = lines[0].partition(" ")
        if not separator or word != "old" or not SIZE.match(size) or len(lines) > 1 + PROOF_LINES_MAX:
            raise WitnessRefused(400, "not an old size, a proof and a checkpoint")
        proof = [decode_base64(line) for line in lines[1:]]
    except (UnicodeDecodeError, NoteInvalid) as error:
        raise WitnessRefused(400, str(error)) from error
    if any(len(value) != 32 for value in proof):
        raise WitnessRefused(400, "a hash is not 32 bytes")
    return int(size), proof, note


def _require_consistent(seen: Checkpoint | None, checkpoint: Checkpoint, proof: list[bytes]) -> None:
    if seen is None or seen.size == 0:
        if proof:
            raise WitnessRefused(422, "a proof from nothing")
        return
    if seen.size == checkpoint.size:
        if seen.root != checkpoint.root:
            raise WitnessRefused(409, "another root of the same size")
        if proof:
            raise WitnessRefused(422, "a proof from a head to itself")
        return
    try:
        merkle.verify_consistency(seen.size, checkpoint.size, proof, seen.root, checkpoint.root)
    except ProofInvalid as error:
        raise WitnessRefused(422, str(error)) from error


def _replace(path: Path, text: str) -> None:
    """Durably: a witness that forgets a head can be shown another history."""
    staged = path.with_suffix(".new")
    with staged.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
