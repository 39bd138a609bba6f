"""images anywhere -> image shards.

python -m pipelines.ingest source=photos/ dest=shards/ labels=folder
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def ingest(config: "api.IngestConfig") -> "api.JobResult":
    """Checks and normalises every image; what cannot be used becomes a dead letter with a reason."""
    job = api.plan_ingest(config)
    return api.ingest(config, job)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("ingest", ingest, argv)


if __name__ == "__main__":
    sys.exit(main())
