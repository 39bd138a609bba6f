"""In which arithmetic networks run; the one place that turns the word of the configuration into autocast."""

import torch
from torch import Tensor

PRECISIONS = ("float32", "bf16")


def autocast(device_type: str, precision: str) -> torch.autocast:
    """A context in which matrix products and convolutions run in `precision`.

    bfloat16 has float32's range, so gradients need no scaler. What must not lose digits (Gram matrices, penalties,
    the blend of pixels) is computed outside of it, or switches it off for itself.

    Args:
        device_type: "cpu" or "cuda".
        precision: "float32" or "bf16".

    Raises:
        ValueError: another precision.

    >>> a_22 = torch.eye(2)
    >>> with autocast("cpu", "bf16"):
    ...     (a_22 @ a_22).dtype
    torch.bfloat16
    """
    if precision not in PRECISIONS:
        raise ValueError(f"wanted a precision out of {', '.join(PRECISIONS)}; got {precision!r}")
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "bf16")


def widen(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is if it is wider. Its gradient comes back in its own dtype.

    Losses and statistics are computed so, whatever the networks ran in.

    >>> widen(torch.zeros(1, dtype=torch.bfloat16)).dtype, widen(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
