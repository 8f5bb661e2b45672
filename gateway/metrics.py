"""Prometheus metrics of the gateway: own prefix, OpenTelemetry GenAI attribute names as labels where they fit."""

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.flights import Ticket
from gateway.metrics_directory import MULTIPROCESS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

REQUESTS = Counter("openledger_http_requests", "HTTP requests", ["method", "route", "status"])
DURATION = Histogram("openledger_http_request_duration_seconds", "Time to the last byte", ["route"], buckets=SECONDS)
TOKENS = Counter(
    "openledger_gen_ai_client_token_usage",
    "Metered tokens",
    ["gen_ai_request_model", "gen_ai_token_type", "purpose"],
)
COST = Counter("openledger_cost_nanos", "Rated cost in nanos", ["gen_ai_request_model", "currency"])
ADDED = Histogram(
    "openledger_added_before_first_byte_seconds",
    "Time before the first byte of an answer that is the gateway's own",
    buckets=(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, *SECONDS[1:]),
)
RECOVERED = Counter("openledger_recovered_requests", "Requests settled by recovery", ["outcome"])


def observe_usage(ticket: Ticket, usage: dict) -> None:
    """Counts one durable usage event. All compositions that requests made are one label: there is no end of them."""
    model = "composition" if ticket.model == ticket.adapter and ticket.composed_of else ticket.model
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    for kind, tokens in (
        ("input", usage["prompt_tokens"] - cached),
        ("cached", cached),
        ("output", usage["completion_tokens"]),
    ):
        TOKENS.labels(model, kind, ticket.purpose).inc(tokens)
    COST.labels(model, usage["currency"]).inc(usage["cost_nanos"])


def render() -> bytes:
    """The exposition text of this worker, or of all workers where the supervisor set up a shared directory."""
    if MULTIPROCESS not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
