"""Boxes as rows of seven numbers: centre (3), full size (3) and heading about z in radians.

That is the layout of `Boxes.tensor`. A negative size counts as 0.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from o2s.ops.kernels import Backend, as_array, compiled, uses_numba


def box_iou(a: Float32[Tensor, "R 7"], b: Float32[Tensor, "S 7"]) -> Float32[Tensor, "R S"]:
    """Volume of the intersection over volume of the union, 0 where a box has no volume.

    Where all headings are 0 this is plain torch on any device, with gradients. Otherwise footprints
    are clipped against each other in float64 on the CPU, without gradients.
    """
    if a[:, 6].any() or b[:, 6].any():
        overlaps = _rotated_iou(as_array(a.double().cpu()), as_array(b.double().cpu()))
        return torch.from_numpy(overlaps).to(a)
    (low_a, high_a), (low_b, high_b) = _corners(a), _corners(b)
    x, y, z = (
        (torch.minimum(high_a[:, None], high_b) - torch.maximum(low_a[:, None], low_b))
        .clamp(min=0)
        .unbind(-1)
    )
    overlap = x * y * z
    union = _volume(low_a, high_a)[:, None] + _volume(low_b, high_b) - overlap
    return torch.where(union > 0, overlap / torch.where(union > 0, union, 1), 0)


def same_box(
    wanted: Float32[Tensor, "7"], boxes: Float32[Tensor, "R 7"], least: float = 0.25
) -> int | None:
    """The row of the box that overlaps a wanted one most; None where no IoU reaches `least`."""
    if not len(boxes):
        return None
    overlap = box_iou(wanted[None], boxes)[0]
    best = int(overlap.argmax())
    return best if overlap[best] >= least else None


def nms_3d(
    boxes: Float32[Tensor, "R 7"],
    scores: Float32[Tensor, "R"],
    iou_threshold: float,
    labels: Int64[Tensor, "R"] | None = None,
    *,
    backend: Backend = "auto",
) -> Int64[Tensor, "K"]:
    """Greedy non-maximum suppression: indices of the kept boxes, highest score first.

    A box falls if its IoU with a kept box (of the same label, where labels are given) is above the
    threshold. Of equal scores the lower index comes first. Both backends, "torch" (any device)
    and "numba" (CPU), keep the same boxes.
    """
    order = scores.argsort(descending=True, stable=True)
    fast = uses_numba(backend, boxes)
    boxes = boxes.detach()[order]
    labels = torch.zeros_like(order) if labels is None else labels[order]
    if fast and not boxes[:, 6].any():
        corners = as_array(torch.cat(_corners(boxes), dim=1).T)
        alive = torch.from_numpy(_nms_upright(corners, as_array(labels), np.float32(iou_threshold)))
    elif fast:
        rows = as_array(boxes.double())
        alive = torch.from_numpy(_nms_rotated(rows, as_array(labels), np.float32(iou_threshold)))
    else:
        falls = (box_iou(boxes, boxes) > iou_threshold) & (labels[:, None] == labels)
        alive = torch.ones_like(labels, dtype=torch.bool)
        for i in range(len(order)):
            if alive[i]:
                alive[i + 1 :] &= ~falls[i, i + 1 :]
    return order[alive]


def points_in_boxes(
    points: Float32[Tensor, "N 3"],
    boxes: Float32[Tensor, "R 7"],
    margin: float = 0.0,
    *,
    backend: Backend = "auto",
) -> Bool[Tensor, "R N"]:
    """Whether each point lies in each box, faces included, after growing all faces by `margin`.

    The margin is in metres. Both backends, "torch" (any device) and "numba" (CPU), agree.
    """
    fast = uses_numba(backend, points, boxes)
    points, boxes = points.detach(), boxes.detach()
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    halves = boxes[:, 3:6].clamp(min=0) / 2 + margin
    if fast:
        frames = torch.cat([boxes[:, :3], halves, cos[:, None], sin[:, None]], dim=1)
        return torch.from_numpy(_points_in_boxes(as_array(points.T), as_array(frames)))
    inside = torch.empty(len(boxes), len(points), dtype=torch.bool, device=points.device)
    for row, box, half, c, s in zip(inside, boxes, halves, cos, sin, strict=True):
        x, y, z = (points - box[:3]).unbind(-1)
        row[:] = (c * x + s * y).abs() <= half[0]
        row &= (c * y - s * x).abs() <= half[1]
        row &= z.abs() <= half[2]
    return inside


def _corners(
    boxes: Float32[Tensor, "R 7"],
) -> tuple[Float32[Tensor, "R 3"], Float32[Tensor, "R 3"]]:
    """Lowest and highest corner of boxes without a heading."""
    centres, halves = boxes[:, :3], boxes[:, 3:6].clamp(min=0) / 2
    return centres - halves, centres + halves


def _volume(low: Float32[Tensor, "R 3"], high: Float32[Tensor, "R 3"]) -> Float32[Tensor, "R"]:
    x, y, z = (high - low).unbind(-1)
    return x * y * z


@compiled
def _nms_upright(corners, labels, threshold):
    """Which boxes stay; `corners` [6, R] is sorted by score. The arithmetic is that of box_iou."""
    zero = np.float32(0)
    x0, y0, z0, x1, y1, z1 = corners
    volumes = (x1 - x0) * (y1 - y0) * (z1 - z0)
    fallen = np.zeros(len(labels), np.uint8)
    for i in range(len(labels)):
        if fallen[i]:
            continue
        for j in range(i + 1, len(labels)):
            x = max(min(x1[i], x1[j]) - max(x0[i], x0[j]), zero)
            y = max(min(y1[i], y1[j]) - max(y0[i], y0[j]), zero)
            z = max(min(z1[i], z1[j]) - max(z0[i], z0[j]), zero)
            overlap = x * y * z
            union = volumes[i] + volumes[j] - overlap
            iou = overlap / union if union > zero else zero
            fallen[j] |= np.uint8((iou > threshold) & (labels[i] == labels[j]))
    return fallen == 0


@compiled
def _nms_rotated(boxes, labels, threshold):
    alive = np.ones(len(boxes), np.bool_)
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            if alive[i] and alive[j] and labels[i] == labels[j]:
                alive[j] = not np.float32(pair_iou(boxes[i], boxes[j])) > threshold
    return alive


@compiled
def _rotated_iou(a, b):
    overlaps = np.empty((len(a), len(b)), np.float32)
    for i in range(len(a)):
        for j in range(len(b)):
            overlaps[i, j] = pair_iou(a[i], b[j])
    return overlaps


@compiled
def pair_iou(a, b):
    """IoU of two boxes; their footprints meet by Sutherland-Hodgman clipping.

    For other compiled functions; `box_iou` is for whole tensors.
    """
    for axis in range(3, 6):
        if a[axis] <= 0 or b[axis] <= 0:
            return 0.0
    height = min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2)
    dx, dy = a[0] - b[0], a[1] - b[1]
    reach = (np.hypot(a[3], a[4]) + np.hypot(b[3], b[4])) / 2
    if height <= 0 or dx * dx + dy * dy > reach * reach:
        return 0.0
    # The footprint of a in the frame of b, where b's footprint is |x| <= w / 2, |y| <= h / 2.
    cos, sin = np.cos(b[6]), np.sin(b[6])
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    cos, sin = np.cos(a[6] - b[6]), np.sin(a[6] - b[6])
    # Four cuts leave at most 8 corners, and at most 20 whatever rounding does to convexity.
    polygon, clipped = np.empty((20, 2)), np.empty((20, 2))
    for i in range(4):
        u = a[3] / 2 if i in (0, 3) else -a[3] / 2
        v = a[4] / 2 if i < 2 else -a[4] / 2
        polygon[i, 0], polygon[i, 1] = x + cos * u - sin * v, y + sin * u + cos * v
    count = 4
    for axis in range(2):
        for sign in (-1, 1):
            count = _clip(polygon, count, clipped, axis, sign, b[3 + axis] / 2)
            polygon, clipped = clipped, polygon
    area = 0.0
    for i in range(count):
        j = (i + 1) % count
        area += polygon[i, 0] * polygon[j, 1] - polygon[j, 0] * polygon[i, 1]
    overlap = max(area / 2, 0.0) * height
    return overlap / (a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - overlap)


@compiled
def _clip(polygon, count, clipped, axis, sign, limit):
    """Keep the part of a convex polygon where sign * coordinate <= limit; its corner count."""
    kept = 0
    for i in range(count):
        j = (i + 1) % count
        here, there = limit - sign * polygon[i, axis], limit - sign * polygon[j, axis]
        if here >= 0:
            clipped[kept, 0], clipped[kept, 1] = polygon[i, 0], polygon[i, 1]
            kept += 1
        if (here >= 0) != (there >= 0):
            t = here / (here - there)
            for side in range(2):
                clipped[kept, side] = polygon[i, side] + t * (polygon[j, side] - polygon[i, side])
            kept += 1
    return kept


@compiled
def _points_in_boxes(points, frames):
    """Membership [R, N] of points [3, N] in frames [R, 8]: centre, half size, cosine, sine."""
    xs, ys, zs = points
    inside = np.empty((len(frames), len(xs)), np.bool_)
    for r in range(len(frames)):
        cx, cy, cz, half_x, half_y, half_z, cos, sin = frames[r]
        row = inside[r]
        for i in range(len(xs)):
            x, y, z = xs[i] - cx, ys[i] - cy, zs[i] - cz
            inside_x = abs(cos * x + sin * y) <= half_x
            inside_y = abs(cos * y - sin * x) <= half_y
            row[i] = inside_x & inside_y & (abs(z) <= half_z)
    return inside
