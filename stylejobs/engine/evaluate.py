"""The verb `evaluate`: what a model is worth on a panel of images, and whether it may become the champion.

workers   stylize the panel with every model, describe what came out (panel_worker.py, panel.py)
ruler     measures with intervals, differences of candidate and baseline (core/ruler.py)
gates     decide (core/gates.py); verdict, summary and montage go to the run and to STORAGE/ID/, the verdict's
          digests to the version's tags, where promote looks for them
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from stylejobs import __version__
from stylejobs.config.evaluating import EvaluateConfig
from stylejobs.config.sections import flatten
from stylejobs.core.bootstrap import Interval
from stylejobs.core.gates import Decision, Table, decide
from stylejobs.core.measures import MEASURES
from stylejobs.core.receipt import Receipt
from stylejobs.engine.downstream import make_receipt, plain_receipt, tell_receipt
from stylejobs.engine.downstream_worker import DownstreamSettings, Stylist
from stylejobs.engine.models import REGISTERED
from stylejobs.engine.panel import Panelled, build_table, describe_panel, label_safety
from stylejobs.engine.panel_plan import PanelPlan
from stylejobs.engine.panel_worker import BASELINE, CANDIDATE, IDENTITY
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.records.codec import encode_image
from stylejobs.report.grid import sample_grid
from stylejobs.report.measures import format_calibration, format_measures
from stylejobs.report.verdict import render_junit, render_summary
from stylejobs.storage import locations
from stylejobs.tracking.tracker import Tracker

VERDICT_VERSION = 1

_CONFIDENCE = 0.95  # where no gates say another
_PAIRS = 8
_MONTAGE_QUALITY = 90
_NOTE_BYTES = 5000  # MLflow takes no longer tags from every store
_CALIBRATED = (
    "edge_cosine", "identification", "ms_ssim", "style_raw", "style", "sliced_wasserstein_0", "nyquist", "coverage",
    "pairwise", "lpips", "fid",
)  # fmt: skip


def evaluate(config: EvaluateConfig, plan: PanelPlan) -> JobResult:
    """Measures, decides, and keeps what was found; 4 is the exit code of a model that must not be promoted.

    Raises:
        SourceError, StyleError: too few images, or a panel with nothing to measure.
        ClusterError, RegistryError, StorageError: one of them cannot be reached; then no verdict is kept.
    """
    from stylejobs.tracking.mlflow_tracker import MlflowTracker
    from stylejobs.tracking.provenance import code_tags

    model = plan.models[CANDIDATE]
    tags = {"stylejobs.verb": "evaluate", "stylejobs.model_sha256": model.sha256, **code_tags()}
    with MlflowTracker.start(config.experiment, config.run_name or f"evaluate {model.name}", tags) as tracker:
        tracker.log_params({key: value for key, value in flatten(config).items() if value is not None})
        with ray_session(config.cluster.num_cpus, config.cluster.object_store_mb):
            panel = describe_panel(config, plan)
            receipt = _receipt(config, plan) if config.downstream else None
        result = judge(config, plan, panel, tracker, receipt)
        return result.with_(mlflow={"run_id": tracker.run_id, "url": tracker.url})


def _receipt(config: EvaluateConfig, plan: PanelPlan) -> tuple[Receipt, Interval | None]:
    """What stylized copies add to a small classifier, and what those of the candidate add to the baseline's."""
    r = config.receipt
    numbers = r.model_dump(include={"size_px", "load_px", "width", "steps", "batch", "seeds", "copies"})
    low, high = map(float, r.strength.split("-"))
    settings = DownstreamSettings(
        **numbers, strength=(low, high), seed=config.seed, limits=plan.settings.squares.limits
    )
    stylists = {
        row: Stylist(model.package_uri, model.sha256, model.styles) for row, model in plan.settings.models.items()
    }
    return make_receipt(
        r.train or config.data, r.test, stylists[CANDIDATE], settings, config.image_column, stylists.get(BASELINE)
    )


