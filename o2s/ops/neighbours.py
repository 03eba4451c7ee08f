"""Which points lie near which: nearest neighbours, ball query, and gathering of their features.

Squared distances are sums of squared float32 differences, never the expansion with a matrix
product, which loses neighbours far from the origin.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from o2s.ops import kernels
from o2s.ops.kernels import Backend

_CHUNK = 2**21  # distances that the torch backend holds at a time


@dataclass(frozen=True)
class BallQuery:
    """The points in each ball; `counts` says how many of the K columns are not padding."""

    indices: Int64[Tensor, "B M K"]
    counts: Int64[Tensor, "B M"]


def nearest_neighbours(
    queries: Float32[Tensor, "B M 3"],
    points: Float32[Tensor, "B N 3"],
    k: int,
    *,
    backend: Backend = "auto",
) -> Int64[Tensor, "B M K"]:
    """Indices of the k nearest points of each query, sorted by distance, then by index.

    A query that is one of the points finds itself. Where k > N the nearest fills the columns that
    are left. Both backends, "torch" (any device) and "numba" (CPU), give the same indices.

    Raises TypeError for points that are not float32; ValueError for clouds without points, k below
    1 and coordinates that are not finite.
    """
    return _search(queries, points, float("inf"), k, "nearest", backend).indices


def ball_query(
    queries: Float32[Tensor, "B M 3"],
    points: Float32[Tensor, "B N 3"],
    radius: float,
    k: int,
    *,
    order: Literal["index", "nearest"] = "index",
    backend: Backend = "auto",
) -> BallQuery:
    """Up to k points nearer to each query than `radius` (metres), padded with the first of them.

    Order "index" takes those with the lowest indices, as the CUDA operation of Pointnet2 does;
    "nearest" takes the nearest. A ball without points has count 0 and index 0 in every column.
    Both backends, "torch" (any device) and "numba" (CPU), give the same result.

    Raises TypeError for points that are not float32; ValueError for clouds without points, k below
    1 and coordinates that are not finite.
    """
    return _search(queries, points, radius, k, order, backend)


def group(
    features: Float[Tensor, "B N C"], indices: Int64[Tensor, "B M K"]
) -> Float[Tensor, "B M K C"]:
    """The features of the points that `indices` names; gradients flow to `features`."""
    batches, size, _ = features.shape
    offsets = torch.arange(batches, device=indices.device)[:, None, None] * size
    # The backward pass of an embedding adds in a fixed order on every device.
    return torch.nn.functional.embedding(indices + offsets, features.flatten(0, 1))


def _search(
    queries: Tensor, points: Tensor, radius: float, k: int, order: str, backend: Backend
) -> BallQuery:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if points.shape[1] < 1:
        raise ValueError("no points to search")
    limit = np.float32(radius) * np.float32(radius)
    if not kernels.uses_numba(backend, queries, points):
        return _search_torch(queries.detach(), points.detach(), float(limit), k, order)
    arrays = kernels.as_array(queries), kernels.as_array(points)
    indices, counts = kernels.search(*arrays, limit, k, order == "index")
    return BallQuery(torch.from_numpy(indices), torch.from_numpy(counts))


def _search_torch(queries: Tensor, points: Tensor, limit: float, k: int, order: str) -> BallQuery:
    """Sorts one integer a pair: distance (or 0) in the upper half, index in the lower."""
    index = torch.arange(points.shape[1], device=points.device)
    far = 2**63 - 1
    found = []
    for chunk in queries.split(max(1, _CHUNK // points[..., 0].numel()), dim=1):
        x, y, z = (chunk[:, :, None] - points[:, None]).unbind(-1)
        distances = x * x + y * y + z * z
        keys = index.expand(distances.shape)
        if order == "nearest":  # non-negative floats order like their bits
            keys = distances.view(torch.int32).long() << 32 | index
        keys = keys.masked_fill(distances >= limit, far)
        found.append(keys.topk(min(k, len(index)), largest=False, sorted=True).values)
    keys = torch.cat(found, dim=1)
    hits = keys < far
    keys = torch.where(hits, keys, torch.where(hits, keys, 0)[..., :1])
    keys = torch.cat([keys, keys[..., :1].expand(*keys.shape[:2], k - keys.shape[2])], dim=2)
    return BallQuery(keys & 0xFFFFFFFF, hits.sum(dim=2))
