"""Made-up things that stand, lie and hang about: lamps, pictures, clocks, cloth, books.

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
    MIRROR,
    PAPER,
    WHITES,
    WOODS,
    Color,
    Length,
    Place,
    Sketch,
)


def lamp(s: Sketch) -> str:
    kind = s.rng.choice(("table lamp", "table lamp", "floor lamp", "desk lamp", "pendant", "wall"))
    shade, stem = s.color(WHITES, CLOTHS), s.color(METALS, WOODS, DARKS)
    wide, tall = s.draw(0.1, 0.24), s.draw(0.12, 0.3)
    s.elevation = {"pendant": 1.7, "wall": 1.4}.get(kind, 0.0)
    if kind == "pendant":
        drop, arms = s.draw(0.2, 0.8), s.rng.choice((1, 1, 3, 5))
        s.turned([(0.06, 0), (0.05, 0.03)], (0, 0, tall + drop), stem)
        s.bar((0, 0, tall), (0, 0, tall + drop), 0.008, stem)
        for i in range(arms):
            angle, out = 2 * math.pi * i / arms, 0.0 if arms == 1 else wide * 1.6
            x, y = out * math.cos(angle), out * math.sin(angle)
            s.bar((0, 0, tall + drop * 0.3), (x, y, tall), 0.01, stem)
            _shade(s, wide if arms == 1 else wide * 0.5, tall, (x, y, 0), shade)
        return "ceiling lamp" if arms == 1 else "chandelier"
    if kind == "wall":
        s.disc(0.06, 0.03, (0, 0.15, 0.1), stem)
        s.bar((0, 0.14, 0.1), (0, 0, 0.05), 0.01, stem)
        _shade(s, wide * 0.6, tall, (0, 0, 0.05), shade)
        return "wall lamp"
    height = s.draw(1.2, 1.9) if kind == "floor lamp" else s.draw(0.25, 0.7)
    foot = height * s.draw(0.08, 0.12) if kind == "floor lamp" else s.draw(0.06, 0.12)
    s.turned([(foot, 0), (foot, 0.02), (0.02, 0.03)], (0, 0, 0), stem)
    if kind == "desk lamp":
        elbow = (s.draw(-0.12, 0.12), s.draw(0.05, 0.15), height * 0.7)
        head = (elbow[0], elbow[1] - s.draw(0.2, 0.35), height)
        s.bar((0, 0, 0.02), elbow, 0.01, stem)
        s.bar(elbow, head, 0.01, stem)
        cone = [(0.09, -0.1), (0.03, 0.03)]
        s.turned(cone, head, shade)
        return kind
    if kind == "table lamp" and s.chance(0.6):
        body = [(foot * 0.4, 0.02), (foot * s.draw(0.6, 1.4), height * 0.25), (0.02, height * 0.55)]
        s.turned(body, (0, 0, 0), s.color(CLAYS, METALS, WOODS))
    if kind == "floor lamp" and s.chance(0.25):  # an arc
        out, steps = s.draw(0.4, 0.9), 6
        for i in range(steps):
            one, two = math.pi / 2 * i / steps, math.pi / 2 * (i + 1) / steps
            start = (out * (1 - math.cos(one)), 0, height * math.sin(one))
            s.bar(start, (out * (1 - math.cos(two)), 0, height * math.sin(two)), 0.014, stem)
        _shade(s, wide, tall, (out, 0, height - tall), shade)
        return kind
    s.bar((0, 0, 0.02), (0, 0, height - tall), 0.012, stem)
    _shade(s, wide, tall, (0, 0, height - tall), shade)
    return kind


def _shade(s: Sketch, wide: Length, tall: Length, at: Place, color: Color) -> None:
    """What light shines through: a cone, a drum, a ball or a bowl."""
    kind = s.rng.choice(("cone", "cone", "ball", "bowl"))
    if kind == "ball":
        s.cushion((2 * wide * 0.8, 2 * wide * 0.8, tall), at, color, edge=1.0)
        return
    low, high = (wide, wide * s.draw(0.4, 1.0)) if kind == "cone" else (wide * 0.4, wide)
    inner = [(high * 0.93, tall * 0.98), (low * 0.93, tall * 0.05)]
    s.turned([(low, 0), (high, tall), *inner], at, color)


def mirror(s: Sketch) -> str:
    width, height = s.draw(0.35, 1.0), s.draw(0.5, 1.8)
    frame = s.color(WOODS, METALS, WHITES)
    if s.chance(0.3):
        s.disc(width / 2, 0.03, (0, 0.02, width / 2), frame)
        s.disc(width / 2 * 0.9, 0.04, (0, 0.02, width / 2), MIRROR)
        return "round mirror"
    s.box((width, 0.03, height), (0, 0.02, 0), frame)
    s.box((width * 0.88, 0.02, height * 0.93), (0, 0.0, height * 0.035), MIRROR)
    return "mirror"


def picture(s: Sketch) -> str:
    """A flat panel with a frame, a margin of paper, or neither."""
    width, height, deep = s.draw(0.2, 1.4), s.draw(0.2, 1.1), s.draw(0.015, 0.05)
    kind, frame = s.rng.choice(("picture", "painting", "poster")), s.color(WOODS, DARKS, METALS)
    edge = 0.0 if kind == "poster" else s.draw(0.015, 0.08)
    ground = s.color([PAPER], WHITES, CLOTHS, BRIGHTS, GREENS, DARKS)
    s.box((width, deep, height), (0, 0, 0), frame if edge else ground)
    if edge and s.chance(0.6):  # a frame that stands out
        for x in (-width / 2 + edge / 2, width / 2 - edge / 2):
            s.box((edge, deep + 0.03, height), (x, -0.01, 0), frame)
        for z in (0.0, height - edge):
            s.box((width, deep + 0.03, edge), (0, -0.01, z), frame)
    inside = (width - 2 * edge, height - 2 * edge)
    s.box((inside[0], 0.01, inside[1]), (0, -deep / 2, edge), ground)
    _painting(s, inside, (0, -deep / 2 - 0.006, edge))
    return kind


def _painting(s: Sketch, size: tuple[Length, Length], at: Place) -> None:
    """What is to be seen on a picture: bands of a landscape, a head, or patches."""
    width, height = size
    kind = s.rng.choice(("landscape", "portrait", "patches", "patches"))
    if kind == "landscape":
        z = at[2]
        for share in (s.draw(0.15, 0.4), s.draw(0.1, 0.3), s.draw(0.1, 0.3)):
            tall = height * share
            s.box((width, 0.006, tall), (at[0], at[1], z), s.color(GREENS, BRIGHTS, CLOTHS))
            z += tall
    elif kind == "portrait":
        radius = min(width, height) * s.draw(0.12, 0.22)
        s.disc(radius, 0.006, (at[0], at[1], at[2] + height * 0.6), s.color(WOODS, WHITES))
        s.box((width * 0.6, 0.006, height * 0.38), at, s.color(CLOTHS, DARKS))
    else:
        for _ in range(s.rng.randint(2, 9)):
            wide, tall = width * s.draw(0.1, 0.5), height * s.draw(0.1, 0.5)
            x, z = s.draw(-0.5, 0.5) * (width - wide), s.draw(0.0, 1.0) * (height - tall)
            color = s.color(BRIGHTS, CLOTHS, GREENS, DARKS)
            s.box((wide, 0.006, tall), (at[0] + x, at[1], at[2] + z), color)


def clock(s: Sketch) -> str:
    radius, rim = s.draw(0.12, 0.22), s.color(WOODS, METALS, DARKS)
    middle = radius
    kind = "wall clock"
    if s.chance(0.3):
        middle, kind = s.draw(1.4, 1.7), "grandfather clock"
        radius = 0.16
        s.box((0.42, 0.26, 1.95), (0, 0.13, 0), rim)
        s.box((0.48, 0.3, 0.3), (0, 0.13, 0), rim)
        s.box((0.24, 0.02, 0.7), (0, 0, 0.45), MIRROR)
    s.disc(radius, 0.04, (0, 0.02, middle), rim)
    s.disc(radius * 0.88, 0.05, (0, 0.02, middle), (245, 243, 236))
    for angle, length in ((s.draw(0, 6.3), 0.5), (s.draw(0, 6.3), 0.75)):
        end = (
            radius * length * math.cos(angle),
            -0.035,
            middle + radius * length * math.sin(angle),
        )
        s.bar((0, -0.035, middle), end, 0.006, (25, 25, 25))
    return kind


def towel(s: Sketch) -> str:
    color, width, height = s.color(CLOTHS, WHITES, BRIGHTS), s.draw(0.25, 0.7), s.draw(0.3, 1.0)
    kind, metal = s.rng.choice(("folded", "hung", "hung", "hung", "rack")), s.color(METALS, WOODS)
    if kind == "folded":
        for i in range(s.rng.randint(1, 4)):
            place = (0, 0, i * 0.06)
            s.cushion((width, width * 0.7, 0.07), place, s.color([color], CLOTHS), edge=0.35)
        return "folded towel"
    if kind == "rack":
        rungs, low = s.rng.randint(2, 4), s.draw(0.0, 0.3)
        for x in (-width * 0.65, width * 0.65):
            s.bar((x, 0.05, 0), (x, 0.05, height + low), 0.014, metal)
        for i in range(rungs):
            z, y = low + height * (i + 1) / rungs, 0.05 - 0.07 * (rungs - i)
            s.bar((-width * 0.65, y, z), (width * 0.65, y, z), 0.011, metal)
            if i == rungs - 1 or s.chance(0.6):
                hem = min(z, height * s.draw(0.4, 0.9))
                cover = s.color([color], CLOTHS, WHITES)
                s.cloth((width, 0.02, hem), (0, y - 0.015, z - hem), cover, folds=1.5)
        return "towel rack"
    s.cloth((width, 0.03, height), (0, -0.02, 0), color, folds=s.draw(1, 2.5))
    back = s.draw(0.5, 1.0)
    s.cloth(
        (width, 0.03, height * back), (0, 0.03, height * (1 - back)), color, folds=s.draw(1, 2.5)
    )
    if s.chance(0.3):
        s.box((width * 1.01, 0.06, height * 0.08), (0, 0, height * 0.1), s.color(CLOTHS, WHITES))
    if s.chance(0.6):
        s.bar((-width * 0.65, 0, height), (width * 0.65, 0, height), 0.012, metal)
    return "towel"


def pillow(s: Sketch) -> str:
    width, depth = s.draw(0.35, 0.7), s.draw(0.3, 0.45)
    color = s.color(CLOTHS, WHITES, BRIGHTS)
    if s.chance(0.5):
        s.cushion((width, depth, s.draw(0.1, 0.2)), (0, 0, 0), color, edge=0.55)
    else:
        s.cushion((width, s.draw(0.1, 0.18), depth), (0, 0, 0), color, edge=0.55)
    return s.rng.choice(("pillow", "cushion"))


def book(s: Sketch) -> str:
    count = s.rng.choice((1, 1, 2, 3, 4))
    z = 0.0
    for _ in range(count):
        width, depth, thick = s.draw(0.14, 0.26), s.draw(0.2, 0.32), s.draw(0.015, 0.05)
        cover, at = s.color(CLOTHS, BRIGHTS, DARKS), (s.draw(-0.02, 0.02), s.draw(-0.02, 0.02))
        s.box((width, depth, 0.004), (*at, z), cover)
        s.box((width * 0.96, depth * 0.96, thick), (at[0] + 0.004, at[1], z), PAPER)
        s.box((width, depth, 0.004), (*at, z + thick), cover)
        s.box((0.005, depth, thick), (at[0] - width / 2, at[1], z), cover)
        z += thick + 0.004
    return "book" if count == 1 else "pile of books"


def rug(s: Sketch) -> str:
    width, length = s.draw(0.5, 2.2), s.draw(0.4, 1.6)
    color, other = s.color(CLOTHS, BRIGHTS), s.color(CLOTHS, WHITES)
    if s.chance(0.25):
        for i, share in enumerate((1.0, 0.8, 0.5)):
            ring = [(width / 2 * share, 0), (width / 2 * share, 0.012)]
            s.turned(ring, (0, 0, 0.002 * i), color if i != 1 else other, sides=28)
        return "round rug"
    for i, share in enumerate((1.0, 0.85, 0.5)):
        s.box((width * share, length * share, 0.012), (0, 0, 0.002 * i), color if i != 1 else other)
    return s.rng.choice(("rug", "carpet", "doormat"))


HOUSEHOLD = {
    "lamp": lamp,
    "mirror": mirror,
    "picture": picture,
    "clock": clock,
    "towel": towel,
    "pillow": pillow,
    "book": book,
    "rug": rug,
}
