"""The benchmark's report as JSON and as one figure: LDS of every row, with its interval and the ceiling."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {True: "#2a7f62", False: "#8a8f98"}


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """path.json, path.png and path.svg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    plt.rcParams |= {"svg.hashsalt": "openledger", "font.size": 9}
    kinds = list(report["ceiling_ppm"])
    scored = {name: row for name, row in report["rows"].items() if any(kind in row for kind in kinds)}
    names = sorted(
        scored, key=lambda name: max(scored[name][kind]["lds"]["ppm"] for kind in kinds if kind in scored[name])
    )
    height = 1.2 + 0.24 * len(names)
    figure, panels = plt.subplots(1, len(kinds), figsize=(11, height), sharey=True, layout="constrained", squeeze=False)
    for axes, kind in zip(panels[0], kinds, strict=True):
        for place, name in enumerate(names):
            if kind not in scored[name]:
                continue
            low, value, high = (scored[name][kind]["lds"][key] / 1e6 for key in ("low_ppm", "ppm", "high_ppm"))
            axes.barh(place, value, color=COLOURS[bool(scored[name]["forward_only"])])
            axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.axvline(report["ceiling_ppm"][kind] / 1e6, color="#b3541e", linestyle="--", label="ceiling between seeds")
        axes.set_title(f"{kind.replace('-', ' ')}: LDS against retraining")
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="x", alpha=0.3)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(
        [*handles, *panels[0][0].get_lines()[-1:]],
        ["forward only", "needs gradients or data", "ceiling between seeds"],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
