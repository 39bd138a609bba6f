"""Training methods by name: one file a method, one line here."""

from typing import Any

from stylejobs.core.choices import choose
from stylejobs.core.methods.adain import Adain, AdainOptions
from stylejobs.core.methods.classifier import Classification, ClassificationOptions
from stylejobs.core.methods.content_gan import ContentGan, ContentGanOptions
from stylejobs.core.methods.cut import FASTCUT, Cut, CutOptions
from stylejobs.core.methods.cyclegan import Cyclegan, CycleganOptions
from stylejobs.core.methods.exemplar import Exemplar, ExemplarOptions
from stylejobs.core.methods.fast import Fast, FastOptions
from stylejobs.core.methods.fst import Fst, FstOptions
from stylejobs.core.methods.method import Ingredients, Method, Player, Step, Taken, Turn, take_step
from stylejobs.core.methods.schedule import Curve, InverseDecay, Moment, Phase, linear_decay, moment_at
from stylejobs.core.methods.stargan import Stargan, StarganOptions

__all__ = [
    "METHODS",
    "PRESETS",
    "Adain",
    "AdainOptions",
    "Classification",
    "ClassificationOptions",
    "ContentGan",
    "ContentGanOptions",
    "Curve",
    "Cut",
    "CutOptions",
    "Cyclegan",
    "CycleganOptions",
    "Exemplar",
    "ExemplarOptions",
    "Fast",
    "FastOptions",
    "Fst",
    "FstOptions",
    "Ingredients",
    "InverseDecay",
    "Method",
    "Moment",
    "Phase",
    "Player",
    "Stargan",
    "StarganOptions",
    "Step",
    "Taken",
    "Turn",
    "build_method",
    "linear_decay",
    "moment_at",
    "take_step",
]

METHODS: dict[str, type[Method]] = {
    "adain": Adain,
    "classifier": Classification,
    "content_gan": ContentGan,
    "cut": Cut,
    "cyclegan": Cyclegan,
    "exemplar": Exemplar,
    "fast": Fast,
    "fst": Fst,
    "stargan": Stargan,
}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "fastcut": ("cut", FASTCUT),
}


def build_method(name: str, ingredients: Ingredients, **options: Any) -> Method:
    """A method, ready to train.

    Args:
        name: a key of `METHODS`, or of `PRESETS`: a method under other default options.
        ingredients: what its networks and targets are built of.
        **options: fields of the method's `options_class`, where they differ from its defaults.

    Raises:
        ValueError: no such method, an option that it does not take, or ingredients that are missing.
    """
    method_name, preset = choose("method", {name: (name, {}) for name in METHODS} | PRESETS, name)
    method = METHODS[method_name]
    try:
        numbers = method.options_class(**{**preset, **options})
    except TypeError as error:
        raise ValueError(f"method {name!r} cannot be built with the options {sorted(options)}: {error}") from error
    return method(ingredients, numbers)
