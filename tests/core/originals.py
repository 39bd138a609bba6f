"""The generators of other people's code, written down from papers and documentation with the names that they give.

Small and plain: what an adopted network is compared with. Images as that code has them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.networks import build_network
from stylejobs.core.networks.layouts import Adopted

NORMS = {
    "instance": lambda channels: nn.InstanceNorm2d(channels),
    "affine_instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": lambda channels: nn.BatchNorm2d(channels),
}


class Blur(nn.Module):
    """The antialiasing layers of CUT: a constant `filt` for each channel."""

    def __init__(self, channels: int, up: bool):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        kernel = torch.outer(taps, taps)
        kernel = kernel / kernel.sum() * (4 if up else 1)
        self.up = up
        self.register_buffer("filt", kernel[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=x.shape[1])[:, :, 1:-1, 1:-1]


class Residual(nn.Module):
    """A block whose layers lie in a sequence of a name of its own."""

    def __init__(self, channels: int, norm: str, dropout: bool, word: str):
        super().__init__()
        bias = norm != "batch"

        def half() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), NORMS[norm](channels)]

        middle = [nn.ReLU(), nn.Dropout(0.5)] if dropout else [nn.ReLU()]
        self.word = word
        self.add_module(word, nn.Sequential(*half(), *middle, *half()))

    def forward(self, x: Tensor) -> Tensor:
        return x + getattr(self, self.word)(x)


class PublicResnet(nn.Module):
    """The residual generator of CycleGAN; antialiased it is CUT's. Images in [-1, 1]."""

    def __init__(
        self,
        width: int = 4,
        blocks: int = 2,
        norm: str = "instance",
        dropout: bool = False,
        blurs: tuple[bool, bool] = (False, False),
        word: str = "conv_block",
    ):
        super().__init__()
        bias, (blurs_down, blurs_up) = norm != "batch", blurs
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), NORMS[norm](width), nn.ReLU()]
        for channels in (width, 2 * width):
            stride = 1 if blurs_down else 2
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride, 1, bias=bias), NORMS[norm](2 * channels), nn.ReLU()]
            layers += [Blur(2 * channels, up=False)] * blurs_down
        layers += [Residual(4 * width, norm, dropout, word) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            if blurs_up:
                layers += [Blur(channels, up=True), nn.Conv2d(channels, channels // 2, 3, 1, 1, bias=bias)]
            else:
                layers += [nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1, bias=bias)]
            layers += [NORMS[norm](channels // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class ReflectedConv(nn.Module):
    """A convolution behind a reflection, and behind a doubling where it is asked for."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, upsample: bool = False):
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x
        return self.conv2d(self.reflection_pad(x))


class FastBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.in1 = ReflectedConv(channels, channels, 3), nn.InstanceNorm2d(channels, affine=True)
        self.conv2, self.in2 = ReflectedConv(channels, channels, 3), nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.in2(self.conv2(F.relu(self.in1(self.conv1(x))))) + x


class PublicFast(nn.Module):
    """fast_neural_style: pixels of [0, 255] to such pixels, unbounded."""

    def __init__(self, width: int = 4, blocks: int = 2):
        super().__init__()
        widths = {1: width, 2: 2 * width, 3: 4 * width, 4: 2 * width, 5: width}
        for number, channels in widths.items():
            setattr(self, f"in{number}", nn.InstanceNorm2d(channels, affine=True))
        self.conv1 = ReflectedConv(3, width, 9)
        self.conv2 = ReflectedConv(width, 2 * width, 3, stride=2)
        self.conv3 = ReflectedConv(2 * width, 4 * width, 3, stride=2)
        self.blocks = blocks
        for number in range(1, blocks + 1):
            setattr(self, f"res{number}", FastBlock(4 * width))
        self.deconv1 = ReflectedConv(4 * width, 2 * width, 3, upsample=True)
        self.deconv2 = ReflectedConv(2 * width, width, 3, upsample=True)
        self.deconv3 = ReflectedConv(width, 3, 9)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels
        for number in (1, 2, 3):
            x = F.relu(getattr(self, f"in{number}")(getattr(self, f"conv{number}")(x)))
        for number in range(1, self.blocks + 1):
            x = getattr(self, f"res{number}")(x)
        x = F.relu(self.in4(self.deconv1(x)))
        return self.deconv3(F.relu(self.in5(self.deconv2(x))))


class StarBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        halves = [[nn.Conv2d(channels, channels, 3, 1, 1, bias=False), _tracked(channels)] for _ in range(2)]
        self.main = nn.Sequential(*halves[0], nn.ReLU(), *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class PublicStarGan(nn.Module):
    """StarGAN's first generator, which is used in training mode, so that its norms are of the image."""

    def __init__(self, domains: int = 3, width: int = 4, blocks: int = 2):
        super().__init__()
        layers = [nn.Conv2d(3 + domains, width, 7, 1, 3, bias=False), _tracked(width), nn.ReLU()]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False), _tracked(2 * channels), nn.ReLU()]
        layers += [StarBlock(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            conv = nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)
            layers += [conv, _tracked(channels // 2), nn.ReLU()]
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 3, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        tiled = label[:, :, None, None].repeat(1, 1, *image.shape[-2:])
        return self.main(torch.cat([image, tiled], dim=1))


def public_vgg() -> nn.Sequential:
    """The normalised VGG-19 of AdaIN up to relu4_1 and one convolution more: RGB in [0, 1], reflections."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    channels = 3
    for stage, widths in enumerate(([64] * 2, [128] * 2, [256] * 4, [512] * 2)):
        layers += [nn.MaxPool2d(2, 2, ceil_mode=True)] if stage else []
        for width in widths:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def public_decoder() -> nn.Sequential:
    """AdaIN's decoder: features of relu4_1 to RGB, about [0, 1], unbounded."""
    layers: list[nn.Module] = []
    widths = [512, 256, "up", 256, 256, 256, 128, "up", 128, 64, "up", 64]
    channels = widths[0]
    for width in widths[1:]:
        if width == "up":
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            continue
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.ReflectionPad2d(1), nn.Conv2d(channels, 3, 3))


def public_adain(vgg: nn.Sequential, decoder: nn.Sequential, content: Tensor, style: Tensor) -> Tensor:
    """AdaIN of two images in [0, 1], deviations Bessel-corrected as torch's `var` is by default."""
    content, style = vgg[:31](content), vgg[:31](style)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.flatten(2)
        return flat.mean(dim=2)[..., None, None], (flat.var(dim=2) + 1e-5).sqrt()[..., None, None]

    (mean, std), (style_mean, style_std) = moments(content), moments(style)
    return decoder((content - mean) / std * style_std + style_mean)


def build_adopted(adopted: Adopted) -> nn.Module:
    """The network of ours with its weights, as a job would use it."""
    network = build_network(adopted.network, **adopted.options)
    network.load_state_dict(adopted.weights)
    return network.eval()


def draw_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every weight a value that is not neutral, features about their size all the way, and running statistics."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan_in = module.weight[0].numel() if isinstance(module, nn.Conv2d) else 9 * module.weight.shape[0] // 4
                module.weight.copy_(torch.randn(module.weight.shape, generator=rng) * (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=rng))
            elif isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d):
                if module.weight is not None:
                    module.weight.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=rng))
                    module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=rng))
                if module.running_mean is not None:
                    module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=rng))
                    module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=rng))
    return network


def draw_adain() -> tuple[nn.Sequential, nn.Sequential]:
    """VGG and decoder, whose features are of the size of 1, and whose pictures lie around the middle of [0, 1]."""
    vgg, decoder = draw_weights(public_vgg(), 1), draw_weights(public_decoder(), 2)
    with torch.no_grad():
        vgg[0].weight.copy_(2.0 * torch.eye(3).flip(0)[:, :, None, None] + 0.1 * vgg[0].weight)
        vgg[0].bias.fill_(-1.0)
        decoder[28].weight.mul_(0.3)
        decoder[28].bias.add_(0.5)
    return vgg.eval(), decoder.eval()


def draw_images(*shape: int, seed: int = 0) -> Tensor:
    """Smooth noise in [-1, 1], float32."""
    batch, channels, height, width = shape
    rng = torch.Generator().manual_seed(seed)
    coarse = 2.0 * torch.randn(batch, channels, -(-height // 4), -(-width // 4), generator=rng)
    return torch.tanh(F.interpolate(coarse, size=(height, width), mode="bilinear"))


def _tracked(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)
