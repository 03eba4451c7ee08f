"""Made-up fixtures: doors and windows, what hangs before them, baths and heating.

Each function draws one piece of a class and says what it is called.
"""

import math

from o2s.datasets.sketch import (
    BRIGHTS,
    CLOTHS,
    DARKS,
    GLASS,
    METALS,
    MIRROR,
    PAINTS,
    WHITES,
    WOODS,
    Color,
    Place,
    Sketch,
)


def door(s: Sketch) -> str:
    leaves = s.rng.choice((1, 1, 1, 2))
    leaf, height = s.draw(0.72, 0.98), s.draw(1.95, 2.2)
    width, wood = leaf * leaves, s.color(WOODS, WHITES, PAINTS)
    frame = wood if s.chance(0.6) else s.color(WOODS, WHITES)
    for x in (-width / 2 - 0.03, width / 2 + 0.03):
        s.box((0.07, s.draw(0.08, 0.16), height + 0.06), (x, 0, 0), frame)
    s.box((width + 0.13, 0.12, 0.07), (0, 0, height), frame)
    for i in range(leaves):
        x = (i - (leaves - 1) / 2) * leaf
        s.box((leaf * 0.98, 0.045, height), (x, 0, 0), wood)
        rows, glazed = s.rng.choice((0, 1, 2, 3)), s.chance(0.25)
        for row in range(rows):
            z, tall = 0.12 + row * (height - 0.2) / rows, (height - 0.2) / rows - 0.1
            s.box((leaf * 0.7, 0.06, tall), (x, 0, z), GLASS if glazed else s.color([wood]))
        side = 1 if i == 0 else -1
        for y in (-0.05, 0.05):
            s.box((0.12, 0.02, 0.02), (x + side * leaf * 0.38, y, 1.0), s.color(METALS))
    return "double door" if leaves == 2 else "door"


def window(s: Sketch) -> str:
    width, height = s.draw(0.5, 2.4), s.draw(0.5, 2.1)
    frame, thick = s.color(WHITES, WHITES, WOODS, DARKS), s.draw(0.04, 0.1)
    deep, glass = s.draw(0.05, 0.2), s.color([GLASS], [(120, 150, 175), (90, 110, 120)])
    for x in (-width / 2, width / 2):
        s.box((thick, deep, height), (x, 0, 0), frame)
    for z in (0.0, height - thick):
        s.box((width, deep, thick), (0, 0, z), frame)
    s.box((width, 0.012, height), (0, 0, 0), glass)
    columns, rows = s.rng.randint(1, max(1, round(width / 0.4))), s.rng.randint(1, 3)
    for i in range(1, columns):
        s.box((s.draw(0.03, 0.1), 0.05, height), (i * width / columns - width / 2, 0, 0), frame)
    for i in range(1, rows):
        s.box((width, 0.05, 0.04), (0, 0, i * height / rows), frame)
    if s.chance(0.2):  # an arch
        for i in range(8):
            one, two = math.pi * i / 8, math.pi * (i + 1) / 8
            start = (width / 2 * math.cos(one), 0, height + width / 4 * math.sin(one))
            end = (width / 2 * math.cos(two), 0, height + width / 4 * math.sin(two))
            s.bar(start, end, thick / 2, frame)
            s.box((abs(end[0] - start[0]), 0.012, start[2] - height), (start[0], 0, height), glass)
    if s.chance(0.5):
        s.box((width + 0.15, deep + 0.12, 0.03), (0, -0.05, -0.03), frame)
    if s.chance(0.25):
        s.box(
            (0.02, 0.05, 0.12), (width / 2 / columns * 0.9, -0.05, height * 0.45), s.color(METALS)
        )
    return "window"


