"""What made-up furniture is put together of: boxes, bars, turned parts, cushions and cloth."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

Color = tuple[int, int, int]
Length = float | int  # in metres, or anything else that is measured
Place = tuple[Length, Length, Length]

WOODS: tuple[Color, ...] = (
    *((120, 80, 45), (165, 120, 75), (205, 170, 125), (80, 52, 35), (60, 42, 32), (185, 140, 90)),
    *((140, 95, 60), (225, 205, 170)),
)
WHITES: tuple[Color, ...] = ((245, 245, 242), (235, 232, 225), (225, 225, 225), (250, 250, 250))
METALS: tuple[Color, ...] = ((170, 172, 175), (120, 122, 125), (200, 202, 205), (60, 60, 62))
DARKS: tuple[Color, ...] = ((25, 25, 27), (45, 45, 48), (60, 58, 60), (35, 38, 45))
CLOTHS: tuple[Color, ...] = (
    *((150, 40, 40), (50, 75, 130), (70, 110, 70), (190, 170, 140), (110, 110, 115), (60, 60, 65)),
    *(
        (215, 205, 190),
        (140, 100, 70),
        (95, 60, 100),
        (205, 140, 60),
        (235, 230, 220),
        (35, 60, 75),
    ),
)
GREENS: tuple[Color, ...] = ((60, 110, 50), (85, 135, 60), (45, 85, 45), (110, 150, 80))
BRIGHTS: tuple[Color, ...] = (
    *((190, 40, 35), (230, 170, 40), (40, 110, 180), (50, 150, 90), (220, 110, 40), (200, 90, 140)),
)
CLAYS: tuple[Color, ...] = ((175, 95, 65), (200, 190, 175), (120, 80, 60), (90, 110, 120))
GLASS: Color = (185, 205, 215)
BLACK_GLASS: Color = (28, 28, 32)
MIRROR: Color = (190, 200, 205)
SCREEN: Color = (22, 24, 28)
PAPER: Color = (238, 234, 222)
PAINTS = WHITES + WOODS + ((150, 165, 175), (120, 140, 125), (200, 190, 170))


@dataclass(frozen=True)
class Part:
    """Triangles of one colour, in metres."""

    vertices: Float64[np.ndarray, "V 3"]
    faces: Int64[np.ndarray, "F 3"]
    color: Color


class Sketch:
    """The parts of one piece, in metres: z up, x to the right of someone before it, who looks
    towards +y. Places are those of the middle of a part's underside."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.parts: list[Part] = []
        self.elevation = 0.0  # at which the piece hangs on a wall or from a ceiling

    def draw(self, low: Length, high: Length) -> float:
        """A length, or anything else between two numbers."""
        return self.rng.uniform(low, high)

    def chance(self, share: Length) -> bool:
        """True that often."""
        return self.rng.random() < share

    def color(self, *palettes: Sequence[Color]) -> Color:
        """A colour of some palettes, a little off."""
        base = self.rng.choice([color for palette in palettes for color in palette])
        light = self.rng.uniform(0.88, 1.1)
        red, green, blue = (min(max(round(c * light + self.rng.gauss(0, 4)), 0), 255) for c in base)
        return red, green, blue

    def box(self, size: Place, at: Place, color: Color) -> None:
        """A block of a width, depth and height."""
        corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)])
        self._add(corners * size + at, _BOX, color)

    def bar(self, start: Place, end: Place, radius: Length, color: Color) -> None:
        """A round bar from one place to another."""
        first, last = np.array(start, float), np.array(end, float)
        along = (last - first) / max(float(np.linalg.norm(last - first)), 1e-9)
        aside = np.cross(along, [1.0, 0.0, 0.0] if abs(along[0]) < 0.9 else [0.0, 1.0, 0.0])
        aside /= np.linalg.norm(aside)
        angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        ring = radius * (
            np.outer(np.cos(angles), aside) + np.outer(np.sin(angles), np.cross(along, aside))
        )
        self._add(*_rings([first + ring, last + ring]), color)

    def turned(
        self,
        profile: Sequence[tuple[Length, Length]],
        at: Place,
        color: Color,
        *,
        stretch: tuple[Length, Length] = (1.0, 1.0),
        sides: int = 20,
    ) -> None:
        """What turns about an upright axis: radii and heights from the lowest to the last, closed
        at both ends; `stretch` makes an oval of it, and four `sides` a block that tapers."""
        angles = np.linspace(0, 2 * np.pi, sides, endpoint=False) + np.pi / sides
        round_ = np.stack([np.cos(angles) * stretch[0], np.sin(angles) * stretch[1]], axis=1)
        rings = [
            np.column_stack([radius * round_, np.full(sides, height)]) + at
            for radius, height in profile
        ]
        self._add(*_rings(rings), color)

    def disc(self, radius: Length, thickness: Length, at: Place, color: Color) -> None:
        """A round plate that stands upright, its face to the front; `at` is its middle, behind."""
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = radius * np.column_stack([np.cos(angles), np.zeros(20), np.sin(angles)])
        back = ring + np.array(at)
        self._add(*_rings([back, back - np.array([0.0, thickness, 0.0])]), color)

    def cushion(self, size: Place, at: Place, color: Color, *, edge: Length = 0.45) -> None:
        """A block with round edges: the smaller `edge`, the sharper; 1 is an ellipsoid."""
        up = np.linspace(-np.pi / 2, np.pi / 2, 9)
        round_ = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        out, z, x, y = (
            np.sign(wave) * np.abs(wave) ** edge
            for wave in (np.cos(up), np.sin(up), np.cos(round_), np.sin(round_))
        )
        half = np.array(size) / 2
        rings = [
            np.column_stack([o * x, o * y, np.full(16, height + 1)]) * half + at
            for o, height in zip(out, z, strict=True)
        ]
        self._add(*_rings(rings), color)

    def cloth(self, size: Place, at: Place, color: Color, *, folds: Length) -> None:
        """Cloth that hangs in folds: `size` is width, depth of the folds and height."""
        columns, rows = 41, 4
        across, up = np.linspace(-0.5, 0.5, columns), np.linspace(0, 1, rows)
        phase = self.rng.uniform(0, np.pi)
        z, x = (side.ravel() for side in np.meshgrid(up, across, indexing="ij"))
        fold = np.sin(2 * np.pi * folds * x + phase + 0.3 * z) / 2
        vertices = np.column_stack([x, fold, z]) * size + at
        corner = np.array([r * columns + c for r in range(rows - 1) for c in range(columns - 1)])
        one = np.stack([corner, corner + 1, corner + columns], axis=1)
        other = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
        self._add(vertices, np.concatenate([one, other]), color)

    def legs(
        self,
        size: tuple[Length, Length],
        height: Length,
        thick: Length,
        color: Color,
    ) -> None:
        """Four legs below the corners of a rectangle: square, round, or splayed."""
        width, depth = (side - 1.2 * thick for side in size)
        kind = self.rng.choice(("square", "round", "splayed"))
        out = 0.04 if kind == "splayed" else 0.0
        for sx in (-1, 1):
            for sy in (-1, 1):
                top = (sx * width / 2, sy * depth / 2, height)
                if kind == "square":
                    self.box((thick, thick, height), (top[0], top[1], 0.0), color)
                else:
                    foot = (top[0] + sx * out, top[1] + sy * out, 0.0)
                    self.bar(foot, top, thick / 2, color)

    def _add(
        self,
        vertices: Float64[np.ndarray, "V 3"],
        faces: Int64[np.ndarray, "F 3"],
        color: Color,
    ) -> None:
        self.parts.append(Part(vertices, faces, color))


def _rings(
    rings: Sequence[Float64[np.ndarray, "N 3"]],
) -> tuple[Float64[np.ndarray, "V 3"], Int64[np.ndarray, "F 3"]]:
    """A closed skin over rings of as many points each, one after the other."""
    sides, count = len(rings[0]), len(rings)
    here = np.arange(sides)
    after = (here + 1) % sides
    faces: list[Int64[np.ndarray, "F 3"]] = []
    for ring in range(count - 1):
        low, high = ring * sides, (ring + 1) * sides
        faces.append(np.stack([low + here, low + after, high + after], axis=1))
        faces.append(np.stack([low + here, high + after, high + here], axis=1))
    bottom, top = count * sides, count * sides + 1
    faces.append(np.stack([np.full(sides, bottom), after, here], axis=1))
    last = (count - 1) * sides
    faces.append(np.stack([np.full(sides, top), last + here, last + after], axis=1))
    middle = [rings[0].mean(axis=0), rings[-1].mean(axis=0)]
    return np.concatenate([*rings, np.stack(middle)]), np.concatenate(faces)


# Of the corners (x, y, z), z changing fastest.
_BOX = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)
