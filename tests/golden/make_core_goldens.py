"""Makes core_goldens.json: numbers that a change of the core must not move by accident.

Run `python tests/golden/make_core_goldens.py` after a change that is meant to move them, and say in the change why.
Everything is drawn from fixed seeds on the CPU; nothing is read but this file. Numbers hold to the tolerance in
test_core_goldens.py on other machines, whose kernels may sum in another order.
"""

import json
from pathlib import Path
from typing import Any

import torch

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.draws import Draws
from stylejobs.core.methods import Ingredients, Method, Step, build_method, moment_at, take_step
from stylejobs.core.networks import build_network
from stylejobs.core.networks.classifier import Classifier
from stylejobs.core.networks.critics import build_critic
from stylejobs.core.networks.radford2016 import DcganGenerator

GOLDENS_PATH = Path(__file__).with_name("core_goldens.json")


def picture(height: int, width: int, phase: float) -> torch.Tensor:
    """Coloured waves [1, 3, H, W] in [-1, 1]: a picture out of a formula, the same for every random generator."""
    rows, columns = torch.arange(height)[:, None] / 6.0, torch.arange(width)[None] / 5.0
    channels = [torch.sin(rows * (k + phase) + phase) * torch.cos(columns + k * phase) for k in (1.0, 1.5, 2.0)]
    return torch.stack(channels)[None]


