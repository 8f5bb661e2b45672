"""python -m adapters.bench world|peers|judge|attacks: worlds of benchmark Datanets, their peers, judges and attackers.

world DATANET --base DIR --out DIR     fetch, export, train and write DIR/DATANET-world (twenty-sources or
                                       invented-facts)
peers WORLD [--rows a,b] [--json]      score it; finished rows are reused
judge WORLD [--subsets 32 --seeds 2]   train the subset bank, then LDS of every row; --out writes the JSON
speed WORLD [--rounds 3]               what a retraining costs, by dtype, batch and processes
attacks --base DIR [--out FILE]        axioms and attacks: what each earns, by defence
base-predicted WORLD [--out FILE]      what text earns that the base model predicts, by weights of training tokens
many-contributors [WORLD] [--out FILE] what 1,000 contributors cost the engine, and what factors cost in LDS
near-duplicates                        how close honest examples are, and which copies the Datanet's check finds
all [--setting small|full]             world, peers and judge of both Datanets, in full the attacks too; docs/results
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.bench import text
from adapters.bench.attacks import attacks_table, run_attacks
from adapters.bench.bank_speed import bank_speed
from adapters.bench.base_predicted import base_predicted, predicted_table
from adapters.bench.figure import write_report
from adapters.bench.judge import judge
from adapters.bench.judge import text as text_table
from adapters.bench.machine import fast_dtype, machine_and_commit
from adapters.bench.many_contributors import factoring, many_contributors_table, step_cost
from adapters.bench.near_duplicate_rates import near_duplicate_rates, rates_table
from adapters.bench.peer_rows import CACHE_DIR, peer_rows
from adapters.bench.rows import ROWS
from adapters.bench.table import measured, table
from adapters.bench.uploads import ATTACKS, HONEST
from adapters.bench.world import write_world
from adapters.demo import facts
from adapters.demo.export import write_export
from adapters.near_duplicates import ACCEPT
from adapters.training.bank import BankConfig
from adapters.training.progress import TerminalBar
from adapters.training.train import train_adapter

LEFT_OUT = {"reason": "left to the full setting"}


def build_world(datanet: str, base_dir: Path, out_dir: Path, segments: int = 8, threads: int = 2) -> Path:
    """The world of a benchmark Datanet under `out_dir`: what is there already is used again."""
    bar = TerminalBar()
    debian = CACHE_DIR.parent / "debian"
    if datanet == text.DATANET:
        given, config = list(text.contributions(debian)), text.TRAINING_CONFIG
        questions = text.heldout_questions(debian)
    else:
        given, questions, config = list(facts.contributions()), facts.heldout_questions(), facts.TRAINING_CONFIG
    export, package = out_dir / f"{datanet}-export", out_dir / datanet
    if not export.exists():
        write_export(datanet, given, export, ACCEPT)  # the copier of `twenty-sources` is there to be judged
    config = replace(config, threads=threads)
    train_adapter(export, base_dir, package, seed=0, config=config, trainer="demo", host="demo", progress=bar)
    world = out_dir / f"{datanet}-world"
    return write_world(world, export, package, base_dir, questions, segments=segments, progress=bar)


def _judge(given: Any) -> str:
    config = BankConfig(
        subsets=given.subsets,
        seeds=given.seeds,
        leave_one_out=given.leave_one_out,
        workers=given.workers,
        dtype=given.dtype,
    )
    report = judge(given.world, config, thread_count=given.threads, progress=TerminalBar())
    if given.out:
        write_report(report | machine_and_commit(), given.out.with_suffix(""))
    return json.dumps(report) if given.json else text_table(report)


@dataclass(frozen=True)
class Setting:
    """Size of the whole benchmark: segments of the replayed run, the peers and the seconds that one may take, the bank,
    whether heads of all targets and widths are compared, and attacks run."""

    segments: int
    peers: tuple[str, ...]
    limit_s: int
    subsets: int
    seeds: int
    leave_one_out: bool
    heads_and_attacks: bool


FEW = ("random", "uniform", "data-size", "oracle-owner", "bm25", "embedding", "repsim", "in-run-shapley")
"""Peers of seconds. The others take minutes for each Datanet, and 20 minutes are for everything."""

SETTINGS = {
    "small": Setting(1, FEW, limit_s=120, subsets=6, seeds=2, leave_one_out=False, heads_and_attacks=False),
    "full": Setting(8, tuple(ROWS), limit_s=3600, subsets=64, seeds=3, leave_one_out=True, heads_and_attacks=True),
}


def run_all(name: str, base_dir: Path, work_dir: Path, out_dir: Path) -> Iterator[dict[str, Any]]:
    """Reports of both Datanets, each written to `out_dir` as attribution-<datanet>-<setting>.json, .png and .svg."""
    setting = SETTINGS[name]
    config = BankConfig(
        subsets=setting.subsets, seeds=setting.seeds, leave_one_out=setting.leave_one_out, dtype=fast_dtype()
    )
    for datanet in (facts.DATANET, text.DATANET):
        world = work_dir / f"{datanet}-world"
        if not world.exists():
            build_world(datanet, base_dir, work_dir, setting.segments)
        peer_rows(world, setting.peers, limit_s=setting.limit_s, progress=TerminalBar())
        report = judge(world, config, compare_heads=setting.heads_and_attacks, progress=TerminalBar())
        report |= machine_and_commit() | {"setting": name}
        report["rows"] |= {row: LEFT_OUT for row in ROWS if row not in report["rows"]}
        write_report(report, out_dir / f"attribution-{datanet}-{name}")
        yield report


def _bank_of(given: Any) -> BankConfig:
    return BankConfig(subsets=given.subsets, seeds=given.seeds, leave_one_out=False, dtype=given.dtype)


def _base_predicted(given: Any) -> str:
    report = base_predicted(given.world, _bank_of(given), thread_count=given.threads, progress=TerminalBar())
    _write(report, given.out)
    return predicted_table(report)


def _many_contributors(given: Any) -> str:
    costs = [step_cost(tokens, given.rounds, given.threads) for tokens in (1, 8)]
    found = None
    if given.world is not None:
        found = factoring(given.world, _bank_of(given), thread_count=given.threads, progress=TerminalBar())
    report = {"type": "attribution-many-contributors", "step_cost": costs, "factoring": found}
    _write(report, given.out)
    return many_contributors_table(report)


def _attacks(base_dir: Path, work_dir: Path, out: Path, **choices: Any) -> str:
    report = run_attacks(work_dir / "attacks", base_dir, CACHE_DIR.parent / "debian", progress=TerminalBar(), **choices)
    _write(report, out)
    return attacks_table(report)


def _write(report: dict[str, Any], out: Path) -> None:
    """JSON with the machine and the commit."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report | machine_and_commit(), indent=1) + "\n")


