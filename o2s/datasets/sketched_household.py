"""Made-up things that stand, lie and hang about: lamps, pictures, plants, vessels, cloth.

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
    Length,
    Sketch,
)


def lamp(s: Sketch) -> str:
    kind = s.rng.choice(("table lamp", "floor lamp", "desk lamp"))
    shade, stem = s.color(WHITES, CLOTHS), s.color(METALS, WOODS, DARKS)
    height = s.draw(1.3, 1.8) if kind == "floor lamp" else s.draw(0.35, 0.65)
    foot = height * s.draw(0.08, 0.12) if kind == "floor lamp" else s.draw(0.06, 0.1)
    s.turned([(foot, 0), (foot, 0.02), (0.02, 0.03)], (0, 0, 0), stem)
    if kind == "desk lamp":
        elbow = (s.draw(-0.12, 0.12), s.draw(0.05, 0.15), height * 0.7)
        head = (elbow[0], elbow[1] - s.draw(0.2, 0.35), height)
        s.bar((0, 0, 0.02), elbow, 0.01, stem)
        s.bar(elbow, head, 0.01, stem)
        cone = [(0.09, -0.1), (0.03, 0.03)]
        s.turned(cone, head, shade)
        return kind
    wide, tall = s.draw(0.1, 0.2), s.draw(0.15, 0.3)
    if kind == "table lamp" and s.chance(0.6):
        body = [(foot * 0.4, 0.02), (foot * s.draw(0.6, 1.4), height * 0.25), (0.02, height * 0.55)]
        s.turned(body, (0, 0, 0), s.color(CLAYS, METALS, WOODS))
    s.bar((0, 0, 0.02), (0, 0, height - tall), 0.012, stem)
    narrow = wide * s.draw(0.5, 1.0)
    s.turned([(wide, height - tall), (narrow, height)], (0, 0, 0), shade)
    return kind


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
    width, height = s.draw(0.2, 1.1), s.draw(0.2, 0.9)
    s.box((width, s.draw(0.015, 0.04), height), (0, 0.02, 0), s.color(WOODS, DARKS, METALS, WHITES))
    s.box((width * 0.9, 0.02, height * 0.9), (0, 0.0, height * 0.05), PAPER)
    inner = s.draw(0.6, 0.88)
    for _ in range(6):
        wide, tall = width * inner * s.draw(0.2, 0.5), height * inner * s.draw(0.2, 0.5)
        x, z = s.draw(-0.25, 0.25) * width, height * s.draw(0.15, 0.45)
        s.box((wide, 0.006, tall), (x, -0.012, z), s.color(BRIGHTS, CLOTHS, GREENS))
    return s.rng.choice(("picture", "painting", "poster"))


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
    color, width, height = s.color(CLOTHS, WHITES, BRIGHTS), s.draw(0.3, 0.6), s.draw(0.4, 0.9)
    if s.chance(0.35):
        for i in range(s.rng.randint(1, 4)):
            place = (0, 0, i * 0.06)
            s.cushion((width, width * 0.7, 0.07), place, s.color([color], CLOTHS), edge=0.35)
        return "folded towel"
    s.cloth((width, 0.03, height), (0, -0.02, 0), color, folds=s.draw(1, 2.5))
    s.cloth((width, 0.03, height * 0.8), (0, 0.03, height * 0.2), color, folds=s.draw(1, 2.5))
    if s.chance(0.6):
        s.bar((-width * 0.65, 0, height), (width * 0.65, 0, height), 0.012, s.color(METALS, WOODS))
    return "towel"


def pillow(s: Sketch) -> str:
    width, depth = s.draw(0.35, 0.7), s.draw(0.3, 0.45)
    color = s.color(CLOTHS, WHITES, BRIGHTS)
    if s.chance(0.5):
        s.cushion((width, depth, s.draw(0.1, 0.2)), (0, 0, 0), color, edge=0.55)
    else:
        s.cushion((width, s.draw(0.1, 0.18), depth), (0, 0, 0), color, edge=0.55)
    return s.rng.choice(("pillow", "cushion"))


def vase(s: Sketch) -> str:
    height = s.draw(0.15, 0.65)
    wide = height * s.draw(0.2, 0.4)
    profile = [
        *((wide * s.draw(0.4, 0.8), 0), (wide, height * s.draw(0.25, 0.55))),
        *(
            (wide * s.draw(0.25, 0.6), height * s.draw(0.75, 0.88)),
            (wide * s.draw(0.4, 0.8), height),
        ),
    ]
    inner = [(profile[-1][0] * 0.85, height), (profile[-1][0] * 0.5, height * 0.8)]
    s.turned(profile + inner, (0, 0, 0), s.color(CLAYS, WHITES, BRIGHTS, CLOTHS))
    return "vase"


def plant(s: Sketch) -> str:
    pot, tall = s.draw(0.08, 0.2), s.draw(0.12, 0.35)
    color = s.color(CLAYS, WHITES, DARKS, WOODS)
    s.turned(
        [(pot * 0.75, 0), (pot, tall), (pot * 0.9, tall), (pot * 0.85, tall * 0.85)],
        (0, 0, 0),
        color,
    )
    green, height = s.color(GREENS), s.draw(0.2, 1.2)
    kind = s.rng.choice(("leaves", "leaves", "tree", "cactus"))
    if kind == "cactus":
        for _ in range(s.rng.randint(1, 4)):
            x, y = s.draw(-0.5, 0.5) * pot, s.draw(-0.5, 0.5) * pot
            wide = s.draw(0.05, 0.12)
            s.cushion((wide, wide, height * s.draw(0.3, 0.6)), (x, y, tall * 0.8), green, edge=0.7)
        return "cactus"
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


def basket(s: Sketch) -> str:
    wide, height = s.draw(0.15, 0.3), s.draw(0.2, 0.65)
    color = s.color(WOODS, WHITES, CLOTHS)
    rows = 8
    profile: list[tuple[Length, Length]] = []
    for i in range(rows + 1):  # woven in rings
        radius = wide * (0.8 + 0.2 * i / rows)
        profile += [(radius, height * i / rows), (radius * 1.03, height * (i + 0.5) / rows)]
    inner = [(wide * 0.9, height), (wide * 0.75, height * 0.3)]
    stretch = (1.0, s.draw(0.7, 1.0))
    s.turned(profile[:-1] + inner, (0, 0, 0), color, stretch=stretch)
    if s.chance(0.4):
        s.turned([(wide, 0), (wide * 0.3, 0.05)], (0, 0, height), color, stretch=stretch)
        return "laundry basket"
    return "basket"


def trash_can(s: Sketch) -> str:
    wide, height = s.draw(0.12, 0.28), s.draw(0.25, 0.75)
    color = s.color(METALS, DARKS, BRIGHTS, WHITES)
    if s.chance(0.4):
        s.box((2 * wide, 1.8 * wide, height), (0, 0, 0), color)
        s.box((2.1 * wide, 1.9 * wide, height * 0.12), (0, 0, height), s.color([color], DARKS))
        s.box((wide, 0.02, height * 0.12), (0, -wide * 0.93, height * 0.8), s.color(DARKS))
        return s.rng.choice(("trash can", "recycling bin"))
    profile = [(wide * s.draw(0.7, 1.0), 0), (wide, height)]
    lid = [(wide * 1.05, height), (wide * 0.8, height + 0.08), (0.02, height + 0.1)]
    inner = [(wide * 0.93, height), (wide * 0.65, 0.02)]
    s.turned(profile + (lid if s.chance(0.5) else inner), (0, 0, 0), color)
    return s.rng.choice(("trash can", "dustbin"))


def box(s: Sketch) -> str:
    width, depth, height = s.draw(0.2, 0.8), s.draw(0.2, 0.55), s.draw(0.15, 0.5)
    kind = s.rng.choice(("cardboard box", "box", "crate", "trunk"))
    cardboard = ((185, 145, 100), (170, 130, 90))
    color = s.color(cardboard if kind == "cardboard box" else WOODS + BRIGHTS + WHITES)
    if kind == "crate":
        for i in range(3):
            z, tall = i * height / 3, height / 3 * 0.75
            for y in (-depth / 2, depth / 2):
                s.box((width, 0.02, tall), (0, y, z), color)
            for x in (-width / 2, width / 2):
                s.box((0.02, depth, tall), (x, 0, z), color)
        s.box((width, depth, 0.02), (0, 0, 0), color)
        return kind
    if kind == "cardboard box" and s.chance(0.5):
        for y in (-depth / 2, depth / 2):
            s.box((width, 0.01, height), (0, y, 0), color)
            s.box((width, depth * 0.4, 0.01), (0, y * 1.4, height - 0.02), color)
        for x in (-width / 2, width / 2):
            s.box((0.01, depth, height), (x, 0, 0), color)
        s.box((width, depth, 0.01), (0, 0, 0), color)
        return "open cardboard box"
    s.box((width, depth, height), (0, 0, 0), color)
    if kind == "trunk":
        s.cushion((width, depth, height * 0.5), (0, 0, height * 0.75), color, edge=0.5)
        for x in (-width / 3, width / 3):
            s.box((0.04, depth * 1.02, height), (x, 0, 0), s.color(METALS, WOODS))
    elif s.chance(0.5):
        s.box(
            (width * 1.03, depth * 1.03, height * 0.2),
            (0, 0, height * 0.85),
            s.color([color], WHITES),
        )
    return kind


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
    "vase": vase,
    "plant": plant,
    "book": book,
    "basket": basket,
    "trash can": trash_can,
    "box": box,
    "rug": rug,
}
