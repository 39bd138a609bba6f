"""The result of a command: one JSON object, the last line on stdout."""

from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class JobResult:
    """What a command did. What a verb has no use for is None.

    Attributes:
        exit_code: see `stylejobs.errors`.
        message: one or more lines for a person: why it did not end with 0; what to look at when it did.
        rows: in, ok and bad count source rows; `written` counts stylized rows; `by_reason` counts bad rows.
        units: total, done (this run), skipped (done before), failed.
        stage_seconds: time by stage, summed over all threads of all workers.
        record_uri: dataset in which the result is kept; None before the command has taken a `dest`.
        resume_with: see `StylejobsError`.
        goes_on: the same command goes on from what is there, though what is kept of that is not this process's.
        proof: of a dataset that is complete; written after everything else.
    """

    verb: str
    exit_code: int = 0
    dest: str | None = None
    message: str | None = None
    rows: dict | None = None
    units: dict | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    stage_seconds: dict[str, float] | None = None
    model: dict | None = None
    mlflow: dict | None = None
    report: str | None = None
    resume_command: str | None = None
    details: dict = field(default_factory=dict)
    record_uri: str | None = None
    proof: dict | None = None
    resume_with: str | None = None
    goes_on: bool = False

    def with_(self, **changes: object) -> "JobResult":
        return replace(self, **changes)

    def as_dict(self) -> dict:
        """Every field but `record_uri`, `proof`, `resume_with` and `goes_on`, as plain values."""
        hidden = ("record_uri", "proof", "resume_with", "goes_on")
        return {name: value for name, value in asdict(self).items() if name not in hidden}
