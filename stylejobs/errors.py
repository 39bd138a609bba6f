"""Every error that stylejobs raises on purpose. The class decides the exit code of the command.

    StylejobsError                      1  a fault of ours
    |- TrainingError                    1  a training that cannot go on: a loss is not finite
    |- UsageError                       2  the command cannot mean anything
    |  |- ConfigError                      keys or values of the configuration (all problems at once)
    |  |- SourceError                      a source, or labels file, that is missing, empty or unreadable
    |  |- ModelError                       a model URI, package or weights file that is missing or not one
    |  `- StyleError                       a style that is missing or cannot be read
    |- PartialError                     3  stopped early; what is there is valid
    |- GateError                        4  a gate refused
    |  `- BudgetError                      more bad rows than `max_bad` allows
    |- DriftError                       5  inputs, model or parameters differ from what `dest` holds
    |- InfrastructureError              6  cluster, storage or registry unreachable, not authorised, not writable
    |  |- StorageError
    |  |- RegistryError
    |  `- ClusterError
    `- RowError                            one row is bad; never leaves a worker: it becomes a dead letter
       |- ReadError
       |- DecodeError
       |- GenerateError
       `- EncodeError

Messages say what was wanted, what came, and what to do. `ValueError` is for wrong arguments to a function, `assert`
for invariants of our own.
"""


class StylejobsError(Exception):
    """Root of the tree; `exit_code` is what the command ends with.

    Attributes:
        resume_with: an argument with which the same command goes on from what is there; None where nothing is.
    """

    exit_code = 1
    resume_with: str | None = None


class TrainingError(StylejobsError):
    """A training cannot go on, though nothing around it failed."""


class UsageError(StylejobsError):
    """The command names something that does not exist or cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """All problems of a configuration, one a line in `problems`."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join([f"{len(problems)} config problem(s)", *(f"  {line}" for line in problems)]))


class SourceError(UsageError):
    """A source that is missing, empty, or not what it was said to be."""


class ModelError(UsageError):
    """A model, package or weights file that is missing or is not one."""


class StyleError(UsageError):
    """A style that the model does not carry, or a style image that cannot be read."""


class PartialError(StylejobsError):
    """Stopped before the end; everything written so far is valid and the same command goes on from it."""

    exit_code = 3


class GateError(StylejobsError):
    """A gate refused the result."""

    exit_code = 4


class BudgetError(GateError):
    """More rows were bad than `max_bad` allows."""


class DriftError(StylejobsError):
    """Inputs, model or parameters differ from the plan, or from what `dest` already holds."""

    exit_code = 5


class InfrastructureError(StylejobsError):
    """Something the job stands on is unreachable, refuses us, or cannot be written."""

    exit_code = 6


class StorageError(InfrastructureError):
    """A storage location cannot be reached, read or written."""


class RegistryError(InfrastructureError):
    """The tracking server or model registry cannot be reached."""


class ClusterError(InfrastructureError):
    """The Ray cluster cannot be started or reached, or lost too much to go on."""


class RowError(StylejobsError):
    """One row cannot be used.

    Args:
        reason: one word of the fixed vocabulary (`truncated`, `not_an_image`, `bomb`, `too_small`, `unsupported`,
            `decode`, `oom`, `timeout`, `encode`, `non_finite`); dead letters are counted and retried by it.
        message: one sentence for a person.
    """

    stage = "row"

    def __init__(self, reason: str, message: str):
        self.reason = reason
        self.message = message
        super().__init__(f"{reason}: {message}")


class ReadError(RowError):
    """The bytes of this row cannot be had."""

    stage = "read"


class DecodeError(RowError):
    """The bytes are not an image that we accept."""

    stage = "decode"


class GenerateError(RowError):
    """The generator gave no usable image for this row."""

    stage = "generate"


class EncodeError(RowError):
    """The pixels could not be encoded."""

    stage = "encode"
