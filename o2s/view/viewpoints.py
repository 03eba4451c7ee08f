"""From where to look at a scan so that a person sees the room and not its outside."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from o2s.view.splatting import Camera, point_spacings, visible_points

AZIMUTHS = np.arange(8) * 45.0 - 135.0  # degrees; the first ones win ties
ELEVATIONS = (38.0, 15.0, -10.0)  # degrees; single frames are often taken looking up
TRIAL_POINTS = 30_000  # of a scan are enough to compare viewpoints
TRIAL_SIZE = (160, 120)
SHELL = 0.15  # metres; how thick the scanned walls are with their noise
SHALLOW = 2.0  # metres; a scan thinner than that is one side of a room, with nothing to cut away


@dataclass(frozen=True)
class Viewpoint:
    """The direction that a camera looks from, in degrees, and the points that it should draw."""

    azimuth: float
    elevation: float
    drawn: Bool[ndarray, "N"]


def below_ceiling(points: Float64[ndarray, "N 3"]) -> Bool[ndarray, "N"]:
    """Everything under the ceiling; all points where the scan has none.

    A ceiling is a level layer high in the scan that covers a large part of the ground plan, and
    far more of it than the layers half-way up do.
    """
    layer_height, column = 0.1, 0.2  # metres
    floor, top = np.quantile(points[:, 2], [0.005, 0.999])
    layers = int((top - floor) / layer_height) + 1
    if top - floor < 1.5:
        return np.ones(len(points), dtype=bool)
    x, y = np.floor((points[:, :2] - points[:, :2].min(0)) / column).astype(np.int64).T
    ground = x * (y.max() + 1) + y
    layer = np.floor((points[:, 2] - floor) / layer_height).astype(np.int64).clip(-1, layers)
    covered = np.unique(ground * (layers + 2) + layer + 1) % (layers + 2)
    area = np.bincount(covered, minlength=layers + 2)[1:-1] / len(np.unique(ground))
    middle = np.median(area[layers // 4 : layers * 3 // 4])
    upper = np.arange(layers) >= layers * 0.65
    ceiling = np.flatnonzero(upper & (area > 0.3) & (area > 2.5 * middle))
    if len(ceiling) == 0:
        return np.ones(len(points), dtype=bool)
    return points[:, 2] < floor + ceiling[0] * layer_height - 0.05


def best_viewpoint(points: Float64[ndarray, "N 3"]) -> Viewpoint:
    """The direction that shows most of what stands in the room, among eight azimuths.

    Each is tried as it is and with the walls between camera and room cut away. Only points off the
    outer shell count, else the outsides of the near walls would count as much as what they hide.
    """
    some = points[:: len(points) // TRIAL_POINTS + 1]
    spacings = point_spacings(some)
    layers = _outer_layers(some)
    core = _without(some, layers, list(layers))
    counted = core if core.mean() > 0.1 else np.ones_like(core)
    most, best, best_cut = -1.0, (0.0, 0.0), []
    for elevation in ELEVATIONS:
        for azimuth in AZIMUTHS:
            near = [a for a in layers if np.cos(np.radians(a - azimuth)) > 0.25]
            for cut in ([], near):
                drawn = _without(some, layers, cut)
                if cut and drawn.all():
                    continue
                shown = _shown(some, spacings, drawn, counted, azimuth, elevation)
                if shown > most * 1.03:
                    most, best, best_cut = shown, (float(azimuth), elevation), cut
    floor = points[:, 2] < np.quantile(some[:, 2], 0.01) + 0.1  # is never cut
    return Viewpoint(*best, floor | _without(points, layers, best_cut))


def _outer_layers(
    points: Float64[ndarray, "M 3"],
) -> dict[float, tuple[Float64[ndarray, "3"], float]]:
    """By azimuth: a level direction, and how far along it the outermost layer begins."""
    layers = {}
    for azimuth in np.arange(16) * 22.5:
        direction = np.array([np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth)), 0.0])
        low, high = np.quantile(points @ direction, [0.02, 0.98])
        layers[float(azimuth)] = direction, high - SHELL if high - low > SHALLOW else np.inf
    return layers


def _without(
    points: Float64[ndarray, "M 3"],
    layers: dict[float, tuple[Float64[ndarray, "3"], float]],
    azimuths: list[float],
) -> Bool[ndarray, "M"]:
    """Which points lie in none of the outer layers at these azimuths."""
    kept = np.ones(len(points), dtype=bool)
    for azimuth in azimuths:
        direction, limit = layers[azimuth]
        kept &= points @ direction <= limit
    return kept


def _shown(
    points: Float64[ndarray, "M 3"],
    spacings: Float64[ndarray, "M"],
    drawn: Bool[ndarray, "M"],
    counted: Bool[ndarray, "M"],
    azimuth: float,
    elevation: float,
) -> float:
    """How many counted points lie on the surfaces that a small picture from there shows."""
    camera = Camera.framing(points, azimuth=azimuth, elevation=elevation, size=TRIAL_SIZE)
    shown = points[drawn]
    if len(shown) == 0:
        return 0.0
    index = visible_points(shown, spacings[drawn], camera)
    pixels, depth = camera.project(shown)
    column, row = np.floor(pixels).astype(int).T
    column, row = column.clip(0, TRIAL_SIZE[0] - 1), row.clip(0, TRIAL_SIZE[1] - 1)
    front = depth[index[row, column]]
    return float((counted[drawn] & (depth < front + 0.15)).sum())
