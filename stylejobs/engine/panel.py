"""A panel of images through the workers of `evaluate`, and the descriptions that come back as one table of measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylejobs.config.evaluating import EvaluateConfig
from stylejobs.core.agreement import Agreement, agreement
from stylejobs.core.bootstrap import Interval, bootstrap_interval
from stylejobs.core.gates import Table
from stylejobs.core.metrics import copies, shuffled
from stylejobs.core.ruler import CLASSES, Described, Ruler, join, relate, select
from stylejobs.engine.panel_plan import CONTENT, COPY, SHUFFLED, PanelPlan, check_count
from stylejobs.engine.panel_worker import BASELINE, CANDIDATE, IDENTITY, SHOWN, STYLE, PanelWorker
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.session import ray_session
from stylejobs.engine.stream import Answer, Workers, stream
from stylejobs.errors import SourceError, StyleError, StylejobsError
from stylejobs.storage.units import digest

_MEASURES_VERSION = 2
"""Of what a number means: with another one, the same images are another evaluation set."""

_VOID = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Panelled:
    """What the workers found out about a panel.

    Attributes:
        described: row -> description of its images, in one order for all rows; the style set is the row "style".
        shown: row -> pictures of the montage, uint8 [n, H, W, 3].
        failed: row -> images without a result; `failure` says why the first of them has none.
        seconds: row -> (images, seconds) of each batch of a model.
        sha256: of the evaluation set: every image, how it was cut, and weights of measures that were given.
        num_bad: images that could not be decoded.
    """

    described: dict[str, Described]
    shown: dict[str, Tensor]
    failed: dict[str, int]
    failure: dict[str, str]
    seconds: dict[str, list[tuple[int, float]]]
    sha256: str
    num_bad: int


def describe_panel(config: EvaluateConfig, plan: PanelPlan) -> Panelled:
    """Lets the workers stylize and describe the panel.

    Raises:
        SourceError, StyleError: fewer images than wanted can be decoded.
        StylejobsError: a part of the panel could not be done; its exit code is the worst of theirs.
    """
    workers = Workers(config.cluster.actors, config.cluster.actor_cpus, config.cluster.actor_gpus)
    answers: list[Answer] = []
    with (
        ray_session(config.cluster.num_cpus, config.cluster.object_store_mb),
        JobProgress("evaluate", sum(item.part["rows"] for item in plan.items), "images") as progress,
    ):
        for answer in stream(plan.items, PanelWorker, plan.settings, workers):
            answers.append(answer)
            progress.advance(len(answer.value["keys"]) if answer.value else 0)
    failed = [answer for answer in answers if answer.failure]
    if failed:
        lines = "\n".join(f"  {answer.failure}" for answer in failed)
        error = StylejobsError(f"{len(failed)} of {len(answers)} parts of the panel failed:\n{lines}")
        error.exit_code = max(answer.exit_code for answer in failed)
        raise error
    return gather(config, plan, answers)


def gather(config: EvaluateConfig, plan: PanelPlan, answers: Sequence[Answer]) -> Panelled:
    """The answers of all workers as one panel: the first `images` contents, the first `style_images` of the style."""
    from safetensors.torch import load

    parts: dict[str, list[tuple[dict, dict[str, dict[str, Tensor]]]]] = {CONTENT: [], STYLE: []}
    for answer in sorted(answers, key=_number):
        if answer.value["keys"]:
            parts[_role(answer)].append((answer.value, _by_row(load(answer.tensors))))
    contents, styles = parts[CONTENT], parts[STYLE]
    check_count(config, sum(len(value["keys"]) for value, _ in contents))
    if not styles:
        raise StyleError(f"style={plan.where['style']}: none of its images can be decoded")
    shown: dict[str, list[Tensor]] = {}
    for _, rows in contents:
        for row, described in rows.items():
            shown.setdefault(row, []).append(described.pop(SHOWN, torch.empty(0, 1, 1, 3, dtype=torch.uint8)))
    described = {
        row: select(join([rows[row] for _, rows in contents]), slice(0, config.images)) for row in contents[0][1]
    }
    described[STYLE] = join([rows[STYLE] for _, rows in styles])
    values = [value for value, _ in contents]
    return Panelled(
        described=_with_put_together(described, plan.rows, config.seed),
        shown={row: torch.cat([part for part in parts if len(part)]) for row, parts in shown.items()},
        failed={row: sum(value["failed"][row] for value in values) for row in values[0]["failed"]},
        failure={row: text for value in reversed(values) for row, text in value["failure"].items() if text},
        seconds={row: [tuple(batch) for value in values for batch in value["seconds"][row]] for row in plan.models},
        sha256=_set_digest(config, plan, values, [value for value, _ in styles]),
        num_bad=sum(answer.value["bad"] for answer in answers),
    )


def _role(answer: Answer) -> str:
    return answer.fingerprint.rpartition("-")[0]


def _number(answer: Answer) -> int:
    return int(answer.fingerprint.rpartition("-")[2])


def _by_row(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    rows: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        row, _, measure = name.partition("/")
        rows.setdefault(row, {})[measure] = tensor
    return rows


def _with_put_together(described: dict[str, Described], rows: Sequence[str], seed: int) -> dict[str, Described]:
    """Adds the sanity rows that no worker makes: recoloured images of other contents, and images of the style set."""
    content = described[IDENTITY]
    num = len(content["edges"])
    made = dict(described)
    if SHUFFLED in rows:
        made[SHUFFLED] = relate(select(described["reinhard"], shuffled(num, seed)), content)
    if COPY in rows:
        style = described[STYLE]
        # The other half is what candidates are held against: whoever copies that would be nearer than real images.
        others = select(style, slice(1, None, 2))
        made[COPY] = relate(select(others, copies(num, len(others["edges"]), seed)), content)
    return made


def _set_digest(config: EvaluateConfig, plan: PanelPlan, contents: Sequence[dict], styles: Sequence[dict]) -> str:
    content = [sha256 for value in contents for sha256 in value["sha256"]][: config.images]
    style = [sha256 for value in styles for sha256 in value["sha256"]]
    judges = plan.settings.perceptual.digests
    how = [config.size_px, config.load_px, config.strength, config.seed, *([judges] if judges else [])]
    return digest([_MEASURES_VERSION, content, style, *how])


def build_table(config: EvaluateConfig, plan: PanelPlan, panel: Panelled, confidence: float) -> Table:
    """Measures of all rows with intervals of one confidence, and how candidate and baseline differ.

    A row in which an image has no result has no measures: each is not a number, which no gate lets pass.

    Raises:
        SourceError: contents and style set between which there is nothing to measure.
    """
    described = panel.described
    try:
        ruler = Ruler(described[IDENTITY], described[STYLE], confidence, config.seed)
    except ValueError as error:
        raise SourceError(f"data={config.data} beside style={plan.where['style']}: {error}") from error
    rows = {}
    for row in (*plan.models, *plan.rows):
        found = ruler.measure(described[row])
        if row in plan.models:
            found["images_per_second"] = _rate(panel.seconds[row], confidence, config.seed)
        rows[row] = dict.fromkeys(found, _VOID) if panel.failed.get(row) else found
    if BASELINE not in plan.models or any(panel.failed.get(row) for row in plan.models):
        return Table(rows)
    both = described[CANDIDATE], described[BASELINE]
    return Table(rows, ruler.gains(*both), ruler.ratios(*both))


def _rate(batches: Sequence[tuple[int, float]], confidence: float, seed: int) -> Interval:
    """Images a second; the first batch, which is slower, is left out where there are others."""
    counts_NB, seconds_NB = torch.tensor(batches[1:] if len(batches) > 2 else [*batches, *batches]).double().T
    return bootstrap_interval(
        lambda rows_RN: counts_NB[rows_RN].sum(dim=1) / seconds_NB[rows_RN].sum(dim=1),
        (len(counts_NB),),
        confidence,
        seed=seed,
    )


def label_safety(panel: Panelled, classes: Sequence[str], confidence: float) -> Agreement:
    """Which labels the candidate keeps, class by class."""
    of_source, of_made = (panel.described[row][CLASSES] for row in (IDENTITY, CANDIDATE))
    return agreement(of_source, of_made, classes, confidence)
