"""The same recipe on one worker or on several is the same training: equal turns on equal global batches."""

import pytest

from tests.core.recipes import RECIPES, build
from tests.core.workers import Seat, build_double, check_alike, take_turns, take_turns_together


@pytest.mark.parametrize("augment", [0.0, 0.5])
@pytest.mark.parametrize("name", RECIPES)
def test_two_workers_with_half_the_batch_find_what_one_finds(name, augment):
    """Gradients of every player in every phase, losses and signals."""
    recipe = RECIPES[name]
    for phase in range(len(build(recipe).phases)):
        one = take_turns(recipe, build_double(recipe), phase, augment, Seat())
        check_alike(take_turns_together(recipe, phase, augment, 2), one)
