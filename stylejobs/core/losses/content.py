"""How much of the content was kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stylejobs.core.backbone import Backbone
from stylejobs.core.precision import widen


def l1_loss(image_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Absolute distance of two batches: mean over b, c, h, w of |x - t|.

    Args:
        image_BCHW: images or features, any float dtype.
        target_BCHW: same shape.

    Returns:
        Scalar, float32 (float64 for float64 inputs), mean over everything.

    Raises:
        ValueError: the shapes differ.

    Source: Isola, Zhu, Zhou & Efros 2017, arXiv:1611.07004, equation 3.

    >>> l1_loss(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), -3.0)).item()
    3.0
    """
    _check_shapes(image_BCHW, target_BCHW)
    return (widen(image_BCHW) - widen(target_BCHW)).abs().mean()


def feature_loss(features_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Squared distance of two feature maps: mean over b, c, h, w of (f - t)^2.

    Args:
        features_BCHW: features of the stylized images, any float dtype.
        target_BCHW: features of the content images, same shape.

    Returns:
        Scalar, float32 (float64 for float64 inputs), mean over everything.

    Raises:
        ValueError: the shapes differ.

    Source: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, equation 2.

    >>> feature_loss(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0)).item()
    9.0
    """
    _check_shapes(features_BCHW, target_BCHW)
    return (widen(features_BCHW) - widen(target_BCHW)).square().mean()


# The same formula on pixels goes by the pixels' name for it.
l2_loss = feature_loss


def perceptual_loss(backbone: Backbone, stylized_BCHW: Tensor, content_BCHW: Tensor, layers: Sequence[str]) -> Tensor:
    """Distance of contents as a backbone sees them: mean over layers l of mean((f_l(stylized) - f_l(content))^2).

    No gradient flows to the content image: it is the target.

    Args:
        backbone: frozen features.
        stylized_BCHW: float, [-1, 1], at least 32 px.
        content_BCHW: same shape and range.
        layers: layers of the backbone, equally weighted: ("relu4_1",), or ("relu3_3", "fc6", "fc7") for a VGG whose
            weights came with the classifier.

    Returns:
        Scalar, float32 (float64 for float64 features), mean over the batch, in squared units of the features.

    Raises:
        ValueError: no layers, an unknown layer, images that differ in shape or are too small.

    Differs from paper: the mean over layers, so that their number does not change the weight.
    Source: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, equation 2; wide layers: Dosovitskiy & Brox 2016,
    arXiv:1602.02644, section 3.
    """
    if not layers:
        raise ValueError(f"wanted at least one layer out of {', '.join(backbone.layers)}; got none")
    _check_shapes(stylized_BCHW, content_BCHW)
    with torch.no_grad():
        target = backbone(content_BCHW, layers)
    features = backbone(stylized_BCHW, layers)
    return torch.stack([feature_loss(features[layer], target[layer]) for layer in layers]).mean()


def _check_shapes(a_BCHW: Tensor, b_BCHW: Tensor) -> None:
    if a_BCHW.shape != b_BCHW.shape:
        raise ValueError(f"wanted two tensors of one shape; got {list(a_BCHW.shape)} and {list(b_BCHW.shape)}")
