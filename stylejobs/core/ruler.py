"""What sets of images are worth, from descriptions of them: measures with intervals, and how two models differ.

A *description* is a dict of tensors with images along dim 0. It is computed image by image (`describe_images`), on any
machine and in any batches; the `Ruler` of a panel joins what was described, on one:

    ruler = Ruler(describe_images(networks, content_BCHW, content_BCHW), describe_images(networks, style_BCHW))
    made = describe_images(networks, made_BCHW, content_BCHW)
    ruler.measure(made)                                  # name -> Interval
    ruler.gains(made, other), ruler.ratios(made, other)  # paired: both were made of the same contents

Here lives how measures are put together; what each is, is in `core.metrics` and `core.mmd`.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from stylejobs.core.backbone import Backbone
from stylejobs.core.bootstrap import Interval, mean_interval, share_interval
from stylejobs.core.gap import Gap
from stylejobs.core.metrics import (
    Lpips,
    SlicedRuler,
    artfid_interval,
    clipped_share,
    coverage,
    describe_edges,
    edge_cosine,
    frechet_gain,
    frechet_interval,
    identify,
    is_constant,
    is_identity,
    laplacian_patches,
    ms_ssim,
    nyquist_energy,
    pairwise_gain,
    pairwise_interval,
    panel_descriptors,
    project_patches,
    quantile_gain,
    quantile_interval,
    ratio_interval,
    sliced_gain,
    sliced_interval,
    sliced_ratio,
)
from stylejobs.core.metrics.inception import Inception
from stylejobs.core.mmd import Kernels, colour_free, describe, style_gain, style_score

Described = Mapping[str, Tensor]

_VIEWS = {"style_raw": "raw", "style": "colour_free"}
_MEANS = ("edge_cosine", "ms_ssim", "clipped", "lpips")
_SHARES = ("constant", "identity")
_LOWER_IS_BETTER = ("clipped", "lpips", "constant", "identity")
_OF_PAIRS = ("edge_cosine", "ms_ssim", "lpips", "clipped", "identity")
_LOW_SHARE = 0.05

CLASSES = "class"
"""Name of a classifier's answers, int64 [N], in a description: `label_agreement` is measured where it is there."""

INCEPTION = "inception"
"""Name of the FID's features, float32 [N, 2048], in a description: `fid` is measured where they are there."""


@torch.no_grad()
def describe_images(
    networks: tuple[Backbone, ...],
    image_BCHW: Tensor,
    source_BCHW: Tensor | None = None,
    seed: int = 0,
    lpips: Lpips | None = None,
    inception: Inception | None = None,
) -> dict[str, Tensor]:
    """All that the measures need to know of images.

    Args:
        networks: of `mmd.build_networks`, on the images' device.
        image_BCHW: float, RGB, [-1, 1], at least 32 px; all images of a panel have one size.
        source_BCHW: the images that they were made of; None for images that were made of none, which then have no
            `edge_cosine`, `ms_ssim`, `identity` and `lpips`.
        seed: of the places of patches; one for all sets that are compared.
        lpips, inception: on the images' device; without them there are no `lpips`, or no `fid`, and no `artfid`.

    Returns:
        name -> tensor on the CPU, images along dim 0. What is large (edges, patches) is float16: three digits are ten
        times what sums over thousands of them need.
    """
    found = {
        "raw": describe(networks, image_BCHW).transpose(0, 1).float(),
        "colour_free": describe(networks, colour_free(image_BCHW)).transpose(0, 1).float(),
        "edges": describe_edges(image_BCHW).half(),
        "clipped": clipped_share(image_BCHW, source_BCHW),
        "constant": is_constant(image_BCHW),
        "nyquist": nyquist_energy(image_BCHW),
    }
    for level, patches_BKD in enumerate(laplacian_patches(image_BCHW, seed)):
        found[f"patches_{level}"] = project_patches(patches_BKD).half()
    if source_BCHW is not None:
        found |= {
            "edge_cosine": edge_cosine(image_BCHW, source_BCHW),
            "ms_ssim": ms_ssim(image_BCHW, source_BCHW),
            "identity": is_identity(source_BCHW, image_BCHW),
        }
        if lpips:
            found["lpips"] = lpips(image_BCHW, source_BCHW)
    if inception:
        found[INCEPTION] = inception(image_BCHW)
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}


