"""a stylized dataset -> proof that every row of its source is accounted for.

python -m pipelines.verify dest=stylized/
python -m pipelines.verify dest=stylized/ sample=100
python -m pipelines.verify dest=stylized/ mend=true
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def verify(config: "api.VerifyConfig") -> "api.JobResult":
    """Every row once per variant or a dead letter, digests, pictures, lineage; some rows made again."""
    return api.verify(config)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("verify", verify, argv)


if __name__ == "__main__":
    sys.exit(main())
