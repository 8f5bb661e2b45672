"""The command line of a load test."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from loadtest.behaviours import DEFAULT_MIX, Workload, parse_mix
from loadtest.errors import Usage
from loadtest.popularity import KINDS
from loadtest.slo import Objective, parse_slo
from loadtest.target import Target, find_target

DEFAULT_SLO = "error_rate=0.01"


@dataclass(frozen=True)
class Options:
    """One run. `rate` makes it an open loop; `register_seconds` 0 registers nothing meanwhile."""

    target: Target
    workload: Workload
    objectives: list[Objective]
    models: list[str]
    popularity: str
    users: int
    rate: float | None
    duration_seconds: float
    register_seconds: float
    base: Path | None
    credit: str
    web: str | None
    settle_seconds: float
    reconcile: bool
    out: Path | None
    publish: str | None
    seed: int


def parse_options(argv: list[str] | None = None) -> Options:
    """Options of a command line. Raises Usage for what cannot be run; argparse itself exits with 2."""
    given = _parser().parse_args(argv)
    if given.users < 1 or given.duration <= 0 or given.max_tokens < 1 or (given.rate is not None and given.rate <= 0):
        raise Usage("--users, --rate, --duration and --max-tokens must be greater than zero")
    target = find_target(given.url, given.key, given.operator_key, given.data)
    base = given.base or (target.data / "base" if target.data else None)
    if given.register_every and not (target.operator_key and base and (base / "base.json").exists()):
        raise Usage("--register-every needs the operator's key and --base, the directory of the base model")
    return Options(
        target=target,
        workload=Workload(
            mix=parse_mix(given.mix),
            prompt_words=given.prompt_words,
            max_tokens=given.max_tokens,
            pause_seconds=given.pause,
            token_ids=not given.plain,
        ),
        objectives=parse_slo(given.slo),
        models=[name for name in given.models.split(",") if name],
        popularity=given.popularity,
        users=given.users,
        rate=given.rate,
        duration_seconds=given.duration,
        register_seconds=given.register_every,
        base=base,
        credit=given.credit,
        web=given.web,
        settle_seconds=given.settle_seconds,
        reconcile=not given.no_reconcile and not given.plain,
        out=given.out,
        publish=given.publish,
        seed=given.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.run",
        description="Loads an OpenAI API and proves that every token was counted once.",
        epilog="exit codes: 0 good, 1 an objective was missed, 2 usage, 3 does not reconcile, 4 unreachable, 5 refused",
    )
    add = parser.add_argument
    add("--url", help="of the API; OPENAI_BASE_URL, or $DATA/demo.env")
    add("--key", help="client key; OPENAI_API_KEY, or $DATA/demo.env")
    add("--operator-key", help="gives the run an account of its own, and the check; $DATA/operator.key")
    add("--data", type=Path, help="data directory, when it is on this machine; $DATA or ./data")
    add("--users", type=int, default=8, help="closed loop: users that each wait for their answer (8)")
    add("--rate", type=float, help="open loop: arrivals a second, Poisson; replaces --users")
    add("--duration", type=float, default=120, help="seconds (120)")
    add("--slo", default=DEFAULT_SLO, help='"ttft_p95_ms=500, itl_p99_ms=80, error_rate=0.01, tokens_per_second=100"')
    add("--mix", default=",".join(f"{name}={weight}" for name, weight in DEFAULT_MIX.items()), help="%(default)s")
    add("--models", default="", help="comma-separated, the most popular first; all that are served")
    add("--popularity", choices=KINDS, default="zipf", help="of models (zipf)")
    add("--prompt-words", type=int, default=40)
    add("--max-tokens", type=int, default=32, help="a request asks for half of it to all of it (32)")
    add("--pause", type=float, default=0.2, help="seconds a slow reader waits after each piece (0.2)")
    add("--register-every", type=float, default=0, metavar="SECONDS", help="register a new adapter this often (never)")
    add("--base", type=Path, help="base model directory, for --register-every; $DATA/base")
    add("--credit", default="100", help="credit of the run's own account (100)")
    add("--web", nargs="?", const="127.0.0.1:8089", metavar="HOST:PORT", help="show locust's page meanwhile")
    add("--plain", action="store_true", help="ask for nothing beyond OpenAI's API: no token ids, no reconciliation")
    add("--no-reconcile", action="store_true")
    add("--settle-seconds", type=float, default=60, help="longest wait for the last receipt (60)")
    add("--out", type=Path, help="JSON report")
    add("--publish", choices=("cpu", "gpu"), help="write docs/results/loadtest-KIND.json and docs/PERFORMANCE.md")
    add("--seed", type=int, default=0)
    return parser
