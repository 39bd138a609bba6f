"""Which image comes next: the same for one worker and for many, the same after a pause, nothing twice in a pass."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.engine.image_order import (
    EncodedImage,
    ImageOrder,
    KeptOrder,
    Place,
    StreamedOrder,
    StreamedSet,
    deal_anew,
)
from stylejobs.errors import SourceError

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=9)
workers = st.integers(1, 4)


def images(domain_sizes: Sequence[int]) -> list[EncodedImage]:
    return [EncodedImage(f"{d}/{n}", d, b"") for d, size in enumerate(domain_sizes) for n in range(size)]


def take(order: ImageOrder, count: int) -> list[str]:
    return [order.next()[0].key for _ in range(count)]


def in_turns(orders: Sequence[ImageOrder], rounds: int) -> list[tuple[str, int]]:
    """What the workers draw, in the order of the numbers of the draws."""
    return [(image.key, number) for _ in range(rounds) for image, number in (order.next() for order in orders)]


class Shelf:
    """A streamed set of units, one domain each or mixed; it counts how often a unit was opened."""

    def __init__(self, units: Sequence[Sequence[EncodedImage]], num_bytes: int = 1, window_bytes: int = 2):
        self.units, self.opened = units, Counter[int]()
        domains: dict[int, list[int]] = {}
        for number, unit in enumerate(units):
            for domain in sorted({image.domain for image in unit}):
                domains.setdefault(domain, []).append(number)
        self.streamed = StreamedSet([num_bytes] * len(units), domains, self._open, window_bytes)

    def _open(self, numbers, domain):
        for number in numbers:
            self.opened[number] += 1
            found = [image for image in self.units[number] if image.domain == domain]
            # In pieces, as blocks of Ray are.
            yield number, found[:2]
            if found[2:]:
                yield number, found[2:]

    def order(self, rank: int = 0, num_workers: int = 1, seed: int = 0) -> StreamedOrder:
        return StreamedOrder(self.streamed, Place("content", seed, rank, num_workers))


def one_domain(unit_sizes: Sequence[int]) -> Shelf:
    return Shelf([[EncodedImage(f"{u}/{n}", 0, b"") for n in range(size)] for u, size in enumerate(unit_sizes)])


class TestKept:
    @given(sizes, workers, st.integers(0, 2**62))
    @settings(max_examples=40, deadline=None)
    def test_many_workers_draw_together_what_one_draws_alone(self, domain_sizes, num_workers, seed):
        shared = images(domain_sizes)
        alone = KeptOrder(shared, Place("style", seed))
        together = [KeptOrder(shared, Place("style", seed, rank, num_workers)) for rank in range(num_workers)]
        drawn = in_turns(together, 11)
        assert drawn == in_turns([alone], 11 * num_workers)
        assert [number for _, number in drawn] == list(range(11 * num_workers))

    @given(st.integers(1, 12), workers)
    @settings(max_examples=25, deadline=None)
    def test_a_pass_holds_every_image_once_and_passes_differ(self, size, num_workers):
        orders = [KeptOrder(images([size]), Place("content", 3, rank, num_workers)) for rank in range(num_workers)]
        keys = [key for key, _ in in_turns(orders, 4 * size)]
        passes = [tuple(keys[start : start + size]) for start in range(0, len(keys) - size + 1, size)]
        assert all(Counter(one) == Counter(f"0/{n}" for n in range(size)) for one in passes)
        if size > 5:
            assert len(set(passes)) > 1

    def test_domains_of_any_size_take_turns_and_each_passes_over_itself(self):
        keys = take(KeptOrder(images([9, 3, 1]), Place("style", 0)), 81)
        assert Counter(key[0] for key in keys) == {"0": 27, "1": 27, "2": 27}
        large = [key for key in keys if key[0] == "0"]
        assert all(len(set(large[start : start + 9])) == 9 for start in (0, 9, 18))

    @given(sizes, st.integers(0, 60), workers)
    @settings(max_examples=25, deadline=None)
    def test_it_goes_on_where_a_cursor_stands(self, domain_sizes, taken, num_workers):
        place = Place("style", 5, num_workers - 1, num_workers)
        first, second = KeptOrder(images(domain_sizes), place), KeptOrder(images(domain_sizes), place)
        take(first, taken)
        second.seek(first.cursor())
        assert in_turns([first], 30) == in_turns([second], 30)

    def test_other_seeds_and_sets_have_other_orders(self):
        orders = [take(KeptOrder(images([30]), Place(*who)), 30) for who in (("a", 0), ("a", 1), ("b", 0))]
        assert len({tuple(order) for order in orders}) == 3

    def test_too_few_images_are_an_error_of_the_source(self):
        with pytest.raises(SourceError, match="content=: a worker has fewer images than one batch of 4"):
            KeptOrder(images([3]), Place("content", 0), fewest=4)
        with pytest.raises(SourceError, match="style=: a worker has fewer images than one;"):
            KeptOrder([], Place("style", 0))


class TestStreamed:
    @given(sizes, workers, st.integers(0, 2**62))
    @settings(max_examples=40, deadline=None)
    def test_a_pass_of_all_workers_holds_every_image_once(self, unit_sizes, num_workers, seed):
        shelf = one_domain(unit_sizes)
        wanted = Counter(image.key for unit in shelf.units for image in unit)
        seen: Counter[str] = Counter()
        for rank in range(num_workers):
            order = StreamedOrder(shelf.streamed, Place("content", seed, rank, num_workers), fewest=0)
            stream = order._streams[0]
            while stream.pass_ == 0:
                rows = order._read_on(0, stream)
                seen.update(image.key for image in rows)
        assert seen == wanted

    @given(sizes, st.integers(0, 70))
    @settings(max_examples=40, deadline=None)
    def test_it_goes_on_where_a_cursor_stands(self, unit_sizes, taken):
        shelf = one_domain(unit_sizes)
        first, second = shelf.order(), shelf.order()
        take(first, taken)
        second.seek(first.cursor())
        assert in_turns([first], 50) == in_turns([second], 50)

    def test_going_on_reads_nothing_before_the_window(self):
        shelf = one_domain([3] * 20)
        first = shelf.order()
        take(first, 45)
        shelf.opened.clear()
        second = shelf.order()
        second.seek(first.cursor())
        take(second, 6)
        assert sum(shelf.opened.values()) <= 5

    def test_rows_are_mixed_within_a_window_and_passes_differ(self):
        shelf = one_domain([4] * 6)
        passes = [take(shelf.order(), 24), take(shelf.order(), 48)[24:]]
        assert passes[0] != passes[1] and sorted(passes[0]) == sorted(passes[1])
        windows = [passes[0][start : start + 8] for start in range(0, 24, 8)]
        assert all(len({key.split("/")[0] for key in window}) == 2 for window in windows)
        assert any(window[0].split("/")[0] != window[1].split("/")[0] for window in windows)

    def test_domains_take_turns_even_where_units_are_sorted_by_label(self):
        units = [[EncodedImage(f"{d}-{u}/{n}", d, b"") for n in range(4)] for d in (1, 2) for u in range(3)]
        units.append([EncodedImage(f"{d}-mixed/{n}", d, b"") for d in (1, 2) for n in range(2)])
        keys = take(Shelf(units).order(), 56)
        assert Counter(key[0] for key in keys) == {"1": 28, "2": 28}
        assert len({key for key in keys[:28] if key[0] == "1"}) == 14

    def test_a_share_without_enough_images_is_an_error_of_the_source(self):
        order = StreamedOrder(one_domain([2, 1]).streamed, Place("content", 0), fewest=4)
        with pytest.raises(SourceError, match="fewer images than one batch of 4"):
            take(order, 4)


class TestOtherWorkers:
    @given(sizes, workers, workers, st.integers(0, 25))
    @settings(max_examples=40, deadline=None)
    def test_no_draw_of_a_kept_set_comes_twice_or_is_left_out(self, domain_sizes, before, after, rounds):
        shared = images(domain_sizes)
        old = [KeptOrder(shared, Place("style", 1, rank, before)) for rank in range(before)]
        in_turns(old, rounds)
        cursor = deal_anew([order.cursor() for order in old], None, Place("style", 1))
        new = [KeptOrder(shared, Place("style", 1, rank, after)) for rank in range(after)]
        for order in new:
            order.seek(cursor)
        rest = KeptOrder(shared, Place("style", 1))
        take(rest, before * rounds)
        assert in_turns(new, 9) == in_turns([rest], 9 * after)

    @given(st.lists(st.integers(1, 5), min_size=8, max_size=16), workers, workers, st.integers(0, 12))
    @settings(max_examples=40, deadline=None)
    def test_the_rest_of_a_pass_is_dealt_anew_and_nothing_comes_twice(self, unit_sizes, before, after, rounds):
        shelf = one_domain(unit_sizes)
        old = [shelf.order(rank, before) for rank in range(before)]
        seen = [key for key, _ in in_turns(old, rounds)]
        in_one_pass = all(order.cursor()["streams"]["0"]["pass"] == 0 for order in old)
        dealt = deal_anew([order.cursor() for order in old], shelf.streamed, Place("content", 0))
        assert dealt["base"] == before * rounds
        new = [shelf.order(rank, after) for rank in range(after)]
        for order in new:
            order.seek(dealt)
        if not in_one_pass or dealt["streams"]["0"]["pass"] != 0:
            return
        rest: list[str] = []
        for order in new:
            rest += [image.key for image in order._read_on(0, order._streams[0])]
        assert not set(seen) & set(rest) and len(set(rest)) == len(rest)
        # What no worker had begun to read is all there.
        begun = {key.split("/")[0] for key in seen}
        untouched = {image.key for unit in shelf.units for image in unit} - set(rest)
        assert len({key.split("/")[0] for key in untouched}) <= len(begun) + before