def judge(
    config: EvaluateConfig,
    plan: PanelPlan,
    panel: Panelled,
    tracker: Tracker,
    receipt: tuple[Receipt, Interval | None] | None = None,
) -> JobResult:
    """From descriptions to the verdict, and the verdict to wherever it is looked for."""
    confidences = plan.rules.confidences if plan.rules else (_CONFIDENCE,)
    tables = {
        confidence: with_receipt(build_table(config, plan, panel, confidence), receipt) for confidence in confidences
    }
    table = tables[plan.rules.confidence if plan.rules else _CONFIDENCE]
    decision = decide(plan.rules, tables) if plan.rules else None
    verdict = _verdict(plan, panel, table, decision) | _labels(config, plan, panel)
    if receipt:
        verdict["receipt"] = plain_receipt(receipt[0])
        tell_receipt(receipt[0])
    _print(config, verdict)
    _keep(config, plan, verdict, panel, tracker)
    passed = decision is None or decision.passed
    model = plan.models[CANDIDATE]
    return JobResult(
        "evaluate",
        exit_code=0 if passed else 4,
        dest=plan.folder,
        message=_message(plan, verdict),
        rows={"in": config.images + panel.num_bad, "ok": config.images, "bad": panel.num_bad, "by_reason": {}},
        images_per_second=round(table.rows[CANDIDATE]["images_per_second"].value, 2),
        model=model.described(),
        details={
            name: verdict[name] for name in ("passed", "baseline", "gates", "improved", "gates_sha256", "set_sha256")
        }
        | {"measures": verdict["measures"][CANDIDATE], "gains": verdict["gains"]},
    )


def with_receipt(table: Table, receipt: tuple[Receipt, Interval | None] | None) -> Table:
    """Adds `downstream`: gains of corrupted accuracy over originals alone, and over the baseline's copies.

    Its intervals are of 95 %, whatever the table's.
    """
    if receipt is None:
        return table
    told, over_baseline = receipt
    rows = {**table.rows, CANDIDATE: {**table.rows[CANDIDATE], "downstream": told.corrupted_gain}}
    gains = {**table.gains, **({"downstream": over_baseline} if over_baseline else {})}
    return Table(rows, gains, table.ratios)


def _verdict(plan: PanelPlan, panel: Panelled, table: Table, decision: Decision | None) -> dict[str, Any]:
    baseline = plan.models.get(BASELINE)
    return {
        "schema_version": VERDICT_VERSION,
        "model": plan.models[CANDIDATE].described(),
        "baseline": baseline and baseline.described(),
        "gates_sha256": plan.gates_sha256,
        "set_sha256": panel.sha256,
        "evaluation_set": {**plan.where, "bad_images": panel.num_bad},
        "measures": {row: _plain(found) for row, found in table.rows.items()},
        "gains": _plain(table.gains),
        "ratios": _plain(table.ratios),
        "without_result": {row: panel.failure[row] for row, count in panel.failed.items() if count},
        "gates": [outcome.as_dict() for outcome in decision.outcomes] if decision else [],
        "improved": list(decision.improved) if decision else [],
        "passed": decision.passed if decision else None,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": {"version": __version__},
    }


def _plain(found: Mapping[str, Interval]) -> dict[str, list[float | None]]:
    """Value, low and high end; None for what is no number, since JSON has none."""
    return {name: [end if math.isfinite(end) else None for end in found[name]] for name in MEASURES if name in found}


def _labels(config: EvaluateConfig, plan: PanelPlan, panel: Panelled) -> dict[str, Any]:
    """What the classifier saw, class by class; nothing without one."""
    if plan.classes is None or panel.failed.get(CANDIDATE):
        return {}
    found = label_safety(panel, plan.classes, _CONFIDENCE)
    by_class = {name: [*interval, found.counts[name]] for name, interval in found.by_class.items()}
    return {"labels": {"classifier": config.classifier, "by_class": by_class, "worst": list(found.worst)}}


