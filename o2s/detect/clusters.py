"""Regions of interest from geometry alone: what stands free once floor, walls and ceiling are gone.

    points -> voxels -> floor and ceiling (levels), walls (vertical planes at the rim) taken away
           -> connected components at several reaches -> boxes, scored by size and by how well
              they persist from reach to reach -> non-maximum suppression

Nothing is learned, so it works on any upright scan in metres, and every box is labelled "object".
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from o2s.detect.detector import Detector
from o2s.ops.boxes import box_iou, nms_3d
from o2s.ops.neighbours import group, nearest_neighbours
from o2s.ops.voxels import connected_components, voxel_mean, voxelize
from o2s.scene import Boxes, Scene


@dataclass(frozen=True)
class ClustersConfig:
    """Lengths in metres.

    Args:
        voxel: edge of the voxels.
        reaches: how many voxels apart two voxels of one object may lie; one pass for each.
        thickness: how far from its plane a point of floor, wall or ceiling may lie.
        min_voxels: smaller components are noise.
        min_size: what is smaller in its longest direction is noise.
        max_size: what is longer is not one object.
        nms_iou: of two boxes that overlap more than this, the better stays.
    """

    voxel: float = 0.04
    reaches: list[int] = field(default_factory=lambda: [1, 2, 3])
    thickness: float = 0.06
    min_voxels: int = 20
    min_size: float = 0.15
    max_size: float = 4.0
    nms_iou: float = 0.4

    def __post_init__(self) -> None:
        for name in ("voxel", "thickness", "max_size"):
            if not getattr(self, name) > 0:  # NaN too
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0 metres")
        if not self.reaches or min(self.reaches) < 1:
            raise ValueError(f"reaches is {self.reaches}, expected whole numbers from 1")
        if not 0 < self.nms_iou <= 1:
            raise ValueError(f"nms_iou is {self.nms_iou}, expected 0 < nms_iou <= 1")


class ClusterDetector(Detector):
    """Finds free-standing things by their geometry."""

    classes = ("object",)
    needs_training = False

    def __init__(self, config: ClustersConfig | None = None) -> None:
        super().__init__()
        self.config = config or ClustersConfig()

    @torch.no_grad()
    def forward(self, scene: Scene) -> Boxes:
        """Boxes without heading, best first; none where nothing stands free."""
        config = self.config
        if len(scene) == 0:
            return Boxes.none()
        points = scene.points.cpu()
        voxels = voxelize(points, config.voxel)
        centres = voxel_mean(points, voxels)
        floor, ceiling = horizontal_limits(centres, config)
        free = (centres[:, 2] > floor + config.thickness) & (
            centres[:, 2] < ceiling - config.thickness
        )
        free &= ~wall_mask(centres, free, config)
        lows, highs = _voxel_extent(points, voxels.inverse, len(centres))
        per_reach = [
            _component_boxes(
                connected_components(voxels.coordinates[free], reach=reach),
                lows[free],
                highs[free],
                floor,
                config,
            )
            for reach in config.reaches
        ]
        return _select(per_reach, config)


def horizontal_limits(centres: Float[Tensor, "V 3"], config: ClustersConfig) -> tuple[float, float]:
    """The heights of floor and ceiling in metres; -inf and inf where there is none.

    The floor is the lowest level that covers a fair share of the scan seen from above, the ceiling
    the highest level that does so, if there is room to stand between them.
    """
    step = config.thickness
    bottom = centres[:, 2].min()
    level = ((centres[:, 2] - bottom) / step).long()
    columns = voxelize(centres * centres.new_tensor([1, 1, 0]), 2 * config.voxel).inverse
    footprint = int(columns.max()) + 1
    cells = torch.unique(torch.stack([level, columns]), dim=1)
    covered = torch.bincount(cells[0]) / footprint
    # A level that straddles two bins counts as one.
    covered = covered + torch.cat([covered[1:], covered.new_zeros(1)])
    floor, ceiling = -torch.inf, torch.inf
    wide = (covered > 0.2).nonzero().squeeze(1)
    if len(wide):
        near = (level == wide[0]) | (level == wide[0] + 1)
        floor = float(centres[near, 2].median())
    wide = (covered > 0.4).nonzero().squeeze(1)
    room_to_stand = 1.8
    if len(wide) and floor > -torch.inf and bottom + wide[-1] * step > floor + room_to_stand:
        near = (level == wide[-1]) | (level == wide[-1] + 1)
        ceiling = float(centres[near, 2].median())
    return floor, ceiling


def wall_mask(
    centres: Float[Tensor, "V 3"], candidates: Bool[Tensor, "V"], config: ClustersConfig
) -> Bool[Tensor, "V"]:
    """The voxels on walls: large vertical planes with next to nothing behind them.

    Planes are found by a Hough transform over azimuth and distance that only voxels with a flat,
    upright neighbourhood vote in.
    """
    walls = torch.zeros_like(candidates)
    normals, flat = _normals(centres)
    upright = candidates & flat & (normals[:, 2].abs() < 0.25)
    azimuth = torch.arange(0, 180, 2) * (torch.pi / 180)
    directions = torch.stack([azimuth.cos(), azimuth.sin()], dim=1)
    distances = centres[:, :2] @ directions.T  # [V, azimuths]
    lowest = float(distances.min())
    bins = ((distances - lowest) / config.thickness).long()
    width = int(bins.max()) + 2
    facing = (normals[:, :2] @ directions.T).abs() > 0.97
    flat_bins = bins + width * torch.arange(len(azimuth))
    for _ in range(12):
        votes = facing & (upright & ~walls)[:, None]
        tally = torch.bincount(flat_bins[votes], minlength=width * len(azimuth))
        best = int(tally.argmax())
        if int(tally[best]) * config.voxel**2 < 0.75:
            break
        along, centre = best // width, lowest + (best % width + 0.5) * config.thickness
        offset = distances[:, along] - centre
        on_plane = offset.abs() <= config.thickness
        supporters = centres[on_plane & votes[:, along]]
        upright &= ~(on_plane & facing[:, along])
        if _is_wall(supporters, offset, directions[along], config):
            # A scanned wall bows: what faces along with it may lie twice as far off.
            near = (offset.abs() <= 2 * config.thickness) & facing[:, along]
            walls |= (on_plane | near) & candidates
    return walls


def _is_wall(
    supporters: Float[Tensor, "S 3"],
    offset: Float[Tensor, "V"],
    direction: Float[Tensor, "2"],
    config: ClustersConfig,
) -> bool:
    """Tall and long, and at the rim: hardly any of the scan lies behind the plane."""
    side = torch.stack([-direction[1], direction[0]])
    along = supporters[:, :2] @ side
    tall = _spread(supporters[:, 2]) > 1.2
    long = _spread(along) > 1.0
    behind = torch.stack([offset < -2 * config.thickness, offset > 2 * config.thickness])
    return tall and long and float(behind.float().mean(dim=1).min()) < 0.05


def _spread(values: Float[Tensor, "S"]) -> float:
    low, high = torch.quantile(values[:100_000], values.new_tensor([0.05, 0.95]))
    return float(high - low)


def _normals(
    centres: Float[Tensor, "V 3"],
) -> tuple[Float[Tensor, "V 3"], Bool[Tensor, "V"]]:
    """The normal of each voxel's neighbourhood (unsigned), and whether it is flat."""
    near = nearest_neighbours(centres[None], centres[None], 12)
    offsets = group(centres[None], near)[0] - centres[:, None]
    offsets = offsets - offsets.mean(dim=1, keepdim=True)
    covariance = offsets.transpose(1, 2) @ offsets
    values, vectors = torch.linalg.eigh(covariance)
    return vectors[..., 0], values[:, 0] < 0.05 * values.sum(dim=1)


