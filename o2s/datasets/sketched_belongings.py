"""Made-up belongings: instruments, luggage, tools and sports.

Each function draws one piece of a class and says what it is called.
"""

from itertools import pairwise

from o2s.datasets.sketch import BRIGHTS, CLOTHS, DARKS, METALS, WHITES, WOODS, Color, Sketch


def whiteboard(s: Sketch) -> str:
    width, height = s.draw(0.8, 2.0), s.draw(0.6, 1.2)
    frame = s.color(METALS, WOODS)
    low = s.draw(0.6, 0.9) if s.chance(0.4) else 0.0
    s.box((width, 0.02, height), (0, 0, low), (248, 248, 250))
    for x in (-width / 2, width / 2):
        s.box((0.03, 0.035, height), (x, 0, low), frame)
        if low:
            s.bar((x, 0, 0), (x, 0, low), 0.02, frame)
            s.bar((x, -0.28, 0.03), (x, 0.28, 0.03), 0.02, frame)
    for z in (low, low + height):
        s.box((width, 0.035, 0.03), (0, 0, z), frame)
    s.box((width * 0.4, 0.08, 0.02), (0, -0.04, low), frame)
    return "whiteboard"


def piano(s: Sketch) -> str:
    wood = s.color(DARKS, DARKS, WOODS, WHITES)
    kind = s.rng.choice(("upright piano", "upright piano", "grand piano", "digital piano"))
    if kind == "grand piano":
        width, front, top = s.draw(1.35, 1.6), -0.5, 0.77
        _grand(s, width, s.draw(1.2, 2.1), wood)
    else:
        digital = kind == "digital piano"
        width = s.draw(1.2, 1.45) if digital else s.draw(1.4, 1.6)
        depth, height = s.draw(0.3, 0.42), s.draw(0.72, 0.9) if digital else s.draw(1.0, 1.4)
        front, top = -depth / 2 - 0.04, s.draw(0.68, 0.78)
        if digital:
            s.box((width, depth, height - 0.62), (0, 0.1, 0.62), wood)
            s.box((width, 0.03, 0.35), (0, 0.2, 0.2), wood)
            ends = s.draw(0.2, 0.5)
        else:
            s.box((width, depth, height), (0, 0.15, 0), wood)
            s.box((width + 0.04, depth + 0.06, 0.04), (0, 0.13, height), wood)
            ends = s.draw(0.08, 0.3)
        s.box((width, 0.3, 0.12), (0, -depth / 2, top - 0.12), wood)
        for x in (-width * 0.48, width * 0.48):
            s.box((0.06, ends, top), (x, -depth / 2 - 0.12 + ends / 2, 0), wood)
            s.box((0.05, 0.3, 0.2), (x, -depth / 2, top - 0.1), wood)
        if s.chance(0.6):
            stand = (width * 0.5, 0.02, s.draw(0.15, 0.25))
            s.box(stand, (0, -depth / 2 + 0.1, top + 0.08), s.color([wood]))
        for x in (-0.06, 0.0, 0.06):
            s.box((0.03, 0.12, 0.02), (x, -depth / 2 - 0.02, 0.05), s.color(METALS))
    s.box((width * 0.88, 0.14, 0.015), (0, front, top), (245, 243, 235))
    for i in range(30):
        x = (i - 14.5) * width * 0.88 / 30
        s.box((0.012, 0.08, 0.015), (x, front + 0.03, top + 0.012), (20, 20, 20))
    if s.chance(0.25):
        s.box((0.55, 0.32, 0.06), (0, front - 0.45, 0.44), s.color(DARKS, CLOTHS))
        for x in (-0.24, 0.24):
            s.box((0.04, 0.28, 0.44), (x, front - 0.45, 0), wood)
    return kind


def _grand(s: Sketch, width: float, length: float, wood: Color) -> None:
    """The case of a grand piano, its legs and, half the time, its lid."""
    rows = 12
    for i in range(rows):  # narrower towards its tail, on the left
        share = i / rows
        wide = width * (1 - 0.55 * share**2)
        place = ((wide - width) / 2, share * length - 0.3, 0.65)
        s.box((wide, length / rows * 1.02, 0.32), place, wood)
    if s.chance(0.6):  # the lid leans to the left
        for i in range(rows):
            wide, y = width * (1 - 0.55 * (i / rows) ** 2), i / rows * length - 0.3
            for k in range(5):
                x, z = -width / 2 + k * wide * 0.16, 0.98 + k * wide * 0.13
                s.box((wide * 0.18, length / rows, wide * 0.14), (x + wide * 0.09, y, z), wood)
    for x, y in ((-width * 0.42, -0.25), (width * 0.42, -0.25), (-width * 0.3, length - 0.5)):
        s.bar((x, y, 0), (x, y, 0.65), 0.05, wood)
    s.box((width, 0.28, 0.12), (0, -0.5, 0.65), wood)


