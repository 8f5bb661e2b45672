"""Prometheus metrics of audits, read from audit.db: all workers show the same numbers."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.audit.alarm import window_of
from gateway.audit.correlation import pooled_value
from gateway.audit.store import AuditStore

PPM = 1_000_000


class AuditMetrics(Collector):
    """Counts by adapter and status; the window's correlation, the report's lower bound and the alarm by adapter."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    def render(self) -> bytes:
        """The exposition text."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        audited = CounterMetricFamily("openledger_audited_requests", "Audited", labels=["adapter", "status"])
        correlation = GaugeMetricFamily(
            "openledger_audit_correlation", "Pearson of served and exact scores over the window", labels=["adapter"]
        )
        reported = GaugeMetricFamily(
            "openledger_audit_reported_low", "Lower bound of the fidelity report's interval", labels=["adapter"]
        )
        alarm = GaugeMetricFamily("openledger_audit_alarm", "1 while scores are below the report", labels=["adapter"])
        counts = self._store.counts()
        for adapter, status, number in counts:
            audited.add_metric([adapter, status], number)
        for adapter in sorted({adapter for adapter, _, _ in counts}):
            window = window_of(self._store, adapter)
            if window:
                moments = [result.moments for result in window if result.moments is not None]
                correlation.add_metric([adapter], pooled_value(moments))
                if window[0].reported is not None:
                    reported.add_metric([adapter], window[0].reported["low_ppm"] / PPM)
            alarm.add_metric([adapter], self._store.open_alarm(adapter) is not None)
        yield from (audited, correlation, reported, alarm)
        yield GaugeMetricFamily("openledger_audit_queue", "Samples that wait", self._store.waiting())
        yield CounterMetricFamily("openledger_audit_dropped", "Samples a full queue refused", self._store.dropped())
        yield GaugeMetricFamily("openledger_audit_enabled", "1 while samples are audited", not self._store.reason)
