"""Prometheus metrics of the event bus, as this machine's forwarder last noted them; nothing where there is no bus."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from metering.forwarder_state import FILE, load_state

GAUGES = {
    "published": "Records that the bus has acknowledged",
    "duplicates": "Published records that the bus already had",
    "failures": "Times that the bus was lost or refused a record",
    "unsettled": "Events on the bus that no settler has acknowledged",
}


def render_forwarder(journal: Path) -> bytes:
    """The exposition text; `openledger_forwarder_up` is 0 while the bus cannot take what the journal holds."""
    if not (journal / FILE).exists():
        return b""
    state, registry = load_state(journal), CollectorRegistry()
    for name, help_text in GAUGES.items():
        Gauge(f"openledger_forwarder_{name}", help_text, registry=registry).set(getattr(state, name))
    Gauge("openledger_forwarder_up", "1 while records go through", registry=registry).set(not state.failure)
    return generate_latest(registry)
