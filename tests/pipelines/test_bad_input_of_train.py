"""Bad input of `train` ends with its words before Ray starts and before anything is written, so no Ray here."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import train
from tests.conftest import Outcome

Train = Callable[..., Outcome]


def jpeg() -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)).save(sink, "JPEG")
    return sink.getvalue()


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """verb("method=fast", ...) in a folder of its own, which holds image shards."""
    monkeypatch.chdir(tmp_path)
    Path("shards").mkdir()
    pq.write_table(pa.table({"image": [jpeg()] * 4, "key": list("abcd")}), "shards/part-0.parquet")

    def call(*arguments: str) -> Outcome:
        exit_code = train.main(arguments)
        captured = capsys.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    return call


def refused(outcome: Outcome, said: str) -> None:
    assert outcome.exit_code == 2, outcome.stderr
    assert outcome.result["exit_code"] == 2
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


TRAIN = ("name=tiny", "steps=2", "workers=1", "batch=2", "size_px=32", "generator.width=4")


@pytest.fixture
def art(tmp_path: Path) -> Path:
    """A style set of two domains, one of a single image, beside a set of one image."""
    for name in ("monet/a.jpg", "monet/b.jpg", "hokusai/c.jpg", "lonely/d.jpg"):
        path = tmp_path / ("one" if name.startswith("lonely") else "art") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg())
    return tmp_path / "art"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("method=cyclegan", "style=empty"), "style=empty: wanted images"),
        (("method=fast", "style=empty"), "found 0 file(s)"),
        (("method=fst", "style=absent"), "style=absent: no such file or folder"),
        (("method=fast", "style=shards/notes.txt"), "style=shards/notes.txt: not an image that we read"),
        (("method=cyclegan", "style=one"), "style=one: one holds a single image; method=cyclegan learns"),
        (("method=cut", "style=one/lonely/d.jpg"), "wanted at least 2 images"),
        (("method=stargan", "style=art"), "style=art: hokusai holds a single image"),
        (("method=cyclegan", "style=art", "content=one", "batch=1"), "content=one: one holds a single image"),
        (("method=cyclegan", "style=art", "batch=5"), "4 images are fewer than one step of 1 workers x batch 5"),
        (("method=cyclegann", "style=art"), "did you mean 'cyclegan'?"),
        (("method=cyclegan", "style=art", "generator.name=resnt"), "did you mean 'resnet'?"),
        (("method=cyclegan", "style=art", "generator.name=adain"), "method=cyclegan trains with resnet or"),
        (("method=fast", "style=art", "loss.cycle=3"), "which reads loss.content, loss.style, loss.tv"),
        (("method=cyclegan", "style=art", "critic.layers=5"), "this critic wants at least 96 px"),
        (("method=cut", "style=art", "load_px=32", "size_px=64"), "load_px=32: wanted at least size_px=64"),
        (("method=cyclegan", "style=art", "loss.gan=wgan_gp"), "method=cyclegan: wanted a gan of cyclegan"),
        (("method=adain", "style=art", "generator.width=none", "generator.layer=relu9_9"), "relu9_9"),
    ],
    ids=lambda value: "-".join(value).replace("/", "_") if isinstance(value, tuple) else "",
)
def test_what_no_method_can_be_trained_on(
    verb: Train, art: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "shards" / "notes.txt").write_text("no picture")
    given = {text.split("=")[0]: text for text in (*TRAIN, "content=shards", *arguments)}
    refused(verb(*given.values()), said)
    assert not (tmp_path / ".stylejobs").exists()


def test_weights_of_a_backbone_that_are_not_those_wanted(verb: Train, art: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from stylejobs.core.backbone import build_random_backbone

    weights = build_random_backbone(0).features.state_dict()
    save_file(weights, tmp_path / "whole.safetensors")
    del weights["3.squeeze.weight"], weights["12.expand3x3.bias"]
    save_file(weights, tmp_path / "torn.safetensors")
    arguments = (*TRAIN, "method=fast", "content=shards", "style=art")
    outcome = verb(*arguments, "backbone.weights=whole.safetensors", f"backbone.sha256={'0' * 64}")
    refused(outcome, f"wanted sha256 {'0' * 64}, got ")
    outcome = verb(*arguments, "backbone.weights=torn.safetensors")
    refused(outcome, "missing 3.squeeze.weight [16, 64, 1, 1]; missing 12.expand3x3.bias [256]")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("resume=latest",), "resume=latest: no run of name=tiny is in storage="),
        (("resume=../tiny",), "wanted a run of name=tiny in storage="),
        (("min_workers=2",), "min_workers=2: wanted at most workers=1"),
        (("augment.scale=2,1",), "wanted LOW,HIGH"),
    ],
)
def test_what_cannot_be_gone_on_with_is_said(verb: Train, art: Path, changes: tuple[str, ...], said: str) -> None:
    refused(verb("method=cyclegan", *TRAIN, "content=shards", f"style={art}", *changes), said)
