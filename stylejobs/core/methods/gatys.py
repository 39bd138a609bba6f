"""Style transfer by optimisation (Gatys 2015): slow, one image at a time, the quality that networks are held against.

It trains nothing, so it is no `Method` and makes no package.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import LBFGS

from stylejobs.core.backbone import Backbone
from stylejobs.core.losses.consistency import total_variation
from stylejobs.core.losses.content import feature_loss
from stylejobs.core.losses.style import gram_matrix
from stylejobs.core.methods.judges import scale_to_target
from stylejobs.core.methods.players import check_numbers


@dataclass(frozen=True)
class GatysOptions:
    """The numbers of the optimisation.

    Args:
        content_layer: None takes the backbone's default.
        style_layers: None takes the backbone's defaults.
        content_weight: of mean (f(y) - f(x))^2 / mean f(x)^2, row by row.
        style_weight: of the mean over layers of |G(y) - G(s)|^2 / |G(s)|^2, Frobenius norms.
        tv_weight: of the total variation.
        num_steps: evaluations of the loss, after which no new line search begins; the last one may take a few more.
    """

    content_layer: str | None = None
    style_layers: tuple[str, ...] | None = None
    content_weight: float = 1.0
    style_weight: float = 10.0
    tv_weight: float = 0.05
    num_steps: int = 200

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.num_steps < 1:
            raise ValueError(f"wanted num_steps >= 1; got {self.num_steps}")


def optimise_images(
    content_BCHW: Tensor, style_BCHW: Tensor, backbone: Backbone, options: GatysOptions | None = None
) -> tuple[Tensor, list[float]]:
    """Moves the pixels of the content images until their Gram matrices are the style's.

    Args:
        content_BCHW: float in [-1, 1], at least 32 px; where the search begins.
        style_BCHW: float in [-1, 1], any size of at least 32 px; one image, or one for every content image.
        backbone: frozen features, on the images' device.

    Returns:
        stylized_BCHW in [-1, 1], and the loss at every evaluation (mean over the batch). The rows of a batch share one
        search, so a row's result depends a little on the others.

    Raises:
        ValueError: neither one style image nor one for every content image, an unknown layer, or images too small.

    Differs from paper: losses relative to their targets, so that one set of weights serves every layer and backbone;
    total variation added; started from the content image.
    Source: Gatys, Ecker & Bethge 2016, doi:10.1109/CVPR.2016.265, equations 1 to 7; L-BFGS as in the paper.
    """
    options = options or GatysOptions()
    _check_styles(content_BCHW.shape[0], style_BCHW.shape[0])
    content_layer = options.content_layer or backbone.content_layer
    style_layers = tuple(options.style_layers or backbone.style_layers)
    with torch.no_grad():
        target_BCHW = backbone(content_BCHW, (content_layer,))[content_layer]
        grams = {layer: gram_matrix(found) for layer, found in backbone(style_BCHW, style_layers).items()}
    image_BCHW = content_BCHW.detach().clone().requires_grad_()
    optimizer = LBFGS(
        [image_BCHW], max_iter=options.num_steps, max_eval=options.num_steps, history_size=20,
        line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0,
    )  # fmt: skip
    losses: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = backbone(image_BCHW, (content_layer, *style_layers))
        content = feature_loss(*scale_to_target(found[content_layer], target_BCHW))
        style = torch.stack([_squared(gram_matrix(found[layer]), grams[layer]) for layer in style_layers]).mean()
        loss = options.content_weight * content + options.style_weight * style
        loss = loss + options.tv_weight * total_variation(image_BCHW)
        loss.backward()
        losses.append(float(loss.detach()))
        return loss

    optimizer.step(closure)
    return image_BCHW.detach().clamp(-1.0, 1.0), losses


def _check_styles(num_contents: int, num_styles: int) -> None:
    if num_styles not in (1, num_contents):
        raise ValueError(f"wanted one style image, or one for each of {num_contents} content images; got {num_styles}")


def _squared(gram_BCC: Tensor, target_BCC: Tensor) -> Tensor:
    norm_B = target_BCC.square().sum(dim=(1, 2)).clamp_min(1e-12)
    return ((gram_BCC - target_BCC).square().sum(dim=(1, 2)) / norm_B).mean()
