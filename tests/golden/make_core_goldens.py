"""Makes core_goldens.json: numbers that a change of the core must not move by accident.

Run `python tests/golden/make_core_goldens.py` after a change that is meant to move them, and say in the change why.
Everything is drawn from fixed seeds on the CPU; nothing is read but this file. Numbers hold to the tolerance in
test_core_goldens.py on other machines, whose kernels may sum in another order.
"""

import json
from pathlib import Path

import torch

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.methods import FastOptions, build_method
from stylejobs.core.networks import build_network

GOLDENS_PATH = Path(__file__).with_name("core_goldens.json")


def picture(height: int, width: int, phase: float) -> torch.Tensor:
    """Coloured waves [1, 3, H, W] in [-1, 1]: a picture out of a formula, the same for every random generator."""
    rows, columns = torch.arange(height)[:, None] / 6.0, torch.arange(width)[None] / 5.0
    channels = [torch.sin(rows * (k + phase) + phase) * torch.cos(columns + k * phase) for k in (1.0, 1.5, 2.0)]
    return torch.stack(channels)[None]


def fill_weights(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights by generator and not by torch's initialisers, whose order of draws may change between versions."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=rng) * weight[0].numel() ** -0.5)
            else:
                weight.copy_(1.0 + 0.1 * torch.randn(weight.shape, generator=rng))
    return network


def numbers_of(image: torch.Tensor) -> list[float]:
    """Sixteen pixels along the diagonal of the flat tensor, then its mean and standard deviation."""
    flat = image.detach().flatten().double()
    picked = flat[torch.linspace(0, flat.numel() - 1, 16).long()]
    return [round(value, 7) for value in [*picked.tolist(), flat.mean().item(), flat.std().item()]]


def johnson_output() -> list[float]:
    network = fill_weights(build_network("johnson", width=8, blocks=2), 0)
    return numbers_of(network(picture(37, 42, 0.3), torch.zeros(1, 0)))


def moments_output() -> list[float]:
    network = build_network("moments")
    return numbers_of(network(picture(37, 42, 0.3), network.encode_style(picture(20, 20, 1.1))))


def fast_losses() -> list[float]:
    """The total loss of 20 steps of `fast` on a random backbone."""
    options = FastOptions(content_weight=1.0, style_weight=1.0, tv_weight=0.05, learning_rate=1e-3)
    method = build_method(
        "fast",
        generator_options={"width": 8, "blocks": 1},
        backbone=build_random_backbone(0),
        style_image_BCHW=picture(48, 48, 1.1),
        style_name="waves",
        options=options,
    )
    fill_weights(method.networks["generator"], 0)
    optimizers = method.build_optimizers(method.networks)
    losses = []
    for step in range(20):
        batch = {"content": torch.cat([picture(40, 40, 0.2 + 0.05 * step), picture(40, 40, 0.7)])}
        for objective in method.objectives(method.networks, batch):
            optimizers[objective.player].zero_grad(set_to_none=True)
            objective.loss.backward()
            optimizers[objective.player].step()
            losses.append(round(objective.loss.item(), 6))
    return losses


def make() -> dict[str, list[float]]:
    return {"johnson_output": johnson_output(), "moments_output": moments_output(), "fast_losses": fast_losses()}


if __name__ == "__main__":
    GOLDENS_PATH.write_text(json.dumps(make(), indent=1) + "\n")
