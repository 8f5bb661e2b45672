"""The curve: tokens/s, TTFT and ITL over the number of distinct adapters, as PNG and SVG."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from loadtest.bench.settings import GATEWAY

Arm = Mapping[str, Any]
Point = tuple[float, float, float]  # middle, low, high
Line = tuple[list[int], list[float], list[float], list[float]]  # x, middle, low, high


def write_plots(result: Mapping[str, Any], directory: Path) -> list[Path]:
    """serving-<kind>.png and .svg in `directory`."""
    plt.rcParams |= {"svg.hashsalt": "openledger", "font.size": 9}
    counts = sorted({arm["adapters"] for arm in result["arms"]})
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for axes, title, values in zip(panels, *zip(*PANELS, strict=True), strict=True):
        for name, line in _lines(result, values).items():
            x = [counts.index(count) for count in line[0]]
            spread = [[m - low for m, low in zip(line[1], line[2], strict=True)]]
            spread.append([high - m for m, high in zip(line[1], line[3], strict=True)])
            axes.errorbar(x, line[1], yerr=spread, marker="o", markersize=4, capsize=2, linewidth=1.2, label=name)
        axes.set_title(title)
        axes.set_xticks(range(len(counts)), [str(count) if count else "base" for count in counts])
        axes.set_xlabel("distinct adapters")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    machine, claim = result["machine"], result["claim"]
    note = "" if claim["citable"] else " - NOT TO BE CITED"
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
    figure.suptitle(f"{where}, {result['workload']['streams']} streams, {machine['date'][:10]}{note}")
    paths = [directory / f"serving-{claim['kind']}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return paths


def _lines(result: Mapping[str, Any], values: Callable[[Arm], Point]) -> dict[str, Line]:
    """A line for each server, attribution and popularity; the base model and one adapter begin every line."""
    points: dict[str, dict[int, Point]] = defaultdict(dict)
    for server, attribution, popularity in _kinds(result["arms"]):
        for arm in result["arms"]:
            begins = arm["adapters"] == 0 or (arm["adapters"] == 1 and arm["attribution"] == attribution)
            same = arm["popularity"] == popularity and arm["attribution"] == attribution
            if arm["server"] == server and (begins or same):
                points[_label(server, attribution, popularity)][arm["adapters"]] = values(arm)
    return {name: _line(dict(sorted(found.items()))) for name, found in points.items()}


def _kinds(arms: Sequence[Arm]) -> list[tuple[str, bool, str]]:
    """(server, attribution, popularity) of the lines; popularity is "" where no more than one adapter was measured."""
    kinds = {(arm["server"], arm["attribution"], arm["popularity"]) for arm in arms if arm["adapters"] > 1}
    ones = {(arm["server"], arm["attribution"], "") for arm in arms if arm["adapters"] == 1}
    kinds |= {one for one in ones if one[:2] not in {kind[:2] for kind in kinds}}
    bases = {(arm["server"], False, "") for arm in arms if not arm["adapters"]}
    return sorted(kinds | {base for base in bases if base[0] not in {kind[0] for kind in kinds}})


def _line(points: dict[int, Point]) -> Line:
    middle, low, high = (list(column) for column in zip(*points.values(), strict=True))
    return list(points), middle, low, high


def _label(server: str, attribution: bool, popularity: str) -> str:
    attributed = f"attribution {'on' if attribution else 'off'}" if server == GATEWAY else ""
    return ", ".join(filter(None, (server, popularity, attributed)))


def _speed(arm: Arm) -> Point:
    speed = arm["tokens_per_second"]
    return speed["median"], speed["p5"], speed["p95"]


def _latency(name: str) -> Callable[[Arm], Point]:
    return lambda arm: (arm[name]["p50"], arm[name]["p50"], arm[name]["p95"])


PANELS = (
    ("tokens/s (median, p5 to p95 of rounds)", _speed),
    ("TTFT, ms (p50, whisker to p95)", _latency("ttft_ms")),
    ("ITL, ms (p50, whisker to p95)", _latency("itl_ms")),
)
