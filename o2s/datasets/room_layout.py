"""Furnished rooms, laid out: a floor, walls, and furniture that stands where people put it.

`lay_out` follows a recipe step by step. A piece is placed only where its box lies within the walls
and overlaps no other but that of what it stands on, a rug included, and where it leaves the floor
before doors free; otherwise it is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from o2s.datasets.furniture import FurnitureLibrary, Piece, PieceMesh
from o2s.datasets.room_geometry import TOUCH, Solid, draw_floor, inside
from o2s.datasets.room_recipes import RECIPES, Step


@dataclass(frozen=True)
class Placement:
    """A piece in its place: the middle of its underside in metres, the direction of its front in
    radians about z from +x, and the number of the placement that it stands on, if any."""

    piece: Piece
    position: tuple[float, float, float]
    heading: float
    on: int | None = None


@dataclass(frozen=True)
class RoomPlan:
    """A room: its kind, floor polygon [K, 2] (counter-clockwise, metres), height, and furniture."""

    kind: str
    floor: Float64[np.ndarray, "K 2"]
    height: float
    placements: tuple[Placement, ...]


def lay_out(library: FurnitureLibrary, split: str, rng: np.random.Generator) -> RoomPlan:
    """A random room with furniture of one split of the library.

    A room without what its kind needs is laid out again, a few times: a poor library has no more.
    """
    kind = str(rng.choice(list(RECIPES)))
    recipe = RECIPES[kind]
    for _ in range(_ROOMS_TRIED):
        area = rng.uniform(*recipe.area)
        builder = _Builder(library, split, rng, draw_floor(rng, area), float(rng.uniform(2.4, 3.0)))
        for step in recipe.steps:
            if rng.random() < step.chance:
                builder.take(step)
        held = {placement.piece.label for placement in builder.placements}
        if all(held.intersection(choices) for choices in recipe.needs):
            break
    return RoomPlan(kind, builder.floor, builder.height, tuple(builder.placements))


def placed_vertices(mesh: PieceMesh, placement: Placement) -> Float64[np.ndarray, "V 3"]:
    """The vertices of a piece's mesh, turned and moved to its place."""
    angle = placement.heading + np.pi / 2  # the front of a mesh lies towards -y
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return mesh.vertices.astype(np.float64) @ turn.T + placement.position


