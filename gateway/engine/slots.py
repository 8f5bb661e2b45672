"""One LoRA slot is kept empty on CPU.

vLLM's CPU operations index the stacked adapters with -1 for rows without an adapter, which is the last slot: with all
slots full, base-model requests batched with an adapter's would get the last slot's weights (seen in vLLM 0.32).
"""

from vllm.platforms import current_platform


def reserved_slots() -> int:
    """Slots that no adapter may occupy: 1 on CPU, 0 elsewhere."""
    return 1 if current_platform.is_cpu() else 0
