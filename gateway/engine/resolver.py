"""Finds an adapter by digest when the first request for it arrives."""

import re
from pathlib import Path

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class DigestResolver(LoRAResolver):
    """Resolves 64 hex digits to the immutable package `<adapters>/<hex>`; knows no other name."""

    def __init__(self, adapters: Path):
        self._adapters = adapters

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        path = self._adapters / lora_name
        if not HEX_DIGEST.fullmatch(lora_name) or not path.is_dir():
            return None
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(path))
