"""Made-up furniture to sit, lie and eat at.

Each function draws one piece of a class and says what it is called.
"""

import math

from o2s.datasets.sketch import CLOTHS, DARKS, METALS, PAINTS, WHITES, WOODS, Color, Sketch


def chair(s: Sketch) -> str:
    kind = s.rng.choice(("chair", "chair", "office chair", "armchair"))
    if kind == "armchair":
        _seat(s, s.draw(0.65, 0.95), s.color(CLOTHS, DARKS), seats=1)
        return kind
    width, depth = s.draw(0.4, 0.52), s.draw(0.4, 0.52)
    height, top = s.draw(0.42, 0.5), s.draw(0.78, 1.05)
    frame, cover = s.color(WOODS, METALS, DARKS), s.color(CLOTHS, WOODS, DARKS, WHITES)
    if kind == "office chair":
        arms = 5
        for i in range(arms):
            angle = 2 * math.pi * i / arms
            s.bar((0, 0, 0.1), (0.3 * math.cos(angle), 0.3 * math.sin(angle), 0.05), 0.02, frame)
        s.bar((0, 0, 0.08), (0, 0, height - 0.05), 0.03, frame)
    else:
        s.legs((width, depth), height, s.draw(0.025, 0.05), frame)
    if s.chance(0.5):
        s.cushion((width, depth, 0.08), (0, 0, height - 0.04), cover, edge=0.3)
    else:
        s.box((width, depth, 0.03), (0, 0, height), cover)
    back, lean = depth / 2, s.draw(0.02, 0.12)
    style = s.rng.choice(("panel", "slats", "rungs"))
    if style == "panel" or kind == "office chair":
        low = height + s.draw(0.0, 0.15)
        s.cushion((width, 0.06, top - low), (0, back + lean / 2, low), cover, edge=0.25)
    for x in (-width / 2 + 0.02, width / 2 - 0.02):
        if kind != "office chair" or s.chance(0.3):
            s.bar((x, back - 0.02, height - 0.02), (x, back + lean, top), 0.016, frame)
    if style == "slats":
        for i in range(5):
            x = (i - 2) * width / 5.5
            s.bar((x, back - 0.02, height), (x, back + lean, top), 0.012, frame)
        s.box((width, 0.025, 0.06), (0, back + lean, top - 0.05), frame)
    elif style == "rungs":
        for i in range(1, 4):
            share = i / 3
            z = height + share * (top - height) - 0.06
            s.box((width, 0.02, 0.05), (0, back + share * lean, z), frame)
    if s.chance(0.3):
        for x in (-width / 2 - 0.01, width / 2 + 0.01):
            s.box((0.04, depth * 0.85, 0.03), (x, 0, height + 0.2), frame)
            s.bar((x, -depth / 3, height), (x, -depth / 3, height + 0.2), 0.015, frame)
    return kind


def stool(s: Sketch) -> str:
    bar = s.chance(0.5)
    height, radius = (s.draw(0.6, 0.82) if bar else s.draw(0.38, 0.5)), s.draw(0.15, 0.2)
    frame, cover = s.color(WOODS, METALS, DARKS), s.color(CLOTHS, WOODS, DARKS)
    if not bar and s.chance(0.3):
        return _footstool(s, radius * s.draw(1.0, 1.6), height, frame, cover)
    if s.chance(0.35):
        s.turned([(radius * 1.1, 0), (radius * 1.05, 0.02), (0.03, 0.04)], (0, 0, 0), frame)
        s.bar((0, 0, 0.02), (0, 0, height), 0.025, frame)
    else:
        s.legs((radius * 1.7, radius * 1.7), height, s.draw(0.025, 0.045), frame)
        for y in (-radius * 0.75, radius * 0.75):
            s.bar((-radius * 0.8, y, height / 3), (radius * 0.8, y, height / 3), 0.012, frame)
    if s.chance(0.6):
        s.turned([(radius, 0), (radius, 0.05), (radius * 0.9, 0.06)], (0, 0, height - 0.02), cover)
    else:
        s.box((2 * radius, 2 * radius, 0.05), (0, 0, height - 0.02), cover)
    if bar and s.chance(0.3):
        s.box((1.8 * radius, 0.03, 0.12), (0, radius, height + 0.12), cover)
        for x in (-radius / 2, radius / 2):
            s.bar((x, radius * 0.9, height), (x, radius, height + 0.2), 0.012, frame)
    return "bar stool" if bar else "stool"


