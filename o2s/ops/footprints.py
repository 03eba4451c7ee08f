"""Turned boxes seen from above, with gradients: what losses need where `boxes.box_iou` has none."""

import torch
from jaxtyping import Float
from torch import Tensor

_SHRUNK = 1 - 1e-5  # no edge of one footprint lies on one of the other


def extents(
    sizes: Float[Tensor, "*batch 3"], headings: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3"]:
    """The sizes of the upright boxes around turned ones."""
    cos, sin = headings.cos().abs(), headings.sin().abs()
    x, y, z = sizes.unbind(-1)
    return torch.stack([cos * x + sin * y, sin * x + cos * y, z], dim=-1)


def overlap_and_around(
    a: Float[Tensor, "*#batch 7"], b: Float[Tensor, "*#batch 7"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3"]]:
    """The volume that boxes share, and the sizes of the upright boxes around both."""
    half_a, half_b = (extents(x[..., 3:6], x[..., 6]) / 2 for x in (a, b))
    low_a, high_a = a[..., :3] - half_a, a[..., :3] + half_a
    low_b, high_b = b[..., :3] - half_b, b[..., :3] + half_b
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp_min(0)
    around = torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)
    if a[..., 6].any() or b[..., 6].any():
        return footprint_overlap(a, b) * shared[..., 2], around
    return shared.prod(dim=-1), around


def footprint_overlap(
    a: Float[Tensor, "*#batch 7"], b: Float[Tensor, "*#batch 7"]
) -> Float[Tensor, "*batch"]:
    """Area that the footprints of turned boxes share, with gradients.

    Green's theorem: the border of the overlap is made of the edges of each inside the other.
    """
    signs = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]).to(a)
    half_a, half_b = a[..., 3:5] / 2, b[..., 3:5] * (_SHRUNK / 2)
    apart = _turned((a - b)[..., None, :2], -b[..., None, 6])  # in the frame of b, as all below
    corners_a = _turned(signs * half_a[..., None, :], (a - b)[..., None, 6]) + apart
    corners_b = signs * half_b[..., None, :] + torch.zeros_like(corners_a)
    seen_by_a = _turned(corners_b - apart, (b - a)[..., None, 6])
    area = _border(corners_a, corners_a, half_b) + _border(corners_b, seen_by_a, half_a)
    return area.clamp_min(0)


def _turned(
    points: Float[Tensor, "*batch P 2"], angle: Float[Tensor, "*other 1"]
) -> Float[Tensor, "*turned P 2"]:
    """Points after a turn counter-clockwise."""
    x, y = points.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _border(
    corners: Float[Tensor, "*batch 4 2"],
    seen: Float[Tensor, "*batch 4 2"],
    half: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "*batch"]:
    """Half the sum of x dy - y dx along the parts of edges that are inside a rectangle.

    `corners` are counter-clockwise; `seen` are the same in the frame of the rectangle, whose half
    sizes are `half`.
    """
    way = seen.roll(-1, dims=-2) - seen
    way = torch.where(way.abs() < 1e-9, 1e-9, way)
    half = half[..., None, :]
    crossings = torch.stack([(-half - seen) / way, (half - seen) / way])
    enter = crossings.amin(dim=0).amax(dim=-1, keepdim=True).clamp(0, 1)
    leave = crossings.amax(dim=0).amin(dim=-1, keepdim=True).clamp(0, 1)
    edges = corners.roll(-1, dims=-2) - corners
    start = corners + enter * edges
    end = corners + torch.maximum(enter, leave) * edges
    cross = start[..., 0] * end[..., 1] - start[..., 1] * end[..., 0]
    return cross.sum(dim=-1) / 2
