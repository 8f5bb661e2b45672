"""The benchmark's order, work, comparisons, verdicts and files; no engine."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench import rounds as rounds_module
from loadtest.bench.document import arms_json, claim, workload_json
from loadtest.bench.driver import Answer, Sample
from loadtest.bench.first_token import AddedLatency, drop_from_page_cache, read_ms
from loadtest.bench.plot import write_plots
from loadtest.bench.rounds import Rounds, Samples
from loadtest.bench.settings import BARE, FULL, GATEWAY, SETTINGS, SIZES, Arm, Setting, pair
from loadtest.bench.table import markdown, tables, write_markdown
from loadtest.bench.targets import Target, _judge, comparisons, targets
from loadtest.stats import Interval, summary

ARMS = (Arm(GATEWAY, 0), Arm(BARE, 0), *pair(1), *pair(64, "zipf"))
SETTING = Setting(ARMS, rounds=4, streams=3, waves=2)
ADDED = AddedLatency(
    Interval(1.5, 1.2, 1.8, 60), Interval(1.9, 1.0, 2.5, 60), summary([11.5]), summary([10.0]), summary([1.5])
)


def sample(speed: float) -> Sample:
    return Sample(1000, 1000 / speed, [50.0, 60.0], [10.0, 12.0])


@pytest.fixture
def samples() -> Samples:
    """Attribution costs 2%, the gateway 5%, 64 adapters 30%; every round has a speed of its own."""
    speeds = (95, 100, 49, 50, 34.3, 35)
    return {arm: [sample(speed * f) for f in range(1, 13)] for arm, speed in zip(ARMS, speeds, strict=True)}


@pytest.fixture
def result(samples: Samples) -> dict[str, Any]:
    """A whole result."""
    late = Interval(-3.0, -5.0, -1.0, 10).json()
    numbers = {name: summary([1.0, 2.0]) for name in ("read_ms", "warm_ttft_ms", "cold_ttft_ms", "bound_ms")}
    cold = {size: {"bytes": 10**6, **numbers, "cold_minus_bound_ms": late} for size in SIZES}
    found = comparisons(samples)
    machine = {"cpu": "a CPU", "gpu": None, "cores": 2, "date": "2026-11-23T00:00:00+00:00", "commit": "c" * 40}
    made = {
        "claim": claim("cpu", "quick", {"start": 0.5, "end": 2.0}, 1.0),
        "machine": machine,
        "load_average": {"start": 0.5, "end": 2.0},
        "workload": workload_json(SETTING),
        "targets": [one.json() for one in targets("cpu", found, ADDED.added_ms, cold)],
        "arms": arms_json([samples]),
        "comparisons": [one.json() for one in found],
        "added_latency": ADDED.json(),
        "cold": cold,
    }
    return json.loads(json.dumps(made))


def test_what_a_server_adds_is_what_it_does_not_wait_for_its_engine() -> None:
    """The spans of a Server-Timing header but the engine's; a server without the header says nothing."""
    timed = Answer([0.1], 1, {"server-timing": "admission;dur=1.250, engine;dur=30.100, settle;dur=0.500"})
    assert timed.added_ms == 1.75
    assert Answer([0.1], 1, {}).added_ms is None


