"""Points to pixels: cameras that frame a scene, and a z-buffered renderer of round splats.

All of it is numpy on the CPU: a machine without a display or a GPU draws the same picture.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64, UInt8
from numpy import ndarray

LARGEST_RADIUS = 10  # pixels of a splat; bounds the time that few, very near points can take
CELL = 0.1  # metres; the edge of the cells in which point density is measured


@dataclass(frozen=True)
class Camera:
    """A pinhole or orthographic camera.

    The rows of `rotation` are the directions right, down and forward of the picture. `scale` is the
    focal length in pixels or, for an orthographic camera, the number of pixels a metre. The line of
    sight through `eye` meets the middle of the picture.
    """

    rotation: Float64[ndarray, "3 3"]
    eye: Float64[ndarray, "3"]
    scale: float
    width: int
    height: int
    perspective: bool

    @classmethod
    def framing(
        cls,
        points: Float64[ndarray, "N 3"],
        *,
        azimuth: float,
        elevation: float,
        size: tuple[int, int],
        margin: int = 12,
        perspective: bool = True,
    ) -> "Camera":
        """The camera that fills a picture with `points`, `margin` pixels clear of its border.

        `azimuth` and `elevation` (degrees) tell where the camera stands as seen from the points;
        `size` is width and height in pixels. A pinhole camera has a field of view of 45 degrees
        along the longer side. The distance is exact, not searched for: each side of the frustum
        gives one linear bound.
        """
        rotation = _looking_inward(np.radians(azimuth), np.radians(elevation))
        local = points @ rotation.T
        half = np.maximum(np.array(size) / 2 - margin, 1)
        if not perspective:
            low, high = local.min(0), local.max(0)
            scale = float((2 * half / (high - low)[:2]).min())
            eye = np.array([*(low + high)[:2] / 2, low[2] - 1])
            return cls(rotation, eye @ rotation, scale, *size, perspective=False)
        scale = max(size) / 2 / np.tan(np.radians(45 / 2))
        slope = half / scale
        above = (local[:, :2] - slope * local[:, 2:]).max(0)
        below = (-local[:, :2] - slope * local[:, 2:]).max(0)
        depth = (-(above + below) / (2 * slope)).min()
        eye = np.array([*(above - below) / 2, depth])
        return cls(rotation, eye @ rotation, float(scale), *size, perspective=True)

    def project(
        self, points: Float64[ndarray, "N 3"]
    ) -> tuple[Float64[ndarray, "N 2"], Float64[ndarray, "N"]]:
        """Column and row in pixels (the first pixel is [0, 1)), and depth in metres.

        Points at or behind a pinhole (depth 0 or less) get pixels that mean nothing.
        """
        local = (points - self.eye) @ self.rotation.T
        depth = local[:, 2]
        scale = self.scale / np.maximum(depth, 1e-9)[:, None] if self.perspective else self.scale
        return local[:, :2] * scale + np.array([self.width, self.height]) / 2, depth


def render(
    points: Float64[ndarray, "N 3"],
    colors: Float[ndarray, "N 3"],
    spacings: Float64[ndarray, "N"],
    camera: Camera,
) -> tuple[UInt8[ndarray, "H W 3"], Float64[ndarray, "H W"]]:
    """The picture of a point cloud on white, and the depth of each pixel (inf where empty).

    A point covers a disc about as wide as the distance to its neighbours (`spacings`, metres), so
    that surfaces close; nearer discs hide farther ones. `colors` are RGB in [0, 1].
    """
    index = visible_points(points, spacings, camera)
    _, depth = camera.project(points)
    covered = index >= 0
    image = np.ones((*index.shape, 3))
    depths = np.full(index.shape, np.inf)
    image[covered] = colors[index[covered]]
    depths[covered] = depth[index[covered]]
    image[covered] *= _depth_shading(depths)[covered, None]
    return (image.clip(0, 1) * 255).round().astype(np.uint8), depths


def visible_points(
    points: Float64[ndarray, "N 3"], spacings: Float64[ndarray, "N"], camera: Camera
) -> Int32[ndarray, "H W"]:
    """The number of the point that each pixel shows, -1 where there is none.

    Wide discs tell which surface a pixel shows. Narrower ones then choose among the points of that
    surface, or each disc would blur its neighbours that are a little farther away. The widest only
    fill what is still empty: randomly sampled surfaces have gaps several times their mean spacing.
    """
    pixels, depth = camera.project(points)
    reach = LARGEST_RADIUS
    inside = (depth > 0) & (pixels >= -reach).all(1)
    inside &= (pixels < np.array([camera.width, camera.height]) + reach).all(1)
    order = np.flatnonzero(inside)
    order = order[np.argsort(depth[order], kind="stable")].astype(np.int32)
    column, row = (np.floor(pixels[order]).astype(np.int64) + reach).T
    shape = (camera.height + 2 * reach, camera.width + 2 * reach)
    wide = spacings[order] * camera.scale
    if camera.perspective:
        wide = wide / depth[order]

    behind = np.append(depth[order], np.inf)  # ranks count up to the number of points: none
    thick = np.append(np.maximum(2 * spacings[order], 0.03), 0.0)  # metres within one surface
    shown = nearest_ranks(row, column, 1.6 * wide, shape)
    shown = np.where(shown == len(order), nearest_ranks(row, column, 3 * wide, shape), shown)
    for share in (1.0, 0.5):
        narrow = nearest_ranks(row, column, share * wide, shape)
        shown = np.where(behind[narrow] <= behind[shown] + thick[shown], narrow, shown)
    return np.append(order, np.int32(-1))[shown[reach:-reach, reach:-reach]]


def nearest_ranks(
    row: Int64[ndarray, "N"],
    column: Int64[ndarray, "N"],
    wide: Float64[ndarray, "N"],
    shape: tuple[int, int],
) -> Int32[ndarray, "H W"]:
    """The first point whose disc, `wide` pixels across, covers each pixel; N where there is none.

    A disc is the same for all points of one radius: the first point of each pixel is found, and
    then the image of these is spread, which no longer depends on N.
    """
    radius = np.ceil((wide - 1) / 2).clip(0, LARGEST_RADIUS).astype(np.int64)
    nearest = np.full(shape, len(row), dtype=np.int32)
    for r in np.unique(radius):
        rank = np.flatnonzero(radius == r).astype(np.int32)
        single = np.full(shape[0] * shape[1], len(row), dtype=np.int32)
        np.minimum.at(single, row[rank] * shape[1] + column[rank], rank)
        _spread(single.reshape(shape), int(r), into=nearest)
    return nearest


def point_spacings(points: Float64[ndarray, "N 3"]) -> Float64[ndarray, "N"]:
    """About how far each point's neighbours are, in metres, from how many share its cell.

    A surface through a cell of edge c with n points has one point every c / sqrt(n). Cells that
    a surface merely touches hold too few, so the answer stays near that of the whole cloud.
    """
    cells = np.floor((points - points.min(0)) / CELL).clip(0, 2**20 - 1).astype(np.int64)
    keys = np.ravel_multi_index(tuple(cells.T), tuple(cells.max(0) + 1))
    _, cell, count = np.unique(keys, return_inverse=True, return_counts=True)
    spacings = CELL / np.sqrt(count[cell])
    middle = np.median(spacings)
    return spacings.clip(middle / 3, middle * 1.7)


def _looking_inward(azimuth: float, elevation: float) -> Float64[ndarray, "3 3"]:
    """Right, down and forward of a camera that stands in this direction and looks at the origin."""
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    forward = -np.array([cos * np.cos(elevation), sin * np.cos(elevation), np.sin(elevation)])
    right = np.array([-sin, cos, 0.0])
    return np.stack([right, np.cross(forward, right), forward])


def _spread(single: Int32[ndarray, "H W"], radius: int, *, into: Int32[ndarray, "H W"]) -> None:
    """Lower `into` to the smallest value of `single` within a disc about each pixel."""
    height = len(single)
    rows = np.arange(radius + 1)
    reach = np.floor(np.sqrt(radius * (radius + 1) - rows**2))  # half width of the disc, by row
    runs = single.copy()  # the minimum over 2 * half + 1 pixels of the row
    for half in range(radius + 1):
        if half:
            np.minimum(runs[:, half:], single[:, :-half], out=runs[:, half:])
            np.minimum(runs[:, :-half], single[:, half:], out=runs[:, :-half])
        for row in np.flatnonzero(reach == half):
            lower, upper = into[row:], into[: height - row]
            np.minimum(lower, runs[: height - row], out=lower)
            np.minimum(upper, runs[row:], out=upper)


def _depth_shading(depths: Float64[ndarray, "H W"]) -> Float64[ndarray, "H W"]:
    """Darkens pixels beside nearer ones, which draws outlines round things (eye-dome lighting)."""
    step, flat, deep = 2, 0.03, 0.15  # pixels; metres of depth that count as none and as much
    padded = np.pad(depths, step, constant_values=np.inf)
    finite = np.where(np.isinf(depths), 0.0, depths)
    height, width = depths.shape
    behind = np.zeros(depths.shape)
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1)):
        neighbour = padded[dy * step : dy * step + height, dx * step : dx * step + width]
        behind += ((finite - neighbour - flat) / (deep - flat)).clip(0, 1) / 4
    return 1 - 0.45 * behind
