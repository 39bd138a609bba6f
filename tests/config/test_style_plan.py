"""The file of styles by class."""

import pytest

from stylejobs.config.style_plan import parse_style_plan
from stylejobs.errors import ConfigError


def test_classes_have_weights() -> None:
    plan = parse_style_plan("column: kind\nclasses:\n  dress: {monet: 2, hokusai: 1}\n  '12': {monet: 0.5}\n", "p.yaml")
    assert plan.column == "kind"
    assert plan.classes == {"dress": {"monet": 2.0, "hokusai": 1.0}, "12": {"monet": 0.5}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: {a: {b: 1}", "not valid YAML"),
        ("", "the file"),
        ("classes: {}", "classes"),
        ("classes: {dress: {}}", "classes.dress"),
        ("classes: {dress: {monet: 0}}", "classes.dress.monet"),
        ("classes: {dress: {monet: .inf}}", "classes.dress.monet"),
        ("classes: {dress: [monet]}", "classes.dress"),
        ("classes: {no: {monet: 1}}", "put names such as yes, no and 12 in quotes"),
        ("clases: {dress: {monet: 1}}", "clases"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"style_plan=p\.yaml") as caught:
        parse_style_plan(text, "p.yaml")
    assert said in str(caught.value)
