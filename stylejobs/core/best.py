"""The best evaluation of a training so far, and when to stop waiting for a better one. Pure: no clock, no tensors."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """What one evaluation means: whether it is the best so far, and whether training should stop."""

    improved: bool
    stop: bool


class BestSoFar:
    """Remembers the best value of a measure, higher being better, and counts evaluations since.

    The first finite value is an improvement, then every one that is above the best by at least `min_gain`. Smaller
    gains do not move the best, so a creeping measure improves once its gains add up. What is not finite never
    improves, and counts as an evaluation without.

    Attributes:
        value: the best value; None before the first finite one.
        images_seen: by all workers when it was measured; None likewise.
        evaluations_since: how many came after it.

    Args:
        patience: evaluations without an improvement after which to stop, at least 1; None never stops.
        min_gain: least gain that is an improvement, >= 0; with 0 any gain is.

    Raises:
        ValueError: a number out of its range.

    Source: Prechelt 1998, doi:10.1007/3-540-49430-8_3, criterion UP, with the best value in place of the last one.

    >>> best = BestSoFar(patience=2)
    >>> [best.observe(images_seen, value).improved for images_seen, value in ((100, 0.3), (200, 0.5), (300, 0.4))]
    [True, True, False]
    >>> best.observe(400, 0.5), best.images_seen
    (Verdict(improved=False, stop=True), 200)
    """

    def __init__(self, patience: int | None = None, min_gain: float = 0.0):
        if patience is not None and patience < 1:
            raise ValueError(f"wanted patience of at least 1, or None; got {patience}")
        if not 0.0 <= min_gain < math.inf:
            raise ValueError(f"wanted min_gain >= 0; got {min_gain}")
        self._patience, self._min_gain = patience, min_gain
        self.value: float | None = None
        self.images_seen: int | None = None
        self.evaluations_since = 0

    def observe(self, images_seen: int, value: float) -> Verdict:
        """Takes in one evaluation.

        Args:
            images_seen: by all workers since training began.
            value: of the measure; higher is better.
        """
        gains = self.value is None or (value > self.value and value >= self.value + self._min_gain)
        improved = gains and math.isfinite(value)
        if improved:
            self.value, self.images_seen, self.evaluations_since = value, images_seen, 0
        else:
            self.evaluations_since += 1
        return Verdict(improved, self._patience is not None and self.evaluations_since >= self._patience)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, fit for JSON; with them `load_state_dict` goes on exactly. Options are not among them."""
        return {"value": self.value, "images_seen": self.images_seen, "evaluations_since": self.evaluations_since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        if different := sorted(set(self.state_dict()) ^ set(state)):
            raise ValueError(f"wanted the state of a BestSoFar; these keys are only on one side: {different}")
        self.value = None if state["value"] is None else float(state["value"])
        self.images_seen = None if state["images_seen"] is None else int(state["images_seen"])
        self.evaluations_since = int(state["evaluations_since"])
