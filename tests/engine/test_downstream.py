"""The downstream receipt: its squares, copies, trainings and answers; and the whole of it, tiny, on Ray."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from stylejobs.core.corruptions import CORRUPTIONS
from stylejobs.core.networks import build_network
from stylejobs.engine.downstream import make_receipt, plain_receipt, tell_receipt
from stylejobs.engine.downstream_worker import (
    DownstreamSettings,
    Examples,
    Share,
    Stylist,
    ask,
    join,
    prepare,
    train_and_ask,
    train_classifier,
)
from stylejobs.engine.training_sets import plan_content
from stylejobs.errors import ModelError, SourceError
from stylejobs.records.lineage import Drawing
from stylejobs.storage.packages import save_package

SMALL = DownstreamSettings(size_px=32, load_px=40, width=4, steps=12, batch=8, seeds=2)
CLASSES = ("columns", "rows")


def write_labelled(folder: Path, each: int, first: int = 0) -> str:
    """Pictures of upright and of level stripes, in folders."""
    for number in range(first, first + each):
        for label, axis in (("rows", 0), ("columns", 1)):
            rng = np.random.default_rng(number)
            stripes = np.mgrid[0:44, 0:48][axis] / 2.0 + rng.uniform(0, 6)
            pixels = np.sin(stripes)[..., None] * rng.uniform(40, 90, 3) + 128 + rng.normal(0, 8, (44, 48, 3))
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(pixels.clip(0, 255))).save(path)
    return str(folder)


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    return write_labelled(tmp_path / "train", 12)


@pytest.fixture
def stylist(tmp_path: Path) -> Stylist:
    moments = build_network("moments")
    codes = {
        name: moments.encode_style(torch.full((1, 3, 8, 8), level))[0]
        for name, level in (("dark", -0.6), ("light", 0.6))
    }
    package = save_package(str(tmp_path / "model"), "moments", {}, {}, codes, {})
    return Stylist(str(tmp_path / "model"), package.sha256, ("dark", "light"))


def shares(uri: str, of: int = 1, fold: str | None = None) -> list[Share]:
    planned = plan_content(uri, None, labelled=True)
    (unit,) = planned.source.units
    return [Share(0, unit, planned.labelling, index, of, fold) for index in range(of)]


def test_labels_are_read_from_folders_and_columns_and_numbered_by_name(labelled, tmp_path):
    planned = plan_content(labelled, None, labelled=True)
    assert (planned.numbers, planned.names, planned.counts) == (
        {"columns": 0, "rows": 1}, {0: "columns", 1: "rows"}, {0: 12, 1: 12}
    )  # fmt: skip
    images = [path.read_bytes() for path in sorted(Path(labelled).rglob("*.png"))[:3]]
    pq.write_table(pa.table({"image": images, "label": ["b", "a", "b"]}), tmp_path / "shard.parquet")
    assert plan_content(str(tmp_path / "shard.parquet"), None, labelled=True).counts == {0: 1, 1: 2}
    for labels, said in ((["a", None, "b"], "images without a label"), (["a", "a", "a"], "one label, a, alone")):
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "shard.parquet")
        with pytest.raises(SourceError, match=said):
            plan_content(str(tmp_path / "shard.parquet"), None, labelled=True)
    pq.write_table(pa.table({"image": images}), tmp_path / "shard.parquet")
    with pytest.raises(SourceError, match="wanted a label for every image"):
        plan_content(str(tmp_path / "shard.parquet"), None, labelled=True)


def test_squares_have_their_labels_and_copies_are_drawn_as_in_a_dataset(labelled, stylist):
    (share,) = shares(labelled)
    found = prepare(share, SMALL, stylist)
    assert found.pixels_NHWC.shape == (24, 32, 32, 3) and found.copies_NKHWC.shape == (24, 2, 32, 32, 3)
    assert found.class_N.tolist() == [0] * 12 + [1] * 12 and found.num_bad == 0
    source = np.asarray(Image.open(Path(labelled) / "columns" / "0.png").resize((44, 40), Image.Resampling.LANCZOS))
    square = np.asarray(Image.fromarray(source[:, 2:42].copy()).resize((32, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(found.pixels_NHWC[0], square)
    # Two different styles; one darkens, the other brightens, by the drawn strength.
    drawing = Drawing(0, {"dark": 1.0, "light": 1.0}, 2, (0.3, 1.0))
    keys = share.unit.files
    for row, key in enumerate(keys):
        mean = found.pixels_NHWC[row].mean()
        draws = drawing.draw(key)
        assert {draw.style for draw in draws} == {"dark", "light"}
        for draw, copy in zip(draws, found.copies_NKHWC[row], strict=True):
            wanted = mean + draw.strength * ((51.0 if draw.style == "dark" else 204.0) - mean)
            assert copy.mean() == pytest.approx(wanted, abs=2.5)


def test_shares_make_the_set_and_folds_divide_it(labelled, stylist):
    (whole,) = shares(labelled)
    everything = prepare(whole, SMALL, stylist)
    parts = [prepare(share, SMALL, stylist) for share in shares(labelled, of=3)]
    assert len(join(parts)) == 24
    by_picture = {
        pixels.tobytes(): copies for pixels, copies in zip(everything.pixels_NHWC, everything.copies_NKHWC, strict=True)
    }
    for part in parts:
        for pixels, copies in zip(part.pixels_NHWC, part.copies_NKHWC, strict=True):
            np.testing.assert_array_equal(by_picture[pixels.tobytes()], copies)
    folds = [prepare(replace(whole, fold=fold), SMALL, None) for fold in ("train", "test")]
    pictures = [{pixels.tobytes() for pixels in fold.pixels_NHWC} for fold in folds]
    assert not pictures[0] & pictures[1] and len(pictures[0] | pictures[1]) == 24
    assert 0 < len(pictures[1]) < 12
    assert folds[0].copies_NKHWC.shape[1] == 0


def test_what_cannot_be_decoded_or_stylized_is_counted_and_in_no_arm(labelled, tmp_path, stylist):
    Path(labelled, "rows", "0.png").write_bytes(b"no picture")
    (share,) = shares(labelled)
    found = prepare(share, SMALL, stylist)
    assert (len(found), found.num_bad) == (23, 1)
    nan = torch.full((6,), torch.nan)
    package = save_package(str(tmp_path / "bad"), "moments", {}, {}, {"nan": nan}, {})
    found = prepare(share, SMALL, Stylist(str(tmp_path / "bad"), package.sha256, ("nan",)))
    assert (len(found), found.num_bad) == (0, 24)


def test_altered_weights_are_refused(labelled, stylist):
    (share,) = shares(labelled)
    with pytest.raises(ModelError, match="wanted the model"):
        prepare(share, SMALL, replace(stylist, sha256="0" * 64))


def test_a_training_learns_and_is_a_function_of_its_seed(labelled):
    (share,) = shares(labelled)
    train = prepare(share, SMALL, None)
    pixels, classes = torch.from_numpy(train.pixels_NHWC), torch.from_numpy(train.class_N)
    told = [
        (replace(SMALL, steps=30), 1),
        (replace(SMALL, steps=3), 1),
        (replace(SMALL, steps=3), 1),
        (replace(SMALL, steps=3), 2),
    ]
    networks = [train_classifier(pixels, classes, CLASSES, settings, seed) for settings, seed in told]
    weights = [torch.cat([weight.flatten() for weight in network.parameters()]) for network in networks]
    assert torch.equal(weights[1], weights[2]) and not torch.equal(weights[1], weights[3])
    few = Examples(train.pixels_NHWC[8:16], train.class_N[8:16], train.copies_NKHWC[8:16])
    clean, corrupted = ask(networks[0], few, 0)
    assert clean.mean() > 0.8 and clean.shape == (8,) and corrupted.shape == (15, 5, 8)
    np.testing.assert_array_equal(corrupted, ask(networks[0], few, 0)[1])


def test_the_arm_with_copies_learns_from_copies(labelled):
    """Originals whose labels are all wrong: only copies, of which there are more, can teach the right ones."""
    (share,) = shares(labelled)
    truth = prepare(share, SMALL, None)
    copies = np.repeat(truth.pixels_NHWC[:, None], 6, axis=1)
    # Copies carry their original's label, so here the originals are other pictures: noise.
    noise = np.random.default_rng(0).integers(0, 256, truth.pixels_NHWC.shape, np.uint8)
    train = Examples(noise, truth.class_N, copies)
    settings = replace(SMALL, steps=40)
    without, _ = train_and_ask(train, truth, CLASSES, settings, (False, 0))
    with_copies, _ = train_and_ask(train, truth, CLASSES, settings, (True, 0))
    assert with_copies.mean() > 0.9 > without.mean()


@pytest.mark.ray
def test_a_receipt_is_made_and_told(ray_cluster, labelled, stylist, tmp_path, capsys):
    test = write_labelled(tmp_path / "test", 5, first=50)
    receipt, over_itself = make_receipt(labelled, test, stylist, SMALL, baseline=stylist)
    # The same copies and seeds: no better, no worse.
    assert over_itself.value == 0.0 and over_itself.low <= 0.0 <= over_itself.high
    assert receipt.num_images == 10
    assert len(receipt.mixed.clean_by_seed) == 2 and tuple(receipt.originals.by_corruption) == tuple(CORRUPTIONS)
    gain = receipt.corrupted_gain
    assert gain.low <= gain.value <= gain.high
    assert gain.value == pytest.approx(receipt.mixed.corrupted.value - receipt.originals.corrupted.value)
    plain = json.loads(json.dumps(plain_receipt(receipt)))
    assert plain["corrupted_gain"] == list(gain) and plain["reading"]
    tell_receipt(receipt)
    told = capsys.readouterr().err
    assert "with stylized copies" in told and "jpeg compression" in told and plain["reading"][0] in told


@pytest.mark.ray
def test_sets_that_do_not_fit_are_refused(ray_cluster, labelled, stylist, tmp_path):
    other = write_labelled(tmp_path / "other", 2)
    (tmp_path / "other" / "rows").rename(tmp_path / "other" / "spirals")
    with pytest.raises(SourceError, match=r"has labels that .* has not: spirals"):
        make_receipt(labelled, other, stylist, SMALL)
    with pytest.raises(SourceError, match="wanted at least one batch of 64"):
        make_receipt(labelled, None, stylist, replace(SMALL, batch=64))
    with pytest.raises(ModelError, match="wanted the model"):
        make_receipt(labelled, None, replace(stylist, sha256="0" * 64), SMALL)
