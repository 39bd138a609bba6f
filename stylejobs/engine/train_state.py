"""Everything that a training remembers, as nested states of tensors and plain values: what a checkpoint holds.

Shared by all workers: networks, averages, optimizers, repairer, best score, how far it is. Of each worker alone: image
pools, the diversity's window, places in the data, torch's generators. Learning rates, weights of losses, the phase and
the draws of a step are functions of how far it is, so they need no state; bfloat16 needs no loss scaler.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stylejobs.core.best import BestSoFar
from stylejobs.core.ema import Ema
from stylejobs.core.methods import Method
from stylejobs.core.repair import DiversityWatch, Repairer
from stylejobs.engine.checkpointing import Restored, rng_state, set_rng_state
from stylejobs.engine.group import Group


@dataclass
class Standing:
    """Where a training stands, beside its networks and optimizers.

    Attributes:
        cursors: set -> place in the data behind the last step.
        losses: those that were logged last.
        stopped: the measure has stopped to improve.
    """

    average: Ema
    diversity: DiversityWatch
    repairer: Repairer | None = None
    best: BestSoFar | None = None
    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    repairs_in_a_row: int = 0
    cursors: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    stopped: bool = False


_COUNTED = ("step", "images_seen", "seconds", "repairs_in_a_row", "losses", "stopped")


def shared_state(method: Method, optimizers: Mapping[str, Optimizer], standing: Standing) -> dict[str, Any]:
    """What all workers have in common."""
    return {
        "networks": {name: network.state_dict() for name, network in method.networks.items()},
        "average": {"weights": standing.average.state_dict(), "updates": standing.average.num_updates},
        "optimizers": {name: _of_optimizer(optimizer) for name, optimizer in optimizers.items()},
        "repairer": standing.repairer.state_dict() if standing.repairer is not None else None,
        "best": standing.best.state_dict() if standing.best is not None else None,
        # A list is taken as it is: names of losses hold slashes.
        "standing": [{name: getattr(standing, name) for name in _COUNTED}],
    }


def own_state(method: Method, standing: Standing, device: torch.device) -> dict[str, Any]:
    """What this worker has for itself."""
    return {
        "memory": {name: memory.state_dict() for name, memory in method.memory.items()},
        "diversity": standing.diversity.state_dict(),
        "cursors": [standing.cursors],
        "rng": rng_state(device),
    }


def cursors_of(own: Sequence[Mapping[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """The places in the data that the workers of a checkpoint left."""
    return [state["cursors"][0] for state in own]


def restore(
    restored: Restored,
    method: Method,
    optimizers: Mapping[str, Optimizer],
    standing: Standing,
    group: Group,
    device: torch.device,
) -> None:
    """Puts everything back, in place."""
    shared = restored.shared
    for name, network in method.networks.items():
        network.load_state_dict(shared["networks"][name])
    standing.average.load_state_dict(shared["average"]["weights"], shared["average"]["updates"])
    for name, optimizer in optimizers.items():
        _load_optimizer(optimizer, shared["optimizers"][name])
    for name in ("repairer", "best"):
        watcher, state = getattr(standing, name), shared[name]
        if watcher is not None and state is not None:
            watcher.load_state_dict(state)
    for name in _COUNTED:
        setattr(standing, name, shared["standing"][0][name])
    if restored.is_of(group.num_workers):
        (own,) = restored.own
        memories = own.get("memory", {})
        standing.diversity.load_state_dict(own["diversity"])
        set_rng_state(own["rng"], device)
    else:
        memories = _deal_memories([own.get("memory", {}) for own in restored.own], group)
    for name, memory in method.memory.items():
        memory.load_state_dict(memories[name])


def _deal_memories(old: Sequence[Mapping[str, Mapping[str, Tensor]]], group: Group) -> dict[str, dict[str, Tensor]]:
    """The rows of all workers' memories in turns, to this worker no more than one of the old ones had."""
    dealt: dict[str, dict[str, Tensor]] = {}
    for name, state in old[0].items():
        dealt[name] = {}
        for key in state:
            every = [memory[name][key] for memory in old]
            rows = torch.cat([tensor for tensor in every if tensor.numel()] or every[:1])
            dealt[name][key] = rows[group.rank :: group.num_workers][: max(len(tensor) for tensor in every)]
    return dealt


def _of_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()
    moments = {str(number): moment for number, moment in state["state"].items()}
    return {"state": moments, "param_groups": [dict(group) for group in state["param_groups"]]}


def _load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    # JSON has no tuples, and torch compares betas by position.
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in state["param_groups"]
    ]
    moments = {int(number): dict(moment) for number, moment in (state["state"] or {}).items()}
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
