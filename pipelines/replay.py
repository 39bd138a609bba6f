"""one row of a stylized dataset -> the same picture again, compared with the one that is stored.

python -m pipelines.replay dest=stylized/ key=cats/17.jpg
python -m pipelines.replay dest=stylized/ key=cats/17.jpg variant=2 out=again.jpg
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def replay(config: "api.ReplayConfig") -> "api.JobResult":
    """From its lineage, its source and the model that lies in the dataset; of a dead letter it says why it died."""
    return api.replay(config)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("replay", replay, argv)


if __name__ == "__main__":
    sys.exit(main())
