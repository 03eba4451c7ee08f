"""Made-up plants, and what holds things: vases, baskets, trash cans, boxes.

Each function draws one piece of a class and says what it is called.
"""

import math

from o2s.datasets.sketch import (
    BRIGHTS,
    CLAYS,
    CLOTHS,
    DARKS,
    GREENS,
    METALS,
    WHITES,
    WOODS,
    Color,
    Length,
    Place,
    Sketch,
)


def vase(s: Sketch) -> str:
    height, wide, color = _vessel(s)
    if not s.chance(0.2):
        return "vase"
    for side in s.rng.choice(((1,), (-1, 1))):
        out = side * wide * 1.3
        s.bar((side * wide * 0.7, 0, height * 0.4), (out, 0, height * 0.65), 0.012, color)
        s.bar((out, 0, height * 0.65), (side * wide * 0.4, 0, height * 0.85), 0.012, color)
    return "jug"


def _vessel(s: Sketch) -> tuple[Length, Length, Color]:
    """The body of a vase; its height, width and colour."""
    height = s.draw(0.12, 0.7)
    wide = height * s.draw(0.15, 0.45)
    color = s.color(CLAYS, WHITES, BRIGHTS, CLOTHS)
    belly, neck, mouth = s.draw(0.2, 0.7), s.draw(0.2, 0.9), s.draw(0.3, 1.0)
    profile: list[tuple[Length, Length]] = []
    for i in range(9):  # from the foot over the belly and the neck to the mouth
        share = i / 8
        swell = math.sin(math.pi * min(share / (2 * belly), 1.0)) if belly else 1.0
        thin = neck + (mouth - neck) * max(share - 0.8, 0.0) / 0.2
        keep = max((share - belly) / (1 - belly), 0.0)
        radius = wide * ((1 - keep) * (0.45 + 0.55 * swell) + keep * thin)
        profile.append((max(radius, 0.015), share * height))
    inner = [(profile[-1][0] * 0.85, height), (profile[-1][0] * 0.5, height * 0.8)]
    sides = s.rng.choice((20, 20, 20, 4, 6))
    s.turned(profile + inner, (0, 0, 0), color, sides=sides)
    return height, wide, color


def _flowers(s: Sketch) -> str:
    """A vase of cut flowers, which catalogues have among the plants."""
    height, _, _ = _vessel(s)
    for _ in range(s.rng.randint(2, 8)):
        lean = (s.draw(-0.5, 0.5) * height, s.draw(-0.5, 0.5) * height)
        tip = (*lean, height * s.draw(1.3, 1.9))
        s.bar((0, 0, height * 0.9), tip, 0.004, s.color(GREENS))
        s.cushion((0.07, 0.07, 0.06), tip, s.color(BRIGHTS, WHITES), edge=1.0)
    return "vase of flowers"


