"""What each detected object is near and what it is on, from the boxes alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from o2s.ops.boxes import box_iou
from o2s.scene import Boxes

SAME = 0.4  # IoU from which two boxes are taken for one object, found twice
SUNK = 0.25  # how deep below the other's top, in the other's heights, something on it may begin
AIR = 0.2  # and how far above it, in metres


def relations(boxes: Boxes) -> tuple[list[int | None], list[int | None]]:
    """For each box the nearest other, and the one that it stands on; None where there is none.

    The distance is that of the surfaces, and of the centres where several touch. What an object is
    on or carries does not count as near.
    """
    count = len(boxes)
    if not count:
        return [], []
    corners = boxes.corners()
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    same = (box_iou(boxes.tensor, boxes.tensor) > SAME) | torch.eye(count, dtype=torch.bool)

    area = (high - low)[:, :2].prod(dim=1)
    over = (boxes.centres[:, None, :2] > low[:, :2]) & (boxes.centres[:, None, :2] < high[:, :2])
    step = low[:, None, 2] - high[:, 2]  # of the one's bottom above the other's top
    stands = over.all(dim=2) & (area[:, None] < area) & ~same
    stands &= (step > -SUNK * (high - low)[:, 2]) & (step < AIR)
    on = _least(step.abs(), stands)

    gaps = torch.maximum(low[:, None] - high, low - high[:, None]).clamp_min(0).norm(dim=2)
    distance = gaps + 1e-3 * torch.cdist(boxes.centres, boxes.centres)
    near = _least(distance, ~(same | stands | stands.T))
    return near, on


def _least(cost: Float[Tensor, "R R"], allowed: Tensor) -> list[int | None]:
    """In each row the place of the least cost that is allowed."""
    places = cost.masked_fill(~allowed, torch.inf).argmin(dim=1).tolist()
    return [
        place if some else None
        for place, some in zip(places, allowed.any(dim=1).tolist(), strict=True)
    ]
