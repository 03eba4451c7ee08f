"""The name that people would give the colour of a thing."""

import colorsys

import numpy as np
from jaxtyping import Float32, Int32, UInt8

NAMES = (
    *("black", "grey", "white", "brown", "beige"),
    *("red", "orange", "yellow", "green", "blue", "purple", "pink"),
)


def color_name(
    vertices: Float32[np.ndarray, "V 3"],
    faces: Int32[np.ndarray, "F 3"],
    colors: UInt8[np.ndarray, "F 3"],
    *,
    least: float = 0.6,
) -> str | None:
    """The name of most of a mesh's surface; None where no name covers the share `least` of it."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(cross, axis=1)
    distinct, which = np.unique(colors, axis=0, return_inverse=True)
    covered = dict.fromkeys(NAMES, 0.0)
    for color, area in zip(distinct, np.bincount(which.ravel(), areas), strict=True):
        covered[name_of(color)] += float(area)
    name = max(covered, key=lambda n: covered[n])
    return name if covered[name] >= least * max(sum(covered.values()), 1e-9) else None


def name_of(color: UInt8[np.ndarray, "3"]) -> str:
    """The nearest of NAMES to an RGB colour, by hue, saturation and brightness."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(c) / 255 for c in color))
    degrees = 360 * hue
    if value < 0.2:
        return "black"
    if saturation < 0.13:
        return "white" if value > 0.8 else "grey"
    if 15 <= degrees < 50 and not (saturation > 0.7 and value > 0.75):
        if saturation < 0.4 and value > 0.7:
            return "beige"
        return "brown" if value < 0.75 else "beige" if saturation < 0.5 else "orange"
    for least, name in _HUES:
        if degrees >= least:
            return "pink" if name == "red" and saturation < 0.55 and value > 0.7 else name
    return "red"


_HUES = (
    *((345, "red"), (295, "pink"), (255, "purple"), (170, "blue")),
    *((70, "green"), (45, "yellow"), (15, "orange")),
)
