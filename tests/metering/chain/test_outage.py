"""RPC outages: a node that is away, comes back, or answers badly; nothing is lost and nothing happens twice."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eth_utils import keccak

from metering.chain.anchor import anchored_head
from metering.chain.config import ChainConfig
from metering.chain.errors import ChainRefused, ChainUnavailable
from metering.chain.node import AnvilNode
from metering.chain.rpc import Rpc

SECRET_PATH = "/v3/provider-key-in-the-url"


@pytest.fixture
def own_node(modules, tmp_path):
    """A node of the test's own, whose chain outlives it."""
    node = AnvilNode(modules, state=tmp_path / "anvil.json")
    node.start()
    yield node
    node.stop()


def test_node_that_dies_and_comes_back_loses_nothing(market, settler, own_node, open_chain, tmp_path, earn):
    """The node is killed after the anchoring was signed; after its return a new process sends the very same bytes."""
    chain = open_chain(tmp_path / "data", on=own_node, outage_seconds=0.2)
    earn(1)
    signed = []
    chain.sender.rpc.broadcast = lambda raw: (signed.append(raw), own_node.stop(), Rpc.broadcast(chain.rpc, raw))
    with pytest.raises(ChainUnavailable, match="does not answer eth_sendRawTransaction: ConnectError"):
        chain.anchors(market).anchor()
    del chain.sender.rpc.broadcast
    with pytest.raises(ChainUnavailable):
        chain.anchors(market).anchor()

    earn(1)  # the meter goes on without the chain
    own_node.start()
    sender = chain.restarted()
    nonce = chain.rpc.nonce(chain.signer.address, "latest")
    checkpoint, _ = chain.anchors(market, sender).anchor()
    assert anchored_head(chain.rpc, chain.deployment, checkpoint.origin).size == checkpoint.size
    assert chain.rpc.receipt(_hash(signed[0])) is not None, "the transaction signed before the outage was mined"
    assert chain.rpc.nonce(chain.signer.address, "latest") - nonce >= 2


def test_short_outage_is_waited_out(market, settler, own_node, open_chain, tmp_path, earn):
    """A node that is away for less than the limit is only a pause: the same call succeeds."""
    chain = open_chain(tmp_path / "data", on=own_node)
    earn(1)
    own_node.stop()
    back = threading.Timer(0.5, own_node.start)
    back.start()
    checkpoint, receipt = chain.anchors(market).anchor()
    back.join()
    assert receipt is not None
    assert anchored_head(chain.rpc, chain.deployment, checkpoint.origin).size == checkpoint.size


def _hash(raw: bytes) -> str:
    return "0x" + keccak(raw).hex()


@pytest.fixture
def answers():
    """A node that gives the listed (status, body) answers in turn, the last one for ever; and its URL."""
    script: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, body = script.pop(0) if len(script) > 1 else script[0]
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = ChainConfig(f"http://127.0.0.1:{server.server_port}{SECRET_PATH}", outage_seconds=2.0)
    rpc = Rpc(config, pause=lambda _: None)
    yield rpc, script
    rpc.close()
    server.shutdown()
    server.server_close()
    thread.join()


GOOD = (200, b'{"jsonrpc":"2.0","id":1,"result":"0x7a69"}')


@pytest.mark.parametrize(
    "bad",
    [
        (503, b"down for maintenance"),
        (429, b"slow down"),
        (200, b"<html>a proxy's page</html>"),
        (200, b"[]"),
        (200, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"limit exceeded"}}'),
    ],
)
def test_busy_node_is_asked_again(answers, bad):
    """Overload, rate limits and proxies' pages are retried until there is an answer."""
    rpc, script = answers
    script += [bad, bad, GOOD]
    assert rpc.chain_id() == 31337


def test_errors_of_the_node_name_the_host_and_never_the_url(answers):
    """Providers put keys into the URL: refusals and outages show host and port only."""
    rpc, script = answers
    script.append((403, b"forbidden"))
    with pytest.raises(ChainRefused, match=r"127.0.0.1:[0-9]+ answers 403") as refused:
        rpc.chain_id()
    script[:] = [(503, b"")]
    rpc._config = ChainConfig(rpc._config.rpc_url, outage_seconds=0.0)
    with pytest.raises(ChainUnavailable, match="HTTP 503") as away:
        rpc.chain_id()
    shown = f"{refused.value!r} {away.value!r} {rpc._config!r}"
    assert "provider-key" not in shown


def test_refusal_of_the_node_is_not_retried(answers):
    """An error that asking again cannot mend is reported at once, in the node's words."""
    rpc, script = answers
    script += [(200, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32003,"message":"insufficient funds"}}'), GOOD]
    with pytest.raises(ChainRefused, match="insufficient funds"):
        rpc.chain_id()
    assert script == [GOOD]


def test_unreachable_node_is_named():
    """Nothing listens: ChainUnavailable with host and port."""
    rpc = Rpc(ChainConfig("http://127.0.0.1:9/secret", outage_seconds=0.0))
    with pytest.raises(ChainUnavailable, match=r"127.0.0.1:9 does not answer eth_chainId"):
        rpc.chain_id()
    rpc.close()
