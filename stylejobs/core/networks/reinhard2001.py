"""Colour transfer by moments (Reinhard 2001): no training, and the baseline that a trained model must beat."""

import torch
from torch import Tensor, nn

from stylejobs.core.networks.layers import check_inputs

_RGB_TO_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_OPPONENT = ((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0))
_OFFSET = 1.0 / 255.0
_MAX_RATIO = 8.0
_MIN_STD = 1e-6


class Moments(nn.Module):
    """Moves the mean and standard deviation of each decorrelated colour channel to the style's.

    In l-alpha-beta space, for each row and channel: y = (x - mean_x) * (std_s / std_x) + mean_s. A style code is six
    numbers: the means of l, alpha, beta, then their standard deviations (over the pixels, not Bessel-corrected).

    Differs from paper: log10(LMS + 1/255) in place of log10(LMS), which has no value at black and makes the noise of
    dark pixels the largest signal; the inverse matrix is the exact one, not the paper's four digits; std_s / std_x is
    at most 8, because a grey image has no colour to stretch, only noise.
    Source: Reinhard, Ashikhmin, Gooch & Shirley 2001, doi:10.1109/38.946629, equations 4 to 11.
    """

    multiple = 1
    style_dim = 6
    takes_whole = True

    def __init__(self) -> None:
        super().__init__()
        to_lms = torch.tensor(_RGB_TO_LMS, dtype=torch.float64)
        opponent = torch.tensor(_OPPONENT, dtype=torch.float64)
        to_lab = opponent / opponent.square().sum(dim=1, keepdim=True).sqrt()
        # Constants, not weights: a package of this network carries no tensors. Python numbers stay exact in any dtype.
        self._to_lms, self._from_lms = to_lms.tolist(), torch.linalg.inv(to_lms).tolist()
        self._to_lab, self._from_lab = to_lab.tolist(), to_lab.T.tolist()

    def forward(self, content_BCHW: Tensor, style_BD: Tensor, whole_BD: Tensor | None = None) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, 6], codes from `encode_style`.
            whole_BD: [B, 6], `encode_style` of the images that the contents are tiles of; None for the contents' own.

        Returns:
            stylized_BCHW, the content's size and dtype, clamped to [-1, 1].
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        lab_BCHW = self._to_lalphabeta(content_BCHW)
        style_BC11 = style_BD.to(lab_BCHW.dtype)[:, :, None, None]
        if whole_BD is None:
            mean_BC11, std_BC11 = _moments(lab_BCHW)
        else:
            mean_BC11, std_BC11 = whole_BD.to(lab_BCHW.dtype)[:, :, None, None].chunk(2, dim=1)
        ratio_BC11 = (style_BC11[:, 3:] / std_BC11.clamp_min(_MIN_STD)).clamp(0.0, _MAX_RATIO)
        moved_BCHW = (lab_BCHW - mean_BC11) * ratio_BC11 + style_BC11[:, :3]
        return self._from_lalphabeta(moved_BCHW).clamp(-1.0, 1.0).to(content_BCHW.dtype)

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The style code of each image: style_BD [B, 6], float32 (float64 for float64 input)."""
        mean_BC11, std_BC11 = _moments(self._to_lalphabeta(style_BCHW))
        return torch.cat([mean_BC11, std_BC11], dim=1)[:, :, 0, 0]

    def _to_lalphabeta(self, image_BCHW: Tensor) -> Tensor:
        dtype = torch.promote_types(image_BCHW.dtype, torch.float32)
        rgb_BCHW = image_BCHW.to(dtype).clamp(-1.0, 1.0).add(1.0).div(2.0)
        return _mix(_mix(rgb_BCHW, self._to_lms).add(_OFFSET).log10(), self._to_lab)

    def _from_lalphabeta(self, lab_BCHW: Tensor) -> Tensor:
        # Clamped where no colour lies, so that a wild style code gives a saturated image and never infinity.
        log_lms_BCHW = _mix(lab_BCHW, self._from_lab).clamp(-6.0, 3.0)
        rgb_BCHW = _mix(torch.pow(10.0, log_lms_BCHW).sub(_OFFSET), self._from_lms)
        return rgb_BCHW.mul(2.0).sub(1.0)


def _mix(image_BCHW: Tensor, matrix: list[list[float]]) -> Tensor:
    """Channel mixing pixel by pixel; a matrix product may round differently for other batch sizes, sums do not."""
    red_BHW, green_BHW, blue_BHW = image_BCHW.unbind(dim=1)
    return torch.stack([row[0] * red_BHW + row[1] * green_BHW + row[2] * blue_BHW for row in matrix], dim=1)


def _moments(image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    mean_BC11 = image_BCHW.mean(dim=(2, 3), keepdim=True)
    variance_BC11 = (image_BCHW - mean_BC11).square().mean(dim=(2, 3), keepdim=True)
    return mean_BC11, variance_BC11.sqrt()