def blinds(s: Sketch) -> str:
    width, height, color = s.draw(0.6, 1.6), s.draw(0.6, 1.7), s.color(WHITES, PAINTS)
    s.box((width, 0.06, 0.05), (0, 0, height), color)
    if s.chance(0.4):
        s.box((width * 0.97, 0.01, height), (0, 0, 0), color)
        return "roller blind"
    slats = int(height / s.draw(0.035, 0.06))
    for i in range(slats):
        s.box((width * 0.98, s.draw(0.02, 0.04), 0.008), (0, 0, i * height / slats), color)
    return "window blinds"


def curtain(s: Sketch) -> str:
    height, color = s.draw(1.6, 2.6), s.color(CLOTHS, WHITES)
    sides = s.rng.choice(((-1,), (-1, 1), (-1, 1)))
    width = s.draw(0.4, 0.9)
    for side in sides:
        x, folds = side * s.draw(0.4, 0.7), s.draw(3, 8)
        s.cloth((width, s.draw(0.06, 0.14), height), (x, 0, 0), color, folds=folds)
    reach = s.draw(0.9, 1.2)
    s.bar((-reach, 0, height), (reach, 0, height), 0.015, s.color(METALS, WOODS))
    return "curtain"


def shower_curtain(s: Sketch) -> str:
    width, height = s.draw(0.8, 1.7), s.draw(1.7, 2.0)
    color = s.color(WHITES, CLOTHS, BRIGHTS)
    s.cloth((width, s.draw(0.05, 0.12), height), (0, 0, 0), color, folds=s.draw(4, 10))
    s.bar((-width / 2 - 0.1, 0, height), (width / 2 + 0.1, 0, height), 0.013, s.color(METALS))
    return "shower curtain"


def shower(s: Sketch) -> str:
    width, depth, height = s.draw(0.8, 1.2), s.draw(0.8, 1.1), s.draw(1.9, 2.1)
    metal = s.color(METALS)
    s.box((width, depth, s.draw(0.05, 0.15)), (0, 0, 0), s.color(WHITES))
    for x, y in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        s.box((0.03, 0.03, height), (x * width / 2, y * depth / 2, 0), metal)
    s.box((0.01, depth, height), (s.rng.choice((-1, 1)) * width / 2, 0, 0.05), GLASS)
    s.box((width, 0.01, height), (0, -depth / 2, 0.05), GLASS)
    s.box((width, 0.03, 0.03), (0, -depth / 2, height), metal)
    s.bar((0, depth / 2 - 0.04, 0.9), (0, depth / 2 - 0.04, height), 0.015, metal)
    s.turned([(0.02, 0), (0.1, -0.03)], (0, depth / 2 - 0.2, height), metal)
    s.bar((0, depth / 2 - 0.04, height), (0, depth / 2 - 0.2, height), 0.012, metal)
    return "shower cabin"


def bathtub(s: Sketch) -> str:
    width, length, height = s.draw(1.5, 1.9), s.draw(0.7, 0.9), s.draw(0.5, 0.65)
    white, free = s.color(WHITES), s.chance(0.4)
    stretch = (width / 2, length / 2)
    inner = [(0.9, height), (0.8, height * 0.6), (0.6, 0.12)]
    if free:
        outer = [(0.6, 0.03), (0.85, height * 0.4), (1.0, height - 0.02), (0.99, height)]
        s.turned(outer + inner, (0, 0, 0), white, stretch=stretch, sides=28)
        s.legs((width * 0.6, length * 0.6), 0.08, 0.06, s.color(METALS, WHITES))
    else:
        rim = 0.07
        for x in (-width / 2 + rim / 2, width / 2 - rim / 2):
            s.box((rim, length, height), (x, 0, 0), white)
        for y in (-length / 2 + rim / 2, length / 2 - rim / 2):
            s.box((width, rim, height), (0, y, 0), white)
        s.box((width, length, 0.14), (0, 0, 0), white)
    side = s.rng.choice((-1, 1)) * (width / 2 - 0.06)
    s.bar((side, 0, height), (side, 0, height + 0.15), 0.02, s.color(METALS))
    return "freestanding bathtub" if free else "bathtub"


