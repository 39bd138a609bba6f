"""What a training shows and leaves behind: sample pictures and the model package of its averaged generator."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stylejobs.core.ema import Ema
from stylejobs.core.match import Match, fit_match, style_target
from stylejobs.core.methods import Method
from stylejobs.core.pixels import to_uint8
from stylejobs.engine.train_settings import TrainSettings, read_picture
from stylejobs.engine.train_state import Standing
from stylejobs.storage import locations
from stylejobs.storage.checkpoints import SHARED, best_checkpoint, unflatten
from stylejobs.storage.packages import save_package

_NUM_SAMPLES = 4


class TrainedPackage:
    """The generator as it will be used: averaged, in evaluation mode.

    Args:
        average: of the method's generator.
    """

    def __init__(self, settings: TrainSettings, method: Method, average: Ema, device: torch.device):
        self._s, self._method, self._average, self._device = settings, method, average, device

    @contextmanager
    def averaged(self, weights: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """The generator with its averaged weights, in evaluation mode; inside the block nothing is trained.

        Args:
            weights: others than those of now.
        """
        generator = self._method.generator
        kept = {name: value.clone() for name, value in generator.state_dict().items()}
        generator.load_state_dict(self._average.state_dict() if weights is None else weights)
        generator.eval()
        try:
            with torch.no_grad():
                yield generator
        finally:
            generator.load_state_dict(kept)
            generator.train()

    def sample_rows(self) -> list:
        """Rows of the sample grid: content, what the averaged generator makes of it, and a picture of the style."""
        s, rows = self._s, []
        with self.averaged() as generator:
            styles = itertools.cycle(self._method.styles().items())
            any_picture = itertools.cycle(s.style_images.values())
            for data in s.content_images[:_NUM_SAMPLES]:
                content_BCHW = read_picture(data, s, s.crops.whole_px)
                name, code_D = next(styles)
                stylized_BCHW = generator(content_BCHW.to(self._device), code_D[None].to(self._device))
                picture = s.style_images.get(name) or next(any_picture)
                pictures = (content_BCHW, stylized_BCHW, read_picture(picture, s, s.crops.whole_px))
                rows.append([to_uint8(picture_BCHW.cpu())[0].numpy() for picture_BCHW in pictures])
        return rows

    def save(self, standing: Standing, best: bool) -> None:
        """Writes the averaged generator as a model package, the last raw weights beside it.

        Args:
            best: takes the averaged weights of the checkpoint with the best score, where there is one.
        """
        s, told = self._s, {"images_seen": standing.images_seen, "losses": standing.losses}
        checkpoint = best_checkpoint(s.checkpoints.run_uri) if best and s.checkpoints else None
        weights = None
        if checkpoint is not None:
            part = checkpoint.read_part(SHARED)
            weights = unflatten(part.tensors, part.plain)["average"]["weights"]
            told |= {
                "best": {"step": checkpoint.step, "images_seen": checkpoint.images_seen, "score": checkpoint.score}
            }
        with self.averaged(weights) as generator:
            styles = {name: code_D.cpu() for name, code_D in self._method.styles().items()}
            averaged = {name: value.clone() for name, value in generator.state_dict().items()}
        match = self._match(tuple(styles))
        self._write(s.package_uri, averaged, styles, match, told)
        raw = self._method.generator.state_dict()
        self._write(locations.join(s.package_uri, "raw"), raw, styles, match, told)

    def _write(
        self, place: str, weights: dict[str, Tensor], styles: dict[str, Tensor], match: Match | None, told: dict
    ) -> None:
        method = self._method
        training = {**self._s.training, **told}
        save_package(place, method.generator_name, method.generator_options, weights, styles, training, match)

    def _match(self, styles: tuple[str, ...]) -> Match | None:
        """What `strength=auto` compares: embeddings of content and style images; None where there are too few."""
        s = self._s
        content = [read_picture(data, s, s.crops.whole_px) for data in s.content_images]
        pictures = {name: read_picture(data, s, s.crops.whole_px) for name, data in s.style_images.items()}
        if len(content) < 2 or not pictures:
            return None
        match = fit_match(content, {name: [pictures[name]] for name in styles if name in pictures})
        if others := [name for name in styles if name not in pictures]:
            whole_D = style_target(match, pictures.values())
            match = match.with_targets({**match.targets, **dict.fromkeys(others, whole_D)})
        return match
