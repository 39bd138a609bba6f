"""Columns of shards: which column holds images, what is carried, what Hugging Face is told."""

import pyarrow as pa
import pytest

from stylejobs.errors import SourceError
from stylejobs.records.schema import (
    IMAGE_FIELDS,
    IMAGE_TYPE,
    STYLIZED_FIELDS,
    carried_columns,
    carrying_schema,
    declared_features,
    find_image_column,
    with_image_feature,
)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), IMAGE_TYPE])
def test_the_only_candidate_is_found(kind: pa.DataType) -> None:
    assert find_image_column(pa.schema([("label", pa.string()), ("photo", kind)]), None, "x") == "photo"


def test_a_column_called_image_is_preferred_and_a_wanted_one_wins() -> None:
    schema = pa.schema([("mask", pa.binary()), ("image", pa.binary())])
    assert find_image_column(schema, None, "x") == "image"
    assert find_image_column(schema, "mask", "x") == "mask"


def test_a_declared_image_is_preferred_over_other_binary_columns() -> None:
    schema = pa.schema([("embedding", pa.binary()), ("image", IMAGE_TYPE)])
    schema = with_image_feature(schema).remove(0).insert(0, pa.field("blob", pa.binary()))
    assert find_image_column(schema, None, "x") == "image"


@pytest.mark.parametrize(
    ("schema", "wanted", "said"),
    [
        (pa.schema([("label", pa.string())]), None, "has no column of encoded images"),
        (pa.schema([("a", pa.binary()), ("b", pa.binary())]), None, "several columns"),
        (pa.schema([("a", pa.binary())]), "label", "wanted image_column=label"),
    ],
)
def test_no_usable_column_names_the_place_and_the_columns(schema: pa.Schema, wanted: str | None, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        find_image_column(schema, wanted, "s3://bucket/x.parquet")
    assert "s3://bucket/x.parquet" in str(caught.value)
    assert schema.names[0] in str(caught.value)


def test_source_columns_keep_their_names_and_shadowing_ones_get_a_prefix() -> None:
    source = pa.schema(
        [("label", pa.string()), ("style", pa.string()), ("source_style", pa.int8()), ("width", pa.int32())]
    )
    carried = carried_columns(source, STYLIZED_FIELDS)
    assert carried == {"label": "label", "style": "source_source_style", "source_style": "source_style"}
    names = carrying_schema(STYLIZED_FIELDS, source).names
    assert len(names) == len(set(names))


def test_the_columns_of_the_contract_come_in_its_order_and_ours_behind_them() -> None:
    contract = (
        "image key source_uri source_sha256 style strength variant seed model_name model_version model_sha256 "
        "width height out_sha256 is_synthetic"
    )
    assert [field.name for field in STYLIZED_FIELDS] == [*contract.split(), "blur_score"]
    assert STYLIZED_FIELDS[-1].type == pa.float32()


def test_features_that_the_source_declared_follow_their_columns() -> None:
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    source = pa.schema(
        [("label", pa.int64())],
        metadata={"huggingface": f'{{"info": {{"features": {{"label": {str(label).replace(chr(39), chr(34))}}}}}}}'},
    )
    features = declared_features(carrying_schema(IMAGE_FIELDS, source))
    assert features == {"label": label, "image": {"_type": "Image"}}
