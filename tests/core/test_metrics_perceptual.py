"""LPIPS against its formula in float64 numpy, Frechet against scipy's root of a matrix, Inception against torchvision.

Weights are random: the published ones cannot be had here.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from stylejobs.core.metrics import (
    artfid,
    artfid_interval,
    build_lpips,
    frechet_distance,
    frechet_gain,
    frechet_interval,
    noise,
)
from stylejobs.core.metrics.inception import build_inception
from tests.core.features import draw
from tests.core.squares import CONTENT, crops

CUTS = {"alexnet": (2, 5, 8, 10, 12), "vgg16": (4, 9, 16, 23, 30)}
WIDTHS = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}


def trunk_features(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    with torch.device("meta"):
        features = getattr(models, name)(weights=None).features
    state = {}
    for key, value in features.state_dict().items():
        fan_in = value[0].numel() if value.ndim > 1 else 1e4
        state[key] = torch.randn(value.shape) * (2.0 / fan_in) ** 0.5
    features.load_state_dict(state, assign=True)
    return features.eval()


def head_weights(name: str) -> dict[str, Tensor]:
    return {
        f"lin{number}.model.1.weight": draw((1, width, 1, 1), number).abs().float()
        for number, width in enumerate(WIDTHS[name])
    }


def lpips_reference(name: str, a: Tensor, b: Tensor) -> list[float]:
    """With the authors' input scaling, a slice of the trunk at a time, in float64."""
    features, heads = trunk_features(name).double(), head_weights(name)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = ((x.double() - shift[:, None, None]) / scale[:, None, None] for x in (a, b))
    totals = np.zeros(len(a))
    for number, (first, last) in enumerate(zip((0, *CUTS[name]), CUTS[name], strict=False)):
        with torch.no_grad():
            a, b = features[first:last](a), features[first:last](b)
        units = [x.numpy() / (np.sqrt((x.numpy() ** 2).sum(axis=1, keepdims=True)) + 1e-10) for x in (a, b)]
        weight = heads[f"lin{number}.model.1.weight"].double().numpy()
        totals += ((units[0] - units[1]) ** 2 * weight).sum(axis=1).mean(axis=(1, 2))
    return totals.tolist()


@pytest.fixture(scope="module")
def content(photos) -> Tensor:
    return crops(photos, CONTENT, 12)


@pytest.mark.parametrize("name", CUTS)
def test_lpips_is_its_formula(name, content):
    measure = build_lpips(name, trunk_features(name).state_dict(), head_weights(name))
    a, b = content[:2], content[2:4]
    assert measure(a, b).tolist() == pytest.approx(lpips_reference(name, a, b), rel=1e-3)
    assert measure(a, a).tolist() == [0.0, 0.0]


def test_lpips_rises_with_damage_and_is_symmetric_and_a_rows_own(content):
    torchvisions = {f"features.{key}": value for key, value in trunk_features("alexnet").state_dict().items()}
    measure = build_lpips("alexnet", torchvisions, head_weights("alexnet"))
    noisy = [measure(content, noise(content, std)).mean().item() for std in (0.02, 0.1, 0.4)]
    assert noisy == sorted(noisy) and noisy[0] > 0
    assert measure(content, content.roll(1, dims=0)).mean().item() > noisy[1]
    others = torch.cat([content.flip(0), content.flip(0)])  # more than a batch
    found = measure(torch.cat([content, content]), others)
    torch.testing.assert_close(found, measure(others, torch.cat([content, content])))
    torch.testing.assert_close(found[12:13], measure(content[:1], content[11:]), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        measure(content, content[1:])


def test_lpips_names_the_weights_that_are_not_its_own():
    trunk, heads = trunk_features("alexnet").state_dict(), head_weights("alexnet")
    with pytest.raises(ValueError, match="did you mean 'alexnet'"):
        build_lpips("alex", trunk, heads)
    del heads["lin2.model.1.weight"]
    with pytest.raises(ValueError, match=r"lin2.model.1.weight \[1, 384, 1, 1\]: missing"):
        build_lpips("alexnet", trunk, heads)
    with pytest.raises(ValueError, match=r"lin1.model.1.weight \[1, 192, 1, 1\]: got \[1, 128, 1, 1\]"):
        build_lpips("alexnet", trunk, head_weights("vgg16"))
    with pytest.raises(ValueError, match="wrong shape"):
        build_lpips("alexnet", {key: value[..., :1] for key, value in trunk.items()}, heads)


def frechet_reference(x: np.ndarray, y: np.ndarray) -> float:
    covariances = [np.cov(z, rowvar=False) for z in (x, y)]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real))


