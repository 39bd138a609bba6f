"""How a step is taken, on a game that can be solved by hand: one pulls a number up, the other pulls it down."""

import pytest
import torch
from torch import nn

from stylejobs.core.draws import Draws
from stylejobs.core.methods import Ingredients, Method, Phase, Player, Step, Turn, build_method, moment_at, take_step


class Tug(Method):
    """x moves towards 3 and is pushed away from y; y follows x."""

    def __init__(self) -> None:
        self.networks = {"x": nn.Linear(1, 1, bias=False), "y": nn.Linear(1, 1, bias=False)}
        for network in self.networks.values():
            nn.init.constant_(network.weight, 1.0)
        self.frozen, self.memory = {}, {}
        self.generator = self.networks["x"]
        self.generator_name, self.generator_options = "x", {}
        self.players = {"x": Player(("x",), 0.5, (0.0, 0.999)), "y": Player(("y",), 0.25, is_critic=True)}
        self.phases = (Phase("both", 1.0, ("x", "y"), {"follow": 0.5}),)
        self.weights = {"goal": 2.0, "push": 0.1, "follow": 1.0}
        self.seen: list[tuple[bool, bool]] = []

    def take_turn(self, player, networks, step):
        x, y = networks["x"](step.batch["content"]).mean(), networks["y"](step.batch["content"]).mean()
        self.seen.append((networks["x"].weight.requires_grad, networks["y"].weight.requires_grad))
        if player == "x":
            step.kept["x"] = x.detach()
            return Turn({"goal": (x - 3.0) ** 2, "push": -((x - y) ** 2)}, {"gap": (x - y).detach()})
        return Turn({"follow": (y - step.kept["x"]) ** 2}, {"accuracy": x.detach()})

    def styles(self):
        return {}


def play(method, value=1.0, **options):
    optimizers = method.build_optimizers(method.networks)
    moment = moment_at(method.phases, 1, 0, 10, Draws(torch.Generator()))
    step = Step({"content": torch.full((1, 1), value)}, moment)
    return take_step(method, method.networks, optimizers, step, **options)


def test_losses_are_weighted_by_method_and_phase():
    taken = play(Tug())
    assert {name: value.item() for name, value in taken.losses.items()} == pytest.approx(
        {"goal": 8.0, "push": 0.0, "total/x": 8.0, "follow": 0.0, "total/y": 0.0}
    )
    assert set(taken.signals) == {"gap", "accuracy"}
    assert taken.gradient_norms["x"].item() == pytest.approx(8.0)  # d/dx of 2 (x - 3)^2 at 1
    assert taken.non_finite is None


def test_each_player_moves_its_own_network_only_and_by_its_own_rate():
    method = Tug()
    play(method)
    assert method.networks["x"].weight.item() == pytest.approx(1.5, abs=1e-4)  # Adam's first step is the rate
    assert method.networks["y"].weight.item() == pytest.approx(1.0)  # y was where x had been: no gradient
    assert method.seen == [(True, False), (False, True)]
    assert method.networks["x"].weight.requires_grad
    assert method.networks["y"].weight.requires_grad


def test_a_gradient_that_is_not_finite_moves_nobody():
    method = Tug()
    taken = play(method, float("nan"))
    assert taken.non_finite == "x"
    assert [network.weight.item() for network in method.networks.values()] == [1.0, 1.0]
    assert len(method.seen) == 1  # the second player has not had its turn


def test_gradients_are_clipped_after_they_are_measured():
    method = Tug()
    taken = play(method, clip_norm=1.0)
    assert taken.gradient_norms["x"].item() == pytest.approx(8.0)
    assert method.networks["x"].weight.grad.norm().item() == pytest.approx(1.0, rel=1e-4)


def test_a_phase_decides_who_moves():
    method = Tug()
    method.phases = (Phase("one", 1.0, ("x", "y"), every={"y": 2}),)
    optimizers = method.build_optimizers(method.networks)
    for number in (1, 2):
        moment = moment_at(method.phases, number, 0, 10, Draws(torch.Generator()))
        taken = take_step(method, method.networks, optimizers, Step({"content": torch.ones(1, 1)}, moment))
        assert ("follow" in taken.losses) == (number == 2)


def test_the_scale_multiplies_every_rate():
    optimizers = Tug().build_optimizers(Tug().networks, scale=2.0)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()] == [1.0, 0.5]


def test_moments_of_a_contiguous_file_go_to_their_own_weights():
    """A file has no memory format, and the fused kernel walks through memory."""
    method, image = Tug(), torch.linspace(-1.0, 1.0, 2 * 6 * 6).reshape(1, 2, 6, 6).sin()
    method.networks["x"] = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)

    def move(optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            method.networks["x"](image).square().mean().backward()
            optimizer.step()
        return method.networks["x"].weight.detach().clone()

    first = method.build_optimizers(method.networks)["x"]
    begun = move(first, 3)
    state = first.state_dict()
    state["state"] = {
        number: {name: value.clone(memory_format=torch.contiguous_format) for name, value in moments.items()}
        for number, moments in state["state"].items()
    }
    bias = method.networks["x"].bias.detach().clone()
    wanted = move(first, 2)
    method.networks["x"].load_state_dict({"weight": begun, "bias": bias})
    second = method.build_optimizers(method.networks)["x"]
    second.load_state_dict(state)
    assert torch.equal(move(second, 2), wanted)


def test_a_term_without_a_weight_is_a_mistake_of_the_method():
    method = Tug()
    method.weights.pop("goal")
    with pytest.raises(KeyError, match="goal"):
        play(method)


def test_unknown_methods_and_options_are_refused():
    with pytest.raises(ValueError, match="did you mean 'fast'"):
        build_method("fats", Ingredients())
    with pytest.raises(ValueError, match="cycle_weight"):
        build_method("fast", Ingredients(), cycle_weight=1.0)
    with pytest.raises(ValueError, match="wanted a backbone"):
        build_method("fast", Ingredients(style_images={"a": torch.zeros(1, 3, 40, 40)}))
