"""A recipe's turns on one global batch, by one worker or by several that have their rows of it; all in float64."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stylejobs.core.draws import Draws, Mean, mean_of_one
from stylejobs.core.methods import Method, Moment, Step, moment_at, take_step
from tests.core.recipes import Recipe, build, draw_batch

GLOBAL_BATCH = 4
_NUM_IMAGES = 10_000


class Seat(NamedTuple):
    """Which worker of how many, and how it learns what all have in the mean."""

    rank: int = 0
    num_workers: int = 1
    mean: Mean = mean_of_one


class Table:
    """Where workers that are threads of this process lay their tensors down, and read the mean of all."""

    def __init__(self, num_workers: int):
        self._tensors = [torch.empty(0)] * num_workers
        self.all_here = threading.Barrier(num_workers, timeout=120)

    def seats(self) -> list[Seat]:
        num_workers = len(self._tensors)
        return [
            Seat(rank, num_workers, lambda tensor, rank=rank: self._mean(rank, tensor)) for rank in range(num_workers)
        ]

    def _mean(self, rank: int, tensor: Tensor) -> Tensor:
        assert not tensor.requires_grad
        self._tensors[rank] = tensor
        self.all_here.wait()
        mean = torch.stack(self._tensors).mean(dim=0)
        self.all_here.wait()  # nobody lays down the next before all have read this
        return mean


def build_double(recipe: Recipe) -> Method:
    method = build(recipe)
    for module in (*method.networks.values(), *method.frozen.values()):
        module.double()
    return method


def take_turns(
    recipe: Recipe,
    method: Method,
    phase: int,
    augment: float,
    seat: Seat,
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> dict[str, Tensor]:
    """Every player of a phase has a turn on this worker's rows, but no weight changes.

    Args:
        method: from `build_double`, not used before.

    Returns:
        "gradient/<player>", all its weights' in a row, "loss/<term>" and "signal/<name>".
    """
    networks = {name: wrap(network) for name, network in method.networks.items()}
    optimizers = method.build_optimizers(networks, scale=0.0)
    found: dict[str, Tensor] = {}
    for player, optimizer in optimizers.items():

        def keep(optimizer, _args, _kwargs, player=player):
            grads = [weight.grad for weight in optimizer.param_groups[0]["params"]]
            found[f"gradient/{player}"] = torch.cat([grad.flatten() for grad in grads if grad is not None])

        optimizer.register_step_pre_hook(keep)
    whole = draw_batch(recipe, 0, GLOBAL_BATCH)
    rows = {name: tensor[seat.rank :: seat.num_workers] for name, tensor in whole.items()}
    rows = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in rows.items()}
    moment = _moment_of(method, phase, augment, seat)
    taken = take_step(method, networks, optimizers, Step(rows, moment))
    assert {name.removeprefix("gradient/") for name in found} == set(moment.phase.players)
    found |= {f"loss/{name}": loss for name, loss in taken.losses.items()}
    return found | {f"signal/{name}": signal for name, signal in taken.signals.items()}


def take_turns_together(recipe: Recipe, phase: int, augment: float, num_workers: int) -> dict[str, Tensor]:
    """The mean over workers of what each finds, as DDP would take it."""
    table = Table(num_workers)
    methods = [build_double(recipe) for _ in range(num_workers)]  # here, because it seeds torch's own generator

    def work(seat: Seat) -> dict[str, Tensor]:
        try:
            return take_turns(recipe, methods[seat.rank], phase, augment, seat)
        except BaseException:
            table.all_here.abort()
            raise

    with ThreadPoolExecutor(num_workers) as threads:
        founds = list(threads.map(work, table.seats()))
    assert len({tuple(found) for found in founds}) == 1
    return {name: torch.stack([found[name] for found in founds]).mean(dim=0) for name in founds[0]}


def check_alike(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Gradients and losses to 1e-10, signals, which are float32, to 1e-6."""
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        tolerance = 1e-6 if name.startswith("signal/") else 1e-10
        torch.testing.assert_close(
            found[name], tensor, rtol=0.0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert all(tensor.abs().max() > 1e-6 for name, tensor in wanted.items() if name.startswith("gradient/"))


def _moment_of(method: Method, phase: int, augment: float, seat: Seat) -> Moment:
    """The middle of a phase, at a step in which all its players move."""
    share = sum(before.share for before in method.phases[:phase]) + method.phases[phase].share / 2
    step = math.lcm(*method.phases[phase].every.values())
    draws = Draws(torch.Generator().manual_seed(0), seat.rank, seat.num_workers)
    images_seen = round(share * _NUM_IMAGES)
    return moment_at(method.phases, step, images_seen, _NUM_IMAGES, draws, augment, seat.mean)
