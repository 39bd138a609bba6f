"""Results that are known to be bad: what measures must see, and the rows of a calibration.

Pure functions of images; reinhard and fda are networks, in core/networks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def blur(image_BCHW: Tensor, sigma_px: float = 2.0) -> Tensor:
    """A Gaussian blur over the image and its mirror images; the window ends at 3 sigma.

    Args:
        image_BCHW: float, [-1, 1], sides of more than 3 sigma.
        sigma_px: > 0.
    """
    radius_px = round(3.0 * sigma_px)
    if sigma_px <= 0.0 or min(image_BCHW.shape[-2:]) <= radius_px:
        raise ValueError(f"wanted sigma_px > 0 and sides above {radius_px} px; got {list(image_BCHW.shape[-2:])}")
    offsets = torch.arange(-radius_px, radius_px + 1, dtype=image_BCHW.dtype, device=image_BCHW.device)
    window = torch.exp(-offsets.square() / (2.0 * sigma_px**2))
    window = window / window.sum()
    channels = image_BCHW.shape[1]
    padded_BCHW = F.pad(image_BCHW, (radius_px,) * 4, mode="reflect")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        padded_BCHW = F.conv2d(padded_BCHW, window.reshape(shape).expand(channels, -1, -1, -1), groups=channels)
    return padded_BCHW


def noise(image_BCHW: Tensor, std: float = 0.1, seed: int = 0) -> Tensor:
    """White Gaussian noise on every channel, clipped to [-1, 1].

    Args:
        image_BCHW: float, [-1, 1].
        std: in units of [-1, 1]; 0.1 is 13 levels of 255.
        seed: of the first image; row b draws from `seed` + b, so that a set can be made in parts.
    """
    rows = []
    for number, image_CHW in enumerate(image_BCHW):
        rng = torch.Generator().manual_seed(seed + number)
        rows.append(torch.randn(image_CHW.shape, generator=rng).to(image_CHW))
    return (image_BCHW + std * torch.stack(rows)).clamp(-1.0, 1.0)


def checkerboard(image_BCHW: Tensor, amplitude: float = 0.06) -> Tensor:
    """Plus and minus `amplitude` on every other pixel, as transposed convolutions of stride 2 leave it; clipped.

    Args:
        image_BCHW: float, [-1, 1].
        amplitude: in units of [-1, 1]; 0.06 is 8 levels of 255.

    Source: Odena, Dumoulin & Olah 2016, doi:10.23915/distill.00003.
    """
    height, width = image_BCHW.shape[-2:]
    rows_H1 = torch.arange(height, device=image_BCHW.device)[:, None]
    odd_HW = (rows_H1 + torch.arange(width, device=image_BCHW.device)) % 2
    return (image_BCHW + amplitude * (1 - 2 * odd_HW)).clamp(-1.0, 1.0)


def shuffled(num: int, seed: int = 0) -> Tensor:
    """A random order in which no image keeps its place (one cycle through all): results of other contents.

    Args:
        num: images, at least 2.

    Returns:
        rows_N, int64: place n is given to image rows_N[n], which is not n.
    """
    if num < 2:
        raise ValueError(f"wanted at least 2 images to exchange; got {num}")
    order_N = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    rows_N = torch.empty_like(order_N)
    rows_N[order_N] = order_N.roll(1)
    return rows_N


def copies(num: int, num_styles: int, seed: int = 0) -> Tensor:
    """Which style image stands for each of `num` results, all of them as often as possible: a model that copies.

    Returns:
        rows_N, int64, below `num_styles`.
    """
    if num < 1 or num_styles < 1:
        raise ValueError(f"wanted at least one result and one style image; got {num} and {num_styles}")
    rng = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(num_styles, generator=rng) for _ in range(-(-num // num_styles))]
    return torch.cat(rounds)[:num]


def collapsed(style_CHW: Tensor, num: int, std: float = 0.02, seed: int = 0) -> Tensor:
    """One style image `num` times, each with a little noise of its own: a model that lost its variety.

    Args:
        style_CHW: float, [-1, 1].
        std, seed: of `noise`.

    Returns:
        image_NCHW.
    """
    return noise(style_CHW.expand(num, -1, -1, -1), std, seed)
