"""shards x version x styles -> stylized shards (the main job).

python -m pipelines.stylize source=shards/ dest=stylized/ model=models:/mosaic@champion
python -m pipelines.stylize source=shards/ dest=stylized/ model=builtin:moments styles=style.png
python -m pipelines.stylize retry=stylized/ retry_reasons=oom,timeout row_seconds=600
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def stylize(config: "api.StylizeConfig") -> "api.JobResult":
    """Every row of the source once per variant, exactly once, or a dead letter that says why not."""
    if config.retry:
        return api.stylize(*api.plan_retry(config))  # only dead rows, merged into the files of their units
    job, model = api.plan_stylize(config)  # footers only; the model's alias becomes a version and a digest, once
    if config.plan is True:
        return api.describe_plan(config, job, model)  # what it will take, into plan.json; plan=PATH then does just that
    return api.stylize(config, job, model)  # units that are done are skipped, the rest go through Ray Data


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("stylize", stylize, argv)


if __name__ == "__main__":
    sys.exit(main())
