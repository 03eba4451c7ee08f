"""Which points to keep: farthest point sampling and seeded random sampling."""

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from o2s.ops import kernels
from o2s.ops.kernels import Backend

_NEAR_ORIGIN = 1e-3  # squared metres, as in the CUDA operation of Pointnet2


def farthest_point_sample(
    points: Float32[Tensor, "B N 3"],
    count: int,
    *,
    start: int = 0,
    skip_near_origin: bool = False,
    backend: Backend = "auto",
) -> Int64[Tensor, "B K"]:
    """Indices of `count` points, each the farthest from all that were picked before it.

    The first is `start`; of equally far points the lowest index wins. Once every position is
    taken all distances are 0, so index 0 repeats. `skip_near_origin` never picks a point with
    |p|² <= 1e-3 but `start`, as the CUDA operation of Pointnet2 does that published weights were
    trained with; where no other point is left, index 0 repeats.

    The "numba" backend (CPU) gives the same indices as "torch" (any device) but skips regions that
    a new sample cannot change, the idea of QuickFPS (Han et al. 2023).

    Raises TypeError for points that are not float32; ValueError for a cloud without points, a
    count below 1, a start outside the cloud and coordinates that are not finite.
    """
    size = points.shape[1]
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    if not 0 <= start < size:
        raise ValueError(f"start must be the index of one of {size} points, not {start}")
    compiled = kernels.uses_numba(backend, points)
    points = points.detach()
    allowed = torch.ones_like(points[..., 0], dtype=torch.bool)
    if skip_near_origin:
        x, y, z = points.unbind(-1)
        allowed = (x * x + y * y + z * z).double() > _NEAR_ORIGIN
    if not compiled:
        return _farthest_point_sample(points, allowed, count, start)
    clouds, mask = kernels.as_array(points), kernels.as_array(allowed)
    return torch.from_numpy(kernels.farthest_points(clouds, mask, count, start))


def resample(size: int, count: int, seed: int) -> Int64[Tensor, "K"]:
    """Seeded choice of `count` of `size` points, each at most once where there are enough.

    Where there are fewer, all of them in order and then seeded repeats.

    Raises ValueError if there is no point to choose from.
    """
    if size < 1:
        raise ValueError(f"cannot choose {count} of {size} points")
    generator = torch.Generator().manual_seed(seed)
    if size >= count:
        return torch.randperm(size, generator=generator)[:count]
    repeats = torch.randint(size, (count - size,), generator=generator)
    return torch.cat([torch.arange(size), repeats])


def _farthest_point_sample(
    points: Float32[Tensor, "B N 3"], allowed: Bool[Tensor, "B N"], count: int, start: int
) -> Int64[Tensor, "B K"]:
    rows = torch.arange(len(points), device=points.device)
    picked = torch.full((len(points), count), start, device=points.device)
    distances = torch.full_like(points[..., 0], torch.inf).masked_fill(~allowed, -1)
    for i in range(1, count):
        x, y, z = (points - points[rows, picked[:, i - 1]][:, None]).unbind(-1)
        distances = torch.minimum(distances, x * x + y * y + z * z)
        picked[:, i] = distances.argmax(dim=1)  # of equal ones the first
    return picked
