"""Smaller and faster generators for stylizing: pruned channels, distilled weights, 8-bit convolutions; what it cost.

    options, state = prune_blocks(generator, 0.5)                   a smaller network of the same kind
    student = build_network(name, **{**old_options, **options})
    student.load_state_dict(state)
    distill(student, generator, batches, steps=500)                 brings it back to the generator's results
    fast = quantise(student, batches)                               8-bit convolutions on the CPU
    report = measure(fast, generator, *batch, clock=time.perf_counter)

A batch is (content_BCHW, style_BD), as generators take it. Each result can be packaged: pruning changes the option
`inner`, quantising adds the option `int8: true`.
"""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.metrics import ms_ssim
from stylejobs.core.networks.int8 import swap_to_int8
from stylejobs.core.networks.layers import ResidualBlock

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Report:
    """What a compression gained and cost.

    Attributes:
        speed_ratio: median over pairs of runs of (time of the original / time of the compressed); above 1 is faster.
        speed_ratios: of every pair, in order.
        ssim: mean MS-SSIM of the two results.
        ssim_min: that of the worst image.
        weight_ratio: bytes of the compressed state / bytes of the original's.
        threads: torch threads that both ran on.
    """

    speed_ratio: float
    speed_ratios: tuple[float, ...]
    ssim: float
    ssim_min: float
    weight_ratio: float
    threads: int


