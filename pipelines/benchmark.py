"""this cluster -> a receipt: where the time goes, images/s, what a million cost.

python -m pipelines.benchmark
python -m pipelines.benchmark source=shards/ model=models:/mosaic@champion prices.gpu_hour=2.5
RAY_ADDRESS=auto python -m pipelines.benchmark dest=s3://bucket/benchmark cluster.actor_gpus=1
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def benchmark(config: "api.BenchmarkConfig") -> "api.JobResult":
    """A small job through the whole path of an image, in a folder that is gone afterwards."""
    with api.benchmark_place(config) as place:  # on a running Ray
        job, model = api.plan_benchmark(config, place)  # some units of the source, or of pictures that are made
        return api.benchmark(config, job, model)  # the receipt is in the result, and a table on stderr


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("benchmark", benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
