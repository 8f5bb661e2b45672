"""Settings come from the environment once and are checked."""

from pathlib import Path

import pytest

from gateway.config import Settings
from gateway.errors import ConfigurationError


def test_the_long_name_wins_over_the_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENLEDGER_PORT is ours, PORT is what `make serve` says."""
    monkeypatch.setenv("PORT", "9000")
    assert Settings.from_environment().port == 9000
    monkeypatch.setenv("OPENLEDGER_PORT", "9001")
    assert Settings.from_environment().port == 9001
    assert Settings.from_environment(port=9002).port == 9002


def test_only_three_settings_have_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORKERS of some other program does not change ours."""
    monkeypatch.setenv("WORKERS", "7")
    assert Settings.from_environment().workers == 1


@pytest.mark.parametrize(("name", "value"), [("PORT", "eight"), ("PORT", "70000"), ("OPENLEDGER_WORKERS", "0")])
def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message says which setting."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name.removeprefix("OPENLEDGER_").lower() + "|PORT"):
        Settings.from_environment()


def test_a_child_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`environment` is the inverse of `from_environment`."""
    settings = Settings(data=tmp_path, workers=3, public_url="https://x/v1", engine_silence_seconds=1.5)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == settings


def test_the_base_url_is_one_that_a_local_client_can_use() -> None:
    """Listening everywhere is not an address."""
    assert Settings(host="0.0.0.0", port=81).base_url == "http://127.0.0.1:81/v1"
    assert Settings(public_url="https://g/v1").base_url == "https://g/v1"