def prune_blocks(generator: nn.Module, keep_fraction: float) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Takes whole channels out of the inside of every residual block; the stream between blocks keeps its width.

    A block adds norm(conv2(relu(norm(conv1(x))))). Inner channel c is worth s_c * sum |w2[:, c]|, with w2 the weights
    that read it and s_c its standard deviation after the ReLU, for a normed channel taken as normally distributed: the
    mean does not count, because the second norm takes it out. Without norms s_c is sum |w1[c]|. The least worthy go,
    equally many in every block.

    Args:
        generator: holds `ResidualBlock`s; is left as it is.
        keep_fraction: share of the inner channels that stay, in (0, 1]; rounded, at least one channel.

    Returns:
        (options, state): `{"inner": n}`, which replaces that option of the generator's, and the weights for a network
        built with it.

    Raises:
        ValueError: no residual blocks, or blocks of different widths.

    Differs from paper: filters are ranked by the weights that read them, not by their own, whose size the norm undoes.
    Source: Li, Kadav, Durdanovic, Samet & Graf 2017, arXiv:1608.08710, section 3.1; the scale of the norm as a measure
    of worth is from Liu et al. 2017, arXiv:1708.06519.
    """
    if not 0.0 < keep_fraction <= 1.0:
        raise ValueError(f"wanted keep_fraction in (0, 1]; got {keep_fraction}")
    blocks = {name: module for name, module in generator.named_modules() if isinstance(module, ResidualBlock)}
    widths = {block.conv1.out_channels for block in blocks.values()}
    if len(widths) != 1:
        raise ValueError(f"wanted a generator with residual blocks of one inner width; found widths {sorted(widths)}")
    inner = max(1, round(keep_fraction * widths.pop()))
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    for name, block in blocks.items():
        kept = _inner_worth(block).topk(inner).indices.sort().values
        for key in state:
            # Also a norm's running statistics; its counter of batches has no channels.
            if key.startswith((f"{name}.conv1.", f"{name}.norm1.")) and state[key].ndim:
                state[key] = state[key][kept]
        state[f"{name}.conv2.weight"] = state[f"{name}.conv2.weight"][:, kept]
    return {"inner": inner}, state


def distill(
    student: nn.Module, teacher: nn.Module, batches: Sequence[Batch], steps: int, learning_rate: float = 3e-4
) -> list[float]:
    """Trains the student to give the teacher's results: loss = mean |student(x) - teacher(x)|, Adam, rate falling to 0.

    Needs neither the backbone nor the style images that the teacher was trained with. The student may be any generator
    that takes the same style codes.

    Args:
        student: trained in place.
        teacher: is left as it is.
        batches: (content_BCHW, style_BD), in turn, from the start again when all were seen.
        steps: of the optimizer.
        learning_rate: of the first step; at 1e-3 Adam's first steps undo more than a short distillation mends.

    Returns:
        The loss of every step.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, for images in place of class probabilities.
    """
    if steps < 1 or not batches or not learning_rate > 0.0:
        raise ValueError(
            f"wanted steps >= 1, batches and learning_rate > 0; got {steps}, {len(batches)}, {learning_rate}"
        )
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    losses = []
    for step in range(steps):
        content_BCHW, style_BD = batches[step % len(batches)]
        with torch.no_grad():
            target_BCHW = teacher(content_BCHW, style_BD)
        loss = F.l1_loss(student(content_BCHW, style_BD), target_BCHW)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def quantise(generator: nn.Module, calibration_batches: Sequence[Batch]) -> nn.Module:
    """A copy with 8-bit convolutions, for the CPU; norms and everything else stay float.

    The range of each convolution's inputs is the least and greatest number that it saw in the calibration batches;
    what lies outside later is clamped. A few dozen images like those to come are enough; they also go through
    `encode_style` where there is one.

    Args:
        generator: float, on the CPU; is left as it is.
        calibration_batches: (content_BCHW, style_BD).

    Returns:
        The generator in evaluation mode, without gradients. Its state is plain tensors; `build_network(name, **options,
        int8=True)` is what it loads into.

    Ranges are fixed, so a row's result does not depend on its batch, up to a level that flips where a float layer
    before it rounds otherwise.

    Source: Jacob et al. 2018, arXiv:1712.05877; calibrated after training as in Krishnamoorthi 2018, arXiv:1806.08342.
    """
    if not calibration_batches:
        raise ValueError("wanted at least one batch to calibrate with; got none")
    quantised = copy.deepcopy(generator).eval().requires_grad_(False)
    ranges = _input_ranges(quantised, calibration_batches)
    for name, (conv, layer) in swap_to_int8(quantised).items():
        if name not in ranges:
            raise ValueError(f"wanted batches that reach every convolution; {name!r} was not used")
        layer.fill(conv, *ranges[name])
    return quantised


@torch.no_grad()
def measure(
    compressed: nn.Module,
    original: nn.Module,
    content_BCHW: Tensor,
    style_BD: Tensor,
    clock: Callable[[], float],
    pairs: int = 7,
) -> Report:
    """Speed and likeness of a compressed generator, on given images.

    The two run in turn, `pairs` times after one run each to warm up, so that a busy machine slows both. Set torch's
    threads before: one is what a stylizing worker has.

    Args:
        compressed: what is judged.
        original: what it is compared with.
        content_BCHW: float, [-1, 1], as many rows as a worker's batch.
        style_BD: codes for them.
        clock: seconds, time.perf_counter, or time.process_time where other work disturbs and one thread runs.
        pairs: runs of each.
    """
    if pairs < 1:
        raise ValueError(f"wanted pairs >= 1; got {pairs}")
    similarity_B = ms_ssim(compressed(content_BCHW, style_BD), original(content_BCHW, style_BD))
    ratios = []
    for _ in range(pairs):
        seconds = []
        for generator in (original, compressed):
            started = clock()
            generator(content_BCHW, style_BD)
            seconds.append(clock() - started)
        ratios.append(seconds[0] / seconds[1])
    return Report(
        speed_ratio=statistics.median(ratios),
        speed_ratios=tuple(ratios),
        ssim=similarity_B.mean().item(),
        ssim_min=similarity_B.min().item(),
        weight_ratio=_num_bytes(compressed) / _num_bytes(original),
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def _inner_worth(block: ResidualBlock) -> Tensor:
    """What each inner channel moves, see `prune_blocks`."""
    readers_C = block.conv2.weight.abs().sum(dim=(0, 2, 3))
    scale_C, shift_C = getattr(block.norm1, "weight", None), getattr(block.norm1, "bias", None)
    if isinstance(block.norm1, nn.Identity):
        return readers_C * block.conv1.weight.abs().sum(dim=(1, 2, 3))
    if scale_C is None or shift_C is None:
        return readers_C
    return _relu_std(shift_C, scale_C) * readers_C


def _relu_std(mean: Tensor, std: Tensor) -> Tensor:
    """Standard deviation of relu(x) for a normally distributed x, from the moments of the rectified normal.

    E[r] = m P(m/s) + s p(m/s) and E[r^2] = (m^2 + s^2) P(m/s) + m s p(m/s), with p, P the standard normal's density and
    distribution.
    """
    mean, std = mean.double(), std.double().abs().clamp_min(1e-30)
    ratio = mean / std
    density, below = torch.exp(-ratio.square() / 2) / (2 * torch.pi) ** 0.5, torch.special.ndtr(ratio)
    first = mean * below + std * density
    second = (mean.square() + std.square()) * below + mean * std * density
    return (second - first.square()).clamp_min(0.0).sqrt()


def _input_ranges(generator: nn.Module, batches: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """(least, greatest) input of each convolution that ran."""
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
            low, high = (bound.item() for bound in inputs[0].aminmax())
            seen_low, seen_high = ranges.get(name, (low, high))
            ranges[name] = (min(low, seen_low), max(high, seen_high))

        return note

    convs = [(name, module) for name, module in generator.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in convs]
    try:
        for content_BCHW, style_BD in batches:
            generator(content_BCHW, style_BD)
            if hasattr(generator, "encode_style"):
                generator.encode_style(content_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def _num_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
