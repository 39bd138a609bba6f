"""What holds for every training method, in one process and in two; a method joins with a row in recipes.py."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stylejobs.core.methods import (
    METHODS,
    PRESETS,
    Step,
    Taken,
    moment_at,
    take_step,
)
from stylejobs.core.networks import build_network
from tests.core.recipes import RECIPES, Recipe, build, draw, draw_batch

every_recipe = pytest.mark.parametrize("name", RECIPES)


class Worker:
    """A training without its loop: what a checkpoint holds, and steps spread equally over the phases."""

    def __init__(self, recipe: Recipe, seed: int = 0, wrap: Callable[[nn.Module], nn.Module] = lambda network: network):
        self.recipe, self.method = recipe, build(recipe)
        self.networks = {name: wrap(network) for name, network in self.method.networks.items()}
        self.optimizers = self.method.build_optimizers(self.networks)
        self.rng = torch.Generator().manual_seed(seed)
        self.num_steps = 0

    def step(self, batch: dict[str, Tensor], precision: str = "float32") -> Taken:
        moment = moment_at(self.method.phases, self.num_steps + 1, self.num_steps, self.recipe.num_steps, self.rng)
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


@pytest.mark.parametrize(
    "name",
    [name for name, recipe in RECIPES.items() if recipe.same_draws],
)
def test_two_workers_with_half_the_batch_give_one_workers_gradient(name):
    def gradients(rows: slice) -> dict[str, Tensor]:
        """Of each player, at the same weights."""
        method, rng = build(RECIPES[name]), torch.Generator().manual_seed(0)
        for module in (*method.networks.values(), *method.frozen.values()):
            module.double()
        moment = moment_at(method.phases, 1, 8, 9, rng)  # of the last phase
        whole = draw_batch(RECIPES[name], 0, batch=4)
        step = Step({key: (t.double() if t.is_floating_point() else t)[rows] for key, t in whole.items()}, moment)
        found = {}
        for player in moment.phase.players:
            weights = [w for key in method.players[player].networks for w in method.networks[key].parameters()]
            turn = method.take_turn(player, method.networks, step)
            loss = sum(method.weight(term, moment) * value for term, value in turn.terms.items())
            found[player] = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, weights)])
        return found

    one, left, right = gradients(slice(4)), gradients(slice(2)), gradients(slice(2, 4))
    for player in one:
        assert one[player].abs().max() > 1e-6
        torch.testing.assert_close((left[player] + right[player]) / 2, one[player], rtol=1e-7, atol=1e-10)


@every_recipe
def test_what_gets_registered_can_be_built_anew(name):
    worker = Worker(RECIPES[name])
    worker.step(draw_batch(RECIPES[name], 0))
    method, content = worker.method, draw(2, RECIPES[name].size_px, 9)
    options = json.loads(json.dumps(method.generator_options))
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


def train_as_rank(rank: int, folder: Path) -> None:
    """One of two processes: trains every recipe on batches of its own, and writes its weights or what went wrong."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(minutes=5), world_size=2, rank=rank
    )
    weights, errors = {}, {}
    for name, recipe in RECIPES.items():
        worker = Worker(recipe, rank, lambda network: DistributedDataParallel(network, forward_sync_buffers=False))
        try:
            for number in range(recipe.num_steps):
                worker.step(draw_batch(recipe, 2 * number + rank))
            weights[name] = worker.weights()
        except (RuntimeError, ValueError) as error:
            errors[name] = "".join(traceback.format_exception(error))
    torch.save(weights, folder / f"{rank}.pt")
    (folder / f"{rank}.json").write_text(json.dumps(errors))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[tuple[dict[str, dict[str, Tensor]], dict[str, str]]]:
    """(weights, errors) by recipe, of each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    lines = [[sys.executable, "-m", "tests.core.test_methods_ddp", str(rank), str(folder)] for rank in (0, 1)]
    ranks = [subprocess.Popen(line, cwd=root, env=environment, stderr=subprocess.PIPE, text=True) for line in lines]
    for rank in ranks:
        _, complaint = rank.communicate(timeout=600)
        assert rank.returncode == 0, complaint
    return [
        (torch.load(folder / f"{rank}.pt", weights_only=True), json.loads((folder / f"{rank}.json").read_text()))
        for rank in (0, 1)
    ]


@every_recipe
def test_two_processes_stay_one_model(two_ranks, name):
    (weights_0, errors_0), (weights_1, errors_1) = two_ranks
    assert name not in errors_0, errors_0[name]
    assert name not in errors_1, errors_1[name]
    assert not changed(weights_0[name], weights_1[name])
    untrained = Worker(RECIPES[name])
    assert changed(untrained.weights(), weights_0[name]) == set(untrained.networks)


if __name__ == "__main__":
    train_as_rank(int(sys.argv[1]), Path(sys.argv[2]))
