"""audit.db: tokens live until they are audited, results and alarms stay."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.audit import store as store_module
from gateway.audit.alarm import LEAST_REQUESTS, judge
from gateway.audit.correlation import Correlation, pooled, pooled_value
from gateway.audit.metrics import AuditMetrics
from gateway.audit.sampled import Audits
from gateway.audit.store import AuditStore, Result, Sample
from gateway.flights import Ticket
from gateway.meter import Meter
from metering.canonical import parse_canonical

ADAPTER = "sha256:" + "a" * 64
REPORTED = Correlation(0.9, 0.88, 0.92, 1000).record()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    opened = AuditStore(tmp_path)
    yield opened
    opened.close()


def sample(number: int) -> Sample:
    return Sample(f"req_{number}", ADAPTER, "base", [[1, 2, 777_777_777]], [[3, 4]], {"ann": 5})


def moments(r: float, seed: int, tokens: int = 40) -> list[float]:
    """Sums of a request whose pairs correlate by about r."""
    draw = np.random.default_rng(seed)
    a, noise = draw.normal(size=(2, tokens))
    b = r * a + (1 - r * r) ** 0.5 * noise
    return [float(value) for value in (tokens, a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum())]


def result(number: int, r: float, status: str = "ok") -> Result:
    found = moments(r, number)
    return Result(
        f"req_{number}", ADAPTER, status, "", "trace", 40, 10, Correlation(r, r, r, 40).record(), REPORTED, found
    )


def test_tokens_are_gone_once_a_result_is_there(store: AuditStore, tmp_path: Path) -> None:
    """A sample comes back as it was queued; its result takes its place, and no file holds its tokens any more."""
    assert store.offer(sample(1), "alice")
    assert store.next_samples(9) == [sample(1)]
    store.finish(result(1, 0.9))
    assert (store.waiting(), store.next_samples(9)) == (0, [])
    assert [found.request_id for found in store.results()] == ["req_1"]
    store.close()
    assert not any(b"777777777" in path.read_bytes() for path in tmp_path.iterdir())


def test_the_queue_is_bounded_and_says_what_it_refused(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue refuses samples and counts them; serving is never asked to wait."""
    monkeypatch.setattr(store_module, "QUEUE_MAX", 2)
    assert [store.offer(sample(number), "alice") for number in range(4)] == [True, True, False, False]
    assert (store.waiting(), store.dropped()) == (2, 2)


def test_an_account_that_opts_out_is_not_sampled_and_what_waits_is_forgotten(store: AuditStore) -> None:
    """Opting out empties the queue of that account's requests; opting in lets new ones be sampled."""
    store.offer(sample(1), "alice")
    store.offer(sample(2), "bob")
    store.opt_out("alice")
    assert [one.request_id for one in store.next_samples(9)] == ["req_2"]
    assert (store.offer(sample(3), "alice"), store.has_opted_out("alice")) == (False, True)
    store.opt_in("alice")
    assert store.offer(sample(3), "alice")


def test_pooling_requests_is_pooling_their_tokens() -> None:
    """r over the summed moments is numpy's r over all pairs; its interval holds it."""
    parts = [moments(0.8, seed) for seed in range(30)]
    pairs = []
    for seed in range(30):
        a, noise = np.random.default_rng(seed).normal(size=(2, 40))
        pairs.append((a, 0.8 * a + 0.6 * noise))
    a, b = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    found = pooled(parts)
    assert found.value == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12) == pooled_value(parts)
    assert found.low < found.value < found.high


def test_drift_over_a_window_raises_one_alarm_and_logs_it(store: AuditStore) -> None:
    """Faithful requests raise nothing; a drifted window raises one alarm, one entry, until it is faithful again."""
    logged: list[tuple[str, bytes]] = []

    def judged() -> bool:
        return judge(store, ADAPTER, lambda kind, body: logged.append((kind, body)))

    for number in range(LEAST_REQUESTS):
        store.finish(result(number, 0.9))
        assert not judged()
    for number in range(100, 130):
        store.finish(result(number, 0.2, "drift"))
    assert (judged(), judged(), len(logged)) == (True, True, 1)
    kind, body = logged[0]
    document = parse_canonical(body)
    assert (kind, document["type"], document["adapter"], document["causes"]) == (
        "audit_alarm", "audit-alarm", ADAPTER, ["drift"],
    )  # fmt: skip
    assert document["correlation"]["high_ppm"] < document["reported"]["low_ppm"]
    text = AuditMetrics(store).render().decode()
    assert f'openledger_audit_alarm{{adapter="{ADAPTER}"}} 1.0' in text
    assert f'openledger_audited_requests_total{{adapter="{ADAPTER}",status="drift"}} 30.0' in text
    for number in range(200, 400):
        store.finish(result(number, 0.95))
    assert (judged(), store.open_alarm(ADAPTER), len(logged)) == (False, None, 1)


def test_a_few_requests_or_an_unmeasured_head_raise_no_drift(store: AuditStore) -> None:
    """Below the least number of requests nothing is judged, and nothing falls below an interval that is absent."""
    for number in range(LEAST_REQUESTS - 1):
        store.finish(result(number, 0.0))
    assert not judge(store, ADAPTER, lambda *_: pytest.fail("logged"))
    other = "sha256:" + "b" * 64
    for number in range(50, 80):
        store.finish(Result(f"req_{number}", other, "unmeasured", "", "fisher", 40, 0, None, None, moments(0, number)))
    assert not judge(store, other, lambda *_: pytest.fail("logged"))


def test_served_sums_that_are_not_the_heads_raise_an_alarm(store: AuditStore) -> None:
    """Two requests of a window suffice: the engine does not serve the head that is installed."""
    for number in range(LEAST_REQUESTS):
        store.finish(result(number, 0.9, "served_mismatch" if number < 2 else "ok"))
    assert judge(store, ADAPTER, lambda _kind, body: None)
    alarm = store.open_alarm(ADAPTER)
    assert alarm is not None
    assert (alarm["causes"], alarm["mismatched"]) == (["served"], 2)


def test_only_scored_requests_that_are_known_whole_are_queued(tmp_path: Path) -> None:
    """No head, a canary, or an answer whose prompt is not known any more: nothing to audit."""
    digest = "sha256:" + "c" * 64
    named = {"endpoint": "/v1", "model": "m", "base": digest, "terms": digest, "price_book": digest}
    ticket = Ticket(
        request_id="req_1", account="alice", key_id="k", adapter=ADAPTER, head=digest, prompt_tokens=2,
        reserved_tokens=0, salt="0" * 64, started_us=0, **named,
    )  # fmt: skip
    audits = Audits(tmp_path, 1_000_000)
    try:
        meter = Meter(contributors=["ann"], scores=[7])
        meter.token_ids[0] = [3, 4]
        assert (audits.takes(ticket), audits.offer(ticket, meter)) == (True, False)
        meter.prompts = [[1, 2]]
        assert audits.offer(ticket, meter)
        assert audits.store.next_samples(1) == [Sample("req_1", ADAPTER, digest, [[1, 2]], [[3, 4]], {"ann": 7})]
        assert not audits.takes(Ticket(**{**vars(ticket), "head": None}))
        assert not audits.takes(Ticket(**{**vars(ticket), "purpose": "canary"}))
    finally:
        audits.close()
