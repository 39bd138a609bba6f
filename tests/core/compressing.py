"""Small generators of every kind, for the tests of what makes them smaller."""

import torch
from torch import nn

from stylejobs.core.networks import build_network

PRUNABLE = {
    "johnson": {"width": 4, "blocks": 2},
    "resnet": {"width": 4, "blocks": 2},
    "label_conditioned": {"domains": 2, "width": 4, "blocks": 2},
}
QUANTISABLE = PRUNABLE | {
    "adain": {"width_scale": 0.1},
    "encoder_decoder": {"width": 4},
    "moments": {},
    "style_modulated": {"width": 4, "style_dim": 6, "blocks": 1},
}


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def build(name, seed=0):
    torch.manual_seed(seed)
    generator = build_network(name, **QUANTISABLE[name]).eval()
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.InstanceNorm2d) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return generator


def batch_for(generator, rows=2, side=24, seed=1):
    content = draw(rows, 3, side, side, seed=seed)
    if hasattr(generator, "encode_style"):
        return content, generator.encode_style(draw(rows, 3, side, side, seed=seed + 1)).detach()
    return content, torch.eye(generator.style_dim or 1)[torch.zeros(rows, dtype=torch.long)][:, : generator.style_dim]
