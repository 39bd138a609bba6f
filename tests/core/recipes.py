"""A tiny recipe of every training method, with batches for it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.methods import (
    Ingredients,
    Method,
    build_method,
)

RESNET = {"width": 4, "blocks": 1}
PATCH = {"width": 4, "layers": 1}
THIRDS = (1 / 3, 1 / 3, 1 / 3)


class Recipe(NamedTuple):
    """A tiny method.

    Attributes:
        size_px: side of the images.
        backbone: whether there is a (random) one.
        domains: how many there are, that of the content included.
        num_steps: of a whole training: enough for every player of every phase to move.
    """

    method: str
    generator: dict[str, Any]
    critic: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})
    size_px: int = 32
    backbone: bool = False
    domains: int = 2
    num_steps: int = 6


RECIPES = {
    "fast": Recipe("fast", RESNET, backbone=True),
    "cyclegan": Recipe("cyclegan", RESNET, PATCH, {"pool": 4}),
    "cyclegan without identity": Recipe("cyclegan", RESNET, PATCH, {"identity_weight": 0.0}),
    "cyclegan with adapters": Recipe("cyclegan", RESNET, PATCH, {"adapters": True}),
    "cyclegan with a shared trunk": Recipe("cyclegan", RESNET, PATCH, {"share_trunk": True}),
    "cyclegan with a shared critic": Recipe("cyclegan", RESNET, {"name": "patch_domain", "width": 4, "layers": 2}),
    "cyclegan with scales": Recipe("cyclegan", RESNET, {"name": "multiscale", "scales": 2, **PATCH}),
    "cut": Recipe("cut", {"width": 4, "blocks": 2}, PATCH, {"num_patches": 16}),
    "fastcut": Recipe("fastcut", {"width": 4, "blocks": 2}, PATCH, {"num_patches": 16}),
    "stargan": Recipe(
        "stargan", RESNET, {"width": 4, "layers": 2}, {"critic_steps": 2, "identity_weight": 5.0}, domains=3
    ),
    "adain": Recipe("adain", {"width_scale": 0.1}, backbone=True),
    "adain with attention": Recipe(
        "adain", {"width_scale": 0.1, "attention": True, "grid": 2}, options={"style_kind": "sliced"}, backbone=True
    ),
    "content_gan": Recipe("content_gan", RESNET, PATCH, {"phases": THIRDS}, backbone=True),
    "content_gan with labels": Recipe(
        "content_gan", {"name": "label_conditioned", **RESNET}, PATCH, {"phases": THIRDS}, backbone=True, domains=3
    ),
    "content_gan with styles": Recipe(
        "content_gan",
        {"name": "style_modulated", "width": 4, "style_dim": 8},
        PATCH,
        {"phases": THIRDS},
        backbone=True,
    ),
    "exemplar": Recipe(
        "exemplar",
        {"latent": 8, "width": 4, "size_px": 32, "width_scale": 0.1},
        {"width": 4},
        {"critic_steps": 2},
        backbone=True,
    ),
    "classifier": Recipe("classifier", {"width": 4, "size_px": 32}, domains=3),
    "fst": Recipe("fst", {"width": 4, "steps": 2}, PATCH, {"phases": THIRDS, "mosaic": 2}, backbone=True, num_steps=9),
}


def build(recipe: Recipe) -> Method:
    """The method, with the same weights at every call."""
    torch.manual_seed(0)
    domains = ("content", "waves", "dots", "lines")[: recipe.domains]
    backbone = build_random_backbone(0) if recipe.backbone else None
    style_images = {name: draw(1, 40, seed) for seed, name in enumerate(domains[1:])}
    ingredients = Ingredients(recipe.generator, recipe.critic, backbone, style_images, domains)
    return build_method(recipe.method, ingredients, **recipe.options)


def draw(batch: int, size_px: int, seed: int) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def draw_batch(recipe: Recipe, seed: int, batch: int = 2) -> dict[str, Tensor]:
    content, style = (draw(batch, recipe.size_px, 2 * seed + number) for number in (0, 1))
    rows = torch.arange(batch) + seed
    content_domain = rows % recipe.domains if recipe.method == "classifier" else torch.zeros_like(rows)
    style_domain = rows % (recipe.domains - 1) + 1
    return {"content": content, "content_domain": content_domain, "style": style, "style_domain": style_domain}
