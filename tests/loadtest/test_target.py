"""Where a run finds its server and keys, and which options it refuses."""

from pathlib import Path

import pytest

from loadtest.errors import Usage
from loadtest.options import parse_options
from loadtest.target import find_target


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENLEDGER_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY", "DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The files of a gateway that runs on this machine."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "demo.env").write_text("OPENAI_BASE_URL=http://127.0.0.1:8000/v1\nOPENAI_API_KEY=client\n")
    (path / "operator.key").write_text("operator\n")
    return path


def test_a_gateway_on_this_machine_is_found_by_its_files(data: Path) -> None:
    """`make loadtest` beside `make serve` needs no options: ./data holds URL and keys."""
    found = find_target(None, None, None, None)
    assert (found.url, found.key, found.operator_key) == ("http://127.0.0.1:8000/v1", "client", "operator")
    assert found.data is not None
    assert found.root == "http://127.0.0.1:8000"


def test_keys_of_this_machine_are_not_sent_elsewhere(data: Path) -> None:
    """Another URL gets the key that was given, and nothing from the data directory."""
    found = find_target("https://api.example.com", "mine", None, data)
    assert (found.url, found.key) == ("https://api.example.com/v1", "mine")
    assert (found.operator_key, found.data) == (None, None)
    with pytest.raises(Usage, match="no key"):
        find_target("https://api.example.com", None, None, data)


def test_without_server_the_options_are_wrong() -> None:
    """The message says what to give."""
    with pytest.raises(Usage, match="--url"):
        find_target(None, "key", None, None)


def test_the_defaults_are_two_minutes_of_a_closed_loop(data: Path) -> None:
    """And they reconcile."""
    options = parse_options([])
    assert (options.duration_seconds, options.rate, options.users, options.reconcile) == (120, None, 8, True)


@pytest.mark.parametrize("argv", [["--users", "0"], ["--rate", "0"], ["--duration", "-1"], ["--register-every", "5"]])
def test_what_cannot_be_run_is_refused(data: Path, argv: list[str]) -> None:
    """Before anything is loaded; new adapters need the base model's directory."""
    with pytest.raises(Usage):
        parse_options(argv)


def test_a_plain_run_does_not_reconcile(data: Path) -> None:
    """Another vendor's server has no receipts."""
    assert not parse_options(["--plain"]).reconcile