def guitar(s: Sketch) -> str:
    body, neck = s.color(WOODS, BRIGHTS, DARKS), s.color(WOODS, DARKS)
    thick, wide, long_ = s.draw(0.04, 0.11), s.draw(0.15, 0.2), s.draw(0.4, 0.58)
    s.disc(wide, thick, (0, thick / 2, wide), body)
    s.disc(wide * 0.75, thick, (0, thick / 2, wide * 2.25), body)
    s.box((wide * 1.1, thick, wide * 1.1), (0, 0, wide * 1.1), body)
    s.box((0.05, 0.025, long_), (0, -thick / 2, wide * 2.4), neck)
    s.box((0.075, 0.02, 0.16), (0, -thick / 2, wide * 2.4 + long_), neck)
    s.disc(0.05, 0.012, (0, -thick / 2, wide * 1.9), (30, 25, 20))
    return "guitar" if thick > 0.06 else "electric guitar"


def suitcase(s: Sketch) -> str:
    width, depth, height = s.draw(0.35, 0.55), s.draw(0.18, 0.3), s.draw(0.5, 0.78)
    color = s.color(DARKS, BRIGHTS, CLOTHS)
    low = 0.05
    s.cushion((width, depth, height - low), (0, 0, low), color, edge=0.25)
    for x in (-width * 0.35, width * 0.35):
        for y in (-depth * 0.3, depth * 0.3):
            s.cushion((0.04, 0.04, 0.05), (x, y, 0), s.color(DARKS), edge=0.8)
    top = height + (s.draw(0.2, 0.4) if s.chance(0.5) else 0.05)
    for x in (-0.08, 0.08):
        s.bar((x, depth * 0.3, height - 0.05), (x, depth * 0.3, top), 0.01, s.color(METALS, DARKS))
    s.bar((-0.09, depth * 0.3, top), (0.09, depth * 0.3, top), 0.014, s.color(DARKS))
    for i in range(4):
        x = (i - 1.5) * width / 5
        s.box((0.012, depth * 1.02, height * 0.75), (x, 0, height * 0.15), s.color([color]))
    return "suitcase"


def backpack(s: Sketch) -> str:
    width, depth, height = s.draw(0.26, 0.36), s.draw(0.16, 0.24), s.draw(0.38, 0.55)
    color = s.color(BRIGHTS, DARKS, CLOTHS)
    s.cushion((width, depth, height), (0, 0, 0), color, edge=0.5)
    pocket = (width * 0.75, depth * 0.5, height * 0.45)
    s.cushion(pocket, (0, -depth * 0.5, 0.02), s.color([color], DARKS), edge=0.45)
    for x in (-width * 0.25, width * 0.25):
        s.bar((x, depth * 0.5, height * 0.15), (x, depth * 0.72, height * 0.5), 0.018, color)
        s.bar((x, depth * 0.72, height * 0.5), (x, depth * 0.4, height * 0.9), 0.018, color)
    s.bar((-0.05, 0, height + 0.03), (0.05, 0, height + 0.03), 0.012, s.color(DARKS))
    return "backpack"


def bag(s: Sketch) -> str:
    width, depth, height = s.draw(0.25, 0.45), s.draw(0.1, 0.2), s.draw(0.2, 0.35)
    color = s.color(CLOTHS, DARKS, BRIGHTS)
    s.cushion((width, depth, height), (0, 0, 0), color, edge=0.4)
    reach = s.draw(0.08, 0.2)
    for y in (-depth * 0.3, depth * 0.3):
        left, right = (-width * 0.25, y, height * 0.9), (width * 0.25, y, height * 0.9)
        top = height + reach
        s.bar(left, (-width * 0.12, y, top), 0.01, color)
        s.bar((-width * 0.12, y, top), (width * 0.12, y, top), 0.01, color)
        s.bar((width * 0.12, y, top), right, 0.01, color)
    return s.rng.choice(("bag", "handbag"))