def plant(s: Sketch) -> str:
    if s.chance(0.15):
        return _flowers(s)
    pot, tall = s.draw(0.07, 0.24), s.draw(0.1, 0.45)
    color, sides = s.color(CLAYS, WHITES, DARKS, WOODS), s.rng.choice((20, 20, 20, 4))
    rim = [(pot, tall), (pot * 0.9, tall), (pot * 0.85, tall * 0.85)]
    s.turned([(pot * s.draw(0.6, 1.0), 0), *rim], (0, 0, 0), color, sides=sides)
    s.turned([(pot * 0.86, 0), (pot * 0.86, 0.01)], (0, 0, tall * 0.87), (70, 50, 38), sides=sides)
    green, height = s.color(GREENS), s.draw(0.2, 1.4)
    kind = s.rng.choice(("leaves", "leaves", "tree", "cactus", "fern", "palm", "bush"))
    if kind == "cactus":
        for _ in range(s.rng.randint(1, 4)):
            x, y = s.draw(-0.5, 0.5) * pot, s.draw(-0.5, 0.5) * pot
            wide = s.draw(0.05, 0.12)
            s.cushion((wide, wide, height * s.draw(0.3, 0.6)), (x, y, tall * 0.8), green, edge=0.7)
        return "cactus"
    if kind in ("fern", "palm"):
        top = tall * 0.9 + (height * s.draw(0.3, 0.6) if kind == "palm" else 0.0)
        if kind == "palm":
            s.bar((0, 0, tall * 0.8), (0, 0, top), s.draw(0.012, 0.035), s.color(WOODS))
        for _ in range(s.rng.randint(9, 26)):
            _frond(s, (0.0, 0.0, top), height * s.draw(0.4, 0.8), s.color([green]))
        return s.rng.choice((kind, "plant", "potted plant"))
    if kind == "bush":
        for _ in range(s.rng.randint(4, 12)):
            size = height * s.draw(0.2, 0.45)
            place = (s.draw(-0.2, 0.2) * height, s.draw(-0.2, 0.2) * height, tall * 0.9)
            place = (place[0], place[1], place[2] + s.draw(0.0, 0.5) * height)
            s.cushion((size, size, size), place, s.color([green]), edge=s.draw(0.7, 1.1))
        return s.rng.choice(("plant", "potted plant"))
    if kind == "tree":
        s.bar((0, 0, tall * 0.8), (0, 0, tall + height * 0.6), 0.015, s.color(WOODS))
    for _ in range(s.rng.randint(14, 45)):
        angle, out, up = (
            s.draw(0, 2 * math.pi),
            s.draw(0.1, 0.45) * height,
            s.draw(0.1, 1.0) * height,
        )
        root = (0.0, 0.0, tall + (height * s.draw(0.3, 0.7) if kind == "tree" else -0.02))
        tip = (out * math.cos(angle), out * math.sin(angle), max(tall + up, root[2]))
        middle = tuple((a + 2 * b) / 3 for a, b in zip(root, tip, strict=True))
        s.bar(root, tip, 0.004, green)
        leaf = s.draw(0.05, 0.16)
        place = (middle[0], middle[1], middle[2] - 0.01)
        s.cushion((leaf, leaf * s.draw(0.5, 1.0), 0.02), place, s.color([green]), edge=1.0)
        s.cushion((leaf, leaf * 0.6, 0.02), tip, s.color([green]), edge=1.0)
    if s.chance(0.25):
        for _ in range(6):
            place = (
                s.draw(-0.2, 0.2) * height,
                s.draw(-0.2, 0.2) * height,
                tall + s.draw(0.5, 1) * height,
            )
            s.cushion((0.07, 0.07, 0.06), place, s.color(BRIGHTS), edge=1.0)
        return "flower"
    return s.rng.choice(("plant", "potted plant"))


def _frond(s: Sketch, root: Place, length: Length, color: Color) -> None:
    """A long leaf that rises from its root and bends down again."""
    angle, rise, steps = s.draw(0, 2 * math.pi), s.draw(0.6, 1.4), 5
    wide = s.draw(0.015, 0.045)
    start = root
    for i in range(1, steps + 1):
        share = i / steps
        out, up = length * 0.8 * share, length * (rise * share - share**2)
        end = (
            root[0] + out * math.cos(angle),
            root[1] + out * math.sin(angle),
            max(root[2] + up, 0.01),
        )
        s.bar(start, end, wide * (1.1 - share), color)
        start = end


def basket(s: Sketch) -> str:
    wide, height = s.draw(0.12, 0.32), s.draw(0.12, 0.65)
    color = s.color(WOODS, WHITES, CLOTHS)
    rows, four = 8, s.chance(0.35)
    profile: list[tuple[Length, Length]] = []
    slope = s.draw(0.0, 0.35)
    for i in range(rows + 1):  # woven in rings
        radius = wide * (1 - slope + slope * i / rows)
        profile += [(radius, height * i / rows), (radius * 1.03, height * (i + 0.5) / rows)]
    inner = [(wide * 0.9, height), (wide * 0.75, height * 0.15)]
    stretch = (1.0, s.draw(0.6, 1.0))
    s.turned(profile[:-1] + inner, (0, 0, 0), color, stretch=stretch, sides=4 if four else 20)
    if s.chance(0.25):
        s.turned([(wide, 0), (wide * 0.3, 0.05)], (0, 0, height), color, stretch=stretch)
        return "laundry basket"
    if s.chance(0.35):  # a handle over it
        reach, top = wide * (0.7 if four else 1.0), s.draw(0.12, 0.3)
        steps = 6
        for i in range(steps):
            one, two = math.pi * i / steps, math.pi * (i + 1) / steps
            start = (reach * math.cos(one), 0, height + top * math.sin(one))
            s.bar(start, (reach * math.cos(two), 0, height + top * math.sin(two)), 0.012, color)
    elif s.chance(0.3):
        for _ in range(5):
            place = (s.draw(-0.5, 0.5) * wide, s.draw(-0.4, 0.4) * wide, height * 0.75)
            s.cushion((wide * 0.6, wide * 0.6, 0.12), place, s.color(CLOTHS, BRIGHTS), edge=0.8)
    return "basket"


