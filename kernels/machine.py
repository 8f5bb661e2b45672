"""What a launch must know of its device."""

import torch


def processors(device: torch.device) -> int:
    """Streaming multiprocessors of the device; 132 (H100, H200) where there is none to ask."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132