def toilet(s: Sketch) -> str:
    white = s.color(WHITES)
    height, width = s.draw(0.36, 0.43), s.draw(0.17, 0.2)
    hung = s.chance(0.3)
    bowl = [(0.55, 0.1), (0.9, height - 0.1)] if hung else [(0.6, 0), (0.5, 0.12), (0.9, 0.28)]
    rim = [(1.0, height), (0.8, height), (0.5, height - 0.12)]
    s.turned(bowl + rim, (0, -0.12, 0), white, stretch=(width, 0.27))
    seat = s.color(WHITES, WOODS) if s.chance(0.2) else white
    if s.chance(0.7):
        s.turned([(1.0, 0), (0.98, 0.04)], (0, -0.12, height), seat, stretch=(width, 0.26))
    else:
        s.box((2 * width, 0.04, 0.42), (0, 0.12, height), seat)
    if hung:
        s.box((0.4, 0.12, s.draw(0.8, 1.1)), (0, 0.2, 0), s.color(WHITES, PAINTS))
    else:
        tank = (s.draw(0.34, 0.44), 0.18, s.draw(0.3, 0.4))
        s.cushion(tank, (0, 0.23, height), white, edge=0.15)
        s.box((0.28, 0.3, height), (0, 0.15, 0), white)
    return "toilet"


def urinal(s: Sketch) -> str:
    width, height, depth = s.draw(0.28, 0.4), s.draw(0.5, 0.8), s.draw(0.25, 0.38)
    white = s.color(WHITES)
    s.cushion((width, 0.1, height), (0, depth / 2, 0), white, edge=0.3)
    for x in (-width / 2 + 0.03, width / 2 - 0.03):
        s.cushion((0.06, depth * 0.7, height * 0.8), (x, 0.05, 0), white, edge=0.4)
    bowl = [(0.3, 0), (0.9, 0.15), (1.0, height * 0.35), (0.8, height * 0.35), (0.4, 0.12)]
    s.turned(bowl, (0, 0, 0), white, stretch=(width / 2, depth / 2))
    s.bar((0, depth / 2 - 0.02, height), (0, depth / 2 - 0.02, height + 0.15), 0.015, METALS[0])
    return "urinal"


def sink(s: Sketch) -> str:
    kind = s.rng.choice(("washbasin", "pedestal sink", "kitchen sink", "sink", "sink unit"))
    if kind == "sink" and s.chance(0.5):
        return _vessel_sink(s)
    kitchen = kind in ("kitchen sink", "sink unit")
    white = s.color(METALS, WHITES) if kitchen else s.color(WHITES)
    s.elevation = 0.0 if kind in ("pedestal sink", "sink unit") else 0.65
    width, depth = s.draw(0.4, 0.65), s.draw(0.36, 0.55)
    deep, low = s.draw(0.12, 0.2), 0.0
    if kind == "pedestal sink":
        low = s.draw(0.62, 0.72)
        s.turned([(0.13, 0), (0.09, 0.2), (0.1, low)], (0, 0.05, 0), white)
    if kind == "sink unit":
        low = s.draw(0.62, 0.75)
        wide, base = width * s.draw(1.05, 2.2), s.color(PAINTS)
        s.box((wide, depth * 1.05, low + deep - 0.02), (0, 0.03, 0), base)
        doors = max(1, round(wide / 0.45))
        for i in range(doors):
            x = (i - (doors - 1) / 2) * wide / doors
            s.box((wide / doors * 0.94, 0.02, low), (x, -depth / 2 - 0.01, 0.08), base)
            knob = (x + wide / doors * 0.35, -depth / 2 - 0.03, low * 0.8)
            s.box((0.02, 0.03, 0.08), knob, s.color(METALS, DARKS))
        s.box((wide, depth * 1.1, 0.03), (0, 0.02, low + deep - 0.03), s.color([white], WOODS))
    bowls = (-0.55, 0.55) if kitchen and s.chance(0.35) else (0.0,)
    round_ = s.chance(0.5) and not kitchen
    for side in bowls:
        _bowl(s, (width, depth, deep), (side * width, 0.0, low), white, round_=round_)
    if kind == "kitchen sink" and len(bowls) == 1:
        side = s.rng.choice((-1, 1)) * width
        s.box((width, depth, 0.03), (side, 0, low + deep - 0.03), white)
    tap, top, reach = s.color(METALS), low + deep, s.draw(0.1, 0.3)
    s.bar((0, depth / 2 - 0.06, top), (0, depth / 2 - 0.06, top + reach), 0.014, tap)
    s.bar((0, depth / 2 - 0.06, top + reach), (0, 0.02, top + reach - 0.03), 0.012, tap)
    return kind


