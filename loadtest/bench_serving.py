"""Measures serving beside bare vLLM: tokens/s, TTFT and ITL over the number of adapters, attribution on and off.

python -m loadtest.bench_serving [--setting quick|gpu|full] [--shape 8b] [--slots N] [--force]
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from loadtest.api import Gateway
from loadtest.bench import machine, servers
from loadtest.bench.adapters import AdapterStore, bare_name
from loadtest.bench.document import arms_json, claim, workload_json
from loadtest.bench.driver import Endpoint
from loadtest.bench.first_token import added_latency, cold_first_token
from loadtest.bench.plot import write_plots
from loadtest.bench.rounds import Rounds, Samples
from loadtest.bench.settings import BARE, COMPILED, ENGINE_OPTIONS, GATEWAY, SETTINGS, SIZES, Arm, Setting
from loadtest.bench.shapes import SHAPES, make_base
from loadtest.bench.table import print_tables, write_markdown
from loadtest.bench.targets import comparisons, targets
from loadtest.errors import LoadtestError, Unreachable, Usage
from loadtest.packages import Base
from loadtest.printer import printer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PERFORMANCE = ROOT / "docs" / "PERFORMANCE.md"
HOST_CACHE_SPARE = 16
HOST_MIB = "8192"  # all adapters of all arms stay in host memory, as bare vLLM keeps them
IDLE_SECONDS = 2.0
CREDIT = "1000"
REGISTRARS = 4  # registrations at once: canaries of several adapters share the engine's steps
console = printer()


@dataclass(frozen=True)
class Plan:
    """One run: what to measure, on which model, where to put files."""

    kind: str
    name: str
    setting: Setting
    base: Path
    slots: int
    work: Path
    out: Path
    shape: str | None

    @property
    def options(self) -> tuple[str, ...]:
        """Engine options of both sides: every adapter of an arm fits the host cache, `slots` fit a step."""
        cache = 2 * self.setting.adapters + HOST_CACHE_SPARE
        return (*ENGINE_OPTIONS[self.kind], "--max-cpu-loras", str(cache))


class Bench:
    """The servers of a run and what is measured on them."""

    def __init__(self, plan: Plan, stack: servers.Server, base: Base) -> None:
        self.plan, self.stack, self.base = plan, stack, base
        self.operator = Gateway(stack.url, (stack.data / "operator.key").read_text().strip())
        self.store = AdapterStore.open(base, plan.work / "packages", self.operator)
        self.key = self.operator.new_account("bench-client", CREDIT)
        self.idle_cpu_percent: dict[str, float] = {}

    def register(self) -> None:
        """All adapters of all arms, and one of each size."""
        began = time.monotonic()
        with ThreadPoolExecutor(REGISTRARS) as pool:
            list(pool.map(self.store.add, range(self.plan.setting.adapters)))
        self.sizes = {size: self.store.add_size(size) for size in SIZES}
        console.print(f"{len(self.store.hexes)} registrations in {time.monotonic() - began:.0f} s")

    async def beside(self, other: servers.Server, name: str, arms: tuple[Arm, ...], rounds: int) -> Samples:
        """Rounds on the gateway and on a bare server that is up at the same time."""
        self.measure_idle(other, name)
        async with AsyncExitStack() as open_:
            through = await open_.enter_async_context(Endpoint(self.stack.url, self.key))
            bare = await open_.enter_async_context(Endpoint(other.url))
            for number in range(max((arm.adapters for arm in arms if arm.server == name), default=0)):
                body = {"lora_name": bare_name(number), "lora_path": str(self.store.path(number))}
                status, text = await bare.post("/load_lora_adapter", body)
                if status != 200:
                    raise Unreachable(f"{name} does not load {body['lora_name']}: {text}")
            endpoints = {GATEWAY: through, name: bare}
            return await Rounds(endpoints, self.base.name, self.plan.setting, console.print).run(arms, rounds)

    def measure_idle(self, other: servers.Server, name: str) -> None:
        """CPU of both servers while nobody asks: what a waiting server takes from the one that is measured."""
        before = {GATEWAY: self.stack.cpu_seconds(), name: other.cpu_seconds()}
        time.sleep(IDLE_SECONDS)
        after = {GATEWAY: self.stack.cpu_seconds(), name: other.cpu_seconds()}
        self.idle_cpu_percent |= {one: round(100 * (after[one] - before[one]) / IDLE_SECONDS, 2) for one in before}

    async def first_tokens(self) -> tuple[Any, dict[str, Any]]:
        """Added latency and cold adapters, one request at a time."""
        setting, socket = self.plan.setting, str(self.stack.data / "engine" / "engine.sock")
        async with Endpoint(self.stack.url, self.key) as through, Endpoint("http://engine/v1", socket=socket) as engine:
            cold = {}
            for size, name in self.sizes.items():
                package = self.stack.data / "adapters" / self.store.hexes[name]
                cold[size] = await cold_first_token(through, engine, name, package, setting.cold_repeats)
            return await added_latency(through, engine, self.base.name, setting.probes), cold

    def check(self) -> dict[str, Any]:
        """The operator's check of all that was metered."""
        report = self.operator.get("/admin/check")
        return {"clean": report["clean"], "findings": report["findings"][:5], "totals": report["totals"]}


