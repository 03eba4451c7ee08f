"""Regions of interest: the points of each box, sampled to one count and normalised.

The normalisation is ULIP's: subtract the centroid, divide by the largest norm
(github.com/salesforce/ULIP, data/dataset_3d.py, `pc_norm`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from o2s.ops.boxes import points_in_boxes
from o2s.ops.sampling import resample
from o2s.scene import Boxes, Regions, Scene

GREY = 0.4  # the colour that ULIP-2 gives to points of scans without colour


@dataclass(frozen=True)
class RegionConfig:
    """`points` a region; boxes grow by `margin` metres on every side; with fewer than
    `min_points` points inside, a box is dropped."""

    points: int = 1024
    margin: float = 0.0
    min_points: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("points", "min_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.margin >= 0:  # NaN too
            raise ValueError(f"margin is {self.margin}, expected 0 or more metres")


def crop_regions(scene: Scene, boxes: Boxes, config: RegionConfig, *, channels: int) -> Regions:
    """Cut the points of every box out of the scene.

    Args:
        scene: the scan.
        boxes: R regions of interest, in scene coordinates.
        config: how many points, with which margin.
        channels: 3 for xyz, 6 for xyz and RGB, 7 for these and the size; see `normalise`.

    Returns:
        The boxes that hold enough points, and their points, [R, P, channels]. Sampling is seeded:
        the same scan and boxes give the same regions.
    """
    kept: list[int] = []
    crops: list[Float32[Tensor, "P C"]] = []
    inside = points_in_boxes(scene.points, boxes.tensor, margin=config.margin)
    for rank, mask in enumerate(inside):
        found = mask.nonzero().squeeze(1)
        if len(found) < config.min_points:
            continue
        chosen = found[resample(len(found), config.points, config.seed + rank).to(found.device)]
        kept.append(rank)
        colors = None if scene.colors is None else scene.colors[chosen]
        crops.append(normalise(scene.points[chosen], colors, channels))
    if not crops:
        return Regions(Boxes.none(), scene.points.new_zeros(0, config.points, channels))
    return Regions(boxes.select(torch.tensor(kept)), torch.stack(crops))


def color_percentiles(points: Float32[Tensor, "R P C"]) -> Float32[Tensor, "R 9"]:
    """How the points of each region are coloured: the 10th, 50th and 90th percentile of red, of
    green and of blue; `GREY` where the points hold no colours."""
    if points.shape[2] < 6 or not len(points):
        return points.new_full((len(points), 9), GREY)
    shares = torch.tensor([0.1, 0.5, 0.9]).to(points)
    return points[..., 3:6].quantile(shares, dim=1).permute(1, 2, 0).flatten(1)


def normalise(
    points: Float32[Tensor, "P 3"],
    colors: Float32[Tensor, "P 3"] | None,
    channels: int,
    *,
    metric: bool = True,
) -> Float32[Tensor, "P C"]:
    """The points of one region as the region encoder takes them.

    Args:
        points: metres.
        colors: RGB in [0, 1]; None counts as `GREY`.
        channels: 3 for xyz, centred with largest norm 1; 6 for these and RGB; 7 for these and the
            size, the natural logarithm of the largest norm in metres, the same for all points.
        metric: whether points are in metres; if not, the size is 0.
    """
    xyz = points - points.mean(dim=0)
    radius = xyz.norm(dim=1).max().clamp_min(1e-6)
    xyz = xyz / radius
    if channels == 3:
        return xyz
    colors = torch.full_like(xyz, GREY) if colors is None else colors
    if channels == 6:
        return torch.cat([xyz, colors], dim=1)
    size = radius.log() if metric else torch.zeros_like(radius)
    return torch.cat([xyz, colors, size.expand(len(xyz), 1)], dim=1)
