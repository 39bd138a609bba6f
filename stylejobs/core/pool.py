"""A history of generated images: the critic also meets older ones, so that the two players do not chase each other."""

from collections.abc import Mapping

import torch
from torch import Tensor

from stylejobs.core.draws import Draws


class ImagePool:
    """Keeps up to `size` generated images and gives back a mix of new and old ones.

    For each image in turn: while the pool fills, it is stored and given back. Then, with probability one half, a stored
    image at a random place is given back and the new one takes its place; else the new one is given back and not kept.
    Two numbers are drawn for every image once the size is above 0, so that draws do not depend on how full the pool is.

    A pool belongs to one worker, so once pools are full N workers meet other older images than one does. Its images are
    detached copies of their own, on the device of the images that came.

    Args:
        size: images; 0 keeps none and gives back what comes.

    Differs from paper: image by image as in Zhu 2017, not half of every batch.
    Source: Shrivastava et al. 2017, arXiv:1612.07828, section 2.3; Zhu, Park, Isola & Efros 2017, arXiv:1703.10593,
    section 4 (size 50).
    """

    def __init__(self, size: int = 50):
        if size < 0:
            raise ValueError(f"wanted size >= 0; got {size}")
        self.size = size
        self._images: list[Tensor] = []

    def query(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """Takes new images in and gives as many back.

        Args:
            images_BCHW: float, [-1, 1]; all images of a pool have one shape.
            draws: the numbers of these rows.

        Returns:
            images_BCHW, same shape, dtype and device, without a graph; each row is one that came, now or before.
        """
        if images_BCHW.ndim != 4:
            raise ValueError(f"wanted images [B, C, H, W]; got {list(images_BCHW.shape)}")
        images_BCHW = images_BCHW.detach()
        if self.size == 0:
            return images_BCHW
        if self._images and self._images[0].shape != images_BCHW.shape[1:]:
            raise ValueError(
                f"wanted images of one shape in a pool; it holds {list(self._images[0].shape)}, "
                f"got {list(images_BCHW.shape[1:])}: keep one pool for every size"
            )
        drawn = draws.rand(images_BCHW.shape[0], 2, dtype=torch.float64).tolist()
        rows = [self._swap(image, *numbers) for image, numbers in zip(images_BCHW, drawn, strict=True)]
        return torch.stack(rows) if rows else images_BCHW

    def state_dict(self) -> dict[str, Tensor]:
        """The stored images in their order, as one CPU tensor: {"images_NCHW": ...}, of no element while empty."""
        images_NCHW = torch.stack(self._images).cpu() if self._images else torch.empty(0)
        return {"images_NCHW": images_NCHW}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from stored images.

        Raises:
            ValueError: more images than this pool keeps: it was saved by a pool of another size.
        """
        images_NCHW = state["images_NCHW"]
        if images_NCHW.shape[0] > self.size:
            raise ValueError(f"wanted at most {self.size} images; got {images_NCHW.shape[0]}: the pool's size changed")
        self._images = [image.clone() for image in images_NCHW]

    def _swap(self, image_CHW: Tensor, coin: float, place: float) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image_CHW.clone())
            return image_CHW
        if coin < 0.5:
            return image_CHW
        index = int(place * self.size)
        old_CHW = self._images[index]
        self._images[index] = image_CHW.clone()
        # A pool that was loaded starts on the CPU, whatever the device of the images.
        return old_CHW.to(image_CHW.device, image_CHW.dtype)