def _print(config: EvaluateConfig, verdict: dict[str, Any]) -> None:
    """The tables, for a person."""
    rows = verdict["measures"]
    models = {row: rows[row] for row in (CANDIDATE, BASELINE) if row in rows}
    lines = [format_measures(models, verdict["gains"])]
    if config.calibrate:
        lines += ["", "calibration:", format_calibration(rows, _CALIBRATED)]
    if worst := verdict.get("labels", {}).get("worst"):
        of_class = verdict["labels"]["by_class"]
        lines.append(
            "labels that are lost most: " + ", ".join(f"{name} ({of_class[name][0]:.0%} kept)" for name in worst)
        )
    print("\n".join(lines), file=sys.stderr, flush=True)


def _keep(config: EvaluateConfig, plan: PanelPlan, verdict: dict[str, Any], panel: Panelled, tracker: Tracker) -> None:
    """Pictures and tables first, the version's tag last: a tag never speaks of what is not there."""
    summary = render_summary(verdict).encode()
    files = {
        "montage.jpg": encode_image(_montage(panel), "jpeg", _MONTAGE_QUALITY),
        "summary.md": summary,
        "verdict.json": json.dumps(verdict, indent=1).encode(),
    }
    if config.calibrate:
        floors = {"set_sha256": panel.sha256, "rows": verdict["measures"]}
        files["calibration.json"] = json.dumps(floors, indent=1).encode()
    for name, data in files.items():
        locations.write_atomic(locations.join(plan.folder, name), data)
    for place, data in ((config.junit, render_junit(verdict).encode()), (config.summary, summary)):
        if place:
            locations.write_atomic(locations.absolute(place), data)
    with tempfile.TemporaryDirectory(prefix="stylejobs-evaluate-") as folder:
        for name, data in files.items():
            if name != "verdict.json":
                path = os.path.join(folder, name)
                with open(path, "wb") as file:
                    file.write(data)
                tracker.log_file(path)
    for row in (CANDIDATE, BASELINE):
        found = verdict["measures"].get(row, {})
        tracker.log_metrics({f"{row}/{name}": ends[0] for name, ends in found.items() if ends[0] is not None}, step=0)
    tracker.set_tags({"stylejobs.passed": verdict["passed"], "stylejobs.set_sha256": panel.sha256})
    if len(summary) <= _NOTE_BYTES:  # the run's page shows it as its description
        tracker.set_tags({"mlflow.note.content": summary.decode()})
    _record(plan, verdict, tracker)


def _record(plan: PanelPlan, verdict: dict[str, Any], tracker: Tracker) -> None:
    """The verdict to the run; where the model is registered and gates were asked, its digests to the version."""
    from stylejobs.tracking.evidence import VERDICT_FILE, record_verdict
    from stylejobs.tracking.registry import resolve_version

    model = plan.models[CANDIDATE]
    if model.uri.startswith(REGISTERED) and plan.rules:
        record_verdict(resolve_version(f"{REGISTERED}{model.name}/{model.version}"), tracker.run_id, verdict)
    else:
        tracker.log_text(json.dumps(verdict, indent=1), VERDICT_FILE)


def _montage(panel: Panelled) -> np.ndarray:
    """A row an image: source, baseline, candidate."""
    columns = [panel.shown[row][:_PAIRS].numpy() for row in (IDENTITY, BASELINE, CANDIDATE) if row in panel.shown]
    return sample_grid([list(pictures) for pictures in zip(*columns, strict=True)])


def _message(plan: PanelPlan, verdict: dict[str, Any]) -> str:
    model = plan.models[CANDIDATE]
    name = f"{model.name} {model.version}".strip()
    baseline = plan.models.get(BASELINE)
    beside = f" beside {baseline.name} {baseline.version}".rstrip() if baseline else ", no baseline"
    lines = [
        f"{name}{beside}: {'measured' if verdict['passed'] is None else 'passed' if verdict['passed'] else 'REFUSED'}"
    ]
    lines += [f"  {row}: {reason}" for row, reason in verdict["without_result"].items()]
    marks = {"passed": "ok    ", "failed": "FAILED", "not asked": "-     "}
    lines += [f"  {marks[gate['state']]} {gate['words']}" for gate in verdict["gates"]]
    return "\n".join([*lines, f"pictures: {locations.join(plan.folder, 'montage.jpg')}"])
