"""What TR3D learns from: which cells answer for which object, and the losses (mmdet3d,
projects/TR3D/tr3d/tr3d_head.py)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from o2s.detect.tr3d import Located, decode_boxes
from o2s.ops.footprints import overlap_and_around

CELLS_PER_OBJECT = 6
_FAR = 1e8


@torch.no_grad()
def assign(
    points: Float[Tensor, "V 3"],
    level: Int64[Tensor, "V"],
    boxes: Float[Tensor, "R 7"],
    box_level: Int64[Tensor, "R"],
    cells: int = CELLS_PER_OBJECT,
) -> Int64[Tensor, "V"]:
    """The object that each cell answers for, -1 for none.

    An object is answered for by the `cells` cells of its level that are nearest to its centre (less
    where several are equally far); a cell that several objects ask answers for the nearest.
    """
    if not len(points) or not len(boxes):
        return torch.full((len(points),), -1, device=points.device)
    distance = (points[:, None] - boxes[:, :3]).square().sum(dim=2)
    distance = torch.where(level[:, None] == box_level, distance, _FAR)
    limit = distance.kthvalue(min(cells + 1, len(points)), dim=0).values
    distance = torch.where(distance < limit, distance, _FAR)
    nearest, owner = distance.min(dim=1)
    return torch.where(nearest < _FAR, owner, -1)


def tr3d_loss(
    located: Located,
    boxes: Sequence[Float[Tensor, "_ 7"]],
    labels: Sequence[Int64[Tensor, "_"]],
    levels: Int64[Tensor, "classes"],
) -> dict[str, Float[Tensor, ""]]:
    """The losses of a batch.

    Args:
        located: what the network says.
        boxes, labels: the objects of each cloud.
        levels: of each class, the level that learns it.

    Returns:
        `box`, the mean over all cells that answer for an object of 1 - DIoU; and `class`, the focal
        loss of all cells over the number of those that answer.
    """
    targets = torch.zeros_like(located.logits)
    predicted, wanted = [], []
    for cloud, (objects, classes) in enumerate(zip(boxes, labels, strict=True)):
        mine = (located.cloud == cloud).nonzero()[:, 0]
        owner = assign(located.points[mine], located.level[mine], objects, levels[classes])
        answers = owner >= 0
        cells, owner = mine[answers], owner[answers]
        targets[cells, classes[owner]] = 1
        predicted.append(decode_boxes(located.points[cells], located.coded[cells].float()))
        wanted.append(objects[owner])
    found, true = torch.cat(predicted), torch.cat(wanted)
    count = max(len(found), 1)
    box = box_loss(found, true).sum() / count
    return {"box": box, "class": focal_loss(located.logits.float(), targets).sum() / count}


def box_loss(a: Float[Tensor, "P 7"], b: Float[Tensor, "P 7"]) -> Float[Tensor, "P"]:
    """1 - DIoU of pairs of boxes (Zheng et al., AAAI 2020): the distance of the centres is measured
    by the diagonal of the upright box around both.

    For turned boxes the published loss (projects/TR3D/tr3d/rotated_iou_loss.py) takes the boxes'
    widths for their heights in that distance; this one does not.
    """
    overlap, around = overlap_and_around(a, b)
    union = a[:, 3:6].prod(dim=1) + b[:, 3:6].prod(dim=1) - overlap
    diagonal = around.square().sum(dim=1)
    apart = (a[:, :3] - b[:, :3]).square().sum(dim=1)
    return 1 - overlap / union.clamp_min(1e-6) + apart / diagonal.clamp_min(1e-6)


def focal_loss(
    logits: Float[Tensor, "V classes"],
    targets: Float[Tensor, "V classes"],
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Float[Tensor, "V classes"]:
    """Lin et al., ICCV 2017, eq. 5, for each class by itself."""
    probability = logits.sigmoid()
    missed = torch.where(targets > 0, 1 - probability, probability)
    weight = torch.where(targets > 0, alpha, 1 - alpha) * missed**gamma
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
