"""What 3DETR learns from: a set loss (facebookresearch/3detr, criterion.py).

Queries and objects of a scan are matched one to one so that the sum of costs is least (Carion et
al., ECCV 2020). Matched queries learn the class and the box of their object, the others that there
is none. All layers of the decoder learn so, each with its own matching.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from o2s.detect.detr3d import Detr3dOutputs
from o2s.ops.footprints import overlap_and_around

_LEAST_SIZE = 1e-3  # metres; for their volumes thinner boxes count as so thick
_LEAST_VOLUME = 1e-8


@dataclass(frozen=True)
class SetLossConfig:
    """Weights of the losses and costs of the matching.

    The defaults are those of both published models for ScanNet that have `masked` in their name
    (scripts/scannet_masked_ep1080.sh), `SUNRGBD` those of scripts/sunrgbd_masked_ep1080.sh. The
    defaults of main.py are the same as the former but for `giou` 0 and `no_object` 0.2.

    Args:
        classes: cross entropy of all queries.
        no_object: what a query without an object counts in it; one with an object counts 1.
        centre: sum of the three distances to the centre over the extents of the scan.
        size: sum of the three differences of the sizes over the extents of the scan.
        angle_class, angle_residual: which part of a turn, and where in it.
        giou: 1 - generalised IoU.
        cost_class, cost_object, cost_centre, cost_giou: of matching, on the class' probability,
            that of any object, the centre as above and the generalised IoU.

    Raises:
        ValueError: a value is negative.
    """

    classes: float = 1.0
    no_object: float = 0.25
    centre: float = 5.0
    size: float = 1.0
    angle_class: float = 0.1
    angle_residual: float = 0.5
    giou: float = 1.0
    cost_class: float = 1.0
    cost_object: float = 0.0
    cost_centre: float = 0.0
    cost_giou: float = 2.0

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if value < 0:
                raise ValueError(f"{name} is {value}, expected 0 or more")


SUNRGBD = SetLossConfig(
    classes=0.8,
    no_object=0.1,
    giou=0.0,
    cost_object=5.0,
    cost_centre=5.0,
    cost_giou=3.0,
)


def detr3d_loss(
    outputs: Detr3dOutputs,
    boxes: Sequence[Float[Tensor, "_ 7"]],
    labels: Sequence[Int64[Tensor, "_"]],
    config: SetLossConfig | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted losses of a batch, each summed over the layers of the decoder.

    Args:
        outputs: what the network says, with its earlier layers.
        boxes, labels: the objects of each cloud.
        config: weights and costs; None for the published ones.

    Returns:
        `class`, and over the number of objects `centre`, `size`, `angle_class`, `angle_residual`
        and `giou`; those of weight 0 are left out. The loss is their sum.

    Raises:
        ValueError: what the network says is not finite.
    """
    config = config or SetLossConfig()
    layers = [layer_loss(x, boxes, labels, config) for x in (*outputs.earlier, outputs)]
    return {name: torch.stack([losses[name] for losses in layers]).sum() for name in layers[0]}


def layer_loss(
    outputs: Detr3dOutputs,
    boxes: Sequence[Float[Tensor, "_ 7"]],
    labels: Sequence[Int64[Tensor, "_"]],
    config: SetLossConfig,
) -> dict[str, Float[Tensor, ""]]:
    """The losses of one layer of the decoder, see `detr3d_loss`."""
    nothing = outputs.logits.shape[-1] - 1
    wanted = torch.full_like(outputs.logits[..., 0], nothing, dtype=torch.long)
    extent = (outputs.high - outputs.low).clamp_min(1e-6)
    zero = outputs.logits.new_zeros(())
    names = ("centre", "size", "angle_class", "angle_residual", "giou")
    sums: dict[str, Tensor] = dict.fromkeys(names, zero)
    for cloud, (objects, classes) in enumerate(zip(boxes, labels, strict=True)):
        centres, headings = outputs.centres[cloud], outputs.headings[cloud]
        found = torch.cat([centres, outputs.sizes[cloud], headings[:, None]], dim=1)
        apart = ((centres[:, None] - objects[:, :3]).abs() / extent[cloud]).sum(dim=-1)
        overlap = generalised_iou(found, objects)
        chances = outputs.logits[cloud].softmax(dim=-1)
        queries, owners = match(
            config.cost_centre * apart
            - config.cost_giou * overlap
            - config.cost_class * chances[:, classes]
            - config.cost_object * (1 - chances[:, nothing:])
        )
        wanted[cloud, queries] = classes[owners]
        fractions = objects[owners, 3:6] / extent[cloud]
        bins, within = outputs.bins[cloud, queries], outputs.within[cloud, queries]
        part, rest = encode_headings(objects[owners, 6], bins.shape[-1])
        within = within.gather(1, part[:, None])[:, 0]
        sums = {
            "centre": sums["centre"] + apart[queries, owners].sum(),
            "size": sums["size"] + (outputs.fractions[cloud, queries] - fractions).abs().sum(),
            "angle_class": sums["angle_class"] + F.cross_entropy(bins, part, reduction="sum"),
            "angle_residual": sums["angle_residual"] + F.huber_loss(within, rest, reduction="sum"),
            "giou": sums["giou"] + (1 - overlap[queries, owners]).sum(),
        }
    count = max(sum(len(objects) for objects in boxes), 1)
    share = torch.ones_like(outputs.logits[0, 0])
    share[nothing] = config.no_object
    classes = F.cross_entropy(outputs.logits.flatten(0, 1), wanted.flatten(), share)
    weights = {name: getattr(config, name) for name in sums}
    losses = {name: weights[name] * sums[name] / count for name in sums if weights[name]}
    return {"class": config.classes * classes, **losses}


def match(cost: Float[Tensor, "Q R"]) -> tuple[Int64[Tensor, "M"], Int64[Tensor, "M"]]:
    """Queries and their objects so that the sum of costs is least; M is the lesser of Q and R.

    Raises:
        ValueError: a cost is not finite.
    """
    if not cost.isfinite().all():
        raise ValueError("costs of matching must be finite, found NaN or infinity")
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def encode_headings(
    headings: Float[Tensor, "R"], parts: int
) -> tuple[Int64[Tensor, "R"], Float[Tensor, "R"]]:
    """The part of a turn that each heading is in and how far it is from its middle, in half parts.

    Clockwise, as `Detr3dOutputs` has them; part 0 lies about 0. With one part all is 0.
    """
    if parts == 1:
        return torch.zeros_like(headings, dtype=torch.long), torch.zeros_like(headings)
    half = math.pi / parts
    shifted = (half - headings) % (2 * math.pi)
    part = (shifted / (2 * half)).long().clamp_max(parts - 1)
    return part, shifted / half - 2 * part - 1


def generalised_iou(a: Float[Tensor, "Q 7"], b: Float[Tensor, "R 7"]) -> Float[Tensor, "Q R"]:
    """IoU less the share of the upright box around both that neither fills, in [-1, 1].

    Rezatofighi et al., CVPR 2019. With gradients, also for turned boxes, whose overlap is exact;
    the published one takes some that do overlap for apart.
    """
    a, b = a[:, None], b[None]
    overlap, sides = overlap_and_around(a, b)
    around = sides.prod(dim=-1)
    volume_a = a[..., 3:6].clamp_min(_LEAST_SIZE).prod(dim=-1)
    volume_b = b[..., 3:6].clamp_min(_LEAST_SIZE).prod(dim=-1)
    union = (volume_a + volume_b - overlap).clamp_min(_LEAST_VOLUME)
    return overlap / union - 1 + union / around.clamp_min(_LEAST_VOLUME)
