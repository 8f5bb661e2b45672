"""openledger serve: prepares the base model, starts the stack, builds the demo, says how to use it."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import orjson
import typer

from gateway.accounts import write_secret
from gateway.cli.failures import FINDING, USAGE, Failure
from gateway.cli.output import Json, emit, errors
from gateway.config import Settings
from gateway.errand import run_errand
from gateway.errors import ConfigurationError
from gateway.preflight import refuse_missing_servers
from gateway.supervisor import (
    Plan,
    StartFailed,
    Stopped,
    Supervisor,
    only_server_of,
    refuse_busy_port,
    stop_signals,
)

DEMO_FILE = "demo.json"  # written by gateway.cli.demo_build


def serve(
    data: Annotated[Path | None, typer.Option(help="data directory; $DATA or ./data")] = None,
    port: Annotated[int | None, typer.Option(help="$PORT or 8000")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on; 127.0.0.1")] = None,
    workers: Annotated[int | None, typer.Option(help="gateway processes")] = None,
    ledger: Annotated[str | None, typer.Option(help="postgresql://...; a file in the data directory")] = None,
    events: Annotated[str | None, typer.Option(help="nats://host:port; the settler reads the journal")] = None,
    settlers: Annotated[int | None, typer.Option(help="settler processes; several need --ledger and --events")] = None,
    model: Annotated[str | None, typer.Option(help="base model: a directory or a hub id; the demo model")] = None,
    demo: Annotated[bool | None, typer.Option(help="build demo Datanets and adapters; only on the demo model")] = None,
    engine_args: Annotated[str, typer.Option(help="further options of the engine (vLLM's)")] = "",
    as_json: Json = False,
) -> int:
    """Serve: engine, gateway and settler under one supervisor, until Ctrl-C."""
    given = {"data": data, "port": port, "host": host, "workers": workers}
    given |= {"ledger": ledger, "events": events, "settlers": settlers}
    try:
        settings = Settings.from_environment(**{name: value for name, value in given.items() if value is not None})
        with only_server_of(settings.data), stop_signals():
            refuse_busy_port(settings.host, settings.port)
            refuse_missing_servers(settings)
            plan = replace(prepare(settings, model), engine_arguments=tuple(shlex.split(engine_args)))
            run(plan, demo if demo is not None else model is None, as_json)
    except ConfigurationError as error:
        raise Failure(USAGE, str(error)) from None
    except StartFailed as error:
        raise Failure(FINDING, str(error)) from None
    except Stopped as stopped:
        errors.print(f"stopped by {stopped}; nothing is left running")
    return 0


def prepare(settings: Settings, model: str | None) -> Plan:
    """The base model on disk: the demo model (made once), a directory, or a hub model. Raises StartFailed."""
    if model is None:
        directory = settings.data / "base"
        if (directory / "base.json").exists():
            errors.print(f"base model     reused {directory}")
        elif run_errand(["-m", "adapters.demo.base", "--out", str(directory)], os.environ):
            raise StartFailed("the demo base model could not be prepared")
        return Plan(settings, directory, orjson.loads((directory / "base.json").read_bytes())["name"])
    directory = Path(model)
    if not directory.is_dir():
        directory = download(settings, model)
    recorded = directory / "base.json"
    known = orjson.loads(recorded.read_bytes())["name"] if recorded.exists() else Path(model).name.lower()
    return Plan(settings, directory.resolve(), settings.base_name or known)


def download(settings: Settings, hub_id: str) -> Path:
    """A hub model's snapshot under $DATA/hub. Raises StartFailed."""
    directory = settings.data / "hub" / hub_id.replace("/", "--")
    code = "import sys; from huggingface_hub import snapshot_download as get; get(sys.argv[1], local_dir=sys.argv[2])"
    if run_errand(["-c", code, hub_id, str(directory)], os.environ):
        raise StartFailed(f"{hub_id} is neither a directory nor a hub model that could be downloaded")
    return directory


def run(plan: Plan, with_demo: bool, as_json: bool) -> None:
    """Starts everything, announces it, tends it until a signal (raised as Stopped), stops everything."""
    settings = plan.settings
    (settings.data / "demo.env").unlink(missing_ok=True)  # whoever waits for it waits for this start
    supervisor = Supervisor(plan, lambda line: errors.print(line, markup=False))
    try:
        with errors.status("starting engine, gateway and settler") as status:
            seconds = supervisor.start(lambda waited: status.update(f"starting engine, gateway and settler ({waited})"))
        errors.print(f"serving        {plan.base_name}, ready after {seconds:.0f} s")
        if build_demo(supervisor, plan, [] if with_demo else ["--client-only"]):
            announce(settings, as_json)
            if with_demo:
                build_demo(supervisor, plan, ["--rest"])
        while True:
            supervisor.turn()
    finally:
        supervisor.stop()


def build_demo(supervisor: Supervisor, plan: Plan, part: list[str]) -> bool:
    """Makes (or finds again) a part of the demo: its client, first Datanet and adapter, or what `part` says."""
    settings = plan.settings
    command = ["-m", "gateway.cli.demo_build", "--data", str(settings.data), "--base", str(plan.base_directory)]
    command += part
    environment = {
        **os.environ,
        "OPENLEDGER_URL": f"http://{settings.local_host}:{settings.port}/v1",
        "OPENLEDGER_API_KEY": settings.operator_key_file.read_text().strip(),
    }
    if run_errand(command, environment, supervisor.turn) == 0:
        return True
    errors.print("the demo could not be built (see above); the gateway serves without it", style="bold red")
    return False


def announce(settings: Settings, as_json: bool) -> None:
    """Writes demo.env and prints how to use the gateway."""
    demo = orjson.loads((settings.data / DEMO_FILE).read_bytes())
    variables = {
        "OPENAI_BASE_URL": settings.base_url,
        "OPENAI_API_KEY": demo["api_key"],
        "OPENLEDGER_MODEL": demo["model"],
    }
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_secret(settings.data / "demo.env", lines)
    if as_json:
        emit(True, {"base_url": settings.base_url, **demo, "demo_env": str(settings.data / "demo.env")}, "")
        return
    out = sys.stdout
    out.write(SNIPPETS.format(env=settings.data / "demo.env", question=demo["question"], **variables))
    out.flush()


SNIPPETS = """
  base URL       {OPENAI_BASE_URL}
  demo API key   {OPENAI_API_KEY}
  demo model     {OPENLEDGER_MODEL}
  in a file      {env}

curl {OPENAI_BASE_URL}/chat/completions -H "Authorization: Bearer {OPENAI_API_KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{OPENLEDGER_MODEL}", "attribution": "tokens",
       "messages": [{{"role": "user", "content": "{question}"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{OPENAI_BASE_URL}", api_key="{OPENAI_API_KEY}")
answer = client.chat.completions.create(
    model="{OPENLEDGER_MODEL}", messages=[{{"role": "user", "content": "{question}"}}]
)
print(answer.choices[0].message.content, answer.attribution, answer.receipt_id)

See it in colour:  openledger demo        Stop:  Ctrl-C
"""
