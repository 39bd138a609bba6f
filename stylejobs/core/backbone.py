"""Frozen feature networks. The only module that knows ImageNet statistics; weights come in as a state dict."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stylejobs.core.choices import choose

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_MIN_PX = 32  # the deepest layers need 16 px (VGG) or 17 px (SqueezeNet); below 32 they see one or two cells

_SQUEEZENET_LAYERS = {
    "conv1": 1,
    **{f"fire{number}": index for number, index in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True)},
}


def _vgg_layers(convs_per_stage: Sequence[int]) -> dict[str, int]:
    """Names such as relu3_2 to their places: a conv and a ReLU each, and a max-pool after each stage."""
    layers, index = {}, 0
    for stage, num_convs in enumerate(convs_per_stage, start=1):
        for conv in range(1, num_convs + 1):
            layers[f"relu{stage}_{conv}"] = index + 1
            index += 2
        index += 1
    return layers


_VGG_STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
_ALEXNET_LAYERS = {"relu1": 1, "relu2": 4, "relu3": 7, "relu4": 9, "relu5": 11}
# name, which is also torchvision's -> (layer -> index in its `features`, content layer, style layers)
_ARCHITECTURES = {
    "squeezenet1_1": (_SQUEEZENET_LAYERS, "fire4", ("fire2", "fire4", "fire7", "fire9")),
    "vgg16": (_vgg_layers((2, 2, 3, 3, 3)), "relu3_3", _VGG_STYLE_LAYERS),
    "vgg19": (_vgg_layers((2, 2, 4, 4, 4)), "relu3_3", _VGG_STYLE_LAYERS),
    "alexnet": (_ALEXNET_LAYERS, "relu3", tuple(_ALEXNET_LAYERS)),  # for LPIPS
}
BACKBONES = tuple(_ARCHITECTURES)
_WIDE_LAYERS = {"fc6": "1", "fc7": "4"}  # the ReLUs of a VGG's classifier, by torchvision's names


class Backbone(nn.Module):
    """A frozen feature network: images in [-1, 1] to named feature maps.

    Gradients flow to the images, never to the weights. `layers` are the names it knows, from shallow to deep; every
    named feature map is taken after its ReLU. `architecture` is the network's name in torchvision; `content_layer` and
    `style_layers` are good defaults.
    A VGG whose weights came with the classifier also has its two wide layers, "fc6" and "fc7", as maps of one cell, for
    images of any size: as in torchvision, the last features are averaged to 7x7 cells before them.
    Built by `build_backbone` or `build_random_backbone`.
    """

    def __init__(
        self,
        name: str,
        architecture: str,
        state_dict: Mapping[str, Tensor],
        classifier: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        indices, self.content_layer, self.style_layers = _ARCHITECTURES[architecture]
        self.name, self.architecture = name, architecture
        self.features = _empty_features(architecture)
        self.features.load_state_dict(dict(state_dict), strict=True, assign=True)
        self._indices, self.wide = dict(indices), nn.Sequential()
        if classifier:
            self.wide = _empty_wide_layers()
            self.wide.load_state_dict(dict(classifier), strict=True, assign=True)
            places = list(dict(self.wide.named_children()))
            for layer, place in _WIDE_LAYERS.items():
                self._indices[layer] = len(self.features) + places.index(place)
        self.register_buffer("_mean_C11", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("_std_C11", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, from shallow to deep."""
        return tuple(self._indices)

    def forward(self, image_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Feature maps; computes no deeper than the deepest layer asked for.

        Args:
            image_BCHW: float, RGB in [-1, 1], both sides at least 32 px.
            layers: names out of `self.layers`.

        Returns:
            layer name -> features_BCHW, in the order asked for; [B, 4096, 1, 1] for "fc6" and "fc7".

        Raises:
            ValueError: an unknown layer, or an image that is too small.
        """
        if self.name.startswith("vgg") and not self.wide and set(layers) & set(_WIDE_LAYERS):
            raise ValueError(
                f"backbone {self.name}: fc6 and fc7 wanted weights with the classifier; got features alone, or another "
                "classifier; give the whole weights file, or ask for other layers"
            )
        wanted = {choose(f"layer of {self.name}", self._indices, layer) for layer in layers}
        if min(image_BCHW.shape[-2:]) < _MIN_PX:
            raise ValueError(
                f"backbone {self.name}: wanted images of at least {_MIN_PX}x{_MIN_PX} px; "
                f"got {image_BCHW.shape[-2]}x{image_BCHW.shape[-1]}; scale them up"
            )
        features_BCHW = ((image_BCHW + 1.0) / 2.0 - self._mean_C11) / self._std_C11
        by_index = {}
        for index, module in enumerate([*self.features, *self.wide][: max(wanted, default=-1) + 1]):
            features_BCHW = module(features_BCHW)
            if index in wanted:
                by_index[index] = features_BCHW if features_BCHW.ndim == 4 else features_BCHW[:, :, None, None]
        return {layer: by_index[self._indices[layer]] for layer in layers}


def build_backbone(name: str, state_dict: Mapping[str, Tensor], wide_layers: bool = True) -> Backbone:
    """A backbone with trained weights.

    Args:
        name: "squeezenet1_1", "vgg16", "vgg19" or "alexnet".
        state_dict: torchvision's names, with or without `features.` in front and with or without the classifier.
        wide_layers: keep "fc6" and "fc7" of a VGG if their weights are there; they take 480 MB. A classifier of other
            shapes, such as a fine-tuned one, is left out as well.

    Raises:
        ValueError: no such backbone, or weights that are not this backbone's: says which are missing, not known, or of
            another shape.
    """
    choose("backbone", _ARCHITECTURES, name)
    weights = {
        key.removeprefix("features."): value for key, value in state_dict.items() if not key.startswith("classifier.")
    }
    wanted = {key: tuple(value.shape) for key, value in _empty_features(name).state_dict().items()}
    problems = [
        *(f"missing {key} {list(shape)}" for key, shape in wanted.items() if key not in weights),
        *(f"not known {key} {list(value.shape)}" for key, value in weights.items() if key not in wanted),
        *(
            f"wrong shape {key}: wanted {list(shape)}, got {list(weights[key].shape)}"
            for key, shape in wanted.items()
            if key in weights and tuple(weights[key].shape) != shape
        ),
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"wanted the {len(wanted)} tensors of torchvision's {name}.features; got others: "
            f"{'; '.join(problems[:8])}{more}; give the weights file of {name}, or name another backbone"
        )
    classifier = _find_classifier(state_dict) if wide_layers and name.startswith("vgg") else {}
    return Backbone(name, name, {key: _copy(weights[key]) for key in wanted}, classifier)


def build_random_backbone(seed: int) -> Backbone:
    """SqueezeNet 1.1 with random weights (He 2015, normal) and zero biases: for measures, never a training target.

    The same seed gives the same weights on every machine. Distances on one such network depend on its seed: average
    over several.
    """
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in _empty_features("squeezenet1_1").state_dict().items():
        if value.ndim == 1:
            weights[key] = torch.zeros(value.shape)
        else:
            weights[key] = torch.randn(value.shape, generator=rng) * (2.0 / value[0].numel()) ** 0.5
    return Backbone(f"random_squeezenet1_1_{seed}", "squeezenet1_1", weights)


def fold_unit_input(kernel_OIHW: Tensor, bias_O: Tensor) -> tuple[Tensor, Tensor]:
    """A first convolution of RGB in [0, 1], as one of the normalised RGB that a `Backbone` gives its first layer.

    x = std * z + mean for each colour, so the kernel becomes W * std, and the bias grows by the sum of W * mean. Exact
    at the border too where the convolution reflects there; not where it has zeros.

    Args:
        kernel_OIHW: float, I = 3; `bias_O` likewise.

    Returns:
        (kernel_OIHW, bias_O), float64.
    """
    mean_C, std_C = torch.tensor(_MEAN, dtype=torch.float64), torch.tensor(_STD, dtype=torch.float64)
    wide_OIHW = kernel_OIHW.double()
    shift_O = (wide_OIHW * mean_C[:, None, None]).sum(dim=(1, 2, 3))
    return wide_OIHW * std_C[:, None, None], bias_O.double() + shift_O


def _empty_features(architecture: str) -> nn.Sequential:
    # torchvision takes as long to import as torch; most processes that know backbones never build one.
    from torchvision import models

    # On "meta", torchvision neither allocates the classifier (500 MB for VGG) nor draws weights that are thrown away.
    with torch.device("meta"):
        options = {"init_weights": False} if architecture.startswith("vgg") else {}
        return getattr(models, architecture)(weights=None, **options).features


def _find_classifier(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the wide layers' weights; nothing if they are not all there in VGG's shapes."""
    wanted = {key: value.shape for key, value in _empty_wide_layers().state_dict().items()}
    found = {key: state_dict[f"classifier.{key}"] for key in wanted if f"classifier.{key}" in state_dict}
    fits = all(key in found and found[key].shape == shape for key, shape in wanted.items())
    return {key: _copy(value) for key, value in found.items()} if fits else {}


def _empty_wide_layers() -> nn.Sequential:
    # Named as in torchvision's classifier, whose "2" is dropout: the identity in a frozen network.
    with torch.device("meta"):
        modules = {
            "pool": nn.AdaptiveAvgPool2d(7),
            "flatten": nn.Flatten(),
            "0": nn.Linear(512 * 7 * 7, 4096),
            "1": nn.ReLU(),
            "3": nn.Linear(4096, 4096),
            "4": nn.ReLU(),
        }
    return nn.Sequential(OrderedDict(modules))


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.float32, copy=True)