def _voxel_extent(
    points: Float[Tensor, "N 3"], inverse: Int[Tensor, "N"], count: int
) -> tuple[Float[Tensor, "V 3"], Float[Tensor, "V 3"]]:
    index = inverse[:, None].expand(-1, 3)
    empty = points.new_empty(count, 3)
    return (
        empty.scatter_reduce(0, index, points, "amin", include_self=False),
        empty.scatter_reduce(0, index, points, "amax", include_self=False),
    )


def _component_boxes(
    components: Int[Tensor, "V"],
    lows: Float[Tensor, "V 3"],
    highs: Float[Tensor, "V 3"],
    floor: float,
    config: ClustersConfig,
) -> tuple[Float[Tensor, "R 7"], Int[Tensor, "R"]]:
    """Box and number of voxels of each component of plausible size."""
    count = int(components.max()) + 1 if len(components) else 0
    voxels = torch.bincount(components, minlength=count)
    low, _ = _voxel_extent(lows, components, count)
    _, high = _voxel_extent(highs, components, count)
    # What stands on the floor lost its lowest centimetres with the floor.
    standing = low[:, 2] < floor + 3 * config.thickness
    low[:, 2] = torch.where(standing, low[:, 2].clamp_max(floor), low[:, 2])
    size = (high - low).clamp_min(1e-3)  # a flat box overlaps nothing, not even itself
    longest = size.amax(dim=1) if count else size.sum(dim=1)
    kept = voxels >= config.min_voxels
    kept &= (longest >= config.min_size) & (longest <= config.max_size)
    boxes = torch.cat([(low + high) / 2, size, torch.zeros(count, 1)], dim=1)
    return boxes[kept], voxels[kept]


def _select(
    per_reach: list[tuple[Float[Tensor, "_ 7"], Int[Tensor, "_"]]],
    config: ClustersConfig,
) -> Boxes:
    """Score the boxes of all reaches, keep the best of those that overlap.

    The score is the mean of two numbers between 0 and 1: how large the component is (saturating
    at a few hundred voxels) and how well another reach finds the same box.
    """
    scores: list[Tensor] = []
    for boxes, voxels in per_reach:
        others = [other for other, _ in per_reach if other is not boxes]
        large = 1 - torch.exp(-voxels / 200)
        persists = torch.zeros(len(boxes))
        for other in others:
            if len(other) and len(boxes):
                persists = torch.maximum(persists, box_iou(boxes, other).amax(dim=1))
        scores.append((large + persists) / 2)
    boxes = torch.cat([boxes for boxes, _ in per_reach])
    score = torch.cat(scores)
    kept = nms_3d(boxes, score, config.nms_iou)
    centres, sizes, headings = boxes[kept].split([3, 3, 1], dim=1)
    return Boxes(centres, sizes, headings[:, 0], score[kept], ("object",) * len(kept))
