"""The gap between contents and a style set in one view of them: where a style distance is 0, and where it is 1."""

from torch import Tensor

from stylejobs.core.mmd import Kernels, RbfKernel, mmd2


class Gap:
    """One ruler for all candidates of a panel: fitted on its contents and styles, never on a candidate.

    Attributes:
        kernel: of the descriptors.
        identity, target: kernels against the style set, of the contents and of other images of the style.

    Args:
        view: its name, for messages.
        content_SND, style_SMD, others_SHD: descriptors of the contents, of the reference half of the style set, and of
            its other half, see `mmd.describe`.

    Raises:
        ValueError: images that are equal, or contents that are as near to the style set as its own images are.
    """

    def __init__(self, view: str, content_SND: Tensor, style_SMD: Tensor, others_SHD: Tensor):
        self._style_SMD = style_SMD
        self.kernel = RbfKernel.fit(content_SND, style_SMD)
        self.identity, self.target = self.against(content_SND), self.against(others_SHD)
        near, far = mmd2(self.target).item(), mmd2(self.identity).item()
        if not near < far:
            raise ValueError(
                f"{view}: the contents are no farther from the style set (squared MMD {far:.4g}) than its own "
                f"images are ({near:.4g}), so there is nothing to measure: give more images, or a style set that "
                "differs from the contents"
            )

    def against(self, described_SND: Tensor) -> Kernels:
        """Kernels of a set against the reference half of the style set."""
        return self.kernel.between(described_SND, self._style_SMD)