def run(plan: Plan) -> dict[str, Any]:
    """All measurements; the result as JSON values."""
    load, began = {"start": machine.load_average()}, time.monotonic()
    prepare_base(plan)
    with ExitStack() as up:
        options = ("--slots", str(plan.slots), "--host-mib", HOST_MIB, *plan.options)
        stack = up.enter_context(servers.gateway(plan.base, plan.work / "gateway", options))
        console.print(f"gateway ready after {stack.start_seconds:.0f} s")
        bench = Bench(plan, stack, Base.read(plan.base))
        bench.register()
        runs, skipped = asyncio.run(measure(bench))
        check = bench.check()
        added, cold = asyncio.run(bench.first_tokens())
    found = [one for samples in runs for one in comparisons(samples)]
    load["end"] = machine.load_average()
    return {
        "claim": claim(plan.kind, plan.name, load, machine.QUIET_LOAD),
        "machine": machine.describe(plan.kind),
        "load_average": load,
        "seconds": round(time.monotonic() - began, 1),
        "engine": {"options": list(plan.options), "slots": plan.slots, "model": bench.base.name},
        "workload": workload_json(plan.setting),
        "idle_cpu_percent": bench.idle_cpu_percent,
        "targets": [one.json() for one in targets(plan.kind, found, added.added_ms, cold)],
        "arms": arms_json(runs),
        "comparisons": [one.json() for one in found],
        "added_latency": added.json(),
        "cold": cold,
        "check": check,
        "skipped": skipped,
    }


async def measure(bench: Bench) -> tuple[list[Samples], list[str]]:
    """The rounds beside bare vLLM as we run it, those beside bare vLLM as it compiles itself, and what was skipped."""
    plan, setting, skipped = bench.plan, bench.plan.setting, list[str]()
    options = ("--max-loras", str(plan.slots), *plan.options)
    with servers.bare(plan.base, bench.base.name, plan.work / "bare", options) as other:
        console.print(f"bare vLLM ready after {other.start_seconds:.0f} s")
        runs = [await bench.beside(other, BARE, setting.arms, setting.rounds)]
    if setting.compiled_rounds:
        arms = (Arm(GATEWAY, 0), Arm(COMPILED, 0))
        try:
            with servers.bare(plan.base, bench.base.name, plan.work / "compiled", options, compiled=True) as other:
                console.print(f"bare vLLM, compiled, ready after {other.start_seconds:.0f} s")
                runs.append(await bench.beside(other, COMPILED, arms, setting.compiled_rounds))
        except Unreachable as error:
            skipped.append(f"{COMPILED}: {str(error)[-500:]}")
    return runs, skipped


def prepare_base(plan: Plan) -> None:
    """Makes the demo's base model, or one with random weights, unless a model is there."""
    if plan.shape:
        if not plan.base.exists():
            make_base(plan.base, plan.shape)
        return
    if (plan.base / "base.json").exists():
        return
    if plan.base != default_base():
        raise Usage(f"--base: {plan.base} holds no base.json; serve it once with `openledger serve --model`")
    servers.run_once(["-m", "adapters.demo.base", "--out", str(plan.base)])


def default_base() -> Path:
    return ROOT / ".cache" / "base"


def parse(argv: list[str] | None) -> tuple[Plan, bool, bool]:
    """The plan, whether a busy machine is accepted, and whether files are kept."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_serving", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--setting", choices=SETTINGS, default="quick")
    add("--kind", choices=ENGINE_OPTIONS, default="gpu" if shutil.which("nvidia-smi") else "cpu")
    add("--base", type=Path, default=default_base(), help="base model directory (the demo's)")
    add("--shape", choices=SHAPES, help="a base model of this shape with random weights, instead of --base")
    add("--slots", type=int, default=32, help="adapters that share one step, on both sides (32)")
    add("--rounds", type=int)
    add("--streams", type=int)
    add("--compiled-rounds", type=int, help="rounds beside vLLM with its default compilation")
    add("--work", type=Path, help="where data directories and logs are kept; else a temporary directory")
    add("--out", type=Path, default=RESULTS, help="directory of serving-<kind>.json, .png, .svg (docs/results)")
    add("--force", action="store_true", help="measure on a busy machine; the result says that it must not be cited")
    given = parser.parse_args(argv)
    setting = SETTINGS[given.setting]
    numbers = ("rounds", "streams", "compiled_rounds")
    changes = {name: value for name in numbers if (value := getattr(given, name)) is not None}
    work = given.work or Path(tempfile.mkdtemp(prefix="bench-serving-"))
    plan = Plan(
        given.kind,
        given.setting,
        replace(setting, **changes),
        work.resolve() / f"shape-{given.shape}" if given.shape else given.base.resolve(),
        given.slots,
        work.resolve(),
        given.out,
        given.shape,
    )
    return plan, given.force, given.work is not None


def main(argv: list[str] | None = None) -> int:
    plan, force, keep = parse(argv)
    load = machine.load_average()
    try:
        if load > machine.QUIET_LOAD and not force:
            raise Usage(f"the load average is {load:.2f}, above {machine.QUIET_LOAD:g}: wait, or --force (not citable)")
        result = run(plan)
    except LoadtestError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return error.status
    finally:
        if not keep:
            shutil.rmtree(plan.work, ignore_errors=True)
    plan.out.mkdir(parents=True, exist_ok=True)
    path = plan.out / f"serving-{plan.kind}.json"
    path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    write_plots(result, plan.out)
    if plan.out.resolve() == RESULTS:
        write_markdown(result, PERFORMANCE)
    print_tables(console, result)
    console.print(f"{path}, after {result['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
