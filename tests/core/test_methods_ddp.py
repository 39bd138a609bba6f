"""What holds for every training method, in one process and in two; a method joins with a row in recipes.py."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stylejobs.core.draws import Draws
from stylejobs.core.methods import (
    METHODS,
    PRESETS,
    Step,
    Taken,
    moment_at,
    take_step,
)
from stylejobs.core.networks import build_network
from stylejobs.core.networks.classifier import Classifier
from tests.core.recipes import RECIPES, Recipe, build, draw, draw_batch
from tests.core.workers import Seat, build_double, check_alike, take_turns

ALONE = Seat()
every_recipe = pytest.mark.parametrize("name", RECIPES)


class Worker:
    """A training without its loop: what a checkpoint holds, and steps spread equally over the phases."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int = 0,
        seat: Seat = ALONE,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ):
        self.recipe, self.method, self.seat = recipe, build(recipe), seat
        self.networks = {name: wrap(network) for name, network in self.method.networks.items()}
        self.optimizers = self.method.build_optimizers(self.networks)
        self.rng = torch.Generator().manual_seed(seed)
        self.num_steps = 0

    def step(self, batch: dict[str, Tensor], precision: str = "float32") -> Taken:
        number, draws = self.num_steps + 1, Draws(self.rng, self.seat.rank, self.seat.num_workers)
        phases, num_images = self.method.phases, self.recipe.num_steps
        moment = moment_at(phases, number, self.num_steps, num_images, draws, mean=self.seat.mean)
        self.num_steps += 1
        return take_step(self.method, self.networks, self.optimizers, Step(batch, moment), precision)

    def state(self) -> dict[str, Any]:
        kinds = (("networks", self.networks), ("optimizers", self.optimizers), ("memory", self.method.memory))
        state = {kind: {name: part.state_dict() for name, part in parts.items()} for kind, parts in kinds}
        return {**state, "rng": self.rng.get_state(), "num_steps": self.num_steps}

    def load(self, state: dict[str, Any]) -> None:
        kinds = (("networks", self.networks), ("optimizers", self.optimizers), ("memory", self.method.memory))
        for kind, parts in kinds:
            for name, part in parts.items():
                part.load_state_dict(state[kind][name])
        self.rng.set_state(state["rng"])
        self.num_steps = state["num_steps"]

    def weights(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": weight.detach().clone()
            for name, network in self.method.networks.items()
            for key, weight in network.named_parameters()
        }

    def gradients(self) -> dict[str, Tensor]:
        """Where there is none, an empty tensor."""
        return {
            f"{name}.{key}": torch.empty(0) if weight.grad is None else weight.grad.clone()
            for name, network in self.method.networks.items()
            for key, weight in network.named_parameters()
        }


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The networks in which something differs."""
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}


def test_every_method_has_a_recipe():
    assert {recipe.method for recipe in RECIPES.values()} == {*METHODS, *PRESETS}


@every_recipe
def test_a_player_moves_its_own_networks_and_all_of_them(name):
    """No other network gets a gradient; of a network that takes part every weight does, or DDP would wait for it."""
    worker = Worker(RECIPES[name])
    begun, moved = {}, {player: set() for player in worker.optimizers}
    for player, optimizer in worker.optimizers.items():
        own = set(worker.method.players[player].networks)

        def before(_optimizer, _args, _kwargs, own=own):
            gradients = worker.gradients()
            assert changed(begun["gradients"], gradients) <= own
            used = {key: grad.numel() > 0 for key, grad in gradients.items()}
            for network in own:
                assert len({some for key, some in used.items() if key.split(".")[0] == network}) == 1
            begun["weights"] = worker.weights()

        def after(_optimizer, _args, _kwargs, player=player):
            moved[player] |= changed(begun["weights"], worker.weights())
            begun["gradients"] = worker.gradients()

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
    for number in range(RECIPES[name].num_steps):
        begun["gradients"] = worker.gradients()
        worker.step(draw_batch(RECIPES[name], number))
    assert moved == {player: set(worker.method.players[player].networks) for player in worker.optimizers}


@every_recipe
def test_a_batch_that_is_not_finite_is_reported_and_moves_nothing(name):
    worker, good = Worker(RECIPES[name]), draw_batch(RECIPES[name], 0)
    before = worker.weights()
    taken = worker.step({**good, "content": good["content"] * float("nan"), "style": good["style"] * float("nan")})
    assert taken.non_finite in worker.method.players
    assert not changed(before, worker.weights())
    assert not any(optimizer.state for optimizer in worker.optimizers.values())
    assert worker.step(good).non_finite is None


@every_recipe
def test_bfloat16_trains_and_losses_stay_float32(name):
    exact = Worker(RECIPES[name]).step(draw_batch(RECIPES[name], 0)).losses
    worker = Worker(RECIPES[name])
    before = worker.weights()
    taken = worker.step(draw_batch(RECIPES[name], 0), "bf16")
    assert taken.non_finite is None
    assert changed(before, worker.weights())
    for term, loss in taken.losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact[term].item(), rel=0.1, abs=0.02), term


@every_recipe
def test_five_steps_are_three_a_checkpoint_and_two(name, tmp_path):
    batches = [draw_batch(RECIPES[name], seed) for seed in range(5)]
    straight = Worker(RECIPES[name])
    wanted = [straight.step(batch).losses for batch in batches]

    first = Worker(RECIPES[name])
    losses = [first.step(batch).losses for batch in batches[:3]]
    torch.save(first.state(), tmp_path / "checkpoint.pt")
    second = Worker(RECIPES[name], seed=1)
    second.step(batches[4])  # whatever it did before is overwritten
    second.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    losses += [second.step(batch).losses for batch in batches[3:]]
    assert losses == wanted
    torch.testing.assert_close(second.state(), straight.state(), rtol=0.0, atol=0.0)


@every_recipe
def test_what_gets_registered_can_be_built_anew(name):
    worker = Worker(RECIPES[name])
    worker.step(draw_batch(RECIPES[name], 0))
    method, content = worker.method, draw(2, RECIPES[name].size_px, 9)
    options = json.loads(json.dumps(method.generator_options))
    if not method.makes_pictures:
        network = Classifier(**options).eval()
        network.load_state_dict(method.generator.state_dict())
        torch.testing.assert_close(network(content), method.generator.eval()(content))
        assert not method.styles()
        return
    network = build_network(method.generator_name, **options).eval()
    network.load_state_dict(method.generator.state_dict())
    styles = method.styles()
    assert styles
    for code in styles.values():
        assert code.shape == (network.style_dim,)
        with torch.no_grad():
            torch.testing.assert_close(
                network(content, code.expand(2, -1)), method.generator.eval()(content, code.expand(2, -1))
            )


def wrap(network: nn.Module) -> nn.Module:
    return DistributedDataParallel(network, forward_sync_buffers=False)


def mean_of_ranks(tensor: Tensor) -> Tensor:
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


class Rank(NamedTuple):
    """What a rank has written, by recipe; `turns` of every phase."""

    weights: dict[str, dict[str, Tensor]]
    turns: dict[str, list[dict[str, Tensor]]]
    errors: dict[str, str]


def train_as_rank(rank: int, folder: Path) -> None:
    """One of two processes: trains every recipe on batches of its own, and takes turns on its rows of one batch.

    It writes weights and what it found in the turns, or what went wrong.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(minutes=5), world_size=2, rank=rank
    )
    weights, turns, errors = {}, {}, {}
    seat = Seat(rank, 2, mean_of_ranks)
    for name, recipe in RECIPES.items():
        worker = Worker(recipe, 0, seat, wrap)
        try:
            for number in range(recipe.num_steps):
                worker.step(draw_batch(recipe, 2 * number + rank))
            weights[name] = worker.weights()
            phases = range(len(worker.method.phases))
            turns[name] = [take_turns(recipe, build_double(recipe), phase, 0.5, seat, wrap) for phase in phases]
        except (RuntimeError, ValueError) as error:
            errors[name] = "".join(traceback.format_exception(error))
    torch.save((weights, turns), folder / f"{rank}.pt")
    (folder / f"{rank}.json").write_text(json.dumps(errors))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[Rank]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    lines = [[sys.executable, "-m", "tests.core.test_methods_ddp", str(rank), str(folder)] for rank in (0, 1)]
    ranks = [subprocess.Popen(line, cwd=root, env=environment, stderr=subprocess.PIPE, text=True) for line in lines]
    for rank in ranks:
        _, complaint = rank.communicate(timeout=600)
        assert rank.returncode == 0, complaint
    return [
        Rank(*torch.load(folder / f"{rank}.pt", weights_only=True), json.loads((folder / f"{rank}.json").read_text()))
        for rank in (0, 1)
    ]


@every_recipe
def test_two_processes_stay_one_model(two_ranks, name):
    for rank in two_ranks:
        assert name not in rank.errors, rank.errors[name]
    first, second = (rank.weights[name] for rank in two_ranks)
    assert not changed(first, second)
    untrained = Worker(RECIPES[name])
    assert changed(untrained.weights(), first) == set(untrained.networks)


@every_recipe
def test_two_processes_find_what_one_worker_finds(two_ranks, name):
    """DDP's gradients of half a batch each are those of the whole batch; losses and signals are so in the mean."""
    for phase, both in enumerate(zip(*(rank.turns[name] for rank in two_ranks), strict=True)):
        of_first, of_second = both
        found = {key: (of_first[key] + of_second[key]) / 2 for key in of_first}
        check_alike(found, take_turns(RECIPES[name], build_double(RECIPES[name]), phase, 0.5, Seat()))
        gradients = [{key: value for key, value in turn.items() if key.startswith("gradient/")} for turn in both]
        torch.testing.assert_close(*gradients, rtol=0.0, atol=0.0)


if __name__ == "__main__":
    train_as_rank(int(sys.argv[1]), Path(sys.argv[2]))
