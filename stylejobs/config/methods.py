"""Which keys of the `train` command each method reads, as plain data: no torch here, so that an error comes at once.

A test holds it equal to what `stylejobs.core` takes: the fields of a method's options, the arguments of a network.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from stylejobs.config.training import Critic, Generator, Loss, Recipe

_KINDS = ("gan", "content_kind", "style_kind")
OPTION_OF_KEY = {
    **{f"loss.{name}": name if name in _KINDS else f"{name}_weight" for name in Loss.model_fields},
    "backbone.content_layer": "content_layer",
    "backbone.style_layers": "style_layers",
    "optim.lr": "learning_rate",
    "optim.critic_lr": "critic_learning_rate",
    **{f"optim.{name}": name for name in ("beta1", "beta2", "decay_from", "critic_steps")},
    **{f"recipe.{name}": name for name in Recipe.model_fields},
}
"""Key -> field of a method's options."""

GENERATOR_OPTIONS = {
    "johnson": "width blocks",
    "resnet": "width blocks norm upsample tied",
    "encoder_decoder": "width norm",
    "label_conditioned": "width blocks",
    "style_modulated": "width blocks",
    "attention_recurrent": "width steps",
    "adain": "encoder layer attention",
    "exemplar": "width encoder layer attention latent size_px",
    "classifier": "width",
}
CRITIC_OPTIONS = {
    "patch": "width layers norm",
    "multiscale": "width layers norm scales",
    "patch_domain": "width layers norm",
    "dcgan": "width norm",
}
"""Network -> those of its options that are keys."""

GENERATORS = {
    "cyclegan": ("resnet", "encoder_decoder", "johnson"),
    "cut": ("resnet",),
    "fastcut": ("resnet",),
    "stargan": ("label_conditioned",),
    "fast": ("johnson",),
    "fst": ("attention_recurrent",),
    "content_gan": ("resnet", "label_conditioned", "style_modulated"),
    "exemplar": ("exemplar",),
    "adain": ("adain",),
    "classifier": ("classifier",),
}
CRITICS = {
    "cyclegan": ("patch", "multiscale", "patch_domain", "dcgan"),
    "cut": ("patch", "multiscale", "dcgan"),
    "fastcut": ("patch", "multiscale", "dcgan"),
    "stargan": ("patch_domain",),
    "fst": ("patch", "multiscale", "dcgan"),
    "content_gan": ("patch", "multiscale", "dcgan"),
    "exemplar": ("dcgan",),
}
"""Method -> the networks it can be trained with, its default first."""

_ADAM = "optim.lr optim.beta1 optim.beta2"
_GAN = f"{_ADAM} optim.critic_lr optim.decay_from loss.gan loss.adversarial"
_LAYERS = "backbone.content_layer backbone.style_layers"
_CUT = f"{_GAN} loss.nce loss.identity recipe.num_patches recipe.temperature recipe.flip_equivariance"
_OPTIONS = {
    "cyclegan": f"{_GAN} loss.cycle loss.identity loss.classification recipe.pool recipe.adapters recipe.share_trunk",
    "cut": _CUT,
    "fastcut": _CUT,
    "stargan": f"{_GAN} loss.classification loss.reconstruction loss.identity loss.gradient_penalty loss.drift "
    "optim.critic_steps",
    "fast": f"loss.content loss.style loss.tv {_LAYERS} optim.lr",
    "fst": f"{_LAYERS} optim.lr optim.critic_lr loss.gan loss.content loss.style loss.adversarial loss.reconstruction "
    "loss.content_kind loss.style_kind recipe.phases recipe.mosaic",
    "content_gan": f"{_GAN} {_LAYERS} loss.content loss.style loss.tv loss.reconstruction loss.content_kind "
    "loss.style_kind recipe.phases",
    "exemplar": f"{_ADAM} optim.critic_lr optim.critic_steps backbone.style_layers loss.content loss.style loss.tv "
    "loss.adversarial loss.gradient_penalty loss.drift loss.entropy loss.style_kind recipe.phases",
    "adain": "optim.lr backbone.style_layers loss.content loss.style loss.tv loss.style_kind",
    "classifier": f"{_ADAM} optim.decay_from",
}
OPTION_KEYS = {method: tuple(keys.split()) for method, keys in _OPTIONS.items()}
"""Method -> the keys of its options."""


def method_keys(method: str, generator: str | None = None, critic: str | None = None) -> tuple[str, ...]:
    """All keys that depend on the method and that it reads.

    Args:
        generator, critic: names of its networks, where it leaves a choice; None takes the defaults.
    """
    generator = generator or GENERATORS[method][0]
    keys = [*OPTION_KEYS[method], "generator.name"]
    keys += [f"generator.{name}" for name in GENERATOR_OPTIONS[generator].split()]
    if method in CRITICS:
        critic = critic or CRITICS[method][0]
        keys += ["critic.name", *(f"critic.{name}" for name in CRITIC_OPTIONS[critic].split())]
    return tuple(keys)


METHOD_KEYS = {method: method_keys(method) for method in GENERATORS}
"""Method -> the keys it reads with its default networks."""

_DEPENDENT = {
    *OPTION_OF_KEY,
    *(f"generator.{n}" for n in Generator.model_fields),
    *(f"critic.{n}" for n in Critic.model_fields),
}
_KEYS_OF_STYLES = ("style", "evaluation.every_images", "evaluation.content", "evaluation.style")


def find_unread(values: Mapping[str, Any]) -> dict[str, str]:
    """Keys that were set though the method does not read them: key -> reason.

    Args:
        values: dotted key -> value, as written; None and "none" set nothing.
    """
    given = {key: value for key, value in values.items() if str(value).lower() not in ("none", "null")}
    method = given.get("method")
    if method not in GENERATORS:
        return {}
    problems = _problems_of_style(method, given)
    names: dict[str, str | None] = {}
    for part, table, options in (("generator", GENERATORS, GENERATOR_OPTIONS), ("critic", CRITICS, CRITIC_OPTIONS)):
        key, name = f"{part}.name", given.get(f"{part}.name")
        names[part] = name if name in table.get(method, ()) else None
        if name in options and method in table and names[part] is None:
            problems[key] = f"method={method} trains with {' or '.join(table[method])}; got {name!r}"
    read = method_keys(method, **names)
    for key in given:
        if key in _DEPENDENT and key not in read:
            problems.setdefault(key, _reason(key, method, names, read))
    return problems


def _problems_of_style(method: str, given: Mapping[str, Any]) -> dict[str, str]:
    """All methods learn a style, but the one that learns labels."""
    if method == "classifier":
        reason = "is not read by method=classifier, which learns the labels of `content`; leave it out"
        return {key: reason for key in _KEYS_OF_STYLES if key in given}
    wanted = f"required by method={method}, not set: one image, or a set of them like content [local path or s3:// URI]"
    return {} if "style" in given else {"style": wanted}


def _reason(key: str, method: str, names: Mapping[str, str | None], read: Iterable[str]) -> str:
    section = key.partition(".")[0]
    taken = [other for other in read if other.startswith(f"{section}.")]
    if not taken:
        return f"is not read by method={method}, which has no {section} keys; leave it out"
    network = f" with {section}.name={names[section]}" if names.get(section) else ""
    return f"is not read by method={method}{network}, which reads {', '.join(taken)}"
