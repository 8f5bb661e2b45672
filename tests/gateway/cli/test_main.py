"""Exit codes and output of the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.datanet import parse_split
from gateway.cli.failures import Failure
from gateway.cli.output import money
from tests.gateway.stack import ROOT


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No gateway, no key file, no environment of the developer."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENLEDGER_API_KEY", "DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENLEDGER_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENLEDGER_DATA", str(tmp_path))


COMMANDS = {
    "usage": ["usage"],
    "invoice": ["invoice"],
    "statement": ["statement"],
    "check": ["check"],
    "receipt": ["receipt", "req_1"],
    "datanet list": ["datanet", "list"],
    "datanet create": ["datanet", "create", "x", "--licence", "CC0-1.0"],
    "datanet show": ["datanet", "show", "x"],
    "datanet version": ["datanet", "version", "x"],
    "datanet near-duplicates": ["datanet", "near-duplicates", "x"],
    "datanet withdraw": ["datanet", "withdraw", "x", "sha256:0"],
    "datanet policy": ["datanet", "policy", "x", "--split", "contributors=1000000"],
    "datanet vote": ["datanet", "vote", "x", "--split", "contributors=1000000"],
    "billing close": ["billing", "close"],
    "billing finalise": ["billing", "finalise", "x", "2025-11"],
    "dispute": ["dispute", "req_1"],
    "claim register": ["claim", "register"],
    "claim fetch": ["claim", "fetch"],
    "adapter list": ["adapter", "list"],
    "adapter show": ["adapter", "show", "a/b"],
    "adapter promote": ["adapter", "promote", "a/b", "v1"],
    "adapter revoke": ["adapter", "revoke", "a/b"],
    "account create": ["account", "create", "x"],
    "account list": ["account", "list"],
    "key create": ["key", "create", "x"],
    "credit add": ["credit", "add", "x", "1"],
    "demo": ["demo", "why?", "--model", "m"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("as_json", [False, True])
def test_without_a_server_every_command_ends_with_4(
    name: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, nothing on stdout, no traceback."""
    monkeypatch.setenv("OPENLEDGER_API_KEY", "sk-ol-x")
    assert main.run([*COMMANDS[name], *(["--json"] if as_json else [])]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("openledger: no answer from http://127.0.0.1:9/v1")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_key_every_command_ends_with_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says which variable to set."""
    assert main.run(COMMANDS[name]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["datanet"], ["datanet", "create"], ["usage", "--wrong"], ["serve", "--port", "x"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    """As a process, the way scripts see it; no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """And ends with 0."""
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out
    for command in {name.split()[0] for name in COMMANDS} | {"serve", "verify"}:
        assert command in text


def test_verify_is_offline_and_trusts_only_the_given_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no receipt does not hold: exit code 1, with --json too; a missing key file is wrong usage."""
    receipt = tmp_path / "receipt.json"
    receipt.write_text("{}")
    assert main.run(["verify", str(receipt)]) == 2
    vector = ROOT / "tests" / "vectors"
    assert vector.is_dir()
    (tmp_path / "log.pub").write_text("not a key\n")
    assert main.run(["verify", str(receipt), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False


def test_money_is_exact() -> None:
    """No floats on the way to the reader."""
    assert money(0, "USD") == "0.00 USD"
    assert money(12_500_000_000, "USD") == "12.50 USD"
    assert money(-1, "USD") == "-0.000000001 USD"
    assert money(10**18 + 1, "USD") == "1000000000.000000001 USD"


def test_a_split_is_parsed_or_refused() -> None:
    """role=ppm, separated by commas."""
    assert parse_split("contributors=600000,trainer=400000") == {"contributors": 600_000, "trainer": 400_000}
    with pytest.raises(Failure):
        parse_split("contributors=most")