@settings(max_examples=25, deadline=None)
@given(num=st.integers(5, 60), other=st.integers(5, 60), length=st.integers(2, 8), seed=st.integers(0, 999))
def test_frechet_is_scipys(num, other, length, seed):
    x = draw((num + length, length), seed) @ draw((length, length), seed + 1)
    y = draw((other + length, length), seed + 2) * 2 + 1
    expected = frechet_reference(x.numpy(), y.numpy())
    assert frechet_distance(x, y).item() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert frechet_distance(y, x).item() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_frechet_of_fewer_images_than_features():
    """Covariances without full rank, of which scipy's root is not to be trusted: by eigenvalues of S^1/2 T S^1/2."""
    x, y = draw((20, 50)), draw((30, 50), 1) * 1.5
    first, second = (np.cov(z.numpy(), rowvar=False) for z in (x, y))
    values, vectors = np.linalg.eigh(first)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(first + second) - 2 * trace
    assert frechet_distance(x, y).item() == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x).item() == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(x, x + 2).item() == pytest.approx(200.0)


def test_frechet_of_resamples_and_its_interval():
    x, y = draw((40, 6)), draw((50, 6), 1) + 0.5
    rows, others = (
        torch.randint(40, (3, 40), generator=torch.Generator().manual_seed(0)),
        torch.arange(50).expand(3, -1),
    )
    expected = [frechet_reference(x[row].numpy(), y.numpy()) for row in rows]
    assert frechet_distance(x, y, rows, others).tolist() == pytest.approx(expected)
    near, far = frechet_interval(x, y, num_resamples=100), frechet_interval(x + 2, y, num_resamples=100)
    assert near.low <= near.value <= near.high < far.low
    alike = frechet_interval(x, x, num_resamples=100)
    assert alike.value == pytest.approx(0, abs=1e-9) and alike.low <= alike.value <= alike.high
    with pytest.raises(ValueError, match="of one network"):
        frechet_distance(x, y[:, :5])


def test_frechet_gain_is_paired_and_positive_for_the_nearer():
    near, style = draw((40, 6)), draw((50, 6), 1) + 0.5
    far = near + 2
    found = frechet_gain(near, far, style, num_resamples=100)
    expected = frechet_reference(far.numpy(), style.numpy()) - frechet_reference(near.numpy(), style.numpy())
    assert found.value == pytest.approx(expected) and 0 < found.low <= found.value <= found.high
    back = frechet_gain(far, near, style, num_resamples=100)
    assert back.value == pytest.approx(-found.value) and back.high < 0
    assert frechet_gain(near, near, style, num_resamples=100) == (0.0, 0.0, 0.0)


def test_artfid_is_a_product_and_paired_with_its_lpips():
    lpips, made, style = draw((40,)).abs(), draw((40, 6)), draw((50, 6), 1) + 0.5
    found = artfid_interval(lpips, made, style, num_resamples=100)
    expected = (1 + lpips.mean().item()) * (1 + frechet_reference(made.numpy(), style.numpy()))
    assert found.value == pytest.approx(expected) and found.low <= found.value <= found.high
    assert artfid(torch.tensor(0.0), torch.tensor(0.0)).item() == 1.0
    with pytest.raises(ValueError, match="the same results"):
        artfid_interval(lpips[1:], made, style)


@pytest.fixture(scope="module")
def inception() -> models.Inception3:
    """torchvision's, with weights that keep signals alive through all layers."""
    network = models.Inception3(aux_logits=False, init_weights=False, num_classes=1008).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.ndim == 4:
                value.copy_(torch.randn(value.shape, generator=rng) * (2.0 / value[0].numel()) ** 0.5)
            elif key.endswith("running_mean"):
                value.copy_(torch.randn(value.shape, generator=rng) * 0.1)
    return network


def test_inception_is_torchvisions_with_the_fids_pooling(inception, content, monkeypatch):
    state = inception.state_dict() | {"AuxLogits.fc.weight": torch.zeros(3)}
    found = build_inception(state)(content[:2])
    at_last = []
    inception.Mixed_7c.register_forward_pre_hook(lambda *_: at_last.append(True))

    def pooled(image, **options):
        if at_last:
            return functional.max_pool2d(image, **options)
        return mean_pool(image, **options, count_include_pad=False)

    mean_pool = functional.avg_pool2d
    features = []
    inception.avgpool.register_forward_hook(lambda *arguments: features.append(arguments[-1]))
    scaled = functional.interpolate(content[:2], size=(299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(models.inception.F, "avg_pool2d", pooled)
        inception(scaled)
    expected = features[0].flatten(1)
    assert found.shape == (2, 2048) and expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    del at_last[:]
    features.clear()
    with torch.no_grad():
        inception(scaled)
    assert (features[0].flatten(1) - expected).abs().max() > 0.01 * expected.abs().max(), "the pooling matters"


def test_inception_names_the_weights_that_are_not_its_own(inception):
    state = dict(inception.state_dict())
    state["other"] = state.pop("Mixed_5b.branch1x1.conv.weight")
    state["Mixed_5c.branch1x1.conv.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"missing Mixed_5b.*not known other.*wrong shape Mixed_5c.*FID"):
        build_inception(state)
