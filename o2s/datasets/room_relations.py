"""Spatial relations between the boxes of a room's objects, each with a margin.

A relation is True, False, or None: too close to call, so that nothing is said of it. All limits are
ratios or angles, none is a length: a room and its copy at another scale have the same relations.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from o2s.datasets.room_facts import RoomObject
from o2s.words import SIDES

Verdict = bool | None
Comparison = Callable[[RoomObject, RoomObject], Verdict]

NEAREST_RATIO = 1.25  # the next one is this much farther
NEAREST_STEP = 0.1  # and farther by this share of the longest side of what it is measured from
SIZE_RATIO = 1.2
SIDE_ANGLE = math.radians(30)  # about the direction; a quarter turn less 15 degrees either way
NEXT_TO_REACH = 0.25  # of the mean of both longest horizontal sides
WALL_REACH = 0.15  # of the longest horizontal side


@dataclass(frozen=True)
class Viewpoint:
    """Where someone stands, in metres, and the unit vector along which they look."""

    x: float
    y: float
    ahead_x: float
    ahead_y: float


def surface_distance(a: RoomObject, b: RoomObject) -> float:
    """The shortest distance between two boxes, 0 where they touch or overlap."""
    return math.hypot(*_gaps(a, b))


def nearest(anchor: RoomObject, others: Sequence[RoomObject]) -> RoomObject | None:
    """The one of the others that is nearest to the anchor, None if another is about as near."""
    ranked = sorted(others, key=lambda o: surface_distance(anchor, o))
    if len(ranked) < 2:
        return ranked[0] if ranked else None
    first, second = (surface_distance(anchor, o) for o in ranked[:2])
    clear = second > NEAREST_RATIO * first and second - first > NEAREST_STEP * max(anchor.box[3:])
    return ranked[0] if clear else None


def standing_at(a: RoomObject, b: RoomObject) -> Viewpoint | None:
    """The view from the centre of `a` towards that of `b`; None where their outlines overlap."""
    if max(_gaps(a, b)[:2]) == 0:
        return None
    dx, dy = b.box[0] - a.box[0], b.box[1] - a.box[1]
    length = math.hypot(dx, dy)
    return Viewpoint(a.box[0], a.box[1], dx / length, dy / length)


def looking_in(door: RoomObject, floor: Sequence[tuple[float, float]]) -> Viewpoint | None:
    """The view from a door into the room, square to the wall that the door is in.

    None where that wall is in doubt: the door is not thin, does not lie along its nearest wall, or
    is far from it.
    """
    x, y, _, width, depth, _ = door.box
    edges = _edges(floor)
    distances = [_to_segment((x, y), *edge) for edge in edges]
    distance, ((px, py), (qx, qy)) = min(zip(distances, edges, strict=True))
    length = math.hypot(qx - px, qy - py)
    along_x, along_y = abs(qx - px) / length, abs(qy - py) / length
    long = along_x * width + along_y * depth
    across = along_y * width + along_x * depth
    if across > long / 2 or distance > long / 2:
        return None
    ahead = (-(qy - py) / length, (qx - px) / length)  # left of the edge: inside if the area is > 0
    sign = 1.0 if sum(p[0] * q[1] - q[0] * p[1] for p, q in edges) > 0 else -1.0
    return Viewpoint(x, y, sign * ahead[0], sign * ahead[1])


def side(view: Viewpoint, o: RoomObject) -> str | None:
    """Which of `SIDES` an object is on for the viewer.

    Its centre is within `SIDE_ANGLE` of that direction and its whole outline on that side of the
    viewer; None elsewhere.
    """
    for turns, name in enumerate(SIDES):
        ux, uy = view.ahead_x, view.ahead_y
        for _ in range(turns):
            ux, uy = -uy, ux
        dx, dy = o.box[0] - view.x, o.box[1] - view.y
        forward, lateral = dx * ux + dy * uy, abs(dy * ux - dx * uy)
        if forward > 0 and lateral <= math.tan(SIDE_ANGLE) * forward:
            reach = (abs(ux) * o.box[3] + abs(uy) * o.box[4]) / 2
            return name if forward > reach else None
    return None


def rests_on(upper: RoomObject, lower: RoomObject) -> Verdict:
    """Whether `upper` stands on `lower`: by its `on`, and its box agrees.

    Its centre is over the lower outline and its underside within a tenth of the lower height of the
    lower top; on beds and seats, whose backs rise above, anywhere from a third of the height. False
    where neither `on` nor the boxes say so.
    """
    height, top, under = lower.box[5], _high(lower, 2), _low(upper, 2)
    lowest = top - 0.1 * height
    if lower.label in _WITH_BACKS:
        lowest = top - 2 / 3 * height
    over = all(abs(upper.box[i] - lower.box[i]) <= lower.box[i + 3] / 2 for i in (0, 1))
    if upper.on == lower.id and over and lowest <= under <= top + 0.1 * height:
        return True
    apart = max(_gaps(upper, lower)[:2]) > 0
    clear = apart or under < top - 0.75 * height or under > top + 0.3 * height
    return False if clear else None


def hangs_above(upper: RoomObject, lower: RoomObject) -> Verdict:
    """Whether `upper` hangs over `lower`: by its `on`, with air of 0.3 times the lower height.

    False where the air is less than half of that, or it is off to the side.
    """
    air = (_low(upper, 2) - _high(lower, 2)) / lower.box[5]
    aside = max(_gaps(upper, lower)[:2])
    reach = NEXT_TO_REACH * max(lower.box[3:5])
    if upper.on == lower.id and air > 0.3 and aside <= reach:
        return True
    return False if air < 0.15 or aside > 1.5 * reach else None


def between(o: RoomObject, a: RoomObject, b: RoomObject) -> Verdict:
    """Whether an object's centre is in the corridor from `a` to `b`.

    The corridor is the middle half of the line between their centres, seen from above, to a
    distance of half the longest horizontal side of the smaller one; their outlines must be clear of
    the object's, and the heights of all three overlap. False beyond 1.5 times that distance, in the
    outer tenths, or at other heights.
    """
    dx, dy = b.box[0] - a.box[0], b.box[1] - a.box[1]
    length = math.hypot(dx, dy)
    if length == 0:
        return None
    ox, oy = o.box[0] - a.box[0], o.box[1] - a.box[1]
    along = (ox * dx + oy * dy) / length**2
    aside = abs(ox * dy - oy * dx) / length
    width = min(max(a.box[3:5]), max(b.box[3:5])) / 2
    if not 0.1 < along < 0.9 or aside > 1.5 * width:
        return False
    level = (_level(o, a), _level(o, b))
    if False in level:
        return False
    free = max(_gaps(o, a)[:2]) > 0 and max(_gaps(o, b)[:2]) > 0
    inside = 0.25 <= along <= 0.75 and aside <= width
    return True if inside and free and None not in level else None


def next_to(a: RoomObject, b: RoomObject) -> Verdict:
    """Whether two objects of overlapping heights are within reach, neither on the other.

    False beyond 1.5 times the reach.
    """
    level = _level(a, b)
    if a.on == b.id or b.on == a.id or level is False:
        return False
    reach = NEXT_TO_REACH * (max(a.box[3:5]) + max(b.box[3:5])) / 2
    near = _within(surface_distance(a, b), reach, 1.5)
    return None if level is None and near else near


def against_wall(o: RoomObject, floor: Sequence[tuple[float, float]]) -> Verdict:
    """Whether an object's outline is within reach of an edge of the floor; False beyond twice."""
    gap = min(_outline_to_segment(o, *edge) for edge in _edges(floor))
    return _within(gap, WALL_REACH * max(o.box[3:5]), 2.0)