def join(parts: Sequence[Described]) -> dict[str, Tensor]:
    """The description of several sets, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def select(described: Described, rows: Tensor | slice) -> dict[str, Tensor]:
    """The description of some of the images."""
    return {name: tensor[rows] for name, tensor in described.items()}


def relate(made: Described, content: Described) -> dict[str, Tensor]:
    """The description of images that somebody says were made of these contents, which they need not be.

    `edge_cosine` is that of the edges of both; what only pixels could tell is left out.
    """
    kept = {name: tensor for name, tensor in made.items() if name not in _OF_PAIRS}
    return {**kept, "edge_cosine": (made["edges"].float() * content["edges"].float()).sum(dim=1)}


class Ruler:
    """One panel's ruler: every set that is made of its contents is measured with it, and with nothing else.

    Images 0, 2, 4, ... of the style set are the reference; the others say what 1 is in `style` and `style_raw`. `fid`
    and `artfid` have no such one, and take them all.

    Args:
        content: the contents, described as images made of themselves.
        style: at least 8 images of the style.
        confidence: of all intervals, in (0, 1).
        seed: of the resamples: the same draws for every candidate.

    Raises:
        ValueError: images that are equal, or contents that are as near to the style set as its own images are, in
            either view.
    """

    def __init__(self, content: Described, style: Described, confidence: float = 0.95, seed: int = 0):
        self._content, self._confidence, self._seed = content, confidence, seed
        self._style, others = select(style, slice(0, None, 2)), select(style, slice(1, None, 2))
        self._gaps = {
            measure: Gap(view, *(_networks_first(one[view]) for one in (content, self._style, others)))
            for measure, view in _VIEWS.items()
        }
        self._features_MD = style.get(INCEPTION)
        self._sliced = {
            name: SlicedRuler.fit(content[name].float(), self._style[name].float())
            for name in content
            if name.startswith("patches_")
        }

    def measure(self, made: Described) -> dict[str, Interval]:
        """Every measure of a set, named as in `core.measures`; what its description does not hold is left out.

        Args:
            made: as many images as there are contents, in their order.
        """
        c, seed = self._confidence, self._seed
        found = {name: mean_interval(made[name], c, seed=seed) for name in _MEANS if name in made}
        found |= {name: share_interval(hits_N, c) for name, hits_N in self._shares(made).items()}
        found["edge_cosine_p5"] = quantile_interval(made["edge_cosine"], _LOW_SHARE, c, seed)
        found["nyquist"] = ratio_interval(made["nyquist"], self._style["nyquist"], c, seed)
        for measure, gap in self._gaps.items():
            found[measure] = style_score(self._against(measure, made), gap.identity, gap.target, seed, c)
        for measure, (made_NE, style_ME) in self._embedded(made, self._style):
            found[measure] = sliced_interval(made_NE, style_ME, c, seed)
        made_ND, style_MD = self._descriptors(made), self._descriptors(self._style)
        found["coverage"] = share_interval(coverage(made_ND, style_MD), c)
        found["pairwise"] = pairwise_interval(made_ND, style_MD, c, seed)
        if self._features_MD is not None:
            found["fid"] = frechet_interval(made[INCEPTION], self._features_MD, c, seed=seed)
            if "lpips" in made:
                found["artfid"] = artfid_interval(made["lpips"], made[INCEPTION], self._features_MD, c, seed=seed)
        return found

    def gains(self, made: Described, other: Described) -> dict[str, Interval]:
        """How much better one set is than another of the same contents, paired; positive is better.

        Left out are those whose `core.measures.Measure` says so: `coverage`, whose interval is over style images and
        says nothing of pairs, `nyquist`, which may be wrong on both sides, and `artfid`, a product.
        """
        c, seed = self._confidence, self._seed
        values, others = (
            {name: one[name] for name in _MEANS if name in one} | self._shares(one) for one in (made, other)
        )
        found = {}
        for name in values.keys() & others.keys():
            sign = -1.0 if name in _LOWER_IS_BETTER else 1.0
            found[name] = mean_interval(sign * (values[name].double() - others[name].double()), c, seed=seed)
        found["edge_cosine_p5"] = quantile_gain(made["edge_cosine"], other["edge_cosine"], _LOW_SHARE, c, seed)
        for measure, gap in self._gaps.items():
            both = self._against(measure, made), self._against(measure, other)
            found[measure] = style_gain(*both, gap.identity, gap.target, seed, c)
        for measure, embedded in self._embedded(made, other, self._style):
            found[measure] = sliced_gain(*embedded, c, seed)
        described = (self._descriptors(one) for one in (made, other, self._style))
        found["pairwise"] = pairwise_gain(*described, c, seed)
        if self._features_MD is not None:
            found["fid"] = frechet_gain(made[INCEPTION], other[INCEPTION], self._features_MD, c, seed=seed)
        return found

    def ratios(self, made: Described, other: Described) -> dict[str, Interval]:
        """Distances of one set in shares of another's, of the same contents; below 1 is better."""
        return {
            measure: sliced_ratio(*embedded, self._confidence, self._seed)
            for measure, embedded in self._embedded(made, other, self._style)
        }

    def _shares(self, made: Described) -> dict[str, Tensor]:
        """bool [N] each."""
        found = {name: made[name] for name in _SHARES if name in made}
        found["identification"] = identify(made["edges"].float(), self._content["edges"].float())
        if CLASSES in made:
            found["label_agreement"] = made[CLASSES] == self._content[CLASSES]
        return found

    def _against(self, measure: str, made: Described) -> Kernels:
        return self._gaps[measure].against(_networks_first(made[_VIEWS[measure]]))

    def _descriptors(self, made: Described) -> Tensor:
        return panel_descriptors(self._gaps["style_raw"].kernel, _networks_first(made["raw"]))

    def _embedded(self, *sets: Described) -> Iterator[tuple[str, list[Tensor]]]:
        """Name of each sliced distance, and what it compares."""
        for name, ruler in self._sliced.items():
            measure = name.replace("patches", "sliced_wasserstein")
            yield measure, [ruler.embed(one[name].float()) for one in sets]


def _networks_first(described_NSD: Tensor) -> Tensor:
    return described_NSD.transpose(0, 1).double()