def trash_can(s: Sketch) -> str:
    wide, height = s.draw(0.11, 0.28), s.draw(0.25, 0.8)
    color = s.color(METALS, DARKS, BRIGHTS, WHITES)
    kind = s.rng.choice(("square", "round", "round", "pedal", "wire", "wheels"))
    if kind in ("square", "wheels"):
        height = s.draw(0.8, 1.05) if kind == "wheels" else height
        foot = [(wide * s.draw(0.8, 1.0) * math.sqrt(2), 0), (wide * math.sqrt(2), height)]
        s.turned(foot, (0, 0, 0), color, stretch=(1.0, s.draw(0.8, 1.2)), sides=4)
        s.box((2.1 * wide, 2 * wide, height * 0.1), (0, 0, height), s.color([color], DARKS))
        s.box((wide, 0.02, height * 0.12), (0, -wide * 0.93, height * 0.8), s.color(DARKS))
        if kind == "wheels":
            s.bar((-wide, wide, 0.08), (wide, wide, 0.08), 0.08, s.color(DARKS))
            s.bar((-wide, wide * 1.2, height), (wide, wide * 1.2, height), 0.02, color)
        return s.rng.choice(("trash can", "recycling bin"))
    if kind == "wire":
        for i in range(18):
            angle = 2 * math.pi * i / 18
            x, y = wide * math.cos(angle), wide * math.sin(angle)
            s.bar((x * 0.8, y * 0.8, 0), (x, y, height), 0.004, color)
        for share in (0.05, 0.4, 0.7, 1.0):
            ring = [(wide * (0.8 + 0.2 * share), 0), (wide * (0.8 + 0.2 * share), 0.012)]
            if share in (0.05, 1.0):
                s.turned(
                    [*ring, (ring[1][0] * 0.95, 0.012), (ring[0][0] * 0.95, 0)],
                    (0, 0, share * height),
                    color,
                )
        return "waste basket"
    profile = [(wide * s.draw(0.7, 1.0), 0), (wide, height)]
    lids = (
        [(wide * 1.05, height), (wide * 0.8, height + 0.08), (0.02, height + 0.1)],
        [(wide * 1.03, height), (wide, height + 0.04), (wide * 0.9, height + 0.06)],
        [(wide * 0.93, height), (wide * 0.65, 0.02)],
    )
    s.turned(profile + s.rng.choice(lids), (0, 0, 0), color)
    if kind == "pedal":
        s.box((0.08, 0.08, 0.015), (0, -wide - 0.02, 0.02), s.color(DARKS, METALS))
    return s.rng.choice(("trash can", "dustbin"))


def box(s: Sketch) -> str:
    size = s.draw(0.15, 0.8), s.draw(0.15, 0.55), s.draw(0.1, 0.55)
    kind = s.rng.choice((*_BOXES, "cardboard box", "box"))
    width, depth, height = size
    color = s.color(_CARDBOARD if "cardboard" in kind else WOODS + BRIGHTS + WHITES)
    if kind in _BOXES:
        _BOXES[kind](s, size, color)
        return kind
    s.box(size, (0, 0, 0), color)
    if kind == "cardboard box":  # tape, and a label
        s.box((width * 1.003, 0.05, height * 1.003), (0, 0, 0), s.color(WOODS, WHITES))
        label = (width * 0.3, 0.004, height * 0.3)
        s.box(label, (s.draw(-0.3, 0.3) * width, -depth / 2, height * 0.4), s.color(WHITES))
    elif s.chance(0.6):
        lid = height * s.draw(0.1, 0.3)
        s.box((width * 1.03, depth * 1.03, lid), (0, 0, height - lid), s.color([color], WHITES))
    return kind


def _pile(s: Sketch, size: Place, color: Color) -> None:
    z = 0.0
    for _ in range(s.rng.randint(2, 4)):
        width, depth, tall = (side * s.draw(0.55, 1.0) for side in size)
        place = (s.draw(-0.1, 0.1) * width, s.draw(-0.1, 0.1) * depth, z)
        s.box((width, depth, tall), place, s.color(_CARDBOARD, WHITES, [color]))
        s.box((width * 1.002, 0.05, tall * 1.003), place, s.color(WOODS))
        z += tall


