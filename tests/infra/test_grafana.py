"""The dashboard and the alert rules: they ask for what the engine records, by the names that Ray gives it.

No package of the lock parses PromQL: expressions are held to their brackets, names, tags, ranges and functions only.
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stylejobs.engine.metrics import PREFIX, SPECS, Spec

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/grafana"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
ON_DASHBOARD = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = ON_DASHBOARD + [rule["expr"] for rule in RULES]

OF_RAY = {"SessionName", "WorkerId"}
RAYS_OWN = {
    "ray_tasks": {"IsRetry", "State"},
    "ray_node_gpus_utilization": {"ip", "GpuIndex", "GpuDeviceName"},
    "ray_node_gram_used": {"ip", "GpuIndex", "GpuDeviceName"},
    "ray_node_gpu_power_milliwatts": {"ip", "GpuIndex", "GpuDeviceName"},
    "ray_node_gpu_temperature_celsius": {"ip", "GpuIndex", "GpuDeviceName"},
}
WORDS = {"by", "on", "or", "and", "unless", "offset", "group_left"}
FUNCTIONS = {"sum", "max", "rate", "histogram_quantile"}


def exported(spec: Spec) -> dict[str, set[str]]:
    """The names that a metric has in Prometheus, and the tags of each."""
    name, tags = f"ray_{PREFIX}{spec.name}", {*spec.tags, *OF_RAY}
    if spec.kind == "histogram":
        return {f"{name}_bucket": tags | {"le"}, f"{name}_sum": tags, f"{name}_count": tags}
    return {f"{name}_total" if spec.kind == "counter" else name: tags}


TAGS = {name: tags for spec in SPECS for name, tags in exported(spec).items()}
TAGS |= {name: tags | {"SessionName"} for name, tags in RAYS_OWN.items()}


def metrics_of(expression: str) -> list[str]:
    return re.findall(r"\b(?:ray|stylejobs)_\w+", expression)


def selectors_of(expression: str) -> Iterator[tuple[str, list[str]]]:
    """A metric and the tags that it is selected by."""
    for name, inside in re.findall(r"\b(ray_\w+)\{([^}]*)\}", expression):
        yield name, re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", inside)


def groups_of(expression: str) -> Iterator[tuple[set[str], str]]:
    """The tags of each `by`, and what is grouped by them: the brackets behind it."""
    for found in re.finditer(r"\bby \(([^)]*)\) \(", expression):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(expression[end], 0)
            end += 1
        yield set(re.split(r",\s*", found[1])), expression[found.end() : end]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_metrics_and_tags_are_there(expression: str) -> None:
    names = metrics_of(expression)
    assert names
    for name in names:
        assert name in TAGS, f"{name}: not in the table of stylejobs/engine/metrics.py, or with the wrong ending"
    for name, tags in selectors_of(expression):
        assert tags and set(tags) <= TAGS[name], f"{name} has no {set(tags) - TAGS[name]}"
    for tags, inside in groups_of(expression):
        for name in metrics_of(inside):
            assert tags <= TAGS[name], f"{name} has no {tags - TAGS[name]}"


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set(itertools.chain.from_iterable(map(metrics_of, ON_DASHBOARD)))
    hidden = [spec.name for spec in SPECS if not shown & exported(spec).keys()]
    assert not hidden
    assert shown >= RAYS_OWN.keys()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_whole(expression: str) -> None:
    bare = re.sub(r'"[^"]*"', '""', expression)
    assert bare.count('"') % 2 == 0
    closing, open_ = {")": "(", "]": "[", "}": "{"}, []
    for sign in bare:
        if sign in closing.values():
            open_.append(sign)
        elif sign in closing:
            assert open_ and open_.pop() == closing[sign], bare
    assert not open_
    assert all(re.fullmatch(r"\$__rate_interval|\d+[smh]", inside) for inside in re.findall(r"\[([^]]*)\]", bare))
    words = set(
        re.findall(
            r"\b[a-z_]{2,}\b(?!\s*[=!]~?)", re.sub(r"\{[^}]*\}|\[[^]]*\]|(by|on|group_left) \([^)]*\)", "", bare)
        )
    )
    assert {word for word in words if not word.startswith("ray_")} <= WORDS | FUNCTIONS
    counters = re.findall(r"(\w+)\(ray_\w+_(?:total|bucket)\{", bare)
    assert set(counters) <= {"rate"}, "a counter is looked at by its rate, or summed as what came so far"


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert DASHBOARD["schemaVersion"] >= 39 and DASHBOARD["uid"] and "id" not in DASHBOARD
    assert DASHBOARD["time"] == {"from": "now-6h", "to": "now"}
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    for name in set(variables) - {"datasource"}:
        metric, tag = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"]).groups()
        assert tag in TAGS[metric]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables.keys()
    assert all(
        place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for panel in PANELS
        for place in (panel, *panel["targets"])
    )


def test_rows_are_what_an_operator_looks_for_and_each_has_panels() -> None:
    assert [row["title"] for row in ROWS] == [
        "Throughput", "Rows and reasons", "Stages", "Faults", "Training", "Tracking lag", "GPUs"
    ]  # fmt: skip
    tops = [row["gridPos"]["y"] for row in ROWS] + [10**6]
    for top, below in itertools.pairwise(tops):
        assert any(top < panel["gridPos"]["y"] < below for panel in PANELS)


def test_panels_do_not_overlap_and_fit() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and cells and not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
    for target in panel["targets"]:
        tags = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = {
            tag for inside in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for tag in re.split(r",\s*", inside)
        }
        assert target["legendFormat"] and tags <= grouped


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict) -> None:
    assert re.fullmatch(r"Stylejobs[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "runbook"}
    assert rule["annotations"]["runbook"].endswith(".")
    tags = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert all(tags <= grouped for grouped, _ in groups_of(rule["expr"]))


def test_what_may_go_wrong_has_an_alert() -> None:
    asked = " ".join(rule["expr"] for rule in RULES)
    for name in ("jobs_running", "images_total", "rows_bad_total", "storage_errors_total", "oom_steps_total"):
        assert f"ray_{PREFIX}{name}" in asked
    assert f"ray_{PREFIX}tracking_lag_seconds" in asked


def test_prometheus_may_read_the_nodes_of_the_manifests() -> None:
    monitor, policy = yaml.safe_load_all((FOLDER / "podmonitor.yaml").read_text())
    cluster = yaml.safe_load((ROOT / "infra/kuberay/base/cluster.yaml").read_text())["spec"]
    labels = monitor["spec"]["selector"]["matchLabels"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert labels.items() <= group["template"]["metadata"]["labels"].items()
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    (endpoint,), (rule,) = monitor["spec"]["podMetricsEndpoints"], policy["spec"]["ingress"]
    assert endpoint["port"] == rule["ports"][0]["port"] == "metrics"
