"""No pickle of anybody's is ever loaded: not from Parquet, tars, a dataset that is handed over, or our own code."""

import ast
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stylejobs.errors import SourceError
from stylejobs.storage.checkpoints import SHARED, Checkpoint, DamagedCheckpointError
from stylejobs.storage.reading import read_unit
from stylejobs.storage.shards import read_shard
from stylejobs.storage.sources import plan_source
from tests.engine.small_dataset import kinds, look, make, picture, rewrite, shards, text, write_source
from tests.storage.test_reading_tars import pack

ROOT = Path(__file__).parents[2]
CODE = sorted([*ROOT.glob("stylejobs/**/*.py"), *ROOT.glob("pipelines/*.py"), *ROOT.glob("infra/**/*.py")])


class Payload:
    """A pickle of it writes a file where it is loaded."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists(), "this pickle is not what the tests are about"
    path.unlink()
    return path


def pickled(canary: Path, num_rows: int = 1) -> pa.ExtensionArray:
    """A column of the type in which Ray Data keeps Python objects."""
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    poisoned = pa.array([pickle.dumps(Payload(canary))] * num_rows, pa.large_binary())
    return pa.ExtensionArray.from_storage(ArrowPythonObjectType(), poisoned)


def in_a_struct(column: pa.ExtensionArray) -> pa.Array:
    return pa.StructArray.from_arrays([column], ["inner"])


def in_a_list(column: pa.ExtensionArray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)


class TestParquet:
    @pytest.mark.parametrize("name", ["key", "label"])
    @pytest.mark.parametrize("inside", [lambda column: column, in_a_struct, in_a_list])
    def test_a_column_of_pickles_is_refused_when_it_is_planned(
        self, tmp_path: Path, canary: Path, name: str, inside: Callable
    ) -> None:
        table = pa.table({"image": [picture(0)], name: inside(pickled(canary))})
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(SourceError, match=f"a.parquet: column.s. '{name}' hold pickled Python objects"):
            plan_source(str(tmp_path / "a.parquet"), 1e9)
        assert not canary.exists()
        table[name].to_pylist()
        assert canary.exists(), "the column is harmless, and so is the test"

    def test_a_file_that_is_swapped_after_the_plan_is_refused(self, tmp_path: Path, canary: Path) -> None:
        place = tmp_path / "a.parquet"
        pq.write_table(pa.table({"image": [picture(0)], "key": ["k"]}), place)
        source = plan_source(str(place), 1e9)
        pq.write_table(pa.table({"image": [picture(0)], "key": pickled(canary)}), place)
        with pytest.raises(SourceError, match="hold pickled Python objects"):
            read_unit(source.units[0], source.carried_schema, 10**9)
        assert not canary.exists()

    def test_a_process_without_ray_data_refuses_it_too(self, tmp_path: Path, canary: Path) -> None:
        """There Arrow tells of the type in the metadata of the field alone; the workers would load it later."""
        column = pickled(canary)
        pq.write_table(pa.table({"image": [picture(0)], "key": column}), tmp_path / "a.parquet")
        pa.unregister_extension_type(column.type.extension_name)
        try:
            with pytest.raises(SourceError, match="'key' hold pickled"):
                plan_source(str(tmp_path / "a.parquet"), 1e9)
        finally:
            pa.register_extension_type(column.type)

    def test_other_types_of_extensions_are_carried(self, tmp_path: Path) -> None:
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((1, 2, 2), np.float32))
        uuid = pa.array([b"0" * 16], pa.uuid())
        pq.write_table(pa.table({"image": [picture(0)], "box": tensor, "id": uuid}), tmp_path / "a.parquet")
        source = plan_source(str(tmp_path), 1e9)
        assert read_unit(source.units[0], source.carried_schema, 10**9).carried.column_names == ["box", "id"]


class TestDatasetOfOthers:
    """verify and retry read a dataset that somebody else may have changed."""

    @pytest.fixture
    def dest(self, tmp_path: Path, canary: Path) -> Path:
        dest = make(write_source(tmp_path / "source"), tmp_path / "out")
        column = shards(dest)[0]
        poisoned = pickled(canary, pq.read_metadata(column).num_rows)
        rewrite(dest, 0, lambda table: table.set_column(table.schema.get_field_index("label"), "label", poisoned))
        return dest

    def test_verify_names_it(self, dest: Path, canary: Path) -> None:
        problems, _ = look(dest)
        assert "unreadable" in kinds(problems) and "hold pickled Python objects" in text(problems)
        assert not canary.exists()

    def test_the_report_does_not_read_it(self, dest: Path, canary: Path) -> None:
        with pytest.raises(SourceError, match="hold pickled"):
            read_shard(str(shards(dest)[0]))
        assert not canary.exists()


def test_what_lies_in_tars_stays_bytes(tmp_path: Path, canary: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([Payload(canary)], object), allow_pickle=True)
    torch.save({"a": Payload(canary)}, tmp_path / "x.pth")
    names = {"npy": (tmp_path / "x.npy").read_bytes(), "pth": (tmp_path / "x.pth").read_bytes()}
    names |= {"pyd": pickle.dumps(Payload(canary)), "pickle": pickle.dumps(Payload(canary))}
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / "t.tar", [("1.png", picture(0)), *((f"1.{end}", data) for end, data in names.items())])
    made = make(tmp_path / "in", tmp_path / "out", sink="webdataset")
    problems, rows = look(made)
    assert not problems and rows["ok"] == 1 and not canary.exists()


def test_a_checkpoint_to_go_on_from_is_no_pickle(tmp_path: Path, canary: Path) -> None:
    """A part is read as safetensors, whatever the file of that name holds, also where its digests vouch for it."""
    torch.save({"a": Payload(canary)}, tmp_path / f"{SHARED}.safetensors")
    tensors_sha256 = hashlib.sha256((tmp_path / f"{SHARED}.safetensors").read_bytes()).hexdigest()
    plain = json.dumps({"tensors_sha256": tensors_sha256}).encode()
    (tmp_path / f"{SHARED}.json").write_bytes(plain)
    vouched = {SHARED: hashlib.sha256(tensors_sha256.encode() + plain).hexdigest()}
    with pytest.raises(DamagedCheckpointError, match="cannot be read"):
        Checkpoint(1, 1, 1, digests=vouched, uri=str(tmp_path)).read_part(SHARED)
    assert not canary.exists()


FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "tempfile.mktemp", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "_PlainLoader"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_run_what_it_reads(path: Path) -> None:
    assert find_dangers(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from marshal import loads", "import ray.cloudpickle", "eval('1')", "exec('1')",
        "torch.load('x')", "torch.load('x', weights_only=False)", "np.load('x', allow_pickle=True)", "yaml.load('x')",
        "yaml.load('x', Loader=yaml.Loader)", "subprocess.run('x', shell=True)", "tempfile.mktemp()", "os.system('x')",
    ],
)  # fmt: skip
def test_what_the_search_is_for_is_found(line: str) -> None:
    assert find_dangers(line)


def find_dangers(code: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            found += [name for name in names if set(name.split(".")) & FORBIDDEN_MODULES]
        elif isinstance(node, ast.Call) and is_danger(node):
            found.append(ast.unparse(node))
    return found


def is_danger(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    loads_code = name == "torch.load" and given.get("weights_only") != "True"
    loads_yaml = name == "yaml.load" and given.get("Loader") not in SAFE_LOADERS
    return (
        name in FORBIDDEN_CALLS or loads_code or loads_yaml or "allow_pickle" in given or given.get("shell") == "True"
    )