def shoes(s: Sketch) -> str:
    color, length = s.color(CLOTHS, DARKS, BRIGHTS), s.draw(0.22, 0.31)
    boot = s.chance(0.35)
    turn = s.draw(-0.04, 0.04)
    for side in (-1, 1):
        x = side * s.draw(0.06, 0.09)
        s.cushion((0.095, length, 0.025), (x, side * turn, 0), s.color(DARKS, WHITES), edge=0.6)
        s.cushion((0.09, length, 0.08), (x, side * turn, 0.015), color, edge=0.6)
        tall = s.draw(0.2, 0.35) if boot else s.draw(0.06, 0.09)
        s.cushion(
            (0.09, length * 0.4, tall), (x, side * turn + length * 0.28, 0.03), color, edge=0.5
        )
    return "pair of boots" if boot else "pair of shoes"


def exercise_machine(s: Sketch) -> str:
    frame = s.color(DARKS, METALS)
    if s.chance(0.5):
        width, length = s.draw(0.6, 0.85), s.draw(1.4, 1.9)
        s.box((width, length, 0.16), (0, 0, 0), frame)
        s.box((width * 0.7, length * 0.9, 0.02), (0, 0, 0.16), s.color(DARKS))
        for x in (-width * 0.45, width * 0.45):
            s.bar((x, length * 0.35, 0.1), (x, length * 0.45, 1.25), 0.03, frame)
            s.bar((x, length * 0.42, 0.95), (x, length * 0.1, 0.95), 0.02, frame)
        s.box((width * 0.9, 0.12, 0.25), (0, length * 0.45, 1.15), s.color(DARKS))
        return "treadmill"
    for y in (-0.45, 0.45):
        s.bar((-0.25, y, 0.03), (0.25, y, 0.03), 0.03, frame)
    s.bar((0, -0.45, 0.05), (0, 0.45, 0.05), 0.035, frame)
    s.bar((0, -0.2, 0.05), (0, -0.3, 0.85), 0.03, frame)
    s.cushion((0.2, 0.28, 0.08), (0, -0.3, 0.85), s.color(DARKS), edge=0.5)
    s.bar((0, 0.3, 0.05), (0, 0.35, 1.15), 0.03, frame)
    s.bar((-0.25, 0.3, 1.15), (0.25, 0.3, 1.15), 0.02, s.color(DARKS))
    s.cushion((0.12, 0.5, 0.5), (0, 0.25, 0.12), s.color(DARKS, BRIGHTS, METALS), edge=0.9)
    for x in (-0.14, 0.14):
        s.box((0.1, 0.08, 0.03), (x, 0.05 * (1 if x > 0 else -1), 0.3), s.color(DARKS))
    return "exercise bike"


def ladder(s: Sketch) -> str:
    height, width = s.draw(0.8, 2.2), s.draw(0.35, 0.55)
    color, spread = s.color(METALS, WOODS, BRIGHTS), s.draw(0.25, 0.5)
    steps = max(3, round(height / 0.28))
    for x in (-1, 1):
        foot, top = (x * width / 2, -spread, 0), (x * width * 0.4, 0, height)
        s.bar(foot, top, 0.02, color)
        s.bar((x * width / 2, spread, 0), top, 0.018, color)
    for i in range(1, steps):
        z = i * height / steps
        y = -spread * (1 - i / steps)
        s.box((width * (1 - 0.2 * i / steps), 0.09, 0.025), (0, y, z), color)
    s.box((width * 0.85, 0.2, 0.03), (0, 0, height), s.color([color], DARKS))
    return "step ladder"


def fire_extinguisher(s: Sketch) -> str:
    radius, height, red = (
        s.draw(0.07, 0.1),
        s.draw(0.35, 0.55),
        s.color(((190, 25, 25), (205, 40, 30))),
    )
    shape = [(radius * 0.95, 0), (radius, 0.02), (radius, height * 0.8), (0.03, height * 0.95)]
    s.turned(shape, (0, 0, 0), red)
    s.bar((0, 0, height * 0.93), (0, 0, height + 0.03), 0.02, s.color(DARKS, METALS))
    s.box((0.03, 0.14, 0.02), (0, -0.04, height + 0.03), s.color(DARKS))
    hose = [(0.03, 0, height), (radius + 0.05, 0, height * 0.7), (radius + 0.03, 0, height * 0.2)]
    for start, end in pairwise(hose):
        s.bar(start, end, 0.013, s.color(DARKS))
    s.box((radius, 0.01, height * 0.3), (0, -radius, height * 0.35), s.color(WHITES))
    return "fire extinguisher"


BELONGINGS = {
    "whiteboard": whiteboard,
    "piano": piano,
    "guitar": guitar,
    "suitcase": suitcase,
    "backpack": backpack,
    "bag": bag,
    "shoes": shoes,
    "exercise machine": exercise_machine,
    "ladder": ladder,
    "fire extinguisher": fire_extinguisher,
}
