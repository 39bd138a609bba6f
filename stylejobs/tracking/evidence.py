"""Verdicts of `evaluate`: kept with the run that made them, and tied to the version that they judge by digests.

A verdict is a JSON artifact of the run. The version carries one tag for each set of gates and evaluation set, with the
sha256 of the artifact; a verdict counts only if both say the same. Who may write tags of a version and artifacts of a
run can forge both: keep such rights to those who may promote.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stylejobs.errors import GateError, ModelError
from stylejobs.tracking.client import is_missing, open_client, reaching, tracking_uri
from stylejobs.tracking.registry import ModelVersion

VERDICT_FILE = "verdict.json"
_TAG = "stylejobs.verdict."


@dataclass(frozen=True)
class Evidence:
    """What a version's tag says of one verdict.

    Attributes:
        passed, failed: what was decided, and the names of the gates that failed.
        at: when, ISO 8601 in UTC.
        run_id: the run that holds the verdict.
        verdict_sha256: of the artifact's bytes.
        model_sha256, gates_sha256, set_sha256: of the package, the gates and the images that it is about.
        baseline_sha256: of the package that it was compared with; None without one.
    """

    passed: bool
    failed: tuple[str, ...]
    at: str
    run_id: str
    verdict_sha256: str
    model_sha256: str
    gates_sha256: str
    set_sha256: str
    baseline_sha256: str | None


def record_verdict(version: ModelVersion, run_id: str, verdict: Mapping[str, Any]) -> Evidence:
    """Writes a verdict to its run, then ties it to the version; an older one of the same gates and set gives way.

    Args:
        verdict: plain values: `model`, `baseline`, `gates` (each with `name` and `state`), `gates_sha256`,
            `set_sha256`, `passed`, `made_at`, and whatever else people should find. Numbers that are not finite are
            kept as null, since JSON has none.

    Raises:
        RegistryError: the server cannot be reached. A tag is only ever written after its artifact.
    """
    text = json.dumps(_to_json(verdict), sort_keys=True, allow_nan=False)
    evidence = _to_evidence(json.loads(text), run_id, hashlib.sha256(text.encode("ascii")).hexdigest())
    key = f"{_TAG}{evidence.gates_sha256[:12]}.{evidence.set_sha256[:12]}"
    uri = tracking_uri()
    client = open_client(uri)
    with reaching(uri, refused=ModelError):
        client.log_text(run_id, text, VERDICT_FILE)
        tag = json.dumps(asdict(evidence), separators=(",", ":"))
        client.set_model_version_tag(version.name, version.version, key, tag)
    return evidence


def list_evidence(version: ModelVersion) -> list[Evidence]:
    """Every verdict that a version's tags name, newest first; none of them is proven before `read_verdict`.

    Raises:
        GateError: a tag is not as `record_verdict` writes it.
        RegistryError: the server cannot be reached.
    """
    uri = tracking_uri()
    client = open_client(uri)
    with reaching(uri, refused=ModelError):
        tags = client.get_model_version(version.name, version.version).tags
    found = []
    for key, value in tags.items():
        if key.startswith(_TAG):
            try:
                fields = json.loads(value)
                found.append(Evidence(**{**fields, "failed": tuple(fields["failed"])}))
            except (ValueError, TypeError, KeyError):
                raise GateError(
                    f"the tag {key} of {version.uri} was changed: it is no verdict; delete it and evaluate again"
                ) from None
    return sorted(found, key=lambda evidence: evidence.at, reverse=True)


def read_verdict(evidence: Evidence) -> dict[str, Any]:
    """The verdict that a tag names.

    Raises:
        GateError: it is gone, or is not the one that the tag was written for.
        RegistryError: the server or its artifact store cannot be reached.
    """
    uri = tracking_uri()
    client = open_client(uri)
    where = f"{VERDICT_FILE} of run {evidence.run_id}"
    with reaching(uri, refused=ModelError), tempfile.TemporaryDirectory(prefix="stylejobs-verdict-") as folder:
        try:
            listed = {item.path for item in client.list_artifacts(evidence.run_id)}
        except Exception as error:
            if not is_missing(error):
                raise
            listed = set()
        if VERDICT_FILE not in listed:
            raise GateError(f"the verdict is gone: there is no {where}; evaluate again")
        data = Path(client.download_artifacts(evidence.run_id, VERDICT_FILE, folder)).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != evidence.verdict_sha256:
        raise GateError(
            f"{where} was changed after it was written: its sha256 is {sha256}, and the version's tag says "
            f"{evidence.verdict_sha256}; evaluate again"
        )
    verdict = json.loads(data)
    said = _to_evidence(verdict, evidence.run_id, sha256)
    differing = [name for name, value in asdict(said).items() if value != getattr(evidence, name)]
    if differing:
        raise GateError(f"the version's tag does not say what {where} says: {', '.join(differing)}; evaluate again")
    return verdict


def _to_evidence(verdict: Mapping[str, Any], run_id: str, sha256: str) -> Evidence:
    baseline = verdict["baseline"]
    return Evidence(
        passed=verdict["passed"],
        failed=tuple(gate["name"] for gate in verdict["gates"] if gate["state"] == "failed"),
        at=verdict["made_at"],
        run_id=run_id,
        verdict_sha256=sha256,
        model_sha256=verdict["model"]["sha256"],
        gates_sha256=verdict["gates_sha256"],
        set_sha256=verdict["set_sha256"],
        baseline_sha256=None if baseline is None else baseline["sha256"],
    )


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
