"""What a row is: the columns of image shards, stylized shards and dead letters, as Arrow schemas.

The `image` column is struct<bytes, path> and carries the Hugging Face `Image` feature in the schema metadata, so
`datasets.load_dataset("parquet", ...)` decodes it with no code.
"""

import json

import pyarrow as pa

from stylejobs.errors import SourceError

STYLIZED_SCHEMA_VERSION = 3
"""Part of every unit's fingerprint: raise it when the meaning of a stylized row changes."""

IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

IMAGE_FIELDS = [
    pa.field("image", IMAGE_TYPE),
    pa.field("key", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("sha256", pa.string()),
]
"""What every image shard has: `sha256` is of `image.bytes`; `width` and `height` are those of the upright picture."""

STYLIZED_FIELDS = [
    pa.field("image", IMAGE_TYPE),
    pa.field("key", pa.string()),
    pa.field("source_uri", pa.string()),
    pa.field("source_sha256", pa.string()),
    pa.field("style", pa.string()),
    pa.field("strength", pa.float32()),
    pa.field("variant", pa.int32()),
    pa.field("seed", pa.int64()),
    pa.field("model_name", pa.string()),
    pa.field("model_version", pa.string()),
    pa.field("model_sha256", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("out_sha256", pa.string()),
    pa.field("is_synthetic", pa.bool_()),
    pa.field("blur_score", pa.float32()),
]
"""The lineage of a stylized row, before the columns of its source. `blur_score` is that of the source picture, at the
size that is stylized; `strength` is the one that was used, also where it was chosen by content match. A source that is
kept beside its copies has variant -1, no style and `is_synthetic` false."""

DEAD_LETTER = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("source", pa.string()),
        pa.field("row_group", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("attempt", pa.int32()),
    ]
)
"""A row that could not be used. `source` with `row_group` and `row` (null for a plain file) refer to its bytes."""

DEAD_LETTER_ID = ("key", "source", "row_group", "row")
"""The columns that say which row of the source a dead letter is."""

WEBDATASET_FIELDS = [
    pa.field("txt", pa.string()),
    pa.field("cls", pa.string()),
    pa.field("json", pa.string()),
    pa.field("members", pa.map_(pa.string(), pa.binary())),
]
"""What a WebDataset sample carries beside its picture; `members` holds files with other endings, by ending."""

_REPLACED = ("image", "key", "width", "height")


def with_image_feature(schema: pa.Schema) -> pa.Schema:
    """The schema with `image` declared as a Hugging Face `Image`; features that the source declared are kept."""
    features = dict(declared_features(schema))
    features = {name: feature for name, feature in features.items() if name in schema.names}
    features["image"] = {"_type": "Image"}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def declared_features(schema: pa.Schema) -> dict[str, dict]:
    """Hugging Face features that the schema metadata declares, by column; empty when there are none."""
    try:
        declared = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    found = declared if isinstance(declared, dict) else {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def find_image_column(schema: pa.Schema, wanted: str | None, place: str) -> str:
    """The column that holds encoded images: `wanted`, else `image`, else the only candidate.

    Candidates are the columns that the metadata declares as `Image`; else structs with a binary `bytes`, and binary
    columns.

    Raises:
        SourceError: there is none, or more than one and none is called `image`.
    """
    declared = [name for name, feature in declared_features(schema).items() if feature.get("_type") == "Image"]
    typed = [field.name for field in schema if _holds_bytes(field.type)]
    candidates = [name for name in typed if name in declared] or typed
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    if wanted is not None:
        if wanted in typed:
            return wanted
        raise SourceError(
            f"{place}: wanted image_column={wanted} of type binary or struct<bytes, path>; columns: {columns}"
        )
    if "image" in candidates:
        return "image"
    if len(candidates) == 1:
        return candidates[0]
    problem = "has no column of encoded images" if not candidates else "has several columns that may hold images"
    raise SourceError(
        f"{place}: {problem} (binary or struct<bytes, path>); columns: {columns}; name one with image_column="
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def carried_columns(source: pa.Schema, ours: list[pa.Field]) -> dict[str, str]:
    """Source column -> its name beside our columns `ours`: its own, or `source_<name>` where ours has that name.

    `image`, `key`, `width` and `height` describe the picture that is replaced and are left out.
    """
    taken = {field.name for field in ours} | set(source.names)
    names = {}
    for name in source.names:
        if name in _REPLACED:
            continue
        carried = name
        if any(field.name == name for field in ours):
            while carried in taken:
                carried = f"source_{carried}"
            taken.add(carried)
        names[name] = carried
    return names


def carrying_schema(ours: list[pa.Field], source: pa.Schema) -> pa.Schema:
    """Our columns, then the carried columns of the source, with the `Image` feature declared."""
    carried = carried_columns(source, ours)
    fields = [source.field(name).with_name(carried[name]).remove_metadata() for name in carried]
    features = {carried[n]: f for n, f in declared_features(source).items() if n in carried}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return with_image_feature(pa.schema([*ours, *fields], metadata=metadata))