def _vessel_sink(s: Sketch) -> str:
    """A bowl that stands on a board, with nothing or a towel rail below it."""
    width, depth, deep = s.draw(0.38, 0.55), s.draw(0.3, 0.42), s.draw(0.1, 0.16)
    s.elevation, low = s.draw(0.6, 0.72), s.draw(0.03, 0.2)
    wide = width * s.draw(1.1, 2.4)
    x = s.draw(-0.5, 0.5) * (wide - width)
    s.box((wide, depth * 1.2, low), (0, 0, 0), s.color(WOODS, WHITES, DARKS))
    _bowl(s, (width, depth, deep), (x, 0, low), s.color(WHITES, WHITES, METALS), round_=True)
    tap, top = s.color(METALS, DARKS), low + deep + s.draw(0.05, 0.18)
    s.bar((x, depth * 0.52, low), (x, depth * 0.52, top), 0.014, tap)
    s.bar((x, depth * 0.52, top), (x, depth * 0.15, top - 0.02), 0.012, tap)
    return s.rng.choice(("washbasin", "sink"))


def _bowl(s: Sketch, size: Place, at: Place, color: Color, *, round_: bool) -> None:
    """A basin that is open above; `at` is the middle of its underside."""
    width, depth, deep = size
    x0, y0, low = at
    if round_:
        outer = [(0.5, 0.0), (0.95, deep * 0.7), (1.0, deep)]
        inner = [(0.85, deep), (0.7, deep * 0.5), (0.4, 0.03)]
        s.turned(outer + inner, at, color, stretch=(width / 2, depth / 2))
        return
    rim = 0.05
    for x in (-width / 2 + rim / 2, width / 2 - rim / 2):
        s.box((rim, depth, deep + 0.01), (x0 + x, y0, low), color)
    s.box((width, rim, deep + 0.01), (x0, y0 - depth / 2 + rim / 2, low), color)
    s.box((width, 0.1, deep + 0.01), (x0, y0 + depth / 2 - 0.05, low), color)
    s.box((width, depth, 0.03), (x0, y0, low), color)


def bathroom_vanity(s: Sketch) -> str:
    width, depth, height = s.draw(0.6, 1.3), s.draw(0.42, 0.55), s.draw(0.75, 0.88)
    base, white = s.color(PAINTS), s.color(WHITES)
    low = s.rng.choice((0.0, 0.1, 0.35))
    s.box((width, depth, height - low), (0, 0, low), base)
    count = max(1, round(width / 0.45))
    for i in range(count):
        x = -width / 2 + (i + 0.5) * width / count
        s.box((width / count * 0.93, 0.02, height - low - 0.08), (x, -depth / 2, low + 0.04), base)
    s.box((width + 0.02, depth + 0.02, 0.04), (0, 0, height), white)
    bowl = [(0.6, 0), (0.95, 0.08), (1.0, 0.12), (0.85, 0.12), (0.5, 0.03)]
    s.turned(bowl, (0, 0, height + 0.03), white, stretch=(0.22, 0.17))
    s.bar((0, depth / 2 - 0.07, height), (0, depth / 2 - 0.07, height + 0.22), 0.014, METALS[0])
    if s.chance(0.6):
        size = (width * s.draw(0.6, 0.95), 0.03, s.draw(0.5, 0.8))
        s.box(size, (0, depth / 2, height + 0.3), MIRROR)
    return "bathroom vanity"


