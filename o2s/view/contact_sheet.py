"""Many scans in one picture, each from obliquely above, without what hides the room."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from PIL import Image, ImageDraw

from o2s.files import replacing
from o2s.scene import Scene
from o2s.view.splatting import Camera, point_spacings, render
from o2s.view.viewpoints import below_ceiling, best_viewpoint

TILE = (400, 300)  # pixels
TEXT = 18  # pixels of a title


def draw_contact_sheet(
    scenes: Iterable[tuple[Scene, str]], path: Path, *, columns: int = 4
) -> None:
    """Write a picture of scans, each with a title, side by side in rows of `columns`.

    Raises:
        ValueError: there are no scans.
    """
    tiles = [_tile(scene, title) for scene, title in scenes]
    if not tiles:
        raise ValueError("no scans to draw, expected at least one")
    columns = min(columns, len(tiles))
    width, height = TILE[0], TILE[1] + TEXT
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    with replacing(path) as temporary:
        sheet.save(temporary, quality=88)


def _tile(scene: Scene, title: str) -> Image.Image:
    points = scene.points.double().numpy()
    colors = np.full(points.shape, 0.6)
    if scene.colors is not None:
        colors = scene.colors.double().numpy()
    if scene.normals is None:
        kept = below_ceiling(points)
        points, colors = points[kept], colors[kept]
        view = best_viewpoint(points)
        azimuth, elevation, drawn = view.azimuth, view.elevation, view.drawn
    else:
        azimuth, elevation, drawn = _from_above(points, scene.normals.double().numpy())
    spacings = point_spacings(points)[drawn]
    points, colors = points[drawn], colors[drawn]
    camera = Camera.framing(points, azimuth=azimuth, elevation=elevation, size=TILE, margin=6)
    picture, _ = render(points, colors, spacings, camera)
    tile = Image.new("RGB", (TILE[0], TILE[1] + TEXT), "white")
    tile.paste(Image.fromarray(picture), (0, TEXT))
    ImageDraw.Draw(tile).text((6, 3), title, fill="black")
    return tile


def _from_above(
    points: Float64[ndarray, "N 3"], normals: Float64[ndarray, "N 3"]
) -> tuple[float, float, Bool[ndarray, "N"]]:
    """Azimuth, elevation and the surfaces that face the camera: near walls and ceiling do not.

    Of eight azimuths the one from which most is seen of what stands below a metre.
    """
    slope = np.radians(_ELEVATION)
    low = points[:, 2] < np.quantile(points[:, 2], 0.01) + 1.0

    def facing(azimuth: float) -> Bool[ndarray, "N"]:
        turn = np.radians(azimuth)
        level = np.cos(slope)
        toward = np.array([np.cos(turn) * level, np.sin(turn) * level, np.sin(slope)])
        return normals @ toward > 0.15

    azimuth = max(np.arange(22.5, 360, 45), key=lambda a: int((facing(a) & low).sum()))
    return float(azimuth), _ELEVATION, facing(azimuth)


_ELEVATION = 52.0  # degrees
