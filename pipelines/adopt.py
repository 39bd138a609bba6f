"""a checkpoint that other code made -> a registered version, alias `candidate`.

python -m pipelines.adopt checkpoint=latest_net_G_A.pth family=cyclegan name=vintage
python -m pipelines.adopt checkpoint=decoder.pth encoder=vgg_normalised.pth family=adain name=any styles=a.png,b.png
python -m pipelines.adopt checkpoint=200000-G.ckpt family=stargan name=faces styles=black,blond,brown,male,young
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def adopt(config: "api.AdoptConfig") -> "api.JobResult":
    """Reads tensors alone (a pickle that would run code is refused), finds the network that fits, and registers it."""
    return api.adopt(config)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("adopt", adopt, argv)


if __name__ == "__main__":
    sys.exit(main())