async def test_rounds_go_forwards_and_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are measured as AB, BA, AB: drift within a round cancels over two."""
    order: list[Arm] = []

    async def sampled(self: Rounds, arm: Arm, number: int, setting: Setting) -> Sample:
        if number >= 0:
            order.append(arm)
        return sample(1)

    monkeypatch.setattr(rounds_module.Rounds, "_sample", sampled)
    found = await Rounds({}, "base", SETTING, lambda line: None).run(ARMS[:2], 3)
    a, b = ARMS[:2]
    assert order == [a, b, b, a, a, b]
    assert [len(rows) for rows in found.values()] == [3, 3]


def test_paired_arms_do_the_same_work() -> None:
    """On and off ask for the same adapters with the same prompts; another round asks something else."""
    rounds = Rounds({}, "base", SETTING, lambda line: None)
    on, off = (rounds.requests(arm, 0, SETTING) for arm in pair(64, "zipf"))
    assert len(on) == 6
    assert [one.prompt for one in on] == [one.prompt for one in off]
    assert [one.model.replace("/on-", "/off-") for one in on] == [one.model for one in off]
    assert on != rounds.requests(pair(64, "zipf")[0], 1, SETTING)
    bare, through = (rounds.requests(Arm(server, 0), 0, SETTING) for server in (BARE, GATEWAY))
    assert bare == through


def test_ratios_are_those_of_the_rounds(samples: Samples) -> None:
    """Each comparison divides within a round, and only what belongs together."""
    found = {(one.name, one.top): one.ratio.value for one in comparisons(samples)}
    assert found == {
        ("attribution on / off", ARMS[2].name): pytest.approx(0.98),
        ("attribution on / off", ARMS[4].name): pytest.approx(0.98),
        ("gateway / vLLM", ARMS[0].name): pytest.approx(0.95),
        ("many adapters / one", ARMS[4].name): pytest.approx(0.7),
    }


@pytest.mark.parametrize(
    ("interval", "at_least", "verdict"),
    [
        (Interval(0.98, 0.97, 0.99, 10), True, "met"),
        (Interval(0.96, 0.94, 0.98, 10), True, "not shown"),
        (Interval(0.90, 0.88, 0.95, 10), True, "missed"),
        (Interval(0.90, 0.88, 0.95, 10), False, "met"),
        (Interval(0.98, 0.97, 0.99, 10), False, "missed"),
        (Interval(0.95, 0.90, 0.97, 10), False, "not shown"),
        (Interval(0.98, 0.97, 0.99, 9), True, "too few pairs"),
    ],
)
def test_a_verdict_needs_the_whole_interval(interval: Interval, at_least: bool, verdict: str) -> None:
    """A point estimate on the right side of 0.96 is not enough, in either direction; nor are nine pairs."""
    assert _judge("x", 0.96, interval, at_least).verdict == verdict


def test_every_target_is_judged(result: dict[str, Any]) -> None:
    """Attribution with one and with 64 adapters, gateway, many, added latency, cold adapter."""
    verdicts = {one["name"]: one["verdict"] for one in result["targets"]}
    assert list(verdicts.values()) == ["met", "met", "missed", "missed", "met", "met"]
    assert {name.split(":")[0] for name in verdicts} >= {"attribution on / off", "many adapters / one"}
    assert Target.__dataclass_fields__.keys() == result["targets"][0].keys()


def test_a_busy_machine_may_not_be_cited() -> None:
    """Nor may a smoke run; the reasons are in the result and in the document."""
    assert claim("cpu", "quick", {"start": 1.0, "end": 9.0}, 1.0)["citable"]
    busy = claim("cpu", "smoke", {"start": 1.01, "end": 0.0}, 1.0)
    assert not busy["citable"]
    assert len(busy["not_citable_because"]) == 2


def test_the_document_is_rewritten_between_its_marks(result: dict[str, Any], tmp_path: Path) -> None:
    """Twice the same, and the rest of the page stays; a page without marks is not touched."""
    page = tmp_path / "PERFORMANCE.md"
    page.write_text("# Top\n<!-- serving-cpu:begin -->\nold\n<!-- serving-cpu:end -->\nBottom\n")
    for _ in range(2):
        write_markdown(result, page)
        text = page.read_text()
        assert text.startswith("# Top\n<!-- serving-cpu:begin -->\na CPU, 2 cores, 2026-11-23")
        assert text.endswith("<!-- serving-cpu:end -->\nBottom\n")
        assert "\nold\n" not in text
    assert len(list(tables(result))) == 5
    result["claim"] |= {"citable": False, "not_citable_because": ["it was busy"]}
    assert "**Not to be cited**: it was busy." in markdown(result)
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks"):
        write_markdown(result, page)


def test_plots_are_written(result: dict[str, Any], tmp_path: Path) -> None:
    """PNG and SVG, for what was measured."""
    assert sorted(path.name for path in write_plots(result, tmp_path)) == ["serving-cpu.png", "serving-cpu.svg"]
    assert (tmp_path / "serving-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_the_settings_cover_the_curve() -> None:
    """At least ten rounds; 0, 1, 4, 16, 64 and in the full setting 256 adapters; each popularity; on and off; bare."""
    for name, counts in (("quick", {0, 1, 4, 16, 64}), ("full", {0, 1, 4, 16, 64, 256})):
        setting = SETTINGS[name]
        assert setting.rounds >= 10
        assert setting.streams == 32
        assert {arm.adapters for arm in setting.arms} == counts
        assert len(set(setting.arms)) == len(setting.arms)
        assert {Arm(GATEWAY, 0), Arm(BARE, 0), *pair(1), *pair(64, "zipf")} <= set(setting.arms)
    assert {arm.popularity for arm in FULL if arm.adapters == 256} == {"uniform", "zipf", "identical"}


def test_a_package_is_read_from_disk(tmp_path: Path) -> None:
    """Its pages can be dropped and its files read and timed."""
    (tmp_path / "weights").write_bytes(bytes(100_000))
    drop_from_page_cache(tmp_path)
    assert read_ms(tmp_path) > 0