def fill_weights(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights by generator and not by torch's initialisers, whose order of draws may change between versions."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=rng) * weight[0].numel() ** -0.5)
            else:
                weight.copy_(1.0 + 0.1 * torch.randn(weight.shape, generator=rng))
    return network


def numbers_of(image: torch.Tensor) -> list[float]:
    """Sixteen pixels along the diagonal of the flat tensor, then its mean and standard deviation."""
    flat = image.detach().flatten().double()
    picked = flat[torch.linspace(0, flat.numel() - 1, 16).long()]
    return [round(value, 7) for value in [*picked.tolist(), flat.mean().item(), flat.std().item()]]


def johnson_output() -> list[float]:
    network = fill_weights(build_network("johnson", width=8, blocks=2), 0)
    return numbers_of(network(picture(37, 42, 0.3), torch.zeros(1, 0)))


def moments_output() -> list[float]:
    network = build_network("moments")
    return numbers_of(network(picture(37, 42, 0.3), network.encode_style(picture(20, 20, 1.1))))


def resnet_output() -> list[float]:
    """Of both upsamplings, the second with an adapter and one tied block."""
    networks = (
        build_network("resnet", width=8, blocks=2),
        build_network("resnet", width=8, blocks=3, upsample="transposed", tied=True, adapter=True),
    )
    images = [fill_weights(network, 0)(picture(37, 42, 0.3), torch.zeros(1, 0)) for network in networks]
    return [number for image in images for number in numbers_of(image)]


def encoder_decoder_output() -> list[float]:
    network = fill_weights(build_network("encoder_decoder", width=8), 0)
    return numbers_of(network(picture(37, 42, 0.3), torch.zeros(1, 0)))


def label_conditioned_output() -> list[float]:
    network = fill_weights(build_network("label_conditioned", domains=3, width=8, blocks=2), 0)
    return numbers_of(network(picture(37, 42, 0.3), torch.tensor([[0.0, 0.75, 0.25]])))


def weaken(head: torch.nn.Module) -> None:
    """A tenth of the weights and biases: the tanh that follows is then not saturated."""
    with torch.no_grad():
        for weight in head.parameters(recurse=False):
            weight.mul_(0.1)


def adain_output() -> list[float]:
    """Of AdaIN alone, and with style attention; the second half is the style code of the first."""
    numbers = []
    for options in ({}, {"attention": True, "grid": 3}):
        network = fill_weights(build_network("adain", width_scale=0.1, **options), 0)
        weaken(network.decoder.body[-1])
        style = network.encode_style(picture(40, 40, 1.1))
        numbers += numbers_of(network(picture(37, 42, 0.3), style)) + numbers_of(style)
    return numbers


def attention_recurrent_output() -> list[float]:
    network = fill_weights(build_network("attention_recurrent", width=4, grid=3), 0)
    return numbers_of(network(picture(37, 42, 0.3), network.encode_style(picture(20, 20, 1.1))))


def style_modulated_output() -> list[float]:
    """In the style of an image and in a drawn one."""
    network = fill_weights(build_network("style_modulated", width=4, style_dim=6), 0)
    weaken(network.synthesis.to_rgb)
    styles = network.encode_style(picture(20, 20, 1.1)), network.draw_style(3)[None]
    return [number for style in styles for number in numbers_of(network(picture(37, 42, 0.3), style))]


def exemplar_output() -> list[float]:
    network = fill_weights(build_network("exemplar", latent=8, width=4, size_px=16, width_scale=0.1), 0)
    return numbers_of(network.draw_exemplar(3)) + numbers_of(network.draw_style(3))


def histogram_output() -> list[float]:
    network = build_network("histogram")
    return numbers_of(network(picture(37, 42, 0.3), network.encode_style(picture(20, 20, 1.1))))


def fda_output() -> list[float]:
    network = build_network("fda")
    return numbers_of(network(picture(37, 42, 0.3), network.encode_style(picture(20, 20, 1.1))))


def dcgan_output() -> list[float]:
    generator = fill_weights(DcganGenerator(latent=16, width=4, size_px=32), 0)
    return numbers_of(generator(torch.linspace(-2.0, 2.0, 16)[None]))


def critic_outputs() -> list[float]:
    """The logits of every critic, in the order of their names."""
    images = torch.cat([picture(64, 64, 0.3), picture(64, 64, 1.1)])
    options = {
        "dcgan": {"width": 4, "size_px": 64},
        "multiscale": {"width": 4, "scales": 2},
        "patch": {"width": 4},
        "patch_domain": {"width": 4, "layers": 3, "domains": 2},
    }
    numbers = []
    for name in sorted(options):
        logits = fill_weights(build_critic(name, **options[name]), 0)(images)
        for tensor in [logits] if isinstance(logits, torch.Tensor) else logits:
            numbers += numbers_of(tensor)
    return numbers


def classifier_output() -> list[float]:
    """Logits of two pictures, and of one of another size."""
    network = fill_weights(Classifier(("a", "b", "c"), width=8), 0)
    logits = [network(picture(*size, phase)) for size, phase in (((37, 42), 0.3), ((37, 42), 1.1), ((64, 50), 0.7))]
    return numbers_of(torch.cat(logits))


def fast_losses() -> list[float]:
    """The total loss of 20 steps of `fast` on a random backbone."""
    options = {"content_weight": 1.0, "style_weight": 1.0, "tv_weight": 0.05, "learning_rate": 1e-3}
    images = {"waves": picture(48, 48, 1.1)}
    ingredients = Ingredients({"width": 8, "blocks": 1}, {}, build_random_backbone(0), images, ("content", "waves"))
    method = build_method("fast", ingredients, **options)
    fill_weights(method.networks["generator"], 0)
    optimizers = method.build_optimizers(method.networks)
    losses = []
    for step in range(20):
        batch = {"content": torch.cat([picture(40, 40, 0.2 + 0.05 * step), picture(40, 40, 0.7)])}
        moment = moment_at(method.phases, step + 1, 2 * step, 40, Draws(torch.Generator()))
        taken = take_step(method, method.networks, optimizers, Step(batch, moment))
        losses.append(round(taken.losses["total/generator"].item(), 6))
    return losses


def curve(method: Method, totals: tuple[str, ...]) -> list[float]:
    """Total losses of 20 steps on two domains of waves; of a player that rests in a step, nothing."""
    for seed, network in enumerate(method.networks.values()):
        fill_weights(network, seed)
    optimizers, rng = method.build_optimizers(method.networks), torch.Generator().manual_seed(0)
    losses = []
    for step in range(20):
        content = torch.cat([picture(32, 32, 0.2 + 0.05 * step), picture(32, 32, 0.7)])
        style = 0.5 * torch.cat([picture(32, 32, 1.1), picture(32, 32, 1.3 + 0.05 * step)]).abs()
        batch = {"content": content, "style": style, "style_domain": torch.tensor([1, 1])}
        batch["content_domain"] = torch.tensor([0, 1])
        moment = moment_at(method.phases, step + 1, 2 * step, 40, Draws(rng))
        taken = take_step(method, method.networks, optimizers, Step(batch, moment))
        losses += [round(taken.losses[name].item(), 6) for name in totals if name in taken.losses]
    return losses


def cyclegan_losses() -> list[float]:
    ingredients = Ingredients({"width": 4, "blocks": 1}, {"width": 4, "layers": 2})
    return curve(build_method("cyclegan", ingredients, pool=4), ("total/generator", "total/critic"))


def cut_losses() -> list[float]:
    ingredients = Ingredients({"width": 4, "blocks": 2}, {"width": 4, "layers": 2})
    return curve(build_method("cut", ingredients, num_patches=32), ("total/generator", "total/critic"))


def stargan_losses() -> list[float]:
    ingredients = Ingredients({"width": 4, "blocks": 1}, {"width": 4, "layers": 3})
    return curve(build_method("stargan", ingredients), ("total/generator", "total/critic"))


def classifier_losses() -> list[float]:
    method = build_method("classifier", Ingredients({"width": 4, "size_px": 32}, domains=("moving", "still")))
    return curve(method, ("total/classifier",))


def judged(generator: dict[str, Any], critic: dict[str, Any] | None = None) -> Ingredients:
    """With a random backbone and one style image."""
    return Ingredients(generator, critic or {}, build_random_backbone(0), {"waves": picture(48, 48, 1.1)})


def adain_losses() -> list[float]:
    return curve(build_method("adain", judged({"width_scale": 0.1}), learning_rate=2e-4), ("total/decoder",))


def exemplar_losses() -> list[float]:
    """Ten steps of the critic, with the exemplars' generator in every other one, then ten of the decoder."""
    generator = {"latent": 8, "width": 4, "size_px": 32, "width_scale": 0.1}
    method = build_method("exemplar", judged(generator, {"width": 4}), critic_steps=2, learning_rate=3e-4)
    return curve(method, ("total/critic", "total/exemplars", "total/decoder"))


def fst_losses() -> list[float]:
    """All nine phases."""
    ingredients = judged({"width": 4, "steps": 2}, {"width": 4, "layers": 2})
    method = build_method("fst", ingredients, phases=(0.3, 0.3, 0.4))
    return curve(method, ("total/encoder", "total/decoder", "total/interpolation", "total/critic"))


def content_gan_losses() -> list[float]:
    """Five steps of the generator, five of the critic, ten of both."""
    ingredients = judged({"width": 4, "blocks": 1}, {"width": 4, "layers": 2})
    method = build_method("content_gan", ingredients, phases=(0.25, 0.25, 0.5))
    return curve(method, ("total/generator", "total/critic"))


def make() -> dict[str, list[float]]:
    return {
        "johnson_output": johnson_output(),
        "moments_output": moments_output(),
        "resnet_output": resnet_output(),
        "encoder_decoder_output": encoder_decoder_output(),
        "label_conditioned_output": label_conditioned_output(),
        "adain_output": adain_output(),
        "attention_recurrent_output": attention_recurrent_output(),
        "style_modulated_output": style_modulated_output(),
        "exemplar_output": exemplar_output(),
        "fda_output": fda_output(),
        "histogram_output": histogram_output(),
        "dcgan_output": dcgan_output(),
        "critic_outputs": critic_outputs(),
        "classifier_output": classifier_output(),
        "fast_losses": fast_losses(),
        "cyclegan_losses": cyclegan_losses(),
        "cut_losses": cut_losses(),
        "stargan_losses": stargan_losses(),
        "adain_losses": adain_losses(),
        "exemplar_losses": exemplar_losses(),
        "fst_losses": fst_losses(),
        "content_gan_losses": content_gan_losses(),
        "classifier_losses": classifier_losses(),
    }


if __name__ == "__main__":
    GOLDENS_PATH.write_text(json.dumps(make(), indent=1) + "\n")
