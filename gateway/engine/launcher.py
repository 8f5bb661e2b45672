"""Starts the engine process: vLLM's own OpenAI server, embedded, behind a Unix socket, with our hooks.

python -m gateway.engine.launcher --data DIR --model DIR [--name NAME] [vLLM options...]
"""

import argparse
import json
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

from gateway.engine.parent import die_with_parent

CPU_DEFAULTS = {
    "--dtype": "float32",
    "--max-model-len": "2048",
    "--max-num-seqs": "64",
    "--max-num-batched-tokens": "2048",
    "--max-lora-rank": "16",
}
DEFAULT_SLOTS = 32  # of 20 MB for the 135M model; with 8, 32 streams over 64 adapters wait for each other
DEFAULT_HOST_MIB = 2048


def parse_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest, which is vLLM's."""
    parser = argparse.ArgumentParser(prog="gateway.engine.launcher", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the gateway's data directory")
    parser.add_argument("--model", required=True, help="base model: a directory or a hub id")
    parser.add_argument("--name", help="name the base model is served under")
    parser.add_argument("--slots", type=int, default=DEFAULT_SLOTS, help="adapters that can share one step")
    parser.add_argument("--host-mib", type=int, default=DEFAULT_HOST_MIB, help="host memory for adapters and heads")
    parser.add_argument("--no-attribution", action="store_true", help="serve without scores: the benchmark's baseline")
    parser.add_argument("--compile", action="store_true", help="let vLLM compile the model (slower start on CPU)")
    return parser.parse_known_args(argv)


def base_name(model: str, name: str | None) -> str:
    """The served name: given, or recorded beside the model, or the last part of its path."""
    recorded = Path(model) / "base.json"
    if name is None and recorded.exists():
        return json.loads(recorded.read_text())["name"]
    return name or Path(model).name.lower()


def prepare_environment(options: argparse.Namespace) -> None:
    """Settings vLLM and the plugin read from the environment, before either is imported.

    OpenMP is left to vLLM: on two cores it binds one thread to one core and leaves the other to the API and the engine
    core, so that no thread spins at a barrier. Two unbound passive threads (VLLM_CPU_OMP_THREADS_BIND=nobind
    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0) made 1.01, 1.05 and 0.94 times its tokens/s at 1, 8 and
    32 requests (medians of 7, 7 and 5 alternating pairs, 0.7 to 1.8, on a machine that others kept busy).
    """
    os.environ |= {
        "OPENLEDGER_ENGINE": "1",
        "OPENLEDGER_LOADER": str(options.data / "engine" / "loader.sock"),
        "OPENLEDGER_ATTRIBUTION": "0" if options.no_attribution else "1",
        "VLLM_PLUGINS": "openledger",
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the hook is written for the V1 runner
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if Path(options.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def vllm_arguments(options: argparse.Namespace, extra: list[str]) -> list[str]:
    """The command line given to vLLM's own parser; `extra` comes last and so wins."""
    from vllm.platforms import current_platform

    arguments = ["--model", options.model, "--served-model-name", base_name(options.model, options.name)]
    # vLLM's own cache holds what is in a slot and nothing else: host memory is kept by our loader.
    arguments += ["--enable-lora", "--max-loras", str(options.slots), "--max-cpu-loras", str(options.slots)]
    arguments += ["--disable-uvicorn-access-log", "--enable-prompt-tokens-details"]
    if current_platform.is_cpu():
        given = {argument.split("=")[0] for argument in extra}
        arguments += [part for option, value in CPU_DEFAULTS.items() if option not in given for part in (option, value)]
        arguments += [] if options.compile else ["--enforce-eager"]
    cpu, gpu = "gateway.engine.worker.AttributingCPUWorker", "gateway.engine.gpu_worker.AttributingGPUWorker"
    arguments += ["--worker-cls", cpu if current_platform.is_cpu() else gpu]
    return arguments + extra


def listen(path: Path) -> socket.socket:
    """A Unix socket at `path` that only this user may connect to; a stale one of a killed engine is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


async def serve(options: argparse.Namespace, extra: list[str]) -> None:
    """Builds vLLM's engine client and application, adds ours, and serves until SIGTERM."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.launchers.launcher import serve_http
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from gateway.engine.api import MeteringMiddleware, router
    from gateway.engine.loader_client import LoaderClient
    from gateway.engine.meter import Meter, hook_output_processor
    from gateway.engine.residency import Residency
    from gateway.engine.tally import TallyWriter

    directory = options.data / "engine"
    directory.mkdir(parents=True, exist_ok=True)
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(vllm_arguments(options, extra))
    meter = Meter(TallyWriter(directory / "tally"))
    loader = LoaderClient(Path(os.environ["OPENLEDGER_LOADER"]))
    residency = Residency(options.data / "adapters", loader, options.host_mib << 20)
    hook_output_processor(meter)
    async with build_async_engine_client(args) as client:
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        app.include_router(router)
        # vLLM has already built its middleware stack, so ours goes around it.
        inner = app.middleware_stack or app.build_middleware_stack()
        app.middleware_stack = MeteringMiddleware(inner, meter, residency, partial(introduce, app.state))
        app.state.meter, app.state.residency = meter, residency
        app.state.engine_facts = engine_facts(options, client)
        await init_app_state(client, app.state, args, tasks)
        listener = listen(directory / "engine.sock")
        try:
            shutdown = await serve_http(app, sock=listener, port=0, log_level="warning", access_log=False)
        finally:
            (directory / "engine.sock").unlink(missing_ok=True)
    await shutdown


def introduce(state: Any, adapter: Any) -> None:
    """Makes an adapter a model name of vLLM's routes, without vLLM's own loading."""
    from vllm.lora.request import LoRARequest

    known = state.openai_serving_models.lora_requests
    if adapter.digest not in known or known[adapter.digest].lora_int_id != adapter.adapter_id:
        known[adapter.digest] = LoRARequest(adapter.digest, adapter.adapter_id, str(adapter.path))


def engine_facts(options: argparse.Namespace, client: Any) -> dict[str, Any]:
    """What does not change while this engine runs."""
    import torch
    import vllm

    config = client.vllm_config
    return {
        "model": base_name(options.model, options.name),
        "max_model_len": config.model_config.max_model_len,
        "max_lora_rank": config.lora_config.max_lora_rank,
        "vllm": vllm.__version__,
        "torch": torch.__version__,
    }


def main() -> None:
    die_with_parent(signal.SIGTERM)
    options, extra = parse_options(sys.argv[1:])
    options.data = options.data.resolve()
    prepare_environment(options)
    import uvloop

    uvloop.run(serve(options, extra))


if __name__ == "__main__":
    main()
