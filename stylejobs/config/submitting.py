"""The keys of `submit`; all others of its command line are those of the verb that it sends."""

from pydantic import Field

from stylejobs.config.sections import ADDRESS_PATTERN, Section


class SubmitConfig(Section):
    """Sends a verb to a Ray cluster, follows it, and ends with its exit code.

    submit VERB address=URL ...: what is not a key of submit is one of VERB. In a file, keys of submit stand below
    `submit:`. The same command again attaches to the job that runs, or gives the result of the one that ended with 0;
    otherwise it is the next attempt.
    """

    address: str = Field(
        pattern=ADDRESS_PATTERN, description="The cluster's dashboard, such as http://127.0.0.1:8265 [URL]"
    )
    results: str | None = Field(
        None,
        description="Where jobs leave their results, which decide the exit code; none = dest, or storage, of the verb "
        "[path or s3:// URI]",
    )
    again: bool = Field(False, description="A new attempt even where the last one ended with 0, say of a nightly job")
    detach: bool = Field(False, description="Do not wait: end with 0 when the cluster has taken the job")
    stop_on_cancel: bool = Field(False, description="SIGTERM and Ctrl-C stop the job too, not only this command")
    stop_seconds: float = Field(120.0, gt=0, description="Time that a stopped job has to end by itself [s]")
    heartbeat_seconds: float = Field(60.0, gt=0, description="Longest silence while the job says nothing [s]")
    patience_seconds: float = Field(300.0, gt=0, description="Longest time the cluster may be away while we wait [s]")
    driver_cpus: float = Field(0.0, ge=0, description="Logical CPUs held for the command on its node [CPUs]")
