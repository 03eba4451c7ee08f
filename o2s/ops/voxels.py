"""Voxel grids: which points share a cell, their means, and which cells touch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from o2s.ops.kernels import as_array, compiled


@dataclass(frozen=True)
class Voxels:
    """The occupied cells of a grid, sorted by x, then y, then z.

    `coordinates` are whole numbers of cells from the origin, `inverse` is each point's voxel and
    `counts` is each voxel's number of points.
    """

    coordinates: Int64[Tensor, "V 3"]
    inverse: Int64[Tensor, "N"]
    counts: Int64[Tensor, "V"]

    def __len__(self) -> int:
        return len(self.coordinates)


def voxelize(points: Float32[Tensor, "N 3"], size: float) -> Voxels:
    """The cells floor(points / size) that hold points; `size` is the edge of a cell in metres.

    Raises ValueError for a size that is not positive, coordinates that are not finite and a grid
    of more than 2^62 cells.
    """
    if not size > 0:
        raise ValueError(f"the voxel size must be positive, not {size}")
    cells = (points.detach() / size).floor()
    if not bool((cells.abs() < 2**62).all()):  # NaN fails as well
        raise ValueError("points must be finite and within 2^62 voxels of the origin")
    coordinates = cells.long()
    keys, low, spans = _pack(coordinates, margin=0)
    keys, inverse, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    return Voxels(_unpack(keys, low, spans), inverse, counts)


def voxel_mean(values: Float[Tensor, "N C"], voxels: Voxels) -> Float[Tensor, "V C"]:
    """The mean of the values in each voxel, bit for bit the same in every run.

    Gradients flow to `values`.
    """
    sums = values.new_zeros(len(voxels), values.shape[1])
    if values.device.type == "cpu":
        sums = sums.index_add(0, voxels.inverse, values)
    else:  # of a GPU's two ways, only this one adds in a fixed order
        sums = sums.index_put((voxels.inverse,), values, accumulate=True)
    return sums / voxels.counts[:, None]


def connected_components(
    coordinates: Int64[Tensor, "V 3"], *, reach: int = 1
) -> Int64[Tensor, "V"]:
    """Label cells so that cells share a label exactly if a chain of neighbours joins them.

    Neighbours differ by at most `reach` along every axis: 1 means the 26 cells around a cell, 2
    the 124 of a 5 x 5 x 5 block. Labels count from 0 in the order of first appearance. Runs on
    the CPU wherever the coordinates live.

    Raises ValueError for a reach below 1 and a grid of more than 2^62 cells.
    """
    if reach < 1:
        raise ValueError(f"reach must be at least 1, not {reach}")
    keys, _, spans = _pack(coordinates.cpu(), margin=reach)
    keys, inverse = torch.unique(keys, return_inverse=True)
    # Every neighbour pair once: the offsets that come after (0, 0, 0) in the order of the keys.
    steps = torch.arange(-reach, reach + 1)
    offsets = torch.cartesian_prod(steps, steps, steps) @ _strides(spans)
    offsets = offsets[offsets > 0]
    labels = _label_components(as_array(keys), as_array(offsets), as_array(inverse))
    return torch.from_numpy(labels).to(coordinates.device)


def _pack(
    coordinates: Int64[Tensor, "V 3"], margin: int
) -> tuple[Int64[Tensor, "V"], Int64[Tensor, "3"], Int64[Tensor, "3"]]:
    """One integer a cell that orders as (x, y, z); the lowest corner; cells along each axis.

    With a margin, steps of up to `margin` from an occupied cell never wrap into another row.
    """
    if len(coordinates) == 0:
        return coordinates.new_zeros(0), coordinates.new_zeros(3), coordinates.new_ones(3)
    low, high = coordinates.amin(dim=0), coordinates.amax(dim=0)
    corners = zip(low.tolist(), high.tolist(), strict=True)
    lengths = [last - first + 1 + 2 * margin for first, last in corners]
    if math.prod(lengths) > 2**62:
        raise ValueError(f"a grid of {' x '.join(map(str, lengths))} cells is too large")
    spans = torch.tensor(lengths, device=coordinates.device)
    return ((coordinates - low + margin) * _strides(spans)).sum(dim=1), low, spans


def _unpack(
    keys: Int64[Tensor, "V"], low: Int64[Tensor, "3"], spans: Int64[Tensor, "3"]
) -> Int64[Tensor, "V 3"]:
    return keys[:, None] // _strides(spans) % spans + low


def _strides(spans: Int64[Tensor, "3"]) -> Int64[Tensor, "3"]:
    return torch.stack([spans[1] * spans[2], spans[2], torch.ones_like(spans[2])])


@compiled
def _label_components(keys, offsets, inverse):
    """Union-find over sorted keys; as key + offset is sorted too, one sweep an offset suffices."""
    parents = np.arange(len(keys))
    for offset in offsets:
        j = 0
        for i in range(len(keys)):
            target = keys[i] + offset
            while j < len(keys) and keys[j] < target:
                j += 1
            if j == len(keys):
                break
            if keys[j] == target:
                a, b = _root(parents, i), _root(parents, j)
                parents[max(a, b)] = min(a, b)
    names = np.full(len(keys), -1)
    labels = np.empty(len(inverse), np.int64)
    fresh = 0
    for i in range(len(inverse)):
        root = _root(parents, inverse[i])
        if names[root] < 0:
            names[root] = fresh
            fresh += 1
        labels[i] = names[root]
    return labels


@compiled
def _root(parents, i):
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i
