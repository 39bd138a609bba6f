"""The measures by which a model is judged, by name: which way is better, the unit, and what each is in words.

Here lives what gates, tables and pages must know of a measure without computing it; it is computed in `core.ruler`
from `core.metrics` and `core.mmd`.
"""

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """What is known of a measure.

    Attributes:
        better: "higher", "lower", or "near one" for a ratio that may be wrong on both sides.
        unit: of the number, in words: "share" is a fraction of the images.
        says: what the number is, for a person.
        gain: whether two models are compared by their difference on the same images.
        ratio: whether by their ratio too.
    """

    better: Literal["higher", "lower", "near one"]
    unit: str
    says: str
    gain: bool = True
    ratio: bool = False


MEASURES: dict[str, Measure] = {
    "edge_cosine": Measure("higher", "cosine", "edges of the result lie where those of the source are"),
    "edge_cosine_p5": Measure("higher", "cosine", "edge_cosine that all but the worst 5 % of the images reach"),
    "identification": Measure("higher", "share", "results whose own source is the nearest of the panel by edges"),
    "ms_ssim": Measure("higher", "similarity", "multi-scale structural similarity to the source"),
    "style": Measure("higher", "share of the way", "texture, without colour: 0 the sources, 1 real style images"),
    "style_raw": Measure("higher", "share of the way", "colour and texture: 0 the sources, 1 real style images"),
    **{
        f"sliced_wasserstein_{level}": Measure(
            "lower", "distance", f"patches to those of the style, {scale}", ratio=True
        )
        for level, scale in enumerate(("finest scale", "2x coarser", "4x coarser", "8x coarser"))
    },
    "nyquist": Measure(
        "near one", "ratio", "finest detail to that of the style; above 1 noise, below 1 blur", gain=False
    ),
    "clipped": Measure("lower", "share of pixels", "pixels at an end of the range whose source is at none"),
    "constant": Measure("lower", "share", "results of one colour"),
    "identity": Measure("lower", "share", "results that are their source"),
    "coverage": Measure("higher", "share", "style images that have a result near them", gain=False),
    "pairwise": Measure("higher", "ratio", "mean distance of results to each other, to that of the style images"),
    "images_per_second": Measure("higher", "img/s", "speed of the model on the machine that judged it", gain=False),
    "label_agreement": Measure("higher", "share", "results that the classifier takes for what it took their source"),
    "downstream": Measure("higher", "accuracy", "corrupted accuracy that stylized training images add"),
    "lpips": Measure("lower", "distance", "learned perceptual distance to the source"),
    "fid": Measure("lower", "distance", "Frechet distance of Inception features to the style images"),
    "artfid": Measure("lower", "distance", "(1 + lpips) (1 + fid)", gain=False),
}

ROWS = ("identity", "reinhard", "fda", "blur", "noise", "checkerboard", "shuffled", "copy", "collapse")
"""What else is measured on the panel, so that numbers mean something: models that need no training, and faults."""
