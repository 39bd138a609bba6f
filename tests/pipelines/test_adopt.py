"""adopt and export as whole commands: a checkpoint becomes a version, stylizes, and goes out again."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.records.codec import Limits, decode_image
from stylejobs.tracking.client import open_client
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from tests.conftest import Outcome
from tests.core.originals import PublicResnet, draw_weights

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]


@pytest.fixture
def original(tmp_path: Path) -> PublicResnet:
    original = draw_weights(PublicResnet(norm="affine_instance", word="block")).eval()
    torch.save(original.state_dict(), tmp_path / "net_G.pth")
    return original


@pytest.mark.slow
def test_a_checkpoint_becomes_a_champion_and_stylizes_and_goes_out_again(
    verb: Verb, original: PublicResnet, photo_folder: Path, tmp_path: Path
) -> None:
    adopted = verb("adopt", "checkpoint=net_G.pth", "family=cyclegan", "name=vintage")
    assert adopted.exit_code == 0, adopted.stderr
    assert "adopted net_G.pth, of family cyclegan, as resnet" in adopted.stderr
    model = adopted.result["model"]
    assert (model["name"], model["uri"]) == ("vintage", f"models:/vintage/{model['version']}")
    line = ("source=photos", "dest=out", f"model={model['uri']}", "format=png", "size=keep")
    assert verb("stylize", *line).exit_code == 0
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert {row["model_sha256"] for row in rows} == {model["sha256"]} and {row["style"] for row in rows} == {"vintage"}
    compared = 0
    for row in rows:
        if row["height"] % 4 or row["width"] % 4:  # there the public code gives another size
            continue
        source_HWC = decode_image(Path(row["source_uri"]).read_bytes(), Limits())
        with torch.inference_mode():
            wanted_HWC = to_uint8(original(to_float(torch.from_numpy(source_HWC)[None])))[0]
        found_HWC = torch.from_numpy(decode_image(row["image"]["bytes"], Limits()))
        assert (found_HWC.int() - wanted_HWC.int()).abs().max() <= 1
        compared += 1
    assert compared > 3
    exported = verb("export", f"model={model['uri']}", "out=back.safetensors")
    assert exported.exit_code == 0, exported.stderr
    state = {key.replace(".block.", ".conv_block."): value for key, value in original.state_dict().items()}
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def refused(outcome: Outcome, exit_code: int, said: str) -> None:
    assert outcome.exit_code == exit_code, outcome.stderr
    assert outcome.result["exit_code"] == exit_code
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("family=cyclegan",), "checkpoint"),
        (("checkpoint=a.pth", "family=cycle"), "family"),
        (("checkpoint=a.pth", "family=adain", "styles=a.png"), "family=adain is two files"),
        (("checkpoint=a.pth", "family=adain", "encoder=b.pth"), "give at least one, styles=URI,URI"),
        (("checkpoint=a.pth", "family=stargan"), "name all, in their order, styles=A,B"),
        (("checkpoint=a.pth", "family=cut", "encoder=b.pth"), "is read only with family=adain"),
        (("checkpoint=a.pth", "family=fast", f"encoder_sha256={'0' * 64}"), "is read only with family=adain"),
        (("checkpoint=a.pth", "family=fast", "styles=a,b"), "family=fast has one style, in its weights; got 2"),
        (("checkpoint=a.pth", "family=stargan", "styles=a,a"), "wanted every style once"),
        (("checkpoint=a.pth", "family=cut", "sha256=abc"), "64 lower-case hexadecimal digits"),
        (("checkpoint=absent.pth", "family=cut"), "checkpoint=absent.pth: no such file"),
        (("checkpoint=net_G.pth", "family=cut", f"sha256={'0' * 64}"), "wanted sha256 0000"),
        (("checkpoint=net_G.pth", "family=stargan", "styles=a"), "look like those of family cyclegan"),
        (("checkpoint=photos", "family=cut"), "checkpoint=photos: no such file"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_no_version(
    verb: Verb, original: PublicResnet, tmp_path: Path, tracking_store: str, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "photos").mkdir()
    refused(verb("adopt", *arguments, "name=never"), 2, said)
    assert not open_client(tracking_store).search_registered_models("name = 'never'")


def test_a_registry_that_is_away_ends_with_6(
    verb: Verb, original: PublicResnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    refused(verb("adopt", "checkpoint=net_G.pth", "family=cyclegan", "name=vintage"), 6, "wanted the MLflow server")


def test_export_refuses_what_it_cannot_write(verb: Verb, tmp_path: Path) -> None:
    refused(verb("export", "model=absent", "out=net.pth"), 2, "ends with .safetensors, because no pickle is written")
    refused(verb("export", "model=absent", "out=net.safetensors"), 2, "absent: not a model package")
    refused(verb("export", "model=builtin:moments", "out=net.safetensors"), 2, "only resnet models can be exported")


def test_a_version_without_a_package_is_refused(
    verb: Verb, photo_folder: Path, tmp_path: Path, tracking_store: str
) -> None:
    client = open_client(tracking_store)
    run = MlflowTracker.start("elsewhere", "other code", {})
    (tmp_path / "artifacts").mkdir()
    client.create_registered_model("foreign")
    client.create_model_version("foreign", str(tmp_path / "artifacts"), run_id=run.run_id)
    run.finish("FINISHED")
    refused(verb("stylize", "source=photos", "dest=out", "model=models:/foreign/1"), 2, "holds no model package")
    refused(verb("export", "model=models:/foreign/1", "out=x.safetensors"), 2, "holds no model package")
    assert not (tmp_path / "out").exists() and not (tmp_path / "x.safetensors").exists()