def _attack_commands(commands: Any) -> None:
    attacks = commands.add_parser("attacks", help="axioms and attacks: what each earns, with and without the defences")
    attacks.add_argument("--base", type=Path, default=Path(".cache/base"))
    attacks.add_argument("--work", type=Path, default=Path(".cache/attribution"))
    attacks.add_argument("--attacks", help="names between semicolons; all when left out")
    attacks.add_argument("--attacker", help="a source; the median one of those that are paid when left out")
    attacks.add_argument("--axioms", action=argparse.BooleanOptionalAction, default=True)
    attacks.add_argument("--threads", type=int, default=2)
    attacks.add_argument("--out", type=Path, default=Path("docs/results/attribution-attacks.json"), help="JSON file")
    rates = commands.add_parser("near-duplicates", help="how close honest examples are, and which copies are found")
    rates.add_argument("--json", action="store_true")
    _banked(commands, "base-predicted", "what text earns that the base model predicts anyway").add_argument(
        "world", type=Path
    )
    many = _banked(commands, "many-contributors", "what 1,000 contributors cost the engine, and factors in LDS")
    many.add_argument("world", type=Path, nargs="?", help="with a bank beside it; without one, cost alone")
    many.add_argument("--rounds", type=int, default=200)


def _banked(commands: Any, name: str, what: str) -> Any:
    """The parser of a command that asks the bank of a world."""
    command = commands.add_parser(name, help=what)
    command.add_argument("--subsets", type=int, default=32)
    command.add_argument("--seeds", type=int, default=2)
    command.add_argument("--dtype", help="of the frozen base while retraining: float32 or bfloat16")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--out", type=Path, default=Path(f"docs/results/attribution-{name}.json"))
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adapters.bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    world = commands.add_parser("world", help="train on a benchmark Datanet and write its world")
    world.add_argument("datanet", choices=(text.DATANET, facts.DATANET))
    world.add_argument("--base", type=Path, required=True, help="base model directory")
    world.add_argument("--out", type=Path, required=True)
    world.add_argument("--segments", type=int, default=8, help="points of the run that are kept; 1 takes no replay")
    world.add_argument("--threads", type=int, default=2)
    peers = commands.add_parser("peers", help="score a world by every known method")
    peers.add_argument("world", type=Path)
    peers.add_argument("--rows", help="comma-separated names; all when left out")
    peers.add_argument("--threads", type=int, default=2)
    peers.add_argument("--limit", type=int, help="seconds a row may take, instead of its own limit")
    peers.add_argument("--json", action="store_true")
    judging = commands.add_parser("judge", help="retrain on subsets and judge every row by LDS")
    judging.add_argument("world", type=Path)
    judging.add_argument("--subsets", type=int, default=32)
    judging.add_argument("--seeds", type=int, default=2)
    judging.add_argument("--leave-one-out", action=argparse.BooleanOptionalAction, default=True)
    judging.add_argument("--workers", type=int, default=2)
    judging.add_argument("--dtype", help="of the frozen base while retraining: float32 or bfloat16")
    judging.add_argument("--threads", type=int, default=2)
    judging.add_argument("--out", type=Path, help="JSON file to write")
    judging.add_argument("--json", action="store_true")
    speed = commands.add_parser("speed", help="seconds a retraining, by dtype, batch and processes")
    speed.add_argument("world", type=Path)
    speed.add_argument("--rounds", type=int, default=3)
    _attack_commands(commands)
    everything = commands.add_parser("all", help="world, peers and judge of both benchmark Datanets; attacks")
    everything.add_argument("--setting", choices=SETTINGS, default="small")
    everything.add_argument("--base", type=Path, default=Path(".cache/base"))
    everything.add_argument("--work", type=Path, default=Path(".cache/attribution"))
    everything.add_argument("--out", type=Path, default=Path("docs/results"))
    return parser