def _footstool(s: Sketch, radius: float, height: float, frame: Color, cover: Color) -> str:
    """A pouf, round or square, a step to climb on, or a seat on three legs."""
    kind = s.rng.choice(("ottoman", "footstool", "step stool", "three-legged stool"))
    side = 2 * radius
    if kind == "step stool":
        for i, share in enumerate((0.5, 1.0)):
            deep = radius * (i - 0.5)
            s.box((side, radius, 0.03), (0, deep, height * share), frame)
            for x in (-radius * 0.95, radius * 0.95):
                s.box((0.03, radius, height * share), (x, deep, 0), frame)
    elif kind == "three-legged stool":
        for i in range(3):
            x, y = math.cos(2.1 * i), math.sin(2.1 * i)
            top, foot = (0.6 * radius * x, 0.6 * radius * y), (radius * x, radius * y)
            s.bar((*foot, 0), (*top, height), 0.018, frame)
        s.turned([(radius, 0), (radius, 0.04)], (0, 0, height - 0.02), cover)
    else:
        foot = s.rng.choice((0.0, 0.1))
        if foot:
            s.legs((side * 0.9, side * 0.9), foot, 0.04, frame)
        if s.chance(0.5):
            s.cushion((side, side, height - foot), (0, 0, foot), cover, edge=0.3)
        else:
            profile = [(radius * 0.95, 0), (radius, 0.05), (radius, height - foot - 0.05)]
            s.turned([*profile, (radius * 0.9, height - foot)], (0, 0, foot), cover)
    return kind


def bench(s: Sketch) -> str:
    width, depth, height = s.draw(0.9, 1.8), s.draw(0.3, 0.5), s.draw(0.4, 0.5)
    wood = s.color(WOODS, PAINTS)
    if s.chance(0.5):
        s.legs((width, depth), height, 0.06, s.color(WOODS, METALS))
    else:
        for x in (-width * 0.42, width * 0.42):
            s.box((0.06, depth, height), (x, 0, 0), wood)
    planks = s.rng.randint(1, 4)
    for i in range(planks):
        y = (i - (planks - 1) / 2) * depth / planks
        s.box((width, depth / planks * 0.94, 0.04), (0, y, height), wood)
    if s.chance(0.4):
        for i in range(2):
            s.box((width, 0.03, 0.1), (0, depth / 2 + 0.03, height + 0.15 + 0.18 * i), wood)
        for x in (-width * 0.42, width * 0.42):
            s.box((0.05, 0.05, 0.45), (x, depth / 2, height), wood)
    return "bench"


def sofa(s: Sketch) -> str:
    seats = s.rng.randint(2, 3)
    cover = s.color(CLOTHS, DARKS, WHITES)
    width = s.draw(0.62, 0.8) * seats + s.draw(0.2, 0.4)
    depth = _seat(s, width, cover, seats=seats)
    if s.chance(0.25):
        side = s.rng.choice((-1, 1))
        x = side * (width / 2 - 0.4)
        s.cushion((0.75, 1.0, 0.28), (x, -depth / 2 - 0.4, 0.1), cover, edge=0.25)
        s.cushion((0.72, 0.95, 0.15), (x, -depth / 2 - 0.4, 0.32), cover, edge=0.3)
        return "corner sofa"
    return s.rng.choice(("sofa", "couch"))


def _seat(s: Sketch, width: float, cover: Color, *, seats: int) -> float:
    """An upholstered seat with arms; its depth."""
    depth, height = s.draw(0.75, 1.0), s.draw(0.38, 0.46)
    top, arm, side = s.draw(0.72, 0.98), s.draw(0.52, 0.68), s.draw(0.1, 0.22)
    edge = s.draw(0.15, 0.45)
    foot = s.draw(0.02, 0.14)
    s.legs((width, depth), foot, 0.05, s.color(WOODS, METALS, DARKS))
    s.cushion((width, depth, height - foot - 0.1), (0, 0, foot), cover, edge=0.15)
    s.cushion((width, 0.22, top - foot), (0, depth / 2 - 0.11, foot), cover, edge=edge)
    for x in (-width / 2 + side / 2, width / 2 - side / 2):
        s.cushion((side, depth, arm - foot), (x, 0, foot), cover, edge=edge)
    inner = (width - 2 * side) / seats
    other = cover if s.chance(0.8) else s.color(CLOTHS)
    for i in range(seats):
        x = (i - (seats - 1) / 2) * inner
        place = (x, -0.09, height - 0.14)
        s.cushion((inner * 0.98, depth - 0.2, 0.17), place, other, edge=0.3)
        if s.chance(0.7):
            size = (inner * 0.95, 0.2, top - height)
            s.cushion(size, (x, depth / 2 - 0.25, height), other, edge=0.5)
    return depth


