"""The verb `verify`: proves that every row of the source is in a stylized dataset, or in its dead letters.

    the books        every unit of the source, planned anew, has a marker; nothing lies there that is no unit's; the
                     proof in _SUCCESS is of these markers (verify_books.py)
    every unit       against the source and the job's settings, row by row (verifier.py)
    sample=N rows    made again and compared (replayer.py); drawn from units in which nothing else is wrong

The dataset is not changed, only DEST/_stylejobs/verify.json is written. With `mend` the units that are not proven lose
their markers, so that the command that made the dataset does them again.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from random import Random
from statistics import median_low

from stylejobs.config.schema import VerifyConfig
from stylejobs.engine.findings import Problem
from stylejobs.engine.models import PinnedModel
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.replay import open_dataset
from stylejobs.engine.replayer import Replayed, Replayer
from stylejobs.engine.results import JobResult
from stylejobs.engine.session import ray_session
from stylejobs.engine.stream import Worker, Workers, WorkItem, stream
from stylejobs.engine.unit_job import UnitJob
from stylejobs.engine.verifier import Verifier, VerifySettings
from stylejobs.engine.verify_books import check_books, mend, read_markers
from stylejobs.storage import locations
from stylejobs.storage.lease import hold
from stylejobs.storage.markers import Marker, Markers
from stylejobs.storage.units import write_json

_MAX_LINES = 50


def verify(config: VerifyConfig) -> JobResult:
    """Verifies a dataset; 4 is the exit code of one that is not proven.

    Raises:
        SourceError: there is no dataset of stylize, its source is gone, or it keeps no pictures.
        DriftError: planned again, its job is another one.
        InfrastructureError: with `mend`, while a job is writing to it.
    """
    started = time.monotonic()
    _, job, model = open_dataset(config.dest)
    with ExitStack() as stack:
        if config.mend:
            stack.enter_context(hold(job.dest, "verify"))
        held = Markers(job.dest)
        markers = read_markers(held, job.dest)
        run = _Verification(job, {name: markers[name] for name in job.work if name in markers}, config)
        run.problems += check_books(job, markers)
        if run.done:
            with ray_session(config.cluster.num_cpus, config.cluster.object_store_mb):
                run.check_units()
                run.check_sample()
        withdrawn = None
        if config.mend and run.problems:
            withdrawn = mend(job.dest, held, run.done.keys() - run.unproven)
    return _result(run, model, withdrawn, time.monotonic() - started)


class _Verification:
    """What has been found out about a dataset so far.

    Attributes:
        done: the markers of the plan's units, in the order of the plan.
        failures: what kept units from being looked at; `failure_code` is the worst of their exit codes.
        rows, by_reason: counted from the source and the dead letters.
    """

    def __init__(self, job: UnitJob, done: dict[str, Marker], config: VerifyConfig):
        self.job, self.done, self._config = job, done, config
        self.problems: list[Problem] = []
        self.failures: list[str] = []
        self.failure_code = 0
        self.rows = Counter({"in": sum(item.unit.num_rows or 0 for name, item in job.work.items() if name not in done)})
        self.by_reason: Counter[str] = Counter()
        self.sample: dict | None = None

    @property
    def unproven(self) -> set[str]:
        """Fingerprints of units that are to be done, or done again."""
        return {problem.fingerprint for problem in self.problems if problem.fingerprint}

    def check_units(self) -> None:
        """Every unit that has a marker."""
        work = self.job.work
        items = [
            replace(work[name], part={"marker": asdict(marker), "part": work[name].part})
            for name, marker in self.done.items()
            if marker.fingerprint == name
        ]
        with JobProgress("verify", sum(marker.rows_in for marker in self.done.values()), "images") as progress:
            for _, value in self._answers(items, Verifier, verify_settings(self.job), 0.0):
                self.problems += [Problem(**problem) for problem in value["problems"]]
                self.rows.update(value["rows"])
                self.by_reason.update(value["by_reason"])
                progress.advance(value["rows"]["in"], f"{len(self.problems):,} problems" if self.problems else "")

    def check_sample(self) -> None:
        """`sample` rows, each as likely as any other."""
        cluster = self._config.cluster
        settings = replace(self.job.settings, use_gpu=cluster.actor_gpus > 0, threads=cluster.threads)
        items = self._draw_sample()
        replayed: list[Replayed] = []
        with JobProgress("verify sample", sum(len(item.part["rows"]) for item in items), "images") as progress:
            for name, value in self._answers(items, Replayer, settings, cluster.actor_gpus) if items else ():
                some = [Replayed(**made) for made in value["replayed"]]
                replayed += some
                faults = [(f"key={made.key} variant={made.variant}: ", made.fault) for made in some if made.fault]
                self.problems += [Problem("sample", self.done[name].file, row + fault, name) for row, fault in faults]
                progress.advance(len(some))
        if self._config.sample:
            self.sample = _summary(replayed)

    def _answers(
        self, items: list[WorkItem], worker: type[Worker], settings: object, gpus: float
    ) -> Iterator[tuple[str, dict]]:
        cluster = self._config.cluster
        for answer in stream(items, worker, settings, Workers(cluster.actors, cluster.actor_cpus, gpus)):
            if answer.failure:
                self.failures.append(answer.failure)
                self.failure_code = max(self.failure_code, answer.exit_code)
            else:
                yield answer.fingerprint, answer.value

    def _draw_sample(self) -> list[WorkItem]:
        """Items whose part names rows of their file; which, is a function of the seed and of what is proven."""
        unproven = self.unproven
        written = [
            (name, marker.rows_out) for name, marker in self.done.items() if marker.file and name not in unproven
        ]
        total = sum(count for _, count in written)
        rows: dict[str, list[int]] = defaultdict(list)
        units, first = iter(written), 0
        name, count = next(units, ("", 0))
        for row in sorted(Random(self._config.seed).sample(range(total), min(total, self._config.sample))):
            while row >= first + count:
                first += count
                name, count = next(units)
            rows[name].append(row - first)
        work = self.job.work
        return [
            replace(work[name], part={**work[name].part, "file": self.done[name].file, "rows": numbers})
            for name, numbers in rows.items()
        ]


def verify_settings(job: UnitJob) -> VerifySettings:
    """What a Verifier is to hold the rows of this job against."""
    s = job.settings
    model = {"model_name": s.model_name, "model_version": s.model_version, "model_sha256": s.model_sha256}
    return VerifySettings(
        dest=s.write.dest,
        carried_schema=s.write.carried_schema,
        max_bytes=s.write.max_bytes,
        sink=s.write.sink,
        drawing=s.drawing,
        class_column=s.class_column,
        format=s.format,
        model=model,
    )


def _summary(replayed: list[Replayed]) -> dict:
    """Of the sample; a PSNR of None is that of equal pixels."""
    compared = [made for made in replayed if not made.failure]
    # Equal pixels are above every number.
    psnrs = sorted(float("inf") if made.psnr_db is None else made.psnr_db for made in compared)
    finite = [None if psnr == float("inf") else round(psnr, 2) for psnr in psnrs]
    return {
        "rows": len(replayed),
        "identical": sum(made.is_identical for made in compared),
        "min_psnr_db": finite[0] if finite else None,
        "median_psnr_db": finite[median_low(range(len(finite)))] if finite else None,
        "faults": sum(made.fault is not None for made in replayed),
    }


def _result(run: _Verification, model: PinnedModel, withdrawn: int | None, seconds: float) -> JobResult:
    total, unproven = len(run.job.work), run.unproven
    by_kind = dict(Counter(problem.kind for problem in run.problems).most_common())
    details = {"num_problems": len(run.problems), "by_kind": by_kind, "sample": run.sample, "withdrawn": withdrawn}
    result = JobResult(
        "verify",
        exit_code=run.failure_code or (4 if run.problems else 0),
        dest=run.job.dest,
        message=_message(run, withdrawn),
        rows={**{name: run.rows[name] for name in ("in", "ok", "bad")}, "by_reason": dict(run.by_reason.most_common())},
        units={
            "total": total,
            "done": total - len(unproven) - len(run.failures),
            "skipped": 0,
            "failed": len(unproven) + len(run.failures),
        },
        images_per_second=round(run.rows["in"] / seconds, 2),
        model=model.described(),
    )
    everything = {"problems": [asdict(problem) for problem in run.problems], "failures": run.failures}
    record = {**result.as_dict(), "message": None, "seconds": round(seconds, 3), "details": details, **everything}
    write_json(locations.join(run.job.dest, "_stylejobs", "verify.json"), record)
    return result.with_(details={"problems": [str(problem) for problem in run.problems[:_MAX_LINES]], **details})


def _message(run: _Verification, withdrawn: int | None) -> str:
    rows, total = run.rows, len(run.job.work)
    if not run.problems and not run.failures:
        sample = f"; {_sample_words(run.sample)}" if run.sample else ""
        return (
            f"proven: {rows['in']:,} rows of the source in {total:,} units: {rows['ok']:,} stylized, {rows['bad']:,} "
            f"dead letters{sample}"
        )
    lines = [f"not proven: {rows['ok'] + rows['bad']:,} of {rows['in']:,} rows are accounted for"]
    lines += [f"  {line}" for line in [*run.failures, *run.problems][:_MAX_LINES]]
    if (left := len(run.failures) + len(run.problems) - _MAX_LINES) > 0:
        lines.append(f"  and {left:,} more")
    lines.append(f"all of them: {locations.join(run.job.dest, '_stylejobs', 'verify.json')}")
    if withdrawn is not None:
        lines.append(f"{withdrawn:,} markers are withdrawn: the command that made the dataset does these units again")
    elif run.problems:
        lines.append("verify mend=true, then the command that made the dataset, does again what is not proven")
    return "\n".join(lines)


def _sample_words(sample: dict) -> str:
    lowest = "equal pixels" if sample["min_psnr_db"] is None else f"PSNR from {sample['min_psnr_db']:g} dB"
    return f"{sample['rows']:,} made again: {sample['identical']:,} the same bytes, {lowest}"
