"""The worker's loader: reads adapters and heads into host memory on a thread of its own, beside the engine's steps.

What is left for the step is activation, a copy from host memory into the adapter's slot.
"""

import json
import logging
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gateway.engine.errors import AdapterInvalid, AdapterLoadFailed, AdapterUnknown, EngineError
from gateway.engine.heads import HeadStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostAdapter:
    """A parsed adapter: vLLM's model object, and the rank it uses in each LoRA layer, by the layer's address."""

    model: Any
    ranks: Mapping[int, int]
    bytes: int


class AdapterLoader:
    """Host memory of one worker. `load` and `drop` run on the loader's thread, `take` on the engine's."""

    def __init__(self, lora_manager: Any, heads: HeadStore | None):
        self._lora_manager = lora_manager
        self._heads = heads
        self._adapters: dict[int, HostAdapter] = {}
        self._lock = threading.Lock()

    def load(self, adapter_id: int, digest: str, path: Path) -> HostAdapter:
        """Reads a package, checks it against the served model and keeps it. Raises EngineError."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest(lora_name=digest, lora_int_id=adapter_id, lora_path=str(path))
        try:
            with self._lock:
                self._adapters[adapter_id] = self._read(request, self._heads)
                return self._adapters[adapter_id]
        except EngineError:
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise AdapterLoadFailed(f"adapter {digest}: out of memory: {error}") from error
        except Exception as error:
            if not path.is_dir():
                raise AdapterUnknown(f"adapter {digest} is no longer on disk") from error
            if "allocate memory" in str(error):
                raise AdapterLoadFailed(f"adapter {digest}: out of memory") from error
            raise AdapterInvalid(f"adapter {digest}: {error}") from error

    def _read(self, request: Any, heads: HeadStore | None) -> HostAdapter:
        manager = self._lora_manager._adapter_manager
        lora = self._lora_manager.read_adapter(request)
        ranks = {name: weights.lora_a.shape[0] for name, weights in lora.loras.items() if weights.lora_a is not None}
        manager._create_merged_loras_inplace(lora)
        by_address = fitting_ranks(lora.loras, manager.modules)
        head_bytes = heads.load(request.lora_int_id, Path(request.lora_path), ranks) if heads else 0
        size = sum(t.numel() * t.element_size() for weights in lora.loras.values() for t in tensors_of(weights))
        return HostAdapter(lora, by_address, size + head_bytes)

    def drop(self, adapter_id: int) -> None:
        """Frees an adapter and its head. Its slot, if it has one, keeps its copy until the slot is needed."""
        with self._lock:
            self._adapters.pop(adapter_id, None)
            if self._heads:
                self._heads.forget(adapter_id)

    def take(self, request: Any) -> HostAdapter:
        """An adapter for its slot. One whose last request has just ended may be gone: it is read here, not kept."""
        found = self._adapters.get(request.lora_int_id)
        return found or self._read(request, None)

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One request of loader_client.py."""
        if "drop" in question:
            self.drop(question["drop"])
            return {}
        try:
            loaded = self.load(question["load"], question["digest"], Path(question["path"]))
        except EngineError as error:
            return {"code": error.code, "message": str(error)}
        return {"bytes": loaded.bytes}

    def serve(self, path: Path) -> None:
        """Answers at the Unix socket `path` from a daemon thread, until the process ends."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        threading.Thread(target=self._serve, args=(listener,), name="adapter-loader", daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream, torch.inference_mode():
                for line in stream:
                    stream.write(json.dumps(self._answer(line)).encode() + b"\n")
                    stream.flush()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return self.answer(json.loads(line))
        except Exception as error:
            logger.exception("the loader failed on %r", line)
            return {"code": AdapterLoadFailed.code, "message": repr(error)}


def tensors_of(weights: Any) -> list[torch.Tensor]:
    """A and B of one LoRA layer, packed or not."""
    both = [weights.lora_a, weights.lora_b]
    flat = [t for part in both for t in (part if isinstance(part, list) else [part])]
    return [t for t in flat if t is not None]


def fitting_ranks(loras: Mapping[str, Any], modules: Mapping[str, Any]) -> dict[int, int]:
    """Rank used in each LoRA layer, by address. Raises AdapterInvalid for weights with no layer or of a wrong shape."""
    strange = sorted(loras.keys() - modules.keys())
    if strange or not loras:
        raise AdapterInvalid(f"weights for modules the base model does not have: {strange[:3]}")
    ranks: dict[int, int] = {}
    for name, module in modules.items():
        stacked_a, stacked_b = getattr(module, "lora_a_stacked", None), getattr(module, "lora_b_stacked", None)
        if not isinstance(stacked_a, tuple) or not isinstance(stacked_b, tuple):
            continue
        weights = loras.get(name)
        address = stacked_a[0].data_ptr()
        ranks[address] = 0
        if weights is None:
            continue
        A, B = ([part] if not isinstance(part, list) else part for part in (weights.lora_a, weights.lora_b))
        for a, b, slot_a, slot_b in zip(A, B, stacked_a, stacked_b, strict=True):
            if a is None and b is None:
                continue
            if a is None or b is None or not _fits(a, b, slot_a, slot_b, getattr(module, "tp_size", 1)):
                raise AdapterInvalid(f"weights of {name} do not fit: {[tuple(t.shape) for t in tensors_of(weights)]}")
            ranks[address] = max(ranks[address], a.shape[0])
    return ranks


def _fits(a: torch.Tensor, b: torch.Tensor, slot_a: torch.Tensor, slot_b: torch.Tensor, parts: int) -> bool:
    """Whether A [r, in] and B [out, r] fit a slot's A [.., rank, in] and B [.., out, rank]; in and out if unsharded."""
    rank = a.shape[0]
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != rank or rank > slot_a.shape[-2]:
        return False
    return parts > 1 or (a.shape[1] == slot_a.shape[-1] and b.shape[0] == slot_b.shape[-2])
