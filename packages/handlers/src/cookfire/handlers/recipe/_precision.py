"""Mixed precision, as a recipe's parameter asks for it."""

from __future__ import annotations

import torch

from cookfire.handlers.recipe._errors import RecipeError


def mixed_precision(
    precision: str, device: torch.device
) -> tuple[torch.autocast, torch.amp.GradScaler]:
    """Return the context of the forward pass and the loss's scaler; both idle in float32.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``: that of ``Config``. Only float16
            has numbers so few that gradients need scaling.
        device: where the model is.

    Raises:
        RecipeError: the device can't compute so.

    Example:
        >>> autocast, scaler = mixed_precision("bfloat16", torch.device("cpu"))
        >>> scaler.is_enabled()
        False
    """
    mixed, scaled = precision != "float32", precision == "float16"
    if mixed and not _is_available(precision, device):
        raise RecipeError(
            f"precision: {precision} is not there on this device ({device.type}); give "
            + ("bfloat16 or float32" if scaled else "float32, or float16 on an older GPU")
        )
    autocast = torch.autocast(device.type, getattr(torch, precision), enabled=mixed)
    return autocast, torch.amp.GradScaler(device.type, enabled=scaled)


def _is_available(precision: str, device: torch.device) -> bool:
    if not torch.amp.is_autocast_available(device.type):
        return False
    if precision == "float16":
        return device.type != "xla"  # a TPU has none
    # Older GPUs have bfloat16 by emulation, slower than float32.
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