def _crate(s: Sketch, size: Place, color: Color) -> None:
    width, depth, height = size
    slats, gap = s.rng.randint(2, 5), s.draw(0.6, 1.0)
    for i in range(slats):
        z, tall = i * height / slats, height / slats * gap
        for y in (-depth / 2, depth / 2):
            s.box((width, 0.02, tall), (0, y, z), color)
        for x in (-width / 2, width / 2):
            s.box((0.02, depth, tall), (x, 0, z), color)
    s.box((width, depth, 0.02), (0, 0, 0), color)


def _open_box(s: Sketch, size: Place, color: Color) -> None:
    """Four sides, their flaps as far open as the draw will have it."""
    width, depth, height = size
    out, down = s.draw(0.0, 0.4), s.draw(-0.1, 0.25)
    for side in (-1, 1):
        x, y = side * width / 2, side * depth / 2
        s.box((width, 0.01, height), (0, y, 0), color)
        s.box((0.01, depth, height), (x, 0, 0), color)
        for k in range(4):
            share = (k + 0.5) / 4
            lift = height - down * share * depth - 0.01
            s.box((width, depth * out / 4 + 0.01, 0.01), (0, y + y * 2 * out * share, lift), color)
            lift = height - down * share * width - 0.01
            s.box((width * out / 4 + 0.01, depth, 0.01), (x + x * 2 * out * share, 0, lift), color)
    s.box((width, depth, 0.01), (0, 0, 0), color)
    if s.chance(0.4):  # something is in it
        s.box((width * 0.8, depth * 0.8, height * s.draw(0.3, 0.9)), (0, 0, 0.01), s.color(BRIGHTS))


def _trunk(s: Sketch, size: Place, color: Color) -> None:
    width, depth, height = size[0] + 0.2, size[1], size[2]
    s.box((width, depth, height), (0, 0, 0), color)
    if s.chance(0.6):
        s.cushion((width, depth, height * 0.5), (0, 0, height * 0.75), color, edge=0.5)
    else:
        s.box((width * 1.02, depth * 1.03, height * 0.25), (0, 0, height), color)
    metal = s.color(METALS, WOODS)
    for x in (-width / 3, width / 3):
        s.box((0.04, depth * 1.05, height * 1.02), (x, 0, 0), metal)
    s.box((0.06, 0.03, 0.08), (0, -depth / 2 - 0.01, height * 0.8), metal)


def _storage_box(s: Sketch, size: Place, color: Color) -> None:
    """Plastic, wider above, with a lid that clips on."""
    width, depth, height = size
    body = [(0.6, 0.0), (0.707, height)]
    s.turned(body, (0, 0, 0), color, stretch=(width, depth), sides=4)
    lid = s.color([color], WHITES, BRIGHTS)
    s.box((width * 1.04, depth * 1.05, 0.03), (0, 0, height), lid)
    s.box((width * 0.8, depth * 0.8, 0.015), (0, 0, height + 0.03), lid)
    for x in (-width * 0.52, width * 0.52):
        s.box((0.02, depth * 0.25, height * 0.3), (x, 0, height * 0.72), lid)


def _gift(s: Sketch, size: Place, color: Color) -> None:
    width, depth, height = size
    ribbon = s.color(BRIGHTS, WHITES)
    s.box((width, depth, height * 0.8), (0, 0, 0), color)
    s.box((width * 1.04, depth * 1.04, height * 0.2), (0, 0, height * 0.8), color)
    s.box((width * 0.12, depth * 1.05, height * 1.01), (0, 0, 0), ribbon)
    s.box((width * 1.05, depth * 0.12, height * 1.01), (0, 0, 0), ribbon)
    for x in (-0.08, 0.08):
        s.cushion((width * 0.2, depth * 0.1, height * 0.15), (x * width, 0, height), ribbon)


def _round_box(s: Sketch, size: Place, color: Color) -> None:
    radius, height = size[0] / 2, size[2]
    s.turned([(radius, 0), (radius, height)], (0, 0, 0), color)
    lid = [(radius * 1.04, 0), (radius * 1.04, height * 0.25)]
    s.turned(lid, (0, 0, height * 0.78), s.color([color], WHITES))


_CARDBOARD = ((185, 145, 100), (170, 130, 90), (200, 165, 120))
_BOXES = {
    "pile of boxes": _pile,
    "crate": _crate,
    "open cardboard box": _open_box,
    "open box": _open_box,
    "trunk": _trunk,
    "storage box": _storage_box,
    "gift box": _gift,
    "hat box": _round_box,
}


VESSELS = {
    "vase": vase,
    "plant": plant,
    "basket": basket,
    "trash can": trash_can,
    "box": box,
}
