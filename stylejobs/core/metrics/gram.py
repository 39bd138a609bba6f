"""How far the style of single images is, by Gram matrices of a backbone. Of whole sets: core/mmd.py."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stylejobs.core.backbone import Backbone
from stylejobs.core.losses.style import gram_matrix


@torch.no_grad()
def style_distance(backbone: Backbone, a_BCHW: Tensor, b_BCHW: Tensor, layers: Sequence[str] | None = None) -> Tensor:
    """Gram distance: mean over layers of |G_a - G_b|^2 / (|G_a| * |G_b|), Frobenius norms.

    Dividing makes layers and backbones comparable. A one-line colour transfer closes most of it and it does not see
    lost content: never judge by it alone.

    Args:
        backbone: whose features; the number is only comparable with numbers of the same backbone.
        a_BCHW: float, [-1, 1], at least 32 px.
        b_BCHW: float, [-1, 1], any size of at least 32 px; a batch of one is compared with every row.
        layers: names of layers; the backbone's style layers by default.

    Returns:
        distance_B, float32, >= 0; 0 for equal statistics.
    """
    layers = tuple(layers or backbone.style_layers)
    grams_a = {layer: gram_matrix(features) for layer, features in backbone(a_BCHW, layers).items()}
    grams_b = {layer: gram_matrix(features) for layer, features in backbone(b_BCHW, layers).items()}
    distances = []
    for layer in layers:
        squared_B = (grams_a[layer] - grams_b[layer]).square().sum(dim=(1, 2))
        norms_B = grams_a[layer].norm(dim=(1, 2)) * grams_b[layer].norm(dim=(1, 2))
        distances.append(squared_B / norms_B.clamp_min(1e-12))
    return torch.stack(distances).mean(dim=0)
