"""What methods with a critic share: players, the critic's turn, and the checks of their options' numbers."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment
from stylejobs.core.losses.adversarial import critic_accuracy, critic_loss
from stylejobs.core.methods.method import Ingredients, Player, Turn
from stylejobs.core.methods.schedule import Moment, linear_decay
from stylejobs.core.networks.critics import build_critic

# Without wgan_gp, which wants a gradient penalty.
UNPENALISED_KINDS = ("vanilla", "lsgan", "hinge")


def adam_player(options: Any, networks: tuple[str, ...], is_critic: bool = False) -> Player:
    """A player whose rate is constant, then falls linearly to 0, by the options of a method that has a critic."""
    rate = options.learning_rate
    if is_critic and options.critic_learning_rate is not None:
        rate = options.critic_learning_rate
    return Player(networks, rate, (options.beta1, options.beta2), linear_decay(options.decay_from), is_critic)


def check_numbers(options: Any) -> None:
    """Checks the numbers of a method's options, those that it has, by their names.

    Raises:
        ValueError: not so: weights >= 0 and rates > 0, all finite; betas and `decay_from` in [0, 1); `critic_steps`
            and `mosaic` >= 1.
    """
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    wrong = [f"{name}={value}" for name, value in values.items() if value is not None and not _fits(name, value)]
    if wrong:
        raise ValueError(
            "wanted weights >= 0, rates > 0, betas and decay_from in [0, 1), mosaic and critic_steps >= 1; "
            f"got {', '.join(wrong)}"
        )


def check_phases(phases: Sequence[float], names: Sequence[str]) -> None:
    """Checks the shares of a training's phases.

    Raises:
        ValueError: not one share for each name, a share below 0, a last one of 0, or a sum that is not 1.
    """
    fits = len(phases) == len(names) and all(share >= 0.0 for share in phases) and phases[-1] > 0.0
    if not fits or abs(sum(phases) - 1.0) > 1e-6:
        raise ValueError(
            f"wanted phases, {len(names)} shares ({', '.join(names)}) >= 0 that add up to 1, the last above 0; "
            f"got {tuple(phases)}"
        )


def build_plain_critic(method: str, ingredients: Ingredients) -> nn.Module:
    """A critic that returns logits alone, by default `patch`.

    Raises:
        ValueError: a critic with a domain head, or one that is not known.
    """
    options = {"name": "patch", **ingredients.critic}
    name = options.pop("name")
    if name == "patch_domain":
        raise ValueError(f"{method}: wanted a critic of one domain, patch for example; got 'patch_domain'")
    return build_critic(name, **options)


def judge(critic: nn.Module, real_BCHW: Tensor, fake_BCHW: Tensor, moment: Moment) -> tuple[Any, Any]:
    """(logits of the real images, logits of the fakes), augmented as the moment says, by one pass of the critic."""
    seen_BCHW = diff_augment(torch.cat([real_BCHW, fake_BCHW]), moment.augment, moment.draws)
    return split_rows(critic(seen_BCHW), len(real_BCHW))


def criticise(gan: str, critic: nn.Module, real_BCHW: Tensor, fake_BCHW: Tensor, moment: Moment) -> Turn:
    """The turn of a critic that returns logits alone: its loss as `critic`, and its accuracy.

    Args:
        gan: one of `UNPENALISED_KINDS`.
        fake_BCHW: of the real images' size, detached.
    """
    real, fake = judge(critic, real_BCHW, fake_BCHW, moment)
    return Turn({"critic": critic_loss(gan, real, fake)}, {"accuracy": critic_accuracy(gan, real, fake)})


def split_rows(batch: Tensor | Sequence[Tensor], num_rows: int) -> tuple[Any, Any]:
    """The first rows and the others, of a batch, or of each of a sequence (the logits of several scales)."""
    if isinstance(batch, Tensor):
        return batch[:num_rows], batch[num_rows:]
    return [scale[:num_rows] for scale in batch], [scale[num_rows:] for scale in batch]


def _fits(name: str, value: Any) -> bool:
    if name.endswith("_weight"):
        return 0.0 <= value < math.inf
    if name.endswith("learning_rate"):
        return 0.0 < value < math.inf
    if name in ("beta1", "beta2", "decay_from"):
        return 0.0 <= value < 1.0
    return name not in ("critic_steps", "mosaic") or value >= 1
