"""Random furnished rooms as point clouds with known boxes, for tests that need a plausible scan.

Nothing here is realistic in detail; the gross statistics are: surfaces only, sampled by area, walls
with a door or a window, furniture that stands on the floor, no points on undersides.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from numpy.random import Generator
from torch import Tensor


class FakeRoom(NamedTuple):
    """Metres, z up, floor at z = 0, one corner at the origin; boxes are centre (3) and size (3)."""

    points: Float32[Tensor, "N 3"]
    colors: Float32[Tensor, "N 3"]
    boxes: Float32[Tensor, "R 6"]


class Patch(NamedTuple):
    """A parallelogram with one color; `density` multiplies how many points fall on it."""

    corner: np.ndarray
    edges: np.ndarray  # [2, 3]
    color: np.ndarray
    density: float = 1.0


def room(
    seed: int,
    *,
    size: tuple[float, float, float] | None = None,
    ceiling: bool = False,
    furniture: int = 4,
    points: int = 20_000,
    noise: float = 0.01,
    walls: int = 4,
    wall_density: float = 1.0,
) -> FakeRoom:
    """One room; `noise` is the standard deviation in metres, added to every coordinate.

    `wall_density` is that of the first wall against everything else. `furniture` pieces are placed
    without overlap; those that find no place are left out, so R may be smaller.
    """
    rng = np.random.default_rng(seed)
    extent = np.array(size or (rng.uniform(2.5, 7), rng.uniform(2.5, 6), rng.uniform(2.3, 3)))
    patches = _shell(rng, extent, ceiling, walls, wall_density)
    boxes = _places(rng, extent, furniture)
    for kind, centre, dims, turned in boxes:
        patches += _furnish(rng, kind, centre, dims, turned)

    area = [p.density * np.linalg.norm(np.cross(*p.edges)) for p in patches]
    share = np.array(area) / sum(area)
    patch = rng.choice(len(patches), size=points, p=share)
    corner, edges, color = (np.stack([p[i] for p in patches])[patch] for i in range(3))
    xyz = corner + np.einsum("nk,nkd->nd", rng.random((points, 2)), edges)
    xyz += rng.normal(size=xyz.shape) * noise
    rgb = np.clip(color + rng.normal(size=xyz.shape) * 0.03, 0, 1)
    truth = np.array([[*centre, *dims] for _, centre, dims, _ in boxes]).reshape(-1, 6)
    return FakeRoom(*(torch.from_numpy(a.astype(np.float32)) for a in (xyz, rgb, truth)))


def single_view(
    points: Float[Tensor, "N 3"],
    eye: tuple[float, float, float],
    target: tuple[float, float, float],
    *,
    field: tuple[float, float] = (58.0, 45.0),
    far: float = 6.0,
) -> tuple[Bool[Tensor, "N"], Float64[Tensor, "3 3"]]:
    """Which points a depth camera sees, and the rotation from the world into its axes.

    Camera axes are x right, y down, z forward. `field` is the horizontal and vertical angle in
    degrees. A coarse z-buffer: a point is hidden when another in its pixel is clearly nearer.
    """
    world = points.double().numpy()
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    x, y, depth = ((world - eye) @ axes.T).T
    safe = np.maximum(depth, 1e-6)
    reach = np.tan(np.radians(field) / 2)
    columns = max(16, int(np.sqrt(len(world) / 12)))
    column = np.floor((x / safe / reach[0] + 1) / 2 * columns).astype(int)
    row = np.floor((y / safe / reach[1] + 1) / 2 * columns * 0.75).astype(int)
    seen = (depth > 0.4) & (depth < far) & (column >= 0) & (column < columns)
    seen &= (row >= 0) & (row < int(columns * 0.75))
    nearest = np.full((int(columns * 0.75), columns), np.inf)
    np.minimum.at(nearest, (row[seen], column[seen]), depth[seen])
    seen[seen] = depth[seen] < 1.06 * nearest[row[seen], column[seen]] + 0.05
    return torch.from_numpy(seen), torch.from_numpy(axes)


def _shell(
    rng: Generator, extent: np.ndarray, ceiling: bool, walls: int, wall_density: float
) -> list[Patch]:
    """Floor, walls with one opening each (or none), and perhaps a ceiling."""
    x, y, z = np.diag(extent)
    nothing = np.zeros(3)
    white = rng.uniform(0.7, 0.95, 3)
    patches = [Patch(nothing, np.stack([x, y]), rng.uniform(0.3, 0.6, 3))]
    if ceiling:
        patches.append(Patch(z, np.stack([x, y]), white))
    sides = [(nothing, x), (y, x), (nothing, y), (x, y)]
    for number, side in enumerate(rng.permutation(4)[:walls]):
        corner, along = sides[side]
        density = wall_density if number == 0 else 1.0
        opening = rng.choice(["none", "door", "window"])
        left, width = rng.uniform(0.1, 0.5), min(0.4, rng.uniform(0.8, 1.6) / np.abs(along).sum())
        low, high = {"none": (0, 0), "door": (0, 0.8), "window": (0.35, 0.85)}[opening]
        right = left + width if opening != "none" else left
        # The wall left of the opening, right of it, below it and above it.
        for a, b, c, d in (
            (0, left, 0, 1),
            (right, 1, 0, 1),
            (left, right, 0, low),
            (left, right, high, 1),
        ):
            start = corner + a * along + c * z
            patches.append(Patch(start, np.stack([(b - a) * along, (d - c) * z]), white, density))
    return patches


def _places(
    rng: Generator, extent: np.ndarray, count: int
) -> list[tuple[str, np.ndarray, np.ndarray, bool]]:
    """Kind, centre, size, and whether it is turned by a right angle, of each piece."""
    placed: list[tuple[str, np.ndarray, np.ndarray, bool]] = []
    ranges = {  # length, depth, height in metres
        "table": ((0.8, 1.6), (0.6, 0.9), (0.45, 0.78)),
        "chair": ((0.42, 0.55), (0.42, 0.55), (0.8, 1.0)),
        "sofa": ((1.2, 2.2), (0.75, 1.0), (0.65, 0.9)),
        "block": ((0.5, 2.0), (0.4, 1.2), (0.4, 1.2)),
        "shelf": ((0.6, 1.4), (0.25, 0.4), (0.9, 2.0)),
    }
    for kind in rng.choice(list(ranges), size=count):
        for _ in range(20):
            dims = np.array([rng.uniform(*r) for r in ranges[kind]])
            turned = bool(rng.integers(2))
            if turned:
                dims[:2] = dims[1::-1]
            room_left = extent - dims
            if (room_left < 0.1).any():
                continue
            centre = dims / 2 + rng.random(3) * room_left
            centre[2] = dims[2] / 2
            if kind == "shelf" or (kind in ("sofa", "block") and rng.random() < 0.6):
                depth_axis = 0 if turned else 1
                gap = dims[depth_axis] / 2 + 0.02
                centre[depth_axis] = gap if rng.integers(2) else extent[depth_axis] - gap
            if all((abs(centre - c) > (dims + d) / 2 + 0.05)[:2].any() for _, c, d, _ in placed):
                placed.append((str(kind), centre, dims, turned))
                break
    return placed


def _furnish(
    rng: Generator, kind: str, centre: np.ndarray, dims: np.ndarray, turned: bool
) -> list[Patch]:
    """The surfaces of one piece, from solid cuboids given in fractions of its box."""
    legs = [(u, u + 0.08, v, v + 0.08) for u in (0.0, 0.92) for v in (0.0, 0.92)]
    thin = 0.03 / dims[2]
    parts: list[tuple[float, ...]] = []  # x0 x1 y0 y1 z0 z1
    match kind:
        case "table":
            parts = [(0, 1, 0, 1, 1 - thin, 1), *((*leg, 0, 1 - thin) for leg in legs)]
        case "chair":
            parts = [(0, 1, 0, 1, 0.46, 0.46 + thin), (0, 1, 0.92, 1, 0.5, 1)]
            parts += [(*leg, 0, 0.46) for leg in legs]
        case "sofa":
            parts = [(0, 1, 0, 0.75, 0, 0.5), (0, 1, 0.75, 1, 0, 1)]
        case "shelf":
            parts = [(0, 0.03, 0, 1, 0, 1), (0.97, 1, 0, 1, 0, 1)]
            boards = np.linspace(0.05, 1 - thin, int(dims[2] / 0.35) + 1)
            parts += [(0, 1, 0, 1, z, z + thin) for z in boards]
        case _:
            parts = [(0, 1, 0, 1, 0, 1)]
    color = rng.uniform(0.1, 0.9, 3)
    corner, patches = centre - dims / 2, []
    for part in np.array(parts, float).reshape(-1, 3, 2):
        low, high = (part[[1, 0, 2]] if turned else part).T
        start, span = corner + low * dims, np.diag((high - low) * dims)
        for flat in range(3):
            edges = np.delete(span, flat, axis=0)
            if flat != 2:  # scans rarely see undersides
                patches.append(Patch(start, edges, color))
            patches.append(Patch(start + span[flat], edges, color))
    return patches
