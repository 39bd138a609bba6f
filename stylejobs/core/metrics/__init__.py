"""Measures of results: numbers for people and gates, without gradients. Pure functions, a file a question.

What turns each into an interval is named beside it; `core/bootstrap.py` has `mean_interval` and `share_interval`:

    content.py     edge_cosine, ms_ssim: mean_interval; the worst twentieth: quantile_interval; identify: share_interval
    artifacts.py   clipped_share: mean_interval; is_constant, is_identity: share_interval; nyquist_energy:
                   ratio_interval
    sliced.py      sliced_wasserstein, a level each: sliced_interval
    diversity.py   coverage: share_interval over the reference images; pairwise_distance: pairwise_interval
    perceptual.py  Lpips: mean_interval; frechet_distance: frechet_interval; artfid: artfid_interval (inception.py: FID)
    gram.py        style_distance of single images; of whole sets: core/mmd.py
    sanity.py      results that are known to be bad

Paired, of a candidate and a baseline on the same images: mean_interval of the difference, paired_ratio, and what ends
in _gain or _ratio in intervals.py.
"""

from stylejobs.core.metrics.artifacts import clipped_share, is_constant, is_identity, nyquist_energy
from stylejobs.core.metrics.content import describe_edges, edge_cosine, identify, ms_ssim
from stylejobs.core.metrics.diversity import coverage, pairwise_distance, panel_descriptors
from stylejobs.core.metrics.gram import style_distance
from stylejobs.core.metrics.intervals import (
    paired_ratio,
    pairwise_gain,
    pairwise_interval,
    quantile_gain,
    quantile_interval,
    ratio_interval,
    sliced_gain,
    sliced_interval,
    sliced_ratio,
)
from stylejobs.core.metrics.perceptual import (
    Lpips,
    artfid,
    artfid_interval,
    build_lpips,
    frechet_distance,
    frechet_gain,
    frechet_interval,
)
from stylejobs.core.metrics.sanity import blur, checkerboard, collapsed, copies, noise, shuffled
from stylejobs.core.metrics.sliced import SlicedRuler, laplacian_patches, project_patches, sliced_wasserstein

__all__ = [
    "Lpips",
    "SlicedRuler",
    "artfid",
    "artfid_interval",
    "blur",
    "build_lpips",
    "checkerboard",
    "clipped_share",
    "collapsed",
    "copies",
    "coverage",
    "describe_edges",
    "edge_cosine",
    "frechet_distance",
    "frechet_gain",
    "frechet_interval",
    "identify",
    "is_constant",
    "is_identity",
    "laplacian_patches",
    "ms_ssim",
    "noise",
    "nyquist_energy",
    "paired_ratio",
    "pairwise_distance",
    "pairwise_gain",
    "pairwise_interval",
    "panel_descriptors",
    "project_patches",
    "quantile_gain",
    "quantile_interval",
    "ratio_interval",
    "shuffled",
    "sliced_gain",
    "sliced_interval",
    "sliced_ratio",
    "sliced_wasserstein",
    "style_distance",
]
