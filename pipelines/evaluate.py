"""versions x evaluation set -> measures with intervals, gate verdict, montage.

python -m pipelines.evaluate model=models:/mosaic@candidate data=held-out/ style=paintings/
python -m pipelines.evaluate model=models:/mosaic/3 baseline=models:/mosaic@champion data=held-out/ style=paintings/
python -m pipelines.evaluate model=builtin:moments data=held-out/ style=paintings/ calibrate=true gates=none
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def evaluate(config: "api.EvaluateConfig") -> "api.JobResult":
    """Candidate and baseline on the same images; the verdict is what promote will ask for."""
    plan = api.plan_panel(config)  # models pinned, images and gates found: what is missing ends the command here
    return api.evaluate(config, plan)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("evaluate", evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
