"""The file that MLflow runs when somebody loads a registered model: a generator behind `predict`.

    model = mlflow.pyfunc.load_model("models:/name@champion")
    model.predict(pandas.DataFrame({"image": [jpeg_bytes]}), params={"style": "mosaic", "strength": 0.8})

MLflow executes a copy of it in the consumer's process, with the package's source beside it. It must not import ray.
For millions of images use the verb `stylize`; this is one image at a time.
"""

from typing import Any

import mlflow
import numpy as np
import pandas
import torch

from stylejobs.core.luma import keep_colour
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.errors import StyleError
from stylejobs.records.codec import Limits, decode_image, encode_image
from stylejobs.storage.packages import load_package

QUALITY = 95


class PackagedGenerator(mlflow.pyfunc.PythonModel):
    """Stylizes encoded images; any image size, the size is kept."""

    def load_context(self, context: Any) -> None:
        """Loads the package, every digest checked."""
        self.loaded = load_package(context.artifacts["package"])

    def predict(
        self, context: Any, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> pandas.DataFrame:
        """Stylizes a column of images.

        Args:
            context: MLflow's; not used.
            model_input: column `image`: bytes of any image format that `records.codec` reads.
            params: `style`, a name that the model carries (the first when empty); `strength`, 0 for the source to 1
                for the style; `preserve_colour`, true keeps the source's colours; `format`, jpeg, png or webp.

        Returns:
            Column `image`: encoded bytes, upright, with the index of `model_input`.

        Raises:
            StyleError: the model does not carry the style, or the strength is not in [0, 1].
            DecodeError, EncodeError: an image cannot be read, or not be written in the format.
        """
        params = params or {}
        style_BD = self._code(params.get("style") or "")[None]
        strength = float(params.get("strength", 1.0))
        if not 0.0 <= strength <= 1.0:
            raise StyleError(f"strength={strength:g}: wanted a number in [0, 1]")
        format_ = params.get("format") or "jpeg"
        stylized = []
        for image in model_input["image"]:
            pixels_HWC = decode_image(bytes(image), Limits())
            if strength > 0.0:
                pixels_HWC = self._stylize(pixels_HWC, style_BD, strength, bool(params.get("preserve_colour")))
            stylized.append(encode_image(pixels_HWC, format_, QUALITY))
        return pandas.DataFrame({"image": stylized}, index=model_input.index)

    def _code(self, style: str) -> torch.Tensor:
        styles = self.loaded.styles
        if not styles:
            raise StyleError("this model carries no styles: register it with at least one")
        name = style or next(iter(styles))
        if name not in styles:
            raise StyleError(f"style={name}: this model carries {', '.join(styles)}")
        return styles[name]

    @torch.inference_mode()
    def _stylize(
        self, pixels_HWC: np.ndarray, style_BD: torch.Tensor, strength: float, preserve_colour: bool
    ) -> np.ndarray:
        content_BCHW = to_float(torch.from_numpy(pixels_HWC)[None])
        stylized_BCHW = self.loaded.generator(content_BCHW, style_BD)
        if preserve_colour:
            stylized_BCHW = keep_colour(stylized_BCHW, content_BCHW)
        return to_uint8(torch.lerp(content_BCHW, stylized_BCHW, strength))[0].numpy()


mlflow.models.set_model(PackagedGenerator())
