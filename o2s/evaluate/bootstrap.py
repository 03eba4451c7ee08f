"""Bootstrap intervals: how far a score would move with other items of the same kind.

Items are drawn with replacement, as many as there are, and the score is computed anew; the interval
holds the middle 95 % of the results (percentile bootstrap; Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 13). Where items belong to groups, such as the questions about one
scene, whole groups are drawn.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int32

DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A score with the ends of its 95 % interval, as fractions: 0.768 where papers print 76.8.

    `value` is None where the score could not be computed, and `reason` says why; the interval is
    None where there is nothing to resample.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @classmethod
    def unavailable(cls, reason: str) -> "Estimate":
        """A score that could not be computed."""
        return cls(None, reason=reason)


@dataclass(frozen=True)
class Sampled:
    """A score and what it was in each of S draws, so that scores can be compared draw by draw."""

    value: float | None
    draws: Float64[np.ndarray, "S"] | None = None
    reason: str | None = None

    def estimate(self) -> Estimate:
        """The score with its interval."""
        if self.value is None:
            return Estimate.unavailable(self.reason or "not computed")
        return Estimate(self.value) if self.draws is None else estimate(self.value, self.draws)

    def minus(self, other: "Sampled") -> "Sampled":
        """How much higher this score is; both must come from the same draws of the same items."""
        if self.value is None or other.value is None:
            return Sampled(None, reason=self.reason or other.reason)
        draws = None
        if self.draws is not None and other.draws is not None:
            draws = self.draws - other.draws
        return Sampled(self.value - other.value, draws)


def draw_counts(
    groups: Sequence[Hashable], *, seed: int, draws: int = DRAWS
) -> Int32[np.ndarray, "S N"]:
    """How often each of N items comes in each of S draws.

    Args:
        groups: the group of each item; items of equal groups are drawn together. Give each item a
            group of its own (`range(N)`) to draw items one by one.
        seed: the draws are the same for the same seed, whatever else has been drawn.
        draws: S.
    """
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    group_of_item = np.array([numbers[group] for group in groups], dtype=np.int64)
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, len(numbers)), np.int32)
    for row in counts:  # one draw at a time: memory stays at S x N
        np.add.at(row, rng.integers(len(numbers), size=len(numbers)), 1)
    return counts[:, group_of_item]


def estimate(value: float, drawn: Float[np.ndarray, "S"]) -> Estimate:
    """A score and the interval of what it was in each draw; draws without a score do not count."""
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0:
        return Estimate(float(value))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))


def mean_estimate(
    values: Float64[np.ndarray, "N"], counts: Int32[np.ndarray, "S N"] | None
) -> Estimate:
    """The mean of N items, with its interval if there are draws."""
    return sampled_mean(values, counts).estimate()


def sampled_mean(
    values: Float64[np.ndarray, "N"], counts: Int32[np.ndarray, "S N"] | None
) -> Sampled:
    """The mean of N items, and of what each draw has of them."""
    if len(values) == 0:
        return Sampled(None, reason="no items")
    if counts is None:
        return Sampled(float(values.mean()))
    with np.errstate(invalid="ignore", divide="ignore"):
        return Sampled(float(values.mean()), counts @ values / counts.sum(axis=1))
