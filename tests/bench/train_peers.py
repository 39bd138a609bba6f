"""What our training is compared with: a CycleGAN's step as people write it without us, and the public code's own step.

`PlainCyclegan` is a good engineer's afternoon: the same networks, losses, pools and fused Adam in plain PyTorch, no
more. `public_step` runs somebody else's code out of a folder; none of it is kept here.
"""

import importlib
import random
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.networks import build_network
from stylejobs.core.networks.critics import build_critic
from tests.bench.train_runs import POOL, Size


class PlainCyclegan:
    """Two generators, two critics, LSGAN, cycle and identity losses; batches float [B, 3, H, W] in [-1, 1].

    Its steps are those of our cyclegan: tests/engine/test_training_plain.py.
    """

    def __init__(self, size: Size):
        torch.manual_seed(0)
        self._to_y, self._to_x = (build_network("resnet", **size.generator) for _ in range(2))
        self._critic_y, self._critic_x = (build_critic("patch", width=size.width) for _ in range(2))
        self.networks = {
            "generator": self._to_y, "inverse": self._to_x, "critic_x": self._critic_x, "critic_y": self._critic_y,
        }  # fmt: skip
        generators = [*self._to_y.parameters(), *self._to_x.parameters()]
        self._critics = [*self._critic_y.parameters(), *self._critic_x.parameters()]
        self._adam_generators, self._adam_critics = (
            torch.optim.Adam(weights, lr=2e-4, betas=(0.5, 0.999), fused=True)
            for weights in (generators, self._critics)
        )
        self._x_pool: list[Tensor] = []
        self._y_pool: list[Tensor] = []

    def step(self, x_BCHW: Tensor, y_BCHW: Tensor) -> None:
        """Generators, then critics."""
        code_B0 = x_BCHW.new_zeros(len(x_BCHW), 0)
        for weight in self._critics:
            weight.requires_grad_(False)
        fake_y_BCHW, fake_x_BCHW = self._to_y(x_BCHW, code_B0), self._to_x(y_BCHW, code_B0)
        logits = self._critic_y(fake_y_BCHW), self._critic_x(fake_x_BCHW)
        cycles = (self._to_x(fake_y_BCHW, code_B0), x_BCHW), (self._to_y(fake_x_BCHW, code_B0), y_BCHW)
        same = (self._to_y(y_BCHW, code_B0), y_BCHW), (self._to_x(x_BCHW, code_B0), x_BCHW)
        loss = sum(((real - 1) ** 2).mean() for real in logits)
        loss = loss + 10.0 * sum(F.l1_loss(*pair) for pair in cycles) + 5.0 * sum(F.l1_loss(*pair) for pair in same)
        self._adam_generators.zero_grad()
        loss.backward()
        self._adam_generators.step()
        for weight in self._critics:
            weight.requires_grad_(True)
        old_y_BCHW, old_x_BCHW = (
            torch.stack([_query(pool, fake_CHW) for fake_CHW in fake_BCHW.detach()])
            for pool, fake_BCHW in ((self._y_pool, fake_y_BCHW), (self._x_pool, fake_x_BCHW))
        )
        judged = (self._critic_y, y_BCHW, old_y_BCHW), (self._critic_x, x_BCHW, old_x_BCHW)
        loss = sum(
            0.5 * ((critic(real) - 1) ** 2).mean() + 0.5 * (critic(fake) ** 2).mean() for critic, real, fake in judged
        )
        self._adam_critics.zero_grad()
        loss.backward()
        self._adam_critics.step()


def _query(pool: list[Tensor], fake_CHW: Tensor) -> Tensor:
    if len(pool) < POOL:
        pool.append(fake_CHW.clone())
        return fake_CHW
    if random.random() < 0.5:
        return fake_CHW
    place = random.randrange(POOL)
    old_CHW, pool[place] = pool[place], fake_CHW.clone()
    return old_CHW


def public_step(folder: Path, size: Size) -> Callable[[Tensor, Tensor], None]:
    """One `optimize_parameters()` of the authors' PyTorch code, with networks of this size and its own defaults else.

    Args:
        folder: a checkout of github.com/junyanz/pytorch-CycleGAN-and-pix2pix.
    """
    sys.path.insert(0, str(folder))
    model = importlib.import_module("models.cycle_gan_model").CycleGANModel(
        Namespace(
            isTrain=True, gpu_ids=[], device=torch.device("cpu"), checkpoints_dir="", name="", preprocess="none",
            direction="AtoB", input_nc=3, output_nc=3, ngf=size.width, ndf=size.width,
            netG=f"resnet_{size.blocks}blocks", netD="basic", n_layers_D=3, norm="instance", no_dropout=True,
            init_type="normal", init_gain=0.02, pool_size=POOL, gan_mode="lsgan", lr=2e-4, beta1=0.5,
            lambda_A=10.0, lambda_B=10.0, lambda_identity=0.5,
        )
    )  # fmt: skip

    def step(x_BCHW: Tensor, y_BCHW: Tensor) -> None:
        model.set_input({"A": x_BCHW, "B": y_BCHW, "A_paths": [], "B_paths": []})
        model.optimize_parameters()

    return step
