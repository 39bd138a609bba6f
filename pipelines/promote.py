"""a registered version -> the alias that jobs follow.

python -m pipelines.promote model=models:/mosaic@candidate
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def promote(config: "api.PromoteConfig") -> "api.JobResult":
    """Moves `champion` (or another alias) to the version; refuses one that does not exist."""
    return api.promote(config)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("promote", promote, argv)


if __name__ == "__main__":
    sys.exit(main())
