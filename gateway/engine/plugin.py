"""vLLM's `general_plugins` entry point. What reaches into vLLM's classes is here, in runner.py and scheduler.py.

Loaded in the API process, the engine core and each worker, before the model is built. Written against vLLM 0.32; does
nothing unless our launcher started the process, so that a bare vLLM in the same environment stays bare.
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

ENABLED = "OPENLEDGER_ENGINE"
ADAPTERS = "OPENLEDGER_ADAPTERS"
ATTRIBUTION = "OPENLEDGER_ATTRIBUTION"
COMPILED_OPERATIONS = "openledger::keep/1"  # changes with what our operators put into the compiled graph

_registered = False


def register() -> None:
    """Installs the hooks once per process."""
    global _registered
    if _registered or not os.environ.get(ENABLED):
        return
    _registered = True
    _choose_lora_operations()
    _register_resolver(Path(os.environ[ADAPTERS]))
    if attribution_enabled():
        _load_heads_with_adapters()
        _choose_scheduler()
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


def _register_resolver(adapters: Path) -> None:
    from vllm.lora.resolver import LoRAResolverRegistry

    from gateway.engine.resolver import DigestResolver

    LoRAResolverRegistry.register_resolver("openledger", DigestResolver(adapters))


def _load_heads_with_adapters() -> None:
    """A head is read before its adapter becomes visible, and goes at the next load after its adapter left the cache."""
    from vllm.lora.worker_manager import WorkerLoRAManager

    manager: Any = WorkerLoRAManager
    load = manager._load_adapter

    def load_with_head(self: Any, request: Any) -> Any:
        lora = load(self, request)
        heads = getattr(self, "openledger_heads", None)
        if heads is not None:
            heads.retain(self.list_adapters())
            heads.load(request.lora_int_id, Path(request.lora_path))
        return lora

    manager._load_adapter = load_with_head
