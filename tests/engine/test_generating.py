"""The generator's part of a worker: the ladder of out of memory, tiles, batches by size, time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from stylejobs.core.networks import build_network
from stylejobs.engine.generating import Content, GenerateSettings, Generating, Place, build_places
from stylejobs.engine.memory import attempt, is_out_of_memory
from stylejobs.errors import GenerateError

CPU = torch.device("cpu")


class Inverting(nn.Module):
    """-x; remembers the shapes of what it is given, and fails as it is told to."""

    multiple = 1

    def __init__(self, fail: Callable[[Tensor], None] = lambda content_BCHW: None):
        super().__init__()
        self.shapes: list[tuple[int, int, int]] = []
        self.fail = fail

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        rows, _, height, width = content_BCHW.shape
        self.shapes.append((rows, height, width))
        self.fail(content_BCHW)
        return -content_BCHW


def out_of_memory_above(num_pixels: int) -> Callable[[Tensor], None]:
    def fail(content_BCHW: Tensor) -> None:
        if content_BCHW[:, 0].numel() > num_pixels:
            raise torch.OutOfMemoryError(f"above {num_pixels} pixels")

    return fail


def place(generator: nn.Module) -> Place:
    return Place(CPU, generator, {"only": torch.zeros(0)})


def contents(count: int, height: int = 20, width: int = 30, strength: float = 1.0) -> list[Content]:
    rng = np.random.default_rng(0)
    return [Content(rng.integers(0, 256, (height, width, 3), np.uint8), "only", strength, 1.0) for _ in range(count)]


def check_inverted(made: Sequence[np.ndarray | GenerateError], batch: Sequence[Content]) -> None:
    assert all(np.array_equal(a, 255 - b.pixels_HWC) for a, b in zip(made, batch, strict=True))


class TestLadder:
    def test_the_batch_is_halved_until_it_fits_and_that_is_learned(self) -> None:
        generator, batch = Inverting(out_of_memory_above(2 * 600)), contents(11)
        generating = Generating([place(generator)], GenerateSettings(8, model="m"))
        check_inverted(generating(batch), batch)
        assert [shape[0] for shape in generator.shapes] == [8, 4, 2, 2, 2, 2, 2, 1]
        assert generating.learned == {"cpu 0.0625 MP m": 2}
        generator.shapes.clear()
        check_inverted(generating(batch), batch)
        assert [shape[0] for shape in generator.shapes] == [2, 2, 2, 2, 2, 1]

    def test_what_was_learned_is_taken_over_by_the_next_worker_for_this_size_and_model_only(self) -> None:
        learned = {"cpu 0.0625 MP m": 3, "cpu 1 MP m": 1, "cpu 0.0625 MP other": 1}
        generator, batch = Inverting(), contents(8)
        generating = Generating([place(generator)], GenerateSettings(8, model="m"), learned)
        check_inverted(generating(batch), batch)
        assert [shape[0] for shape in generator.shapes] == [3, 3, 2] and generating.learned == learned

    def test_a_row_alone_goes_through_in_tiles(self) -> None:
        generator, batch = Inverting(out_of_memory_above(70 * 70)), contents(2, 128, 128)
        generating = Generating([place(generator)], GenerateSettings(8, tile_overlap_px=16))
        check_inverted(generating(batch), batch)
        assert generator.shapes[:2] == [(2, 128, 128), (1, 128, 128)] and (1, 64, 64) in generator.shapes
        assert list(generating.learned.values()) == [1]

    def test_then_the_next_place_is_tried(self) -> None:
        small, large = Inverting(out_of_memory_above(100)), Inverting()
        batch = contents(3, 128, 128)
        check_inverted(Generating([place(small), place(large)], GenerateSettings(8))(batch), batch)
        assert large.shapes == [(1, 128, 128)] * 3, "as a whole again: there is more memory there"

    def test_then_the_row_is_given_up_and_no_other(self) -> None:
        def fail(content_BCHW: Tensor) -> None:
            if (content_BCHW[:, :, 0, 0] == 1.0).all(dim=1).any():
                raise torch.OutOfMemoryError("white")

        batch = contents(6)
        for content in batch:
            content.pixels_HWC[0, 0] = 7
        batch[2].pixels_HWC[:] = 255
        made = Generating([place(Inverting(fail))], GenerateSettings(8))(batch)
        assert (made[2].reason, made[2].stage) == ("oom", "generate") and "30x20 pixels" in made[2].message
        check_inverted(made[:2] + made[3:], batch[:2] + batch[3:])

    def test_other_errors_are_not_swallowed(self) -> None:
        def fail(content_BCHW: Tensor) -> None:
            raise RuntimeError("a fault of ours")

        for batch in (contents(3), contents(1)):
            with pytest.raises(RuntimeError, match="a fault of ours"):
                Generating([place(Inverting(fail))], GenerateSettings(8))(batch)


class TestOutOfMemory:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (torch.OutOfMemoryError("CUDA out of memory"), True),
            (MemoryError(), True),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
            (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
            (RuntimeError("shapes cannot be multiplied"), False),
            (ValueError("can't allocate memory"), False),
        ],
    )
    def test_what_it_is(self, error: Exception, expected: bool) -> None:
        assert is_out_of_memory(error) is expected

    def test_what_failed_is_free_before_the_next_attempt(self) -> None:
        import weakref

        held = []

        def work() -> None:
            pixels = np.zeros(9)
            held.append(weakref.ref(pixels))
            raise MemoryError(f"with {len(pixels)}")

        assert attempt(work) is None and held[0]() is None

    def test_the_cpus_allocator_failing_for_real(self) -> None:
        """In a process whose address space is limited: batches are halved, tiles are taken, all rows are made."""
        program = """