def main() -> None:
    """Command line."""
    given: Any = _parser().parse_args()
    if given.command == "speed":
        print(json.dumps(bank_speed(given.world, given.rounds, TerminalBar()), indent=2))
        return
    if given.command == "all":
        for report in run_all(given.setting, given.base, given.work, given.out):
            print(text_table(report))
        if SETTINGS[given.setting].heads_and_attacks:
            print(_attacks(given.base, given.work, given.out / "attribution-attacks.json"))
        return
    if given.command == "attacks":
        chosen = given.attacks.split(";") if given.attacks else (*ATTACKS, *HONEST)
        choices = {"names": chosen, "attacker": given.attacker, "with_axioms": given.axioms}
        print(_attacks(given.base, given.work, given.out, thread_count=given.threads, **choices))
        return
    if given.command == "base-predicted":
        print(_base_predicted(given))
        return
    if given.command == "many-contributors":
        print(_many_contributors(given))
        return
    if given.command == "near-duplicates":
        found = near_duplicate_rates(CACHE_DIR.parent / "debian")
        print(json.dumps(found, indent=1) if given.json else rates_table(found))
        return
    if given.command == "judge":
        print(_judge(given))
        return
    if given.command == "world":
        print(build_world(given.datanet, given.base, given.out, given.segments, given.threads))
        return
    rows = given.rows.split(",") if given.rows else None
    scored = peer_rows(given.world, rows, threads=given.threads, limit_s=given.limit, progress=TerminalBar())
    report = measured(given.world, scored)
    print(json.dumps(report) if given.json else table(report))


if __name__ == "__main__":
    main()
