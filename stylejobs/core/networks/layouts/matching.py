"""What all layouts share: keys as they come, what they look like, and how a checkpoint that does not fit is told so."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylejobs.core.networks import build_network

STATISTICS = re.compile(r"(.*\.)?(running_mean|running_var|num_batches_tracked)")
"""Keys that instance norms had in old checkpoints, or that are never used: an instance norm takes the image's own."""

_LOOKS = {
    "cut": r"model\.\d+\.filt",
    "cyclegan": r"model\.\d+\.(conv_block|block)\.\d+\.weight",
    "fast": r"(res\d+\.conv1|deconv\d+)\.conv2d\.weight",
    "stargan": r"main\.\d+\.main\.\d+\.weight",
    "adain": r"\d+\.(weight|bias)",
}
"""Family -> what some of its keys look like, and no key of a family before it."""

_MOST_NAMED = 20


@dataclass(frozen=True)
class Adopted:
    """A checkpoint as a network of ours: `network` and `options` are what `build_network` takes; weights on the CPU."""

    network: str
    options: dict[str, Any]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Given:
    """The tensors of a checkpoint, and the family that they are said to be of."""

    family: str
    tensors: dict[str, Tensor]

    def size(self, key: str, axis: int, default: int) -> int:
        """The length of an axis of a tensor; the published one where the tensor is missing or has no such axis."""
        shape = self.tensors[key].shape if key in self.tensors else ()
        return shape[axis] if axis < len(shape) and shape[axis] > 0 else default

    def numbers(self, pattern: str, default: int) -> int:
        """How many different texts the group of a pattern takes among the keys; the published number where none."""
        found = {match[1] for key in self.tensors if (match := re.fullmatch(pattern, key))}
        return len(found) or default


@dataclass(frozen=True)
class Names:
    """Where a network's weights are in a checkpoint.

    Attributes:
        layers: our layer -> theirs; the last part of a name, `weight` or `bias`, is the same in both.
        beside: keys of theirs that our network has no weight for, and their shapes.
        passed_over: keys that are no weights of the network, where they are there.
    """

    network: str
    options: dict[str, Any]
    layers: dict[str, str]
    beside: dict[str, tuple[int, ...]] = field(default_factory=dict)
    passed_over: re.Pattern[str] = STATISTICS

    def pairs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Their key -> (ours, shape)."""
        # Not on "meta", where drawing the first weights takes torch half a minute of imports.
        with torch.random.fork_rng(devices=[]):
            state = build_network(self.network, **self.options).state_dict()
        pairs = {}
        for key, value in state.items():
            layer, _, part = key.rpartition(".")
            if layer in self.layers:
                pairs[f"{self.layers[layer]}.{part}"] = (key, tuple(value.shape))
        return pairs


def check_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 tensors on the CPU by their names without `module.`; whole numbers stay as they are.

    Raises:
        ValueError: two names that are the same without `module.`, numbers that are not plain ones, NaN or infinity.
    """
    checked: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = ".".join(part for part in key.split(".") if part != "module")
        if name in checked:
            raise ValueError(f"wanted every weight once; {name} is there with and without `module.`")
        if value.is_complex() or value.is_quantized or value.layout != torch.strided:
            raise ValueError(f"wanted dense real numbers; {key} is {value.layout} of {value.dtype}")
        # A copy: weights that are views of one memory cannot be saved.
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        checked[name] = value.detach().to("cpu", dtype, copy=True).contiguous()
    broken = [name for name, value in checked.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"{_listed('hold NaN or infinity', broken)}; this training went wrong: take an earlier one")
    return checked


def take(given: Given, names: Names) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a checkpoint by our names, and those that are `beside` by theirs.

    Raises:
        ValueError: keys that are missing, not known or of another shape.
    """
    pairs = names.pairs()
    wanted = {key: shape for key, (_, shape) in pairs.items()} | names.beside
    tensors = given.tensors
    problems = [
        _listed("missing", [f"{key} {list(shape)}" for key, shape in wanted.items() if key not in tensors]),
        _listed(
            "not known",
            [
                f"{key} {list(value.shape)}"
                for key, value in tensors.items()
                if key not in wanted and not names.passed_over.fullmatch(key)
            ],
        ),
        _listed(
            "of another shape",
            [
                f"{key}: wanted {list(shape)}, got {list(tensors[key].shape)}"
                for key, shape in wanted.items()
                if key in tensors and tuple(tensors[key].shape) != shape
            ],
        ),
    ]
    if any(problems):
        raise ValueError("\n".join([_title(given), *filter(None, problems)]))
    weights = {ours: tensors[theirs] for theirs, (ours, _) in pairs.items()}
    return weights, {key: tensors[key] for key in names.beside}


def looks_like(keys: Iterable[str]) -> str | None:
    """The family whose keys these look like, or None."""
    keys = [re.sub(r"^(decoder|encoder)\.", "", key) for key in keys]  # the two files of `adain`
    found = (family for family, pattern in _LOOKS.items() if any(re.fullmatch(pattern, key) for key in keys))
    return next(found, None)


def _title(given: Given) -> str:
    family = looks_like(given.tensors)
    text = f"wanted a checkpoint of family {given.family}"
    if family is None:
        return f"{text}; its keys look like those of none of the families {', '.join(_LOOKS)}"
    if family == given.family or {family, given.family} == {"cut", "cyclegan"}:
        return f"{text}; its keys look like one, but of another network or with other options than are known here"
    return f"{text}; its keys look like those of family {family}: say family={family}, or name the right file"


def _listed(title: str, items: list[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    return f"  {title} ({len(items)}): {', '.join(items[:_MOST_NAMED])}{more}"