import json, resource
import numpy as np, torch
from stylejobs.core.networks import build_network
from stylejobs.engine.generating import Content, GenerateSettings, Generating, build_places

torch.set_num_threads(1)
torch.manual_seed(0)
places = build_places(build_network("johnson", width=8, blocks=1), {"only": torch.zeros(0)}, use_gpu=False)
def contents(count, side):
    rng = np.random.default_rng(side)
    return [Content(rng.integers(0, 256, (side, side, 3), np.uint8), "only", 1.0, 1.0) for _ in range(count)]
Generating(places, GenerateSettings(8))(contents(1, 64))
batches, hopeless = (contents(6, 320), contents(1, 1280)), contents(1, 3900)
free = [Generating(places, GenerateSettings(8))(batch) for batch in batches]
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 110 * 2**20, -1))
generating = Generating(places, GenerateSettings(8, tile_px=512, tile_overlap_px=64))
tight = [generating(batch) for batch in batches]
lost = Generating(places, GenerateSettings(8, tile_px=2048))(hopeless)[0].reason
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
differences = [[int(np.abs(a.astype(int) - b).max()) for a, b in zip(*pair)] for pair in zip(free, tight)]
print(json.dumps({"learned": generating.learned, "differences": differences, "lost": lost}))
"""
        # Freed memory goes back at once, so that what is left is known: 3 rows take 82 MB, 6 take 162.
        quick = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=quick)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        halved, tiled = found["differences"]
        assert list(found["learned"]) == ["cpu 0.125 MP"] and found["learned"]["cpu 0.125 MP"] == 3
        assert len(halved) == 6 and max(halved) <= 1, "halved: the last bit at most"
        assert len(tiled) == 1 and tiled[0] > 1, "it went through in tiles, which instance norm shows"
        assert found["lost"] == "oom"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_that_is_full(self) -> None:
        places = build_places(Inverting(out_of_memory_above(10**9)), {"only": torch.zeros(0)}, use_gpu=True)
        torch.cuda.set_per_process_memory_fraction(1e-3)
        try:
            batch = contents(8, 1000, 1000)
            generating = Generating(places, GenerateSettings(8))
            check_inverted(generating(batch), batch)
            assert generating.learned
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


class TestLargeImages:
    SETTINGS = GenerateSettings(8, tile_px=64, tile_overlap_px=16, tile_above_megapixels=0.01)

    @pytest.mark.parametrize("strength", [1.0, 0.25])
    def test_tiles_give_what_the_whole_gives_where_pixels_are_alone(self, strength: float) -> None:
        generator, batch = Inverting(), contents(2, 150, 201, strength)
        found = Generating([place(generator)], self.SETTINGS)(batch)
        whole = Generating([place(Inverting())], GenerateSettings(8))(batch)
        # halves round to either side
        assert all(np.abs(a.astype(int) - b).max() <= (strength < 1) for a, b in zip(found, whole, strict=True))
        assert max(height * width for _, height, width in generator.shapes) == 64 * 64

    @pytest.mark.parametrize("name", ["moments", "histogram"])
    def test_colour_transfers_give_every_tile_the_colours_of_the_whole(self, name: str) -> None:
        network, rng = build_network(name), np.random.default_rng(0)
        code = network.encode_style(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.8)[0]
        # Dark on the left, bright on the right: a tile by itself would be made as bright as the style.
        ramp_HWC = np.linspace(40, 200, 201)[None, :, None] + rng.normal(0, 12, (150, 201, 3))
        batch = [Content(ramp_HWC.clip(0, 255).astype(np.uint8), "only", 1.0, 1.0)]
        places = [Place(CPU, network, {"only": code})]
        (whole,) = Generating(places, GenerateSettings(8))(batch)
        (tiled,) = Generating(places, self.SETTINGS)(batch)
        assert np.abs(tiled.astype(int) - whole).max() <= 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stylejobs.engine.generating._WHOLE_PX", 2_000)
            (sampled,) = Generating(places, self.SETTINGS)(batch)
        assert np.abs(sampled.astype(int) - whole).mean() < 2.0

    def test_pixels_that_cannot_be_written_to_are_read(self) -> None:
        (content,) = contents(1, 150, 201)
        content.pixels_HWC.flags.writeable = False
        check_inverted(Generating([place(Inverting())], self.SETTINGS)([content]), [content])

    def test_one_infinite_tile_costs_the_row(self) -> None:
        class Infinite(Inverting):
            def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
                made_BCHW = super().forward(content_BCHW, style_BD)
                return made_BCHW / 0.0 if len(self.shapes) == 3 else made_BCHW

        generator = Infinite()
        (error,) = Generating([place(generator)], self.SETTINGS)(contents(1, 150, 201))
        assert error.reason == "non_finite" and len(generator.shapes) == 3


class TestPlan:
    @given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 64))
    def test_law_a_batch_never_holds_more_than_the_bound(self, height: int, width: int, micro_batch: int) -> None:
        generating = Generating([place(Inverting())], GenerateSettings(micro_batch))
        rows = generating.planned(height, width)
        assert 1 <= rows <= micro_batch
        assert rows == 1 or rows * height * width <= micro_batch * 2**20
        assert rows == micro_batch or height * width > 2**20

    def test_half_as_many_for_each_doubling(self) -> None:
        generating = Generating([place(Inverting())], GenerateSettings(8))
        sides = (256, 1024, 1025, 2048, 2900, 4096)
        assert [generating.planned(side, side) for side in sides] == [8, 8, 4, 2, 1, 1]


class TestTime:
    def test_a_batch_that_took_too_long_is_given_up_as_a_whole(self) -> None:
        generator = Inverting(lambda content_BCHW: time.sleep(0.2))
        made = Generating([place(generator)], GenerateSettings(8, row_seconds=0.05))(contents(3))
        assert [(error.stage, error.reason) for error in made] == [("generate", "timeout")] * 3
        assert "row_seconds=0.05" in made[0].message

    def test_every_row_of_it_adds_its_time(self) -> None:
        generator = Inverting(lambda content_BCHW: time.sleep(0.2))
        batch = contents(3)
        check_inverted(Generating([place(generator)], GenerateSettings(8, row_seconds=0.15))(batch), batch)

    def test_a_large_image_is_given_up_between_tiles(self) -> None:
        generator = Inverting(lambda content_BCHW: time.sleep(0.1))
        settings = GenerateSettings(8, tile_px=64, tile_overlap_px=16, tile_above_megapixels=0.01, row_seconds=0.15)
        (error,) = Generating([place(generator)], settings)(contents(1, 150, 201))
        assert error.reason == "timeout" and len(generator.shapes) == 2
