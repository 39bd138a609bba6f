"""The network whose features make a Frechet distance the FID: Inception v3 as Heusel 2017 ran it. Weights come in."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIDE_PX = 299
_BATCH = 16
# torchvision averages a border's zeros too, and the last block has a mean where the original has a maximum.
_MEAN_BLOCKS = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")
_MAX_BLOCK = "Mixed_7c"


class Inception(nn.Module):
    """Inception v3 up to its last pooling, frozen; built by `build_inception`."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Features for `frechet_distance`.

        Args:
            image_BCHW: float, RGB, [-1, 1]; scaled to 299x299 px (bilinear, corners apart, no antialiasing).

        Returns:
            features_BD, float32, D = 2048.
        """
        parts = []
        for part_BCHW in image_BCHW.float().split(_BATCH):
            part_BCHW = F.interpolate(part_BCHW, size=(_SIDE_PX, _SIDE_PX), mode="bilinear", align_corners=False)
            parts.append(self._network(part_BCHW))
        return torch.cat(parts)


def build_inception(state_dict: Mapping[str, Tensor]) -> Inception:
    """The FID's network with its weights.

    Args:
        state_dict: the TensorFlow weights of 2015-12-05 in torchvision's names, as `pytorch-fid` published them; the
            classifier and the auxiliary one are left out if they are there. With torchvision's own weights the number
            is another one, and comparable with none that is published.

    Raises:
        ValueError: weights that are not this network's: says which are missing, not known, or of another shape.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens & Wojna 2016, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
    """
    from torchvision import models  # takes as long to import as torch; most processes never measure FID

    with torch.device("meta"):
        network = models.Inception3(aux_logits=False, transform_input=False, init_weights=False)
    network.fc = nn.Identity()
    wanted = {key: value.shape for key, value in network.state_dict().items() if not key.endswith("batches_tracked")}
    weights = {
        key: value
        for key, value in state_dict.items()
        if not key.startswith(("fc.", "AuxLogits.")) and not key.endswith("batches_tracked")
    }
    problems = [f"missing {key}" for key in wanted if key not in weights]
    problems += [f"not known {key}" for key in weights if key not in wanted]
    problems += [
        f"wrong shape {key}: wanted {list(shape)}, got {list(weights[key].shape)}"
        for key, shape in wanted.items()
        if key in weights and weights[key].shape != shape
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"wanted the {len(wanted)} tensors of Inception v3 in torchvision's names; got others: "
            f"{'; '.join(problems[:8])}{more}; give the weights file of FID"
        )
    copies = {key: weights[key].detach().to(torch.float32, copy=True) for key in wanted}
    counts = {key: torch.zeros((), dtype=torch.long) for key in network.state_dict() if key not in wanted}
    network.load_state_dict(copies | counts, strict=True, assign=True)
    for name in _MEAN_BLOCKS:
        _pool_by(getattr(network, name), lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))
    _pool_by(getattr(network, _MAX_BLOCK), lambda x: F.max_pool2d(x, 3, stride=1, padding=1))
    return Inception(network)


def _pool_by(block: nn.Module, pool: Callable[[Tensor], Tensor]) -> None:
    """Feeds a block's pooled branch from another pooling of the block's input."""
    inputs: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[:] = arguments

    def feed(*_: object) -> tuple[Tensor]:
        return (pool(inputs.pop()),)

    block.register_forward_pre_hook(keep)
    block.branch_pool.register_forward_pre_hook(feed)
