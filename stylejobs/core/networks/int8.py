"""Convolutions in 8-bit integers on the CPU, for generators that only stylize.

An 8-bit generator is the float one with its `Conv2d` layers swapped (`swap_to_int8`); `compress.quantise` fills in the
numbers. All of them are plain tensors of the state (int8, float32, int64), so a package holds it like any other: its
network, its options with `int8: true`, its safetensors.

PyTorch 2.15 deprecates tensors of quantised dtypes, and with them `torch.ao.quantization`; its successor is a package
of its own. What is left, and used here, are oneDNN's convolutions of plain uint8 and int8 tensors. They have no
documentation, so tests hold them to the float result.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 255
_WEIGHT_LEVELS = 63
"""CPUs without VNNI add two products in 16 bits, which saturate: 2 * 255 * 63 fits, 2 * 255 * 127 would not."""


def is_available() -> bool:
    """Whether this PyTorch has the 8-bit convolutions at all; they are fast on CPUs with VNNI or AMX only."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class Int8Conv(nn.Module):
    """A convolution of uint8 features with int8 weights: y = s_x * s_w * sum (q_x - z) * q_w + b.

    Features: q_x = round(x / s_x) + z, clamped to [0, 255], one scale s_x and zero point z for the layer, fixed when
    calibrated, so that a row's result does not depend on its batch. Weights: q_w = round(w / s_w) in [-63, 63], one
    scale for every output channel. Sums are exact, on CPUs without VNNI too, which is why weights have seven bits; the
    result is float32, channels last in memory.

    Args:
        conv: the float layer whose shape it takes; no groups or dilation, padding by zeros or reflection.

    Source: Jacob et al. 2018, arXiv:1712.05877, equations 1 to 4; one weight scale a channel as in Krishnamoorthi 2018,
    arXiv:1806.08342, section 3.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.stride, self.padding, self.padding_mode = conv.stride, conv.padding, conv.padding_mode
        channels = conv.out_channels
        self.register_buffer("weight", torch.zeros(conv.weight.shape, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("input_zero", torch.zeros((), dtype=torch.int64))
        self._prepared: tuple[float, int, Tensor, Tensor] | None = None
        self.register_load_state_dict_post_hook(_forget_prepared)

    @torch.no_grad()
    def fill(self, conv: nn.Conv2d, low: float, high: float) -> None:
        """Takes the weights of the float layer and the range of its inputs, which is widened to hold 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / _LEVELS, 1e-12)
        self.input_scale.fill_(scale)
        self.input_zero.fill_(round(-low / scale))
        weight = conv.weight.to(torch.float32)
        self.weight_scale.copy_(weight.abs().amax(dim=(1, 2, 3)).div(_WEIGHT_LEVELS).clamp_min(1e-12))
        self.weight.copy_(weight.div(self.weight_scale[:, None, None, None]).round())
        if conv.bias is not None:
            self.bias.copy_(conv.bias)
        self._prepared = None

    @torch.no_grad()
    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Features, float on the CPU, to features, float32. Without gradients: integers have none."""
        if features_BCHW.device.type != "cpu":
            raise ValueError(f"wanted CPU tensors: 8-bit layers have no kernel for {features_BCHW.device.type}")
        scale, zero, zero_half, packed = self._prepared or self._prepare()
        features_BCHW = features_BCHW.to(torch.float32, memory_format=torch.channels_last)
        # One pass a line: adding a half and cutting off is rounding, because nothing is below 0 after the clamp.
        levels_BCHW = torch.add(zero_half, features_BCHW, alpha=1.0 / scale).clamp_(0, _LEVELS).to(torch.uint8)
        down, right = self.padding
        if down or right:
            mode, value = ("reflect", None) if self.padding_mode == "reflect" else ("constant", zero)
            levels_BCHW = F.pad(levels_BCHW, (right, right, down, down), mode, value)
        return torch.ops.onednn.qconv2d_pointwise(
            levels_BCHW, scale, zero, packed, self.weight_scale, self._weight_zeros(), self.bias,
            self.stride, (0, 0), (1, 1), 1, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        # What is prepared is oneDNN's own layout, which copies of the module make anew.
        return {**self.__dict__, "_prepared": None}

    def _weight_zeros(self) -> Tensor:
        return torch.zeros(self.weight.shape[0], dtype=torch.int32)

    def _prepare(self) -> tuple[float, int, Tensor, Tensor]:
        if not is_available():
            raise ValueError(
                "wanted a PyTorch with oneDNN's 8-bit convolutions; this one has none: use the float model"
            )
        scale, zero = self.input_scale.item(), int(self.input_zero.item())
        packed = torch.ops.onednn.qconv_prepack(
            self.weight, self.weight_scale, scale, zero, self.stride, (0, 0), (1, 1), 1, None
        )
        self._prepared = scale, zero, torch.tensor(zero + 0.5), packed
        return self._prepared


def swap_to_int8(generator: nn.Module) -> dict[str, tuple[nn.Conv2d, Int8Conv]]:
    """Swaps the plain convolutions of a generator for 8-bit ones, in place.

    The new layers are empty: fill them, or load a state. Transposed, grouped and dilated convolutions stay float.

    Returns:
        name -> (the layer that was there, the layer that is there now).
    """
    swapped: dict[str, tuple[nn.Conv2d, Int8Conv]] = {}
    layers: dict[nn.Module, Int8Conv] = {}
    # All names of each layer: parts that share one go on sharing it.
    for name, module in list(generator.named_modules(remove_duplicate=False)):
        if not isinstance(module, nn.Conv2d) or not _fits(module):
            continue
        layer = layers.setdefault(module, Int8Conv(module))
        swapped.setdefault(name, (module, layer))
        parent_name, _, child_name = name.rpartition(".")
        setattr(generator.get_submodule(parent_name), child_name, layer)
    return swapped


def _fits(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and not isinstance(conv.padding, str)
    return plain and conv.padding_mode in ("zeros", "reflect")


def _forget_prepared(module: Int8Conv, _: Any) -> None:
    module._prepared = None