class _Builder:
    """A room as it fills up."""

    def __init__(
        self,
        library: FurnitureLibrary,
        split: str,
        rng: np.random.Generator,
        floor: Float64[np.ndarray, "K 2"],
        height: float,
    ) -> None:
        self.library, self.split, self.rng = library, split, rng
        self.floor, self.height = floor, height
        self.placements: list[Placement] = []
        self.solids: list[Solid] = []
        self.kept_free: list[Solid] = []  # floor before things that are used from there
        self.doorways: list[Solid] = []  # of these, the floor before doors
        self.row: tuple[int, float] | None = None  # the wall of a row, and how far it has come

    def take(self, step: Step) -> None:
        """Place what a step asks for, as far as there is room."""
        if any(placement.piece.label in step.unless for placement in self.placements):
            return
        wanted = int(self.rng.integers(step.count[0], step.count[1] + 1))
        for _ in range(wanted):
            labels = list(step.labels)
            if step.how in ("on", "corner"):
                self.rng.shuffle(labels)  # any of them; elsewhere the first is the usual one
            for label in labels:
                if self._try_label(step, label):
                    break

    def _try_label(self, step: Step, label: str) -> bool:
        pieces = [
            piece
            for piece in self.library.of_class(label, self.split)
            if step.height[0] <= piece.size[2] <= step.height[1]
            and not (step.how in _STANDING and piece.elevation > _HIGH)
        ]
        if not pieces:
            return False
        for _ in range(_TRIES):
            piece = self._draw(pieces)
            for placement in self._proposals(step, piece):
                if self._fits(step, placement):
                    self._add(step, placement)
                    return True
        return False

    def _draw(self, pieces: list[Piece]) -> Piece:
        """One of some pieces; of libraries that were joined, each is as likely as another, however
        many pieces it has: hundreds that are made up do not crowd out two real ones."""
        libraries = sorted({piece.library for piece in pieces})
        if len(libraries) > 1:
            chosen = libraries[int(self.rng.integers(len(libraries)))]
            pieces = [piece for piece in pieces if piece.library == chosen]
        return pieces[int(self.rng.integers(len(pieces)))]

    def _proposals(self, step: Step, piece: Piece) -> Iterator[Placement]:
        """Places for a piece, the better ones first."""
        anchors = [i for i, p in enumerate(self.placements) if p.piece.label in step.anchor]
        self.rng.shuffle(anchors)
        match step.how:
            case "door" | "window" | "on wall" | "at wall":
                yield from self._at_walls(step, piece, anchors)
            case "row":
                yield from self._in_row(piece)
            case "corner":
                yield from self._in_corners(piece)
            case "middle":
                low, high = self.floor.min(axis=0), self.floor.max(axis=0)
                x, y = self.rng.uniform(low + 0.9, np.maximum(high - 0.9, low + 0.91))
                heading = self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.05)
                yield Placement(piece, (x, y, 0.0), float(heading))
            case "at window":
                for window in self._of("window"):
                    x, y = self._along(
                        window, 0.0, window.piece.size[1] / 2 + piece.size[1] / 2 + 0.03
                    )
                    top = window.position[2] + window.piece.size[2] + 0.15
                    yield Placement(piece, (x, y, max(0.0, top - piece.size[2])), window.heading)
            case "under":
                for i in anchors:
                    x, y, _ = self.placements[i].position
                    yield Placement(piece, (x, y, 0.0), self.placements[i].heading)
            case "opposite":
                for i in anchors:
                    yield from self._opposite(piece, self.placements[i])
            case "on":
                for i in anchors:
                    yield from self._on_top(piece, i)
            case "beside" | "before" | "around":
                for i in anchors:
                    yield from self._near(step.how, piece, self.placements[i])

    def _walls(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Start, end and inward direction of each wall, in random order."""
        starts, ends = self.floor, np.roll(self.floor, -1, axis=0)
        for i in self.rng.permutation(len(starts)):
            along = ends[i] - starts[i]
            inward = np.array([-along[1], along[0]]) / np.linalg.norm(along)
            yield starts[i], ends[i], inward

    def _at_walls(self, step: Step, piece: Piece, anchors: list[int]) -> Iterator[Placement]:
        width, depth, height = piece.size
        for start, end, inward in self._walls():
            length = np.linalg.norm(end - start)
            if length < width + 0.1:
                continue
            share = self.rng.uniform(width / 2 + 0.03, length - width / 2 - 0.03) / length
            point = start + (end - start) * share
            heading = float(np.arctan2(inward[1], inward[0]))
            gap, z = float(self.rng.uniform(0.0, 0.04)), 0.0
            if step.how == "window":
                z = max(min(piece.elevation or 0.9, self.height - height - 0.2), 0.05)
            elif step.how == "on wall":
                z = float(self.rng.uniform(1.35, 1.75)) - height / 2
                z = float(np.clip(z, 0.3, max(self.height - height - 0.1, 0.3)))
            elif step.how == "at wall" and piece.elevation > _HANGS:
                z = piece.elevation  # a wall cabinet, a washbasin
            gap = gap if z == 0.0 and step.how == "at wall" else 0.0
            x, y = point + inward * (depth / 2 + gap)
            yield Placement(piece, (x, y, z), heading)
        for i in anchors:  # a mirror above the sink, on the wall behind it
            anchor = self.placements[i]
            x, y = self._along(anchor, 0.0, -(anchor.piece.size[1] - depth) / 2)
            yield Placement(piece, (x, y, anchor.piece.size[2] + 0.15), anchor.heading)

    def _in_row(self, piece: Piece) -> Iterator[Placement]:
        width, depth, _ = piece.size
        walls = list(zip(self.floor, np.roll(self.floor, -1, axis=0), strict=True))
        if self.row is None:
            wall = int(np.argmax([np.linalg.norm(b - a) for a, b in walls]))
            self.row = (wall, 0.05)
        wall, reached = self.row
        start, end = walls[wall]
        length = float(np.linalg.norm(end - start))
        along = (end - start) / length
        inward = np.array([-along[1], along[0]])
        heading = float(np.arctan2(inward[1], inward[0]))
        for at in np.arange(reached, length - width, 0.1):
            x, y = start + along * (at + width / 2) + inward * (depth / 2 + 0.01)
            yield Placement(piece, (x, y, 0.0), heading)

    def _in_corners(self, piece: Piece) -> Iterator[Placement]:
        before, after = np.roll(self.floor, 1, axis=0), np.roll(self.floor, -1, axis=0)
        for i in self.rng.permutation(len(self.floor)):
            corner = self.floor[i]
            along = [
                (other - corner) / np.linalg.norm(other - corner) for other in (before[i], after[i])
            ]
            reach = max(piece.size[:2]) / 2 + self.rng.uniform(0.05, 0.4, 2)
            x, y = corner + along[0] * reach[0] + along[1] * reach[1]
            inward = along[0] + along[1]
            yield Placement(piece, (x, y, 0.0), float(np.arctan2(inward[1], inward[0])))

    def _opposite(self, piece: Piece, anchor: Placement) -> Iterator[Placement]:
        """At the wall that the anchor's front looks at."""
        ahead = np.array([np.cos(anchor.heading), np.sin(anchor.heading)])
        for start, end, inward in self._walls():
            if inward @ ahead > -0.9:
                continue
            wall = (end - start) / np.linalg.norm(end - start)
            point = start + wall * ((np.array(anchor.position[:2]) - start) @ wall)
            x, y = point + inward * (piece.size[1] / 2 + 0.02) + wall * self.rng.normal(0, 0.2)
            z = piece.elevation if piece.elevation > _HANGS else 0.0
            if piece.label == "television" and not z:
                continue  # one that does not hang stands on something
            yield Placement(piece, (x, y, z), float(np.arctan2(inward[1], inward[0])))

    def _near(self, how: str, piece: Piece, anchor: Placement) -> Iterator[Placement]:
        (width, depth, _), (own_width, own_depth, _) = anchor.piece.size, piece.size
        rng = self.rng
        if how == "beside":
            for side in rng.permutation([-1, 1]):
                sideways = side * ((width + own_width) / 2 + rng.uniform(0.03, 0.1))
                x, y = self._along(anchor, sideways, -(depth - own_depth) / 2)
                yield Placement(piece, (x, y, 0.0), anchor.heading)
        elif how == "before":
            table = piece.label in ("table", "rug")
            gap = rng.uniform(0.3, 0.5) if table else rng.uniform(0.02, 0.2)
            x, y = self._along(anchor, rng.normal(0, 0.05), (depth + own_depth) / 2 + gap)
            heading = anchor.heading + np.pi + (0.0 if table else rng.normal(0, 0.2))
            yield Placement(piece, (x, y, 0.0), float(heading))
        else:
            for side in rng.permutation(4):
                long, across = (width, depth) if side % 2 == 0 else (depth, width)
                reach = across / 2 + own_depth / 2 + rng.uniform(0.03, 0.15)
                places = max(1, int(long // max(0.6, own_width)))
                for slot in rng.permutation(places):
                    shift = (slot + 0.5) / places * long - long / 2
                    turned = side * np.pi / 2
                    forward = np.array([np.cos(turned), np.sin(turned)]) * reach
                    aside = np.array([-np.sin(turned), np.cos(turned)]) * shift
                    x, y = self._along(anchor, *(forward + aside)[::-1])
                    heading = anchor.heading + turned + np.pi + rng.normal(0, 0.15)
                    yield Placement(piece, (x, y, 0.0), float(heading))

    def _on_top(self, piece: Piece, anchor: int) -> Iterator[Placement]:
        below = self.placements[anchor]
        (width, depth, _), (own_width, own_depth, _) = below.piece.size, piece.size
        if own_width > width or own_depth > depth:
            return
        free = np.array([(width - own_width) / 2, (depth - own_depth) / 2])
        sideways, forward = self.rng.uniform(-free, free)
        if piece.label in ("television", "monitor", "laptop"):
            sideways, forward = sideways / 3, min(0.0, forward)
        x, y = self._along(below, sideways, forward)
        mesh = self.library.load(below.piece)
        height = _surface_height(mesh, sideways, forward, own_width / 2, own_depth / 2)
        if height is not None and height > 0.25:
            heading = below.heading + self.rng.normal(0, 0.1)
            z = below.position[2] + height + 0.002
            yield Placement(piece, (x, y, z), float(heading), on=anchor)

    def _along(self, placement: Placement, sideways: float, forward: float) -> np.ndarray:
        """A point seen from a placed piece: metres to its left and to its front."""
        ahead = np.array([np.cos(placement.heading), np.sin(placement.heading)])
        left = np.array([-ahead[1], ahead[0]])
        return np.array(placement.position[:2]) + left * sideways + ahead * forward

    def _of(self, label: str) -> list[Placement]:
        return [p for p in self.placements if p.piece.label == label]

    def _fits(self, step: Step, placement: Placement) -> bool:
        solid = _solid(placement)
        if solid.high > self.height or not inside(self.floor, _solid(placement, shrink=TOUCH)):
            return False
        if step.how == "under":
            return True
        others = (
            self.solids
            if placement.on is None
            else [s for i, s in enumerate(self.solids) if i != placement.on]
        )
        if any(solid.overlaps(other) for other in others):
            return False
        free = self.doorways if step.how in ("before", "around") else self.kept_free
        return step.how in _ON_THE_WALL or not any(solid.overlaps(other) for other in free)

    def _add(self, step: Step, placement: Placement) -> None:
        solid = _solid(placement)
        if step.how == "under":  # lies flat; others may stand on it
            solid = Solid(0.0, 0.0, (0.0, 0.0), 0.0, -1.0, -1.0)
        self.placements.append(placement)
        self.solids.append(solid)
        width, depth, _ = placement.piece.size
        clearance = _CLEARANCES.get(placement.piece.label)
        if clearance and step.how != "on":
            x, y = self._along(placement, 0.0, (depth + clearance) / 2)
            half = (width / 2, clearance / 2)
            zone = Solid(x, y, half, placement.heading, 0.0, 2.0)
            self.kept_free.append(zone)
            if step.how == "door":
                self.doorways.append(zone)
        if step.how == "row" and self.row is not None:
            start = self.floor[self.row[0]]
            reached = np.linalg.norm(np.array(placement.position[:2]) - start) + width / 2
            self.row = (self.row[0], float(reached) - 0.05)


def _solid(placement: Placement, shrink: float = 0.0) -> Solid:
    (x, y, z), (width, depth, height) = placement.position, placement.piece.size
    half = (max(width / 2 - shrink, 0.01), max(depth / 2 - shrink, 0.01))
    return Solid(x, y, half, placement.heading, z, z + height)


def _surface_height(
    mesh: PieceMesh, left: float, forward: float, half_width: float, half_depth: float
) -> float | None:
    """How high a piece's surface is below a footprint; None where it is not flat there."""
    heights = []
    for across in (-1.0, -0.5, 0.0, 0.5, 1.0):
        for along in (-1.0, 0.0, 1.0):
            # seen from the mesh, whose front is -y and whose left is therefore +x
            x, y = left + across * half_width, -(forward + along * half_depth)
            height = _top(mesh, x, y)
            if height is None:
                return None
            heights.append(height)
    return max(heights) if max(heights) - min(heights) < 0.02 else None


def _top(mesh: PieceMesh, x: float, y: float) -> float | None:
    """The highest point of a mesh above a point of the floor."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    u, v, w = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2], np.array([x, y]) - a[:, :2]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / area
        t = (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / area
        hit = (np.abs(area) > 1e-9) & (s >= 0) & (t >= 0) & (s + t <= 1)
        z = a[:, 2] + s * (b[:, 2] - a[:, 2]) + t * (c[:, 2] - a[:, 2])
    return float(z[hit].max()) if hit.any() else None


_TRIES, _ROOMS_TRIED = 8, 4
_ON_THE_WALL = ("on", "on wall", "at window")  # and so in nobody's way
_STANDING = ("corner", "middle", "beside", "before", "around", "on", "under")
_HIGH = 1.0  # metres above the floor, from which a piece stands nowhere: it hangs from the ceiling
_HANGS = 0.3  # metres above the floor, in the catalogue, from which a piece hangs on the wall
# Metres of floor before a piece that stay free, so that it can be used.
_CLEARANCES = {
    **{"door": 0.9, "wardrobe": 0.6, "refrigerator": 0.5, "toilet": 0.5, "sink": 0.4},
    **{"bathtub": 0.3, "dresser": 0.3, "stove": 0.5, "desk": 0.7, "bookshelf": 0.3},
}
