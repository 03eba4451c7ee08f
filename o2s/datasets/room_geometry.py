"""The ground plans of rooms: floors, and upright boxes on them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

TOUCH = 0.002  # metres by which boxes may overlap: they stand on each other, or at a wall


@dataclass(frozen=True)
class Solid:
    """An upright box: middle, half width and half depth, direction of the front, z range."""

    x: float
    y: float
    half: tuple[float, float]
    heading: float
    low: float
    high: float

    @property
    def axes(self) -> Float64[np.ndarray, "2 2"]:
        """Unit vectors along the width and along the front."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.array([[-sin, cos], [cos, sin]])

    @property
    def corners(self) -> Float64[np.ndarray, "4 2"]:
        signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
        return np.array([self.x, self.y]) + (signs * self.half) @ self.axes

    def overlaps(self, other: "Solid") -> bool:
        """By separating axes; boxes that only touch do not overlap."""
        if self.low >= other.high - TOUCH or other.low >= self.high - TOUCH:
            return False
        mine, theirs = self.corners, other.corners
        for axis in (*self.axes, *other.axes):
            a, b = mine @ axis, theirs @ axis
            if a.max() <= b.min() + TOUCH or b.max() <= a.min() + TOUCH:
                return False
        return True


def contains(floor: Float64[np.ndarray, "K 2"], point: Float64[np.ndarray, "2"]) -> bool:
    """Whether a point lies within a polygon, by counting the edges that a ray along x crosses."""
    (x0, y0), (x1, y1) = floor.T, np.roll(floor, -1, axis=0).T
    crosses = (y0 > point[1]) != (y1 > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0)
    return bool((crosses & (at > point[0])).sum() % 2)


def inside(floor: Float64[np.ndarray, "K 2"], solid: Solid) -> bool:
    """Whether a box lies within the walls: its corners in, and no corner of the floor within it."""
    if not all(contains(floor, corner) for corner in solid.corners):
        return False
    local = np.abs((floor - [solid.x, solid.y]) @ solid.axes.T)
    return not (local < solid.half).all(axis=1).any()


def draw_floor(rng: np.random.Generator, area: float) -> Float64[np.ndarray, "K 2"]:
    """A rectangle or, of the larger floors, sometimes an L; counter-clockwise, from the origin."""
    aspect = rng.uniform(1.0, 1.6)
    is_l = area > 14 and rng.random() < 0.3
    cut = rng.uniform(0.25, 0.45, 2) if is_l else np.zeros(2)
    whole = area / (1 - cut.prod())
    x, y = np.sqrt(whole * aspect), np.sqrt(whole / aspect)
    if not is_l:
        return np.array([[0, 0], [x, 0], [x, y], [0, y]])
    inner = np.array([x * (1 - cut[0]), y * (1 - cut[1])])
    return np.array([[0, 0], [x, 0], [x, inner[1]], inner, [inner[0], y], [0, y]])
