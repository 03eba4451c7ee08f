"""The records that pass between the stages: Scene -> Boxes -> Regions -> SceneTokens.

Units are metres, z points up, axes are right-handed. Shape letters, used in the whole package:
B batch, N points, R regions, P points a region, C channels, G groups, K neighbours, Q queries,
T tokens, D features, E experts, r rank.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """An upright scan in metres, centred so that float32 holds it without loss.

    `from_file` maps the homogeneous coordinates of the file to those of `points`. Add `offset` to
    scene coordinates to get "world" coordinates: upright, in metres, about the file's own origin;
    for a scan that was prepared with an alignment, the aligned coordinates of its annotation, whose
    origin `centre` gives. Commands print boxes in world coordinates.
    """

    name: str
    points: Float32[Tensor, "N 3"]
    colors: Float32[Tensor, "N 3"] | None  # RGB in [0, 1]
    normals: Float32[Tensor, "N 3"] | None
    from_file: Float64[Tensor, "4 4"]
    centre: Float64[Tensor, "3"] | None = None  # of the scene in world coordinates

    @property
    def offset(self) -> Float64[Tensor, "3"]:
        """What to add to scene coordinates to get world coordinates, in metres."""
        return -self.from_file[:3, 3] if self.centre is None else self.centre

    def __len__(self) -> int:
        return len(self.points)

    def select(self, index: Tensor) -> "Scene":
        """The same scene with only the points that `index` (integers or a mask) picks."""
        return replace(
            self,
            points=self.points[index],
            colors=None if self.colors is None else self.colors[index],
            normals=None if self.normals is None else self.normals[index],
        )

    def to(self, device: torch.device | str) -> "Scene":
        """The same scene with its per-point tensors on `device`."""
        return replace(
            self,
            points=self.points.to(device),
            colors=None if self.colors is None else self.colors.to(device),
            normals=None if self.normals is None else self.normals.to(device),
        )


@dataclass(frozen=True)
class Boxes:
    """Regions of interest: centre, full size and heading about z; corners are derived.

    `headings` are in radians, counter-clockwise seen from above, 0 where the detector has none.
    Scores lie in [0, 1] and are sorted by the detectors from high to low.
    """

    centres: Float32[Tensor, "R 3"]
    sizes: Float32[Tensor, "R 3"]
    headings: Float32[Tensor, "R"]
    scores: Float32[Tensor, "R"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.centres):
            raise ValueError(f"{len(self.labels)} labels for {len(self.centres)} boxes")

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def tensor(self) -> Float32[Tensor, "R 7"]:
        """Centre (3), size (3) and heading side by side, as `ops.boxes` takes them."""
        return torch.cat([self.centres, self.sizes, self.headings[:, None]], dim=1)

    def select(self, index: Tensor) -> "Boxes":
        """Only the boxes that `index` (integers or a mask) picks, in its order."""
        kept = torch.arange(len(self), device=index.device)[index].tolist()
        return replace(
            self,
            centres=self.centres[index],
            sizes=self.sizes[index],
            headings=self.headings[index],
            scores=self.scores[index],
            labels=tuple(self.labels[i] for i in kept),
        )

    def best(self, count: int) -> "Boxes":
        """The first `count` boxes, which are the best where a detector made them."""
        return self.select(torch.arange(min(count, len(self))))

    def corners(self) -> Float32[Tensor, "R 8 3"]:
        """The eight corners; bit 0 of the corner's number is +x, bit 1 +y, bit 2 +z."""
        bits = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)])
        local = (bits.to(self.sizes) - 0.5) * self.sizes[:, None]
        cos, sin = self.headings.cos()[:, None], self.headings.sin()[:, None]
        x, y, z = local.unbind(-1)
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
        return turned + self.centres[:, None]

    @classmethod
    def none(cls) -> "Boxes":
        """No boxes."""
        return cls(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0), ())


@dataclass(frozen=True)
class Regions:
    """The points of each box, sampled to one count and normalised as the region encoder wants.

    `points` holds xyz (centred, largest norm 1), where C is 6 or 7 RGB in [0, 1], and where C is 7
    the size, see `regions.normalise`.
    """

    boxes: Boxes
    points: Float32[Tensor, "R P C"]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class RegionFeatures:
    """What the region encoder says of each region, and how its points are coloured.

    `colors` are the 10th, 50th and 90th percentile of red, of green and of blue, in [0, 1]; None
    where they were not looked at.
    """

    boxes: Boxes
    features: Float[Tensor, "R F"]
    colors: Float[Tensor, "R 9"] | None = None

    def select(self, index: Tensor) -> "RegionFeatures":
        """Only the regions that `index` (integers or a mask) picks, in its order."""
        colors = None if self.colors is None else self.colors[index]
        return RegionFeatures(self.boxes.select(index), self.features[index], colors)


@dataclass(frozen=True)
class SceneTokens:
    """What the language model reads of one scene, and what it was made from."""

    tokens: Float[Tensor, "Q F"]
    boxes: Boxes
    region_features: Float[Tensor, "R F"]
    region_colors: Float[Tensor, "R 9"] | None = None
