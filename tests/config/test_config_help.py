"""--help names every key with what a person needs to set it."""

import pytest

from stylejobs.config.load import format_help
from stylejobs.config.schema import CONFIGS
from stylejobs.config.sections import list_fields


@pytest.mark.parametrize("verb", CONFIGS)
def test_help_names_every_key_with_its_description(verb: str):
    text = format_help(verb)
    first_words = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    assert first_words == list(list_fields(CONFIGS[verb]))
    for field in list_fields(CONFIGS[verb]).values():
        assert field.description and field.description in text


@pytest.mark.parametrize(
    ("verb", "key", "line"),
    [
        ("train", "method", "cyclegan|cut|fastcut|stargan|fast|fst|content_gan|exemplar|adain|classifier; REQUIRED"),
        ("train", "size_px", "whole number >= 32, <= 4096, multiple of 4; default 256"),
        ("train", "optim.lr", "number > 0, <= 1|none; default none"),
        ("train", "recipe.adapters", "true|false|none; default none"),
        ("train", "augment.scale", "list a,b; default 1.0,1.0"),
        ("train", "recipe.phases", "list a,b|none; default none"),
        ("train", "use_gpu", "true|false; default false"),
        ("train", "backbone.style_layers", "list a,b|none; default none"),
        ("train", "backbone.sha256", "text of 64 lower-case hexadecimal digits|none; default none"),
        ("stylize", "size", "keep|whole number >= 8, <= 16384; default keep"),
        ("stylize", "style_plan", "text|none; default none"),
        ("stylize", "cluster.actors", "whole number >= 1|none; default none"),
        ("ingest", "labels", "folder|csv|none; default none"),
    ],
)
def test_help_says_type_bounds_and_default(verb: str, key: str, line: str):
    found = [text for text in format_help(verb).splitlines() if text.split()[:1] == [key]]
    assert [text.split(maxsplit=1)[1] for text in found] == [line]


def test_usage_line_names_the_required_keys():
    assert format_help("stylize").splitlines()[0] == (
        "usage: python -m pipelines.stylize [file.yaml ...] source= dest= model= [key=value ...] [--show] [--help]"
    )


@pytest.mark.parametrize("verb", CONFIGS)
def test_help_fits_a_wide_terminal(verb: str):
    assert max(len(line) for line in format_help(verb).splitlines()) <= 160
