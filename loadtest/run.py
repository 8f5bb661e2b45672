"""Loads an OpenAI API with locust users, judges it by objectives, and proves that every token was counted once.

python -m loadtest.run [--url URL --key KEY] [--users N | --rate R] [--duration S] [--slo "..."] [--web]
"""

import logging
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import orjson
from locust.env import Environment
from locust.runners import LocalRunner

from loadtest.api import Gateway
from loadtest.bench.machine import load_average
from loadtest.books import collect
from loadtest.errors import NOT_RECONCILED, OK, SLO_MISSED, LoadtestError, Usage
from loadtest.generator_cpu import GeneratorCpu
from loadtest.load import Load
from loadtest.options import Options, parse_options
from loadtest.packages import Base
from loadtest.printer import printer
from loadtest.publish import publish
from loadtest.reconcile import Reconciliation, reconcile
from loadtest.registrar import register_forever
from loadtest.report import print_report
from loadtest.slo import judge
from loadtest.summary import document, measured
from loadtest.users import ArrivalsUser, LoadUser, closed_loop, open_loop

LAST_ANSWERS_SECONDS = 120.0
TURN_SECONDS = 0.5
console = printer()


def main(argv: list[str] | None = None) -> int:
    """Runs a load test; returns the exit code."""
    try:
        return run(parse_options(argv))
    except LoadtestError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return error.status


def run(options: Options) -> int:
    """Load, report, proof. Raises LoadtestError."""
    logging.getLogger("locust").setLevel(logging.WARNING)
    load_at_start = load_average()
    account, gateway = open_gateway(options)
    load = Load(options.workload, options.models or gateway.model_names(), options.popularity, options.seed)
    if not load.models:
        raise Usage(f"{options.target.url} serves no model")
    cpu = GeneratorCpu()
    drive(options, load, gateway.key, account, cpu)
    proof = prove(options, gateway, account, load) if options.reconcile else None
    verdicts = judge(options.objectives, measured(load))
    report = document(load)
    print_report(console, report, cpu, verdicts, proof)
    report |= {
        "url": options.target.url,
        "shape": shape(options),
        "generator_cpu_percent": {"mean": cpu.mean, "max": cpu.highest},
        "objectives": [one.json() for one in verdicts],
        "reconciliation": proof.json() if proof else None,
    }
    if options.publish:
        loads = {"start": load_at_start, "end": load_average()}
        console.print(f"published: {publish(report, options.publish, loads)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    if proof and not proof.clean:
        return NOT_RECONCILED
    return OK if all(one.met for one in verdicts) and load.seen else SLO_MISSED


def open_gateway(options: Options) -> tuple[str | None, Gateway]:
    """The run's own account (None without the operator's key) and the gateway seen by the client."""
    target = options.target
    if not target.operator_key:
        assert target.key is not None, "a target has a key"
        return None, Gateway(target.url, target.key)
    operator = Gateway(target.url, target.operator_key)
    account = f"load-{secrets.token_hex(4)}"
    key = operator.new_account(account, options.credit)
    operator.close()
    return account, Gateway(target.url, key)


def drive(options: Options, load: Load, key: str, account: str | None, cpu: GeneratorCpu) -> None:
    """Starts the users, waits for the duration (or Ctrl-C), lets the last answers end."""
    host = options.target.root
    user = open_loop(load, host, key, options.rate) if options.rate else closed_loop(load, host, key)
    environment = Environment(user_classes=[user], host=host, stop_timeout=LAST_ANSWERS_SECONDS)
    runner = environment.create_local_runner()
    with web_page(options, environment), registrar(options, load, account):
        models = f"{len(load.models)} models ({options.popularity})"
        console.print(f"{options.target.url}: {shape(options)}, {models}, {options.duration_seconds:g} s")
        load.began = time.perf_counter()
        runner.start(1 if options.rate else options.users, spawn_rate=100)
        wait(load.began + options.duration_seconds, cpu)
        stop(runner, user, cpu)
        load.ended = time.perf_counter()
        if options.web:
            console.print("the page stays until Ctrl-C")
            wait(float("inf"), cpu)
    runner.quit()


def shape(options: Options) -> str:
    """`8 users` of a closed loop, or `4 requests/s` of an open one."""
    return f"{options.rate:g} requests/s" if options.rate else f"{options.users} users"


def wait(until: float, cpu: GeneratorCpu) -> None:
    """Samples the generator's CPU until a time, or until Ctrl-C."""
    try:
        while (left := until - time.perf_counter()) > 0:
            gevent.sleep(min(TURN_SECONDS, left))
            cpu.sample()
    except KeyboardInterrupt:
        console.print("stopped by Ctrl-C")


def stop(runner: LocalRunner, user: type[LoadUser], cpu: GeneratorCpu) -> None:
    """No new requests; the ones that run get their answer."""
    runner.stop()
    if issubclass(user, ArrivalsUser):
        user.in_flight.join(timeout=LAST_ANSWERS_SECONDS)
        user.in_flight.kill()
    cpu.sample()


@contextmanager
def web_page(options: Options, environment: Environment) -> Iterator[None]:
    """Locust's own page while the load runs."""
    if not options.web:
        yield
        return
    host, _, port = options.web.rpartition(":")
    del sys.argv[1:]  # locust's page would parse our options as its own
    page = environment.create_web_ui(host or "127.0.0.1", int(port))
    console.print(f"locust's page: http://{host or '127.0.0.1'}:{port}")
    try:
        yield
    finally:
        page.stop()


@contextmanager
def registrar(options: Options, load: Load, account: str | None) -> Iterator[None]:
    """New adapters while the load runs, if asked for."""
    if not options.register_seconds:
        yield
        return
    assert account is not None
    assert options.base is not None
    assert options.target.operator_key is not None
    operator = Gateway(options.target.url, options.target.operator_key)
    arguments = (load, operator, Base.read(options.base), account, options.register_seconds)
    worker = gevent.spawn(register_forever, *arguments)
    try:
        yield
    finally:
        worker.kill()
        operator.close()


def prove(options: Options, gateway: Gateway, account: str | None, load: Load) -> Reconciliation:
    """Reconciles what was seen with the books."""
    console.print("reconciling ...")
    return reconcile(load.seen, collect(options.target, gateway, account, load.seen, options.settle_seconds))


if __name__ == "__main__":
    sys.exit(main())
