"""The file that MLflow runs when somebody loads a registered model: a generator behind `predict`.

    model = mlflow.pyfunc.load_model("models:/name@champion")
    model.predict(pandas.DataFrame({"image": [jpeg_bytes]}), params={"style": "mosaic", "format": "png"})

MLflow executes a copy of it in the consumer's process, with the package's source beside it. It must not import ray.
For millions of images use the verb `stylize`; this is one image at a time.
"""

from typing import Any

import mlflow
import pandas
import torch

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
            params: `style`, a name that the model carries (the first when empty); `format`, jpeg, png or webp.

        Returns:
            Column `image`: encoded bytes, upright, with the index of `model_input`.

        Raises:
            StyleError: the model does not carry the style.
            DecodeError, EncodeError: an image cannot be read, or not be written in the format.
        """
        params = params or {}
        style_BD = self._code(params.get("style") or "")[None]
        format_ = params.get("format") or "jpeg"
        stylized = [self._stylize(bytes(image), style_BD, format_) for image in model_input["image"]]
        return pandas.DataFrame({"image": stylized}, index=model_input.index)

    def _code(self, style: str) -> torch.Tensor:
        styles = self.loaded.styles
        if not styles:
            raise StyleError("this model carries no styles: register it with at least one")
        name = style or next(iter(styles))
        if name not in styles:
            raise StyleError(f"style={name}: this model carries {', '.join(styles)}")
        return styles[name]

    def _stylize(self, image: bytes, style_BD: torch.Tensor, format_: str) -> bytes:
        pixels_HWC = torch.from_numpy(decode_image(image, Limits()))
        with torch.inference_mode():
            stylized_BCHW = self.loaded.generator(to_float(pixels_HWC[None]), style_BD)
        return encode_image(to_uint8(stylized_BCHW)[0].numpy(), format_, QUALITY)


mlflow.models.set_model(PackagedGenerator())
