"""Which way is up in a scan, and in which unit it is.

`find_up` works on surfels: one point with a normal for each occupied voxel, so that every piece of
surface counts by its area and not by how densely it was scanned.

    points -> surfels -> dominant directions of the normals -> candidates for up
           -> six measures of gravity for each candidate -> the best one -> normal of its floor

A floor is the largest level with next to nothing below it. Furniture stands on it, most of its mass
is near it, and the opposite side is often open. Rooms alone cannot always tell (an empty cuboid has
six floors), so the axes are preferred, z first.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

_CELLS = 80  # voxels along the diagonal of the cloud: 9 cm in a room of 7 m
_NEIGHBOURS = 16  # surfels that a normal is fitted to
_LEVEL = np.cos(np.radians(23))  # a surfel is horizontal when its normal is this close to up
_SMALLEST_PLANE = 0.04  # share of all surfels from which on a level counts as floor or wall

# Log-odds of being up, fitted by conditional logistic regression to simulated rooms.
_WEIGHTS = {
    "log area of the floor": 1.5,
    "log area of the ceiling": -0.6,
    "share below the floor": -35.0,
    "share that floats": -7.0,
    "mean height of the furniture": -3.8,
    "share level or upright": 7.0,
    "near z": 4.4,
    "near y": 2.5,
    "near x": 0.5,
}


def find_up(points: Float32[Tensor, "N 3"]) -> Float64[Tensor, "3"]:
    """The unit vector that points up, in the coordinates and any unit of `points`.

    It is the normal of the floor, or exactly an axis when that is less than a degree away. Without
    a visible floor the directions of walls and furniture are used. Weak evidence is no evidence:
    a point, a line, a few points or a lone wall give (0, 0, 1), and where a room fits several
    directions z is preferred, then y up or down (the cameras' axes: y down, z forward), then x.
    Points that are not finite are ignored. Deterministic.
    """
    fallback = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    surfels = _surfels(points.detach().cpu().double().numpy())
    if surfels is None:
        return fallback
    directions = _dominant_directions(surfels)
    if len(directions) == 0:
        return fallback
    candidates = _candidates(directions)
    floors = [_floor(surfels, up) for up in candidates]
    widest = int(np.argmax([floor.area for floor in floors]))
    if floors[widest].area > 0.9:  # one plane: a floor if it lies, a wall otherwise
        normal = candidates[widest] * (1 if candidates[widest][2] >= 0 else -1)
        if normal[2] < np.cos(np.radians(30)):
            return fallback
        return torch.from_numpy(_refine(surfels, normal))
    best = np.argmax(_gravity(surfels, candidates, floors) @ np.array(list(_WEIGHTS.values())))
    return torch.from_numpy(_refine(surfels, candidates[best]))


def rotation_to_z(up: Float64[Tensor, "3"]) -> Float64[Tensor, "3 3"]:
    """The smallest rotation R with R @ up = (0, 0, 1), exact when `up` is exactly an axis.

    `up` has length 1. The opposite of z is turned about x. Rodrigues' formula for the rotation
    between two vectors.
    """
    x, y, z = up.tolist()
    if z < 0 and math.hypot(x, y) < 1e-150:
        return torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    # 1 / (1 + z), which loses its digits near -z if it is written like that.
    factor = 1 / (1 + z) if z > 0 else (1 - z) / (x * x + y * y)
    rows = [
        [1 - factor * x * x, -factor * x * y, -x],
        [-factor * x * y, 1 - factor * y * y, -y],
        [x, y, z],
    ]
    return torch.tensor(rows, dtype=torch.float64) + 0.0  # -0 becomes 0


def guess_unit(points: Float[Tensor, "N 3"]) -> Literal["m", "cm", "mm"]:
    """The unit in which an indoor scan is written, from its longest side.

    The side is measured between the 1st and the 99th percentile, so that stray points do not count.
    Below 60 it is metres, below 1,500 centimetres, else millimetres. That is right for 0 to 60 m in
    metres, 0.6 to 15 m in centimetres and from 1.5 m on in millimetres; an object of 30 cm in
    centimetres or of 1 m in millimetres cannot be told from a room in the larger unit.
    """
    xyz = points.detach().cpu().double().numpy()
    xyz = xyz[np.isfinite(xyz).all(1)]
    if len(xyz) == 0:
        return "m"
    side = float(np.ptp(np.percentile(xyz, [1, 99], axis=0), axis=0).max())
    return "m" if side < 60 else "cm" if side < 1500 else "mm"


class _Surfels(NamedTuple):
    """One for each occupied voxel; the unit of length is the voxel."""

    positions: Float64[np.ndarray, "N 3"]
    normals: Float64[np.ndarray, "N 3"]  # of either sign
    planarity: Float64[np.ndarray, "N"]  # 0 on a line or in a blob, towards 1 on a plane

    @property
    def flat(self) -> Bool[np.ndarray, "N"]:
        return self.planarity > 0.2


class _Floor(NamedTuple):
    """The plane under everything for one direction; area and below are shares of all surfels."""

    height: float
    area: float
    below: float


def _surfels(xyz: Float64[np.ndarray, "_ 3"]) -> _Surfels | None:
    """Voxel means with normals from their neighbours; None if there is nothing like a surface."""
    xyz = xyz[np.isfinite(xyz).all(1)]
    if len(xyz) < _NEIGHBOURS:
        return None
    low, high = np.percentile(xyz, [1, 99], axis=0)
    voxel = np.linalg.norm(high - low) / _CELLS
    if voxel <= 1e-9 * np.abs(xyz).max():
        return None
    xyz = (xyz - low) / voxel
    xyz = xyz[(np.abs(xyz) < 2 * _CELLS).all(1)]  # stray points
    key = np.floor(xyz).astype(np.int64) @ np.array([1, 4 * _CELLS, (4 * _CELLS) ** 2])
    _, cell, count = np.unique(key, return_inverse=True, return_counts=True)
    if len(count) < _NEIGHBOURS:
        return None
    position = np.stack([np.bincount(cell, xyz[:, i]) / count for i in range(3)], axis=1)
    near = position[KDTree(position).query(position, _NEIGHBOURS)[1]]
    near -= near.mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(near.transpose(0, 2, 1) @ near)
    planarity = np.maximum(spread[:, 1] - np.maximum(spread[:, 0], 0), 0) / spread[:, 2]
    return _Surfels(position, axes[:, :, 0], planarity)


def _dominant_directions(surfels: _Surfels) -> Float64[np.ndarray, "K 3"]:
    """Up to six directions of most area, by a vote of the normals over a hemisphere."""
    number = np.arange(1500) + 0.5  # a Fibonacci lattice, 4 degrees apart
    z, angle = number / 1500, np.pi * (1 + 5**0.5) * number
    radius = np.sqrt(1 - z * z)
    lattice = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)

    normals, weight = surfels.normals[surfels.flat], surfels.planarity[surfels.flat]
    found: list[np.ndarray] = []
    least = max(0.02 * weight.sum(), 5.0)
    voters = slice(None, None, 1 + len(normals) // 5000)
    cosine = normals[voters].astype(np.float32) @ lattice.T.astype(np.float32)
    agrees = (np.abs(cosine) > np.cos(np.radians(8))).astype(np.float32)
    for _ in range(6):
        direction = lattice[np.argmax(weight[voters].astype(np.float32) @ agrees)]
        for degrees in (10, 7, 5):
            close = np.abs(normals @ direction) > np.cos(np.radians(degrees))
            scatter = (normals[close] * weight[close, None]).T @ normals[close]
            direction = np.linalg.eigh(scatter)[1][:, 2]
        close = np.abs(normals @ direction) > np.cos(np.radians(15))
        if weight[close].sum() < least:
            break
        found.append(direction)
        weight = np.where(close, 0.0, weight)
    return np.array(found).reshape(-1, 3)


def _candidates(directions: Float64[np.ndarray, "D 3"]) -> Float64[np.ndarray, "K 3"]:
    """Dominant directions, what is at right angles to two of them, and the axes; both signs."""
    kept = list(directions)
    crossed = [np.cross(a, b) for i, a in enumerate(directions[:4]) for b in directions[:i]]
    upright = [c / np.linalg.norm(c) for c in crossed if np.linalg.norm(c) > 0.98]
    for extra in [*upright, *np.eye(3)]:
        if (np.abs(np.array(kept) @ extra) < np.cos(np.radians(12))).all():
            kept.append(extra)
    return np.concatenate([kept, -np.array(kept)])


def _floor(surfels: _Surfels, up: Float64[np.ndarray, "3"]) -> _Floor:
    """The level of most area, less what lies below it."""
    height = surfels.positions @ up
    level = surfels.flat & (np.abs(surfels.normals @ up) > _LEVEL)
    slab = np.floor(height - height.min()).astype(int)
    area = np.bincount(slab[level], minlength=slab.max() + 2).astype(float)
    area[:-1] += area[1:]  # a floor may straddle two slabs
    everything = np.bincount(slab, minlength=len(area))
    below = np.cumsum(everything) - everything
    below[1:] = below[:-1].copy()  # a slab of grace
    lowest = int(np.argmax(area - 1.5 * below))
    members = level & (slab >= lowest) & (slab <= lowest + 1)
    at = height[members].mean() if members.any() else height.min()
    return _Floor(float(at), area[lowest] / len(height), below[lowest] / len(height))


def _gravity(
    surfels: _Surfels, candidates: Float64[np.ndarray, "K 3"], floors: list[_Floor]
) -> Float64[np.ndarray, "K F"]:
    """The measures that `_WEIGHTS` names, in its order, for each candidate."""
    heights = surfels.positions @ candidates.T - [floor.height for floor in floors]
    cosine = np.abs(surfels.normals @ candidates.T)
    large = np.array([floor.area > _SMALLEST_PLANE for floor in floors])
    furniture = (np.abs(heights[:, large]) >= 2).all(axis=1)  # neither floor, wall nor ceiling
    piece = _connected(surfels.positions[furniture])
    mass = np.bincount(piece) if len(piece) else np.zeros(0, int)
    mass[mass < 5] = 0

    area = np.log([floor.area + 0.01 for floor in floors])
    rows = []
    for i, up in enumerate(candidates):
        top = max(np.percentile(heights[:, i], 99), 1.0)
        own = heights[furniture, i]
        lowest = np.full(len(mass), np.inf)
        np.minimum.at(lowest, piece, own)
        floating = mass[np.abs(lowest) > 4].sum() / (len(own) + 0.05 * len(heights))
        few = len(own) < 0.01 * len(heights)
        rows.append(
            [
                area[i],
                area[(i + len(candidates) // 2) % len(candidates)],
                floors[i].below,
                0.0 if few else floating,
                0.5 if few else np.clip(own / top, 0, 1.2).mean(),
                ((cosine[:, i] < 0.25) | (cosine[:, i] > 0.95)).mean(),
                max(up[2] - 0.8, 0) / 0.2,  # tilts up to 37 degrees
                max(abs(up[1]) - 0.7, 0) / 0.3,  # a camera is pitched by up to 45
                max(abs(up[0]) - 0.8, 0) / 0.2,
            ]
        )
    return np.array(rows)


def _connected(positions: Float64[np.ndarray, "N 3"]) -> Int[np.ndarray, "N"]:
    """The number of the connected piece, over touching voxels, that each position belongs to."""
    if len(positions) == 0:
        return np.zeros(0, int)
    cell = np.floor(positions).astype(int)
    cell -= cell.min(axis=0)
    grid = np.zeros(cell.max(axis=0) + 1, bool)
    grid[tuple(cell.T)] = True
    piece = np.zeros(grid.shape, np.int32)
    ndimage.label(grid, np.ones((3, 3, 3)), output=piece)
    return piece[tuple(cell.T)] - 1


def _refine(surfels: _Surfels, up: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    """The normal of the floor near `up`, or the axis that it cannot be told from."""
    floor = _floor(surfels, up)
    level = surfels.flat & (np.abs(surfels.normals @ up) > _LEVEL)
    members = level & (np.abs(surfels.positions @ up - floor.height) < 1.5)
    tolerance = 5.0
    for _ in range(3):
        if members.sum() < 20:
            break
        centre = surfels.positions[members].mean(axis=0)
        offset = surfels.positions[members] - centre
        spread, axes = np.linalg.eigh(offset.T @ offset / len(offset))
        normal = axes[:, 0] * np.sign(axes[:, 0] @ up)
        # A strip of a few voxels has no normal of its own.
        if spread[1] < 6 or normal @ up < np.cos(np.radians(12)):
            break
        up, tolerance = normal, 1.0
        members = level & (np.abs((surfels.positions - centre) @ up) < 1)
    axis = np.zeros(3)
    axis[np.abs(up).argmax()] = np.sign(up[np.abs(up).argmax()])
    if np.linalg.norm(np.cross(up, axis)) < np.sin(np.radians(tolerance)):
        return axis
    return up / np.linalg.norm(up)