def taller(a: RoomObject, b: RoomObject) -> Verdict:
    """True where `a` is the taller by `SIZE_RATIO`, False where `b` is."""
    heights = [o.box[5] if o.size is None else o.size[2] for o in (a, b)]
    return _compare((heights[0], heights[0]), (heights[1], heights[1]))


def larger(a: RoomObject, b: RoomObject) -> Verdict:
    """True where `a` has the larger volume by `SIZE_RATIO`, False where `b` has.

    Where an object's own size is not known it is that of its box. An axis-aligned box is too large
    for an object that stands askew, so that the volume is then known only to lie between that of
    the box and that of the box turned to the heading.
    """
    return _compare(_volume(a), _volume(b))


def shorter(a: RoomObject, b: RoomObject) -> Verdict:
    """The reverse of `taller`."""
    return taller(b, a)


def smaller(a: RoomObject, b: RoomObject) -> Verdict:
    """The reverse of `larger`."""
    return larger(b, a)


COMPARISONS: dict[str, Comparison] = {
    "taller": taller,
    "shorter": shorter,
    "larger": larger,
    "smaller": smaller,
}
SUPERLATIVES: dict[str, Comparison] = {
    "tallest": taller,
    "shortest": shorter,
    "largest": larger,
    "smallest": smaller,
}


