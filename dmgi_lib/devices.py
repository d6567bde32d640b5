"""bf16 where the processor has instructions for it, fp32 everywhere else.

A processor without them emulates bf16, and one step takes ten to eighty times as long as in fp32.
"""

from __future__ import annotations

import torch


def has_fast_bf16(device_type: str = "cpu") -> bool:
    """Whether matrix products and convolutions in bf16 are computed as such.

    Args:
        device_type: as in `torch.device.type`; "cuda" asks the current GPU.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # nobody tells, and fp32 is never wrong
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def autocast(device_type: str = "cpu", enabled: bool = True) -> torch.autocast:
    """`torch.autocast` to bf16 that does nothing where bf16 would be slow.

    Args:
        device_type: of the tensors.
        enabled: False computes in fp32 everywhere.
    """
    return torch.autocast(
        device_type, torch.bfloat16, enabled=enabled and has_fast_bf16(device_type)
    )
