"""Random changes of a scan and its boxes in training, as the published recipes of TR3D (mmdet3d,
projects/TR3D/configs) and 3DETR (facebookresearch/3detr, datasets/scannet.py) make them, with
quarter turns and changes of colour for simulated rooms."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32, Int64

from o2s.train.region_augmentation import turn_about


@dataclass(frozen=True)
class DetectorAugmentation:
    """What is changed, in this order; 0 or (1, 1) switches a change off.

    Args:
        cuboid: least share of each side of the scan that a random cuboid keeps; boxes with their
            centre outside go. 1 for all.
        cuboid_points: a cuboid holds at least so many points.
        keep: least and greatest share of the points that stay.
        most: at most so many points stay; null for all.
        flip_x, flip_y: probability of mirroring each axis.
        quarter_turns: whether to turn by a random multiple of 90 degrees.
        turn: largest turn about z in radians, either way. Boxes without heading grow around it.
        scale: least and greatest factor of all lengths.
        shift: standard deviation of a shift along each axis, in metres.
        color_shift: largest change of each colour channel, of 1.
        color_gain: largest change of the contrast, of 1.
        color_dropout: probability that a scan has no colour.

    Raises:
        ValueError: a value is out of its range.
    """

    cuboid: float = 1.0
    cuboid_points: int = 30_000
    keep: Sequence[float] = (0.33, 1.0)
    most: int | None = None
    flip_x: float = 0.5
    flip_y: float = 0.5
    quarter_turns: bool = False
    turn: float = 0.02
    scale: Sequence[float] = (0.9, 1.1)
    shift: float = 0.1
    color_shift: float = 0.0
    color_gain: float = 0.0
    color_dropout: float = 0.0

    def __post_init__(self) -> None:
        whole = ("most", "quarter_turns", "cuboid_points")
        for name in (f.name for f in fields(self) if f.name not in whole):
            value = getattr(self, name)
            if name in ("keep", "scale"):
                most = 1 if name == "keep" else 10
                if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
                    raise ValueError(
                        f"{name} is {value}, expected two numbers from 0 to {most}, the less first"
                    )
            elif not 0 <= value <= (np.pi if name == "turn" else 1) or (
                name == "cuboid" and not value
            ):
                raise ValueError(f"{name} is {value}, expected 0 or more, at most 1 (turn: pi)")
        if self.most is not None and self.most < 1:
            raise ValueError(f"most is {self.most}, expected at least 1 point")


def change_scan(
    rng: np.random.Generator,
    points: Float32[np.ndarray, "N 3"],
    colors: Float32[np.ndarray, "N 3"] | None,
    boxes: Float32[np.ndarray, "R 7"],
    augment: DetectorAugmentation,
    *,
    yaw: bool,
) -> tuple[
    Float32[np.ndarray, "M 3"],
    Float32[np.ndarray, "M 3"] | None,
    Float32[np.ndarray, "S 7"],
    Int64[np.ndarray, "S"],
]:
    """A scan and its boxes (centre, size, heading) after all changes, and which boxes stayed.

    With `yaw` boxes turn along; without, they stay upright and grow to hold what has turned, as in
    mmdet3d (`DepthInstance3DBoxes.rotate`).
    """
    boxes_kept = np.arange(len(boxes))
    if augment.cuboid < 1:
        inside, boxes_kept = crop_cuboid(rng, points, boxes, augment)
        points, boxes = points[inside], boxes[boxes_kept]
        colors = None if colors is None else colors[inside]
    (fewest, most), (least, greatest) = augment.keep, augment.scale
    count = round(len(points) * rng.uniform(fewest, most))
    count = max(1, count if augment.most is None else min(count, augment.most))
    kept = np.sort(rng.choice(len(points), count, replace=False))
    points, boxes = points[kept], boxes.copy()
    flips = np.where(rng.random(2) < (augment.flip_x, augment.flip_y), -1, 1)
    quarter = np.pi / 2 * rng.integers(4) if augment.quarter_turns else 0.0
    angle = quarter + rng.uniform(-augment.turn, augment.turn)
    factor, shift = rng.uniform(least, greatest), augment.shift * rng.standard_normal(3)
    matrix = turn_about(2, angle) @ np.diag([*flips, 1]) * factor
    points = (points @ matrix.T + shift).astype(np.float32)
    boxes[:, :3] = boxes[:, :3] @ matrix.T + shift
    boxes[:, 3:6] *= factor
    boxes[:, 6] = boxes[:, 6] * flips.prod() + angle
    if not yaw:
        cos, sin = np.abs(np.cos(boxes[:, 6])), np.abs(np.sin(boxes[:, 6]))
        x, y = boxes[:, 3].copy(), boxes[:, 4].copy()
        boxes[:, 3], boxes[:, 4] = cos * x + sin * y, sin * x + cos * y
        boxes[:, 6] = 0
    return points, _change_colors(rng, colors, kept, augment), boxes, boxes_kept


def crop_cuboid(
    rng: np.random.Generator,
    points: Float32[np.ndarray, "N 3"],
    boxes: Float32[np.ndarray, "R 7"],
    augment: DetectorAugmentation,
) -> tuple[Int64[np.ndarray, "M"], Int64[np.ndarray, "S"]]:
    """The points in a random cuboid, and the boxes whose centres lie among them.

    As 3DETR does it (utils/random_cuboid.py): two of the three shares of the sides are alike, at
    least 3 : 4; some box must stay if there are any. After a hundred failures all is kept.
    """
    extent = np.ptp(points, axis=0)
    for _ in range(100):
        shares = rng.uniform(augment.cuboid, 1, 3)
        ratios = shares[:, None] / shares
        if np.minimum(ratios, ratios.T)[np.triu_indices(3, 1)].max() < 0.75:
            continue
        offsets = np.abs(points - points[rng.integers(len(points))])
        inside = np.flatnonzero((offsets <= extent * shares / 2).all(axis=1))
        if len(inside) < augment.cuboid_points:
            continue
        low, high = points[inside].min(axis=0), points[inside].max(axis=0)
        kept = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(axis=1)
        if kept.any() or not len(boxes):
            return inside, np.flatnonzero(kept)
    return np.arange(len(points)), np.arange(len(boxes))


def _change_colors(
    rng: np.random.Generator,
    colors: Float32[np.ndarray, "N 3"] | None,
    kept: np.ndarray,
    augment: DetectorAugmentation,
) -> Float32[np.ndarray, "M 3"] | None:
    gain = 1 + rng.uniform(-augment.color_gain, augment.color_gain)
    shift = rng.uniform(-augment.color_shift, augment.color_shift, 3)
    if rng.random() < augment.color_dropout or colors is None:
        return None
    colors = colors[kept]
    mean = colors.mean(axis=0)
    return np.clip((colors - mean) * gain + mean + shift, 0, 1).astype(np.float32)