def most(objects: Sequence[RoomObject], compare: Comparison) -> RoomObject | None:
    """The one that wins against all others; None without others or a clear winner."""
    for o in objects:
        if len(objects) > 1 and all(compare(o, p) is True for p in objects if p is not o):
            return o
    return None


def _within(distance: float, reach: float, margin: float) -> Verdict:
    if distance <= reach:
        return True
    return False if distance > margin * reach else None


def _compare(a: tuple[float, float], b: tuple[float, float]) -> Verdict:
    """Of two sizes, each known to lie between two bounds."""
    if a[0] > SIZE_RATIO * b[1]:
        return True
    return False if b[0] > SIZE_RATIO * a[1] else None


def _volume(o: RoomObject) -> tuple[float, float]:
    """Bounds of the volume: the lower from the sides w, d whose turned outline has the box's sides,
    w |cos| + d |sin| and w |sin| + d |cos|."""
    if o.size is not None:
        volume = math.prod(o.size)
        return volume, volume
    width, depth, height = o.box[3:]
    c, s = abs(math.cos(o.heading)), abs(math.sin(o.heading))
    turned = c * c - s * s  # of the quarter turns, c is about 1 or s is
    if abs(turned) < 0.1:
        return 0.0, width * depth * height
    w, d = (width * c - depth * s) / turned, (depth * c - width * s) / turned
    return max(0.0, w) * max(0.0, d) * height, width * depth * height


def _gaps(a: RoomObject, b: RoomObject) -> tuple[float, float, float]:
    """How far two boxes are apart along each axis, 0 where they overlap."""
    ax, ay, az, aw, ad, ah = a.box
    bx, by, bz, bw, bd, bh = b.box
    x, y, z = (
        abs(ax - bx) - (aw + bw) / 2,
        abs(ay - by) - (ad + bd) / 2,
        abs(az - bz) - (ah + bh) / 2,
    )
    return max(0.0, x), max(0.0, y), max(0.0, z)


def _level(a: RoomObject, b: RoomObject) -> Verdict:
    """Whether the heights of two boxes overlap; None if by less than a twentieth of the lesser."""
    overlap = (a.box[5] + b.box[5]) / 2 - abs(a.box[2] - b.box[2])
    margin = 0.05 * min(a.box[5], b.box[5])
    return True if overlap > margin else False if overlap < -margin else None


def _low(o: RoomObject, axis: int) -> float:
    return o.box[axis] - o.box[axis + 3] / 2


def _high(o: RoomObject, axis: int) -> float:
    return o.box[axis] + o.box[axis + 3] / 2


Point = tuple[float, float]


def _edges(floor: Sequence[Point]) -> list[tuple[Point, Point]]:
    edges = zip(floor, [*floor[1:], floor[0]], strict=True)
    return [(p, q) for p, q in edges if p != q]


def _to_segment(point: Point, p: Point, q: Point) -> float:
    dx, dy = q[0] - p[0], q[1] - p[1]
    t = ((point[0] - p[0]) * dx + (point[1] - p[1]) * dy) / (dx * dx + dy * dy)
    t = min(1.0, max(0.0, t))
    return math.hypot(point[0] - p[0] - t * dx, point[1] - p[1] - t * dy)


def _outline_to_segment(o: RoomObject, p: Point, q: Point) -> float:
    """0 where they cross; else a corner of one or an end of the other is nearest."""
    (x0, x1), (y0, y1) = ((_low(o, i), _high(o, i)) for i in (0, 1))
    if _crosses(p, q, (x0, x1), (y0, y1)):
        return 0.0
    corners = min(_to_segment((x, y), p, q) for x in (x0, x1) for y in (y0, y1))
    ends = min(math.hypot(max(x0 - x, 0.0, x - x1), max(y0 - y, 0.0, y - y1)) for x, y in (p, q))
    return min(corners, ends)


def _crosses(p: Point, q: Point, xs: Point, ys: Point) -> bool:
    """Whether a segment meets a rectangle: the stretches inside its two slabs overlap."""
    start, end = 0.0, 1.0
    for a, b, (low, high) in ((p[0], q[0], xs), (p[1], q[1], ys)):
        if a == b:
            if not low <= a <= high:
                return False
            continue
        first, last = sorted(((low - a) / (b - a), (high - a) / (b - a)))
        start, end = max(start, first), min(end, last)
    return start <= end


_WITH_BACKS = {"bed", "sofa", "couch", "chair", "armchair", "bench", "sofa chair", "office chair"}