def radiator(s: Sketch) -> str:
    width, height = s.draw(0.5, 1.4), s.draw(0.4, 0.9)
    white, kind = s.color(WHITES, METALS), s.rng.choice(("ribs", "panel", "rail"))
    if kind == "rail":
        width, height = s.draw(0.4, 0.6), s.draw(0.9, 1.7)
        for x in (-width / 2, width / 2):
            s.bar((x, 0, 0), (x, 0, height), 0.018, white)
        for i in range(int(height / 0.07)):
            s.bar((-width / 2, -0.02, i * 0.07), (width / 2, -0.02, i * 0.07), 0.011, white)
        return "towel radiator"
    if kind == "panel":
        for y in (-0.05, 0.05):
            s.box((width, 0.02, height), (0, y, 0), white)
        for i in range(int(width / 0.05)):
            s.box((0.02, 0.025, height * 0.9), (i * 0.05 - width / 2, -0.06, height * 0.05), white)
        return "radiator"
    count = max(4, int(width / s.draw(0.05, 0.08)))
    for i in range(count):
        x = -width / 2 + (i + 0.5) * width / count
        s.cushion((width / count * 0.8, s.draw(0.1, 0.18), height), (x, 0, 0), white, edge=0.3)
    return "radiator"


def fireplace(s: Sketch) -> str:
    width, depth, height = s.draw(1.0, 1.6), s.draw(0.3, 0.6), s.draw(0.9, 1.3)
    stone = s.color(WHITES, [(150, 85, 65), (150, 145, 140), (110, 105, 100)])
    if s.chance(0.3):
        radius, tall = s.draw(0.2, 0.32), s.draw(0.7, 1.0)
        iron = s.color(DARKS)
        s.box((2 * radius, 1.6 * radius, tall - 0.15), (0, 0, 0.15), iron)
        s.legs((2 * radius, 1.6 * radius), 0.15, 0.04, iron)
        s.box((1.3 * radius, 0.02, tall * 0.4), (0, -0.82 * radius, tall * 0.4), (70, 45, 35))
        s.bar((0, 0, tall), (0, 0, tall + s.draw(0.5, 1.2)), 0.07, iron)
        return "wood stove"
    side, hole = s.draw(0.18, 0.32), height * s.draw(0.6, 0.75)
    for x in (-width / 2 + side / 2, width / 2 - side / 2):
        s.box((side, depth, height), (x, 0, 0), stone)
    s.box((width, depth, height - hole), (0, 0, hole), stone)
    s.box((width, 0.05, height), (0, depth / 2 - 0.03, 0), (50, 45, 42))
    s.box((width + 0.2, depth + 0.12, 0.07), (0, -0.03, height), s.color(WOODS, WHITES, [stone]))
    if s.chance(0.5):
        s.box((width + 0.2, depth + 0.5, 0.06), (0, -0.25, 0), stone)
    if s.chance(0.4):
        s.box((width * 0.7, depth * 0.8, s.draw(0.6, 1.2)), (0, 0.05, height + 0.07), stone)
    return "fireplace"


FIXTURES = {
    "door": door,
    "window": window,
    "blinds": blinds,
    "curtain": curtain,
    "shower curtain": shower_curtain,
    "shower": shower,
    "bathtub": bathtub,
    "toilet": toilet,
    "urinal": urinal,
    "sink": sink,
    "bathroom vanity": bathroom_vanity,
    "radiator": radiator,
    "fireplace": fireplace,
}
