"""`openledger anchor` and `openledger claim` as people run them, and what they must never show."""

from __future__ import annotations

import json
import logging
import threading

import pytest
from eth_account import Account

from gateway.cli.failures import REFUSED, UNREACHABLE, USAGE
from gateway.cli.main import run
from metering.chain.keys import Signer

OPERATOR_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADA_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
PASSWORD = "a-password-nobody-should-see"


@pytest.fixture
def shell(node, config, monkeypatch, capsys, caplog):
    """Run a command line in the operator's environment: (exit status, standard output); `shown` gathers all output."""
    monkeypatch.setenv("OPENLEDGER_CHAIN_RPC", node.url)
    monkeypatch.setenv("OPENLEDGER_CHAIN_KEY", OPERATOR_KEY)
    monkeypatch.setenv("OPENLEDGER_CHAIN_CONFIRMATIONS", "1")
    monkeypatch.setenv("OPENLEDGER_CHAIN_POLL_SECONDS", "0.01")
    monkeypatch.setenv("OPENLEDGER_CHAIN_OUTAGE_SECONDS", "0.1")
    monkeypatch.setenv("OPENLEDGER_DATA", str(config.data_dir))
    caplog.set_level(logging.DEBUG)

    def shell(line: str) -> tuple[int, str]:
        capsys.readouterr()
        status = run(line.split())
        captured = capsys.readouterr()
        shell.shown += captured.out + captured.err
        return status, captured.out

    shell.shown = ""
    return shell


@pytest.fixture
def settling(settler):
    """A settler at work beside the commands."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            settler.drain()

    thread = threading.Thread(target=work)
    yield thread.start
    stop.set()
    thread.join()


def test_operator_and_contributor_walk_through(
    shell, settling, market, earn, node, config, tmp_path, monkeypatch, caplog
):
    """deploy, sign, bind, fund, anchor, prove, claim, status: gas is printed, ada is paid, and no key is anywhere."""
    earned = earn()
    settling()
    status, out = shell("anchor deploy --delay-seconds 0 --json")
    assert status == 0
    deployed = json.loads(out)
    assert deployed["gas"]["CheckpointAnchor"] > 0

    keystore = tmp_path / "ada-keystore.json"
    keystore.write_text(json.dumps(Account.encrypt(ADA_KEY, PASSWORD, kdf="pbkdf2", iterations=2)))
    monkeypatch.setenv("OPENLEDGER_CHAIN_PASSWORD", PASSWORD)
    status, out = shell(f"claim sign --account ada --chain-id 31337 --keystore {keystore}")
    (tmp_path / "binding.json").write_text(out)
    assert shell(f"anchor bind --file {tmp_path}/binding.json")[0] == 0
    assert shell("anchor bind --account bob --address 0x00000000000000000000000000000000000000b0")[0] == 0

    status, out = shell("anchor")
    assert status == REFUSED
    assert "anchored" in out
    assert "gas" in out
    assert "Underfunded: missing" in shell.shown
    mint_to(node, deployed, 10**9)
    status, out = shell("anchor --json")
    assert status == 0, shell.shown
    report = json.loads(out)
    assert (report["payouts"]["state"], report["payouts"]["epoch"]) == ("active", 1)
    assert report["payouts"]["unbound"] == ["contributor:cyd", "contributor:dee"]

    status, out = shell(f"claim prove --account ada --out {tmp_path} --json")
    (file,) = json.loads(out)
    status, out = shell(f"claim --file {file} --keystore {keystore}")
    assert status == 0
    assert "gas" in out
    assert shell(f"claim --file {file}")[0] == REFUSED
    assert "NothingToClaim" in shell.shown
    assert shell("claim --account bob")[0] == 0

    found = json.loads(shell("anchor status --json")[1])
    assert found["log_size"] == found["anchored_size"]
    assert found["claimed_units"] == found["promised_units"] == str(earned["ada"] // 1000 + earned["bob"] // 1000)
    require_absent(shell.shown + caplog.text, config.data_dir, keystore, tmp_path)


def mint_to(node, deployed, units: int) -> None:
    from metering.chain.contract import contract

    data = "0x" + contract("TestToken").call_data("mint", deployed["distributor"], units).hex()
    sender = Signer.from_key(OPERATOR_KEY).address
    node.request("eth_sendTransaction", {"from": sender, "to": deployed["token"], "data": data})


def require_absent(shown: str, data_dir, keystore, tmp_path) -> None:
    """No key or password in the output, the logs, or any file: as hex, as raw bytes, or as a number."""
    files = [path for path in [*data_dir.rglob("*"), *tmp_path.rglob("*")] if path.is_file() and path != keystore]
    assert data_dir / "chain.db" in files
    contents = b"\n".join(path.read_bytes() for path in files) + shown.encode()
    for key in (OPERATOR_KEY, ADA_KEY):
        for form in (key[2:].encode(), key[2:].upper().encode(), bytes.fromhex(key[2:]), str(int(key, 16)).encode()):
            assert form not in contents
    assert PASSWORD.encode() not in contents


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("anchor", USAGE, "chain.json does not exist"),
        ("claim --file nowhere.json", USAGE, "nowhere.json"),
        ("claim", USAGE, "name a claim --file, or an --account"),
        ("anchor bind", USAGE, "name a --file"),
        ("anchor deploy --nanos-per-step 3", USAGE, "go together"),
        ("anchor deploy --token 0x1234", USAGE, "40 hex digits"),
        ("anchor deploy --token 0x00000000000000000000000000000000000000b0", USAGE, "no contract at"),
        ("anchor deploy --keystore nowhere", USAGE, "OPENLEDGER_CHAIN_PASSWORD"),
        ("anchor deploy --rpc ftp://x", USAGE, "rpc_url must be http"),
        ("anchor deploy --rpc http://127.0.0.1:9/secret-path", UNREACHABLE, "127.0.0.1:9 does not answer"),
    ],
)
def test_mistakes_end_with_a_name_and_an_exit_code(shell, market, line, status, words):
    """Whatever is missing or wrong: one line that says so, and no trace of a URL's secret."""
    assert shell(line)[0] == status
    assert words in " ".join(shell.shown.split())
    assert "secret-path" not in shell.shown


def test_without_a_key_nothing_is_sent(shell, monkeypatch):
    """KeyMissing names the variable."""
    monkeypatch.delenv("OPENLEDGER_CHAIN_KEY")
    assert shell("anchor deploy")[0] == USAGE
    assert "KeyMissing: no signing key: set OPENLEDGER_CHAIN_KEY" in " ".join(shell.shown.split())


def test_bad_key_is_never_quoted(shell, monkeypatch):
    """A key with a typing error is a key still."""
    monkeypatch.setenv("OPENLEDGER_CHAIN_KEY", OPERATOR_KEY[:-1] + "g")
    assert shell("anchor deploy")[0] == USAGE
    assert "KeyInvalid" in shell.shown
    assert OPERATOR_KEY[2:20] not in shell.shown
