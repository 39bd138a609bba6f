import numpy as np
import pytest
import torch
from torch import nn

from stylejobs.core.ema import Ema


class OneWeight(nn.Module):
    def __init__(self, value: float, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=dtype))
        self.register_buffer("steps", torch.tensor(0))


def set_to(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        module.weight.fill_(value)
        module.steps += 1


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_closed_form(decay):
    values = np.random.default_rng(0).normal(size=60)
    module = OneWeight(values[0], torch.float64)
    ema = Ema(module, decay)
    decays = np.array([min(decay, t / (t + 9)) for t in range(1, 60)])
    for value in values[1:]:
        set_to(module, value)
        ema.update(module)
    # a_T = prod(d) a_0 + sum over t of (1 - d_t) prod(d after t) w_t
    expected = decays.prod() * values[0] + sum(
        (1 - decays[t]) * decays[t + 1 :].prod() * values[t + 1] for t in range(59)
    )
    assert ema.state_dict()["weight"].item() == pytest.approx(expected, rel=1e-12)


def test_a_constant_weight_stays_and_integers_are_copied():
    module = OneWeight(3.0)
    ema = Ema(module, 0.999)
    for _ in range(5):
        set_to(module, 3.0)
        ema.update(module)
    assert ema.state_dict()["weight"].item() == 3.0
    assert ema.state_dict()["steps"].item() == 5


def test_a_short_training_is_not_averaged_with_its_start():
    module = OneWeight(0.0)
    ema = Ema(module, 0.999)
    for _ in range(100):
        set_to(module, 1.0)
        ema.update(module)
    assert ema.state_dict()["weight"].item() > 0.999


def test_state_dict_loads_into_the_module_and_does_not_alias():
    module = OneWeight(1.0)
    ema = Ema(module)
    state = ema.state_dict()
    set_to(module, 9.0)
    ema.update(module)
    assert state["weight"].item() == 1.0
    module.load_state_dict(state)


def test_resuming_is_exact():
    module, values = OneWeight(0.3), torch.randn(20, generator=torch.Generator().manual_seed(0)).tolist()
    whole = Ema(module, 0.99)
    for number, value in enumerate(values):
        set_to(module, value)
        whole.update(module)
        if number == 9:
            resumed = Ema(OneWeight(-5.0), 0.99)
            resumed.load_state_dict(whole.state_dict(), whole.num_updates)
        elif number > 9:
            resumed.update(module)
    assert torch.equal(whole.state_dict()["weight"], resumed.state_dict()["weight"])


def test_half_weights_are_averaged_in_float32():
    module = OneWeight(1.0, torch.bfloat16)
    ema = Ema(module, 0.999)
    for _ in range(3):
        ema.update(module)
    assert ema.state_dict()["weight"].dtype == torch.float32


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="decay"):
        Ema(OneWeight(0.0), 1.0)
    with pytest.raises(ValueError, match="only on one side"):
        Ema(OneWeight(0.0)).load_state_dict({"weight": torch.zeros(1)}, 3)
