"""vLLM's `general_plugins` entry point. What reaches into vLLM's classes is here, in runner.py and scheduler.py.

Loaded in the API process, the engine core and each worker, before the model is built. Written against vLLM 0.32; does
nothing unless our launcher started the process, so that a bare vLLM in the same environment stays bare.
"""

import multiprocessing
import os
import signal
from hashlib import sha256
from typing import Any

from gateway.engine.parent import die_with_parent

ENABLED = "OPENLEDGER_ENGINE"
LOADER = "OPENLEDGER_LOADER"  # the loader's socket
ATTRIBUTION = "OPENLEDGER_ATTRIBUTION"
COMPILED_OPERATIONS = "openledger::tapped_lora/1"  # changes with what our operators put into the compiled graph

_registered = False


def register() -> None:
    """Installs the hooks once per process."""
    global _registered
    if _registered or not os.environ.get(ENABLED):
        return
    _registered = True
    if multiprocessing.parent_process() is not None:
        # vLLM's engine core and workers wait for ever when the API process is killed (0.32).
        die_with_parent(signal.SIGKILL)
    _choose_lora_operations()
    _choose_scheduler()
    if attribution_enabled():
        _salt_compile_cache()


def attribution_enabled() -> bool:
    """False when the launcher was told `--no-attribution`, the baseline of the paired benchmark."""
    return os.environ.get(ATTRIBUTION, "1") == "1"


def _choose_lora_operations() -> None:
    """Ours on a CPU, which also serve without attribution; on a GPU vLLM's with the tap behind the shrink."""
    from vllm.platforms import current_platform

    name = "gateway.engine.punica.GroupedPunicaWrapperCPU"
    if not current_platform.is_cpu():
        if not attribution_enabled():
            return
        name = "gateway.engine.punica_gpu.TappedPunicaWrapperGPU"
    platform: Any = type(current_platform)
    platform.get_punica_wrapper = classmethod(lambda cls: name)


def _choose_scheduler() -> None:
    """The attributing twin of the scheduler vLLM chose: asynchronous on a GPU, synchronous on a CPU."""
    from vllm.config.scheduler import SchedulerConfig

    from gateway.engine.scheduler import attributing

    config: Any = SchedulerConfig
    chosen = config.get_scheduler_cls
    config.get_scheduler_cls = lambda self: attributing(chosen(self))


def _salt_compile_cache() -> None:
    """A graph compiled without the tap must not be taken for one with it."""
    from vllm.config import VllmConfig

    config: Any = VllmConfig
    compute_hash = config.compute_hash
    config.compute_hash = lambda self, *args, **kwargs: _salted(compute_hash(self, *args, **kwargs))


def _salted(digest: str) -> str:
    return sha256(f"{digest} {COMPILED_OPERATIONS}".encode()).hexdigest()[: len(digest)]
