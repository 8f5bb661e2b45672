"""vLLM's LoRA manager of a worker, fed from host memory, and unable to end the engine."""

import logging
from typing import Any

from vllm.lora.lora_model import LoRAModel
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from gateway.engine.loader import AdapterLoader

logger = logging.getLogger(__name__)


class HostLoRAManager(LRUCacheWorkerLoRAManager):
    """Takes adapters from `loader`; vLLM's own cache is as large as its slots.

    An adapter that cannot be activated in a step gets an empty slot and is named in `failed`: its requests end with an
    error, the others of the step go on. Without this the exception ends the engine process.
    """

    loader: AdapterLoader
    failed: dict[int, str]

    def read_adapter(self, request: LoRARequest) -> LoRAModel:
        """vLLM's loading from disk."""
        return super()._load_adapter(request)

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        host = self.loader.take(lora_request)
        for wrapper in self._adapter_manager.punica_wrapper_mapping.values():
            if hasattr(wrapper, "note_ranks"):
                wrapper.note_ranks(lora_request.lora_int_id, host.ranks)
        return host.model

    def _apply_adapters(self, lora_requests: set[LoRARequest]) -> None:
        """Activates the step's adapters; those in a slot first, so that no newcomer takes the slot of one of them."""
        for adapter_id in self.failed:
            self.remove_adapter(adapter_id)
        self.failed = {}
        seated = set(self._adapter_manager.lora_index_to_id)
        for request in sorted(lora_requests, key=lambda r: r.lora_int_id not in seated):
            try:
                self.add_adapter(request)
            except Exception as error:
                logger.exception("adapter %s cannot be activated", request.lora_name)
                self.failed[request.lora_int_id] = str(error)
                self._seat_nothing(request.lora_int_id)

    def _seat_nothing(self, adapter_id: int) -> None:
        manager: Any = self._adapter_manager
        self.remove_adapter(adapter_id)
        if len(manager) + 1 > manager.capacity:
            manager.remove_oldest_adapter()
        manager._registered_adapters[adapter_id] = LoRAModel(adapter_id, 1, {})
        manager.activate_adapter(adapter_id)