def bed(s: Sketch) -> str:
    kind = s.rng.choice(("single bed", "double bed", "double bed", "bunk bed", "crib"))
    frame = s.color(WOODS, PAINTS, DARKS)
    sheet, cover = s.color(WHITES), s.color(CLOTHS, WHITES)
    if kind == "crib":
        width, length, height = s.draw(0.6, 0.8), s.draw(1.1, 1.4), s.draw(0.8, 1.0)
        s.box((width, length, 0.12), (0, 0, 0.35), sheet)
        for y in (-length / 2, length / 2):
            s.box((width, 0.04, height), (0, y, 0), frame)
        for x in (-width / 2, width / 2):
            for i in range(12):
                y = (i - 5.5) * length / 12
                s.bar((x, y, 0.25), (x, y, height), 0.01, frame)
            s.box((0.04, length, 0.05), (x, 0, height - 0.05), frame)
            s.box((0.04, length, 0.05), (x, 0, 0.22), frame)
        return kind
    width = s.draw(1.35, 1.9) if kind == "double bed" else s.draw(0.85, 1.1)
    length, base = s.draw(1.9, 2.2), s.draw(0.22, 0.4)
    levels = (0.0, s.draw(1.0, 1.3)) if kind == "bunk bed" else (0.0,)
    for z in levels:
        if z or s.chance(0.5):
            s.box((width, length, 0.15), (0, 0, z + base - 0.15), frame)
        else:
            s.box((width, length, base - 0.05), (0, 0, z + 0.05), frame)
        s.cushion((width * 0.97, length * 0.98, 0.22), (0, 0, z + base), sheet, edge=0.15)
        share = s.draw(0.55, 0.75)
        blanket = (width * 1.02, length * share, 0.2)
        s.cushion(blanket, (0, -length * (1 - share) / 2, z + base + 0.06), cover, edge=0.2)
        for x in (-width / 4, width / 4) if kind == "double bed" else (0.0,):
            s.cushion((0.6, 0.4, 0.15), (x, length / 2 - 0.25, z + base + 0.2), sheet)
    if len(levels) > 1:
        for x in (-width / 2, width / 2):
            for y in (-length / 2, length / 2):
                s.box((0.07, 0.07, levels[1] + base + 0.4), (x, y, 0), frame)
        for side in (-1, 1):
            place = (side * width / 2, 0.3, levels[1] + base + 0.25)
            s.box((0.03, length * 0.7, 0.12), place, frame)
        for i in range(5):
            s.bar((width / 2, -0.9, 0.3 * (i + 1)), (width / 2, -0.5, 0.3 * (i + 1)), 0.02, frame)
        return kind
    s.legs((width, length), base - 0.1, 0.07, frame)
    head = s.draw(0.6, 1.15)
    if s.chance(0.8):
        s.box((width * 1.03, 0.06, head), (0, length / 2 + 0.03, 0), frame)
    if s.chance(0.4):
        s.box((width * 1.03, 0.05, head * 0.6), (0, -length / 2 - 0.03, 0), frame)
    return kind


def table(s: Sketch) -> str:
    kind = s.rng.choice(("dining table", "coffee table", "round table", "side table", "table"))
    width, depth, height = s.draw(1.1, 2.0), s.draw(0.7, 1.0), s.draw(0.7, 0.78)
    if kind == "coffee table":
        width, depth, height = s.draw(0.7, 1.3), s.draw(0.45, 0.75), s.draw(0.32, 0.48)
    elif kind == "side table":
        width, depth, height = s.draw(0.35, 0.6), s.draw(0.35, 0.6), s.draw(0.42, 0.65)
    thick, top = s.draw(0.02, 0.06), s.color(WOODS, WHITES, METALS, DARKS)
    frame = top if s.chance(0.6) else s.color(WOODS, METALS, DARKS)
    if kind == "round table" or s.chance(0.15):
        radius = width / 2 if kind != "round table" else s.draw(0.35, 0.75)
        s.turned([(radius, 0), (radius, thick)], (0, 0, height - thick), top, sides=28)
        if s.chance(0.6):
            foot = [(radius * 0.55, 0), (radius * 0.5, 0.03), (0.05, 0.06), (0.04, height - thick)]
            s.turned(foot, (0, 0, 0), frame)
        else:
            s.legs((radius * 1.3, radius * 1.3), height - thick, s.draw(0.04, 0.08), frame)
        return kind
    s.box((width, depth, thick), (0, 0, height - thick), top)
    if s.chance(0.2):
        for x in (-width * 0.4, width * 0.4):
            s.box((0.05, depth * 0.8, height - thick), (x, 0, 0), frame)
    else:
        s.legs((width, depth), height - thick, s.draw(0.035, 0.09), frame)
    if s.chance(0.5):
        apron = (width * 0.88, depth * 0.85, s.draw(0.05, 0.12))
        s.box(apron, (0, 0, height - thick - apron[2]), frame)
    if kind in ("coffee table", "side table") and s.chance(0.4):
        s.box((width * 0.9, depth * 0.9, 0.02), (0, 0, height * 0.3), frame)
    return kind


SEATS = {
    "chair": chair,
    "stool": stool,
    "bench": bench,
    "sofa": sofa,
    "bed": bed,
    "table": table,
}
