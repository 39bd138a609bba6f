"""a model with the network of CycleGAN or CUT -> weights that their public code loads.

python -m pipelines.export model=models:/vintage@champion out=net_G.safetensors

There: net.load_state_dict(safetensors.torch.load_file("net_G.safetensors"))
"""

import sys
from collections.abc import Sequence

from stylejobs import api


def export(config: "api.ExportConfig") -> "api.JobResult":
    """Names every weight as that code does; no pickle is written."""
    return api.export(config)


def main(argv: Sequence[str] | None = None) -> int:
    return api.run_command("export", export, argv)


if __name__ == "__main__":
    sys.exit(main())
