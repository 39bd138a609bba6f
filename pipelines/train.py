"""image shards -> a registered version, alias `candidate`.

python -m pipelines.train conf/train/fast.yaml conf/site/laptop.yaml content=shards/ style=style.png name=mosaic
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def train(config: "api.TrainConfig") -> "api.JobResult":
    """Trains a generator with DDP on the cluster, tracked in MLflow, and registers what came out."""
    plan = api.plan_training(config)
    trained = api.train(config, plan)
    return api.register(config, trained)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("train", train, argv)


if __name__ == "__main__":
    sys.exit(main())
