import pytest

from stylejobs.core.choices import choose
from stylejobs.core.methods import Ingredients, build_method
from stylejobs.core.networks import build_network


def test_the_message_names_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"wanted a fruit out of apple, pear; got 'appel'; did you mean 'apple'\?"):
        choose("fruit", {"apple": 1, "pear": 2}, "appel")


def test_no_hint_when_nothing_is_near():
    with pytest.raises(ValueError) as caught:
        choose("fruit", {"apple": 1}, "xyz")
    assert "did you mean" not in str(caught.value)


def test_networks_and_methods_are_chosen_by_it():
    with pytest.raises(ValueError, match="did you mean 'johnson'"):
        build_network("jonson")
    with pytest.raises(ValueError, match="did you mean 'fast'"):
        build_method("fasts", Ingredients())


def test_options_that_a_network_does_not_take():
    with pytest.raises(ValueError, match=r"network 'johnson'.*\['widht'\]"):
        build_network("johnson", widht=3)
