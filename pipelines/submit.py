"""any verb -> a job on a Ray cluster, followed to its end.

python -m pipelines.submit stylize address=http://127.0.0.1:8265 source=s3://in dest=s3://out model=models:/m@champion
python -m pipelines.submit train address=http://127.0.0.1:8265 detach=true conf/train/cyclegan.yaml ...
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def submit(submission: "api.Submission") -> "api.JobResult":
    """The verb runs there; what it prints is seen here, and its exit code is ours."""
    return api.submit(submission)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("submit", submit, argv, api.load_submission)


if __name__ == "__main__":
    sys.exit(main())
