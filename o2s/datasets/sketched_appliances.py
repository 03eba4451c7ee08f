"""Made-up appliances: of kitchens and laundries, screens, and what stands on desks.

Each function draws one piece of a class and says what it is called.
"""

import math

from o2s.datasets.sketch import (
    BLACK_GLASS,
    BRIGHTS,
    DARKS,
    METALS,
    PAPER,
    SCREEN,
    WHITES,
    WOODS,
    Sketch,
)


def stove(s: Sketch) -> str:
    white = s.color(WHITES, METALS, DARKS)
    top = s.color(DARKS, METALS)
    width, depth = s.draw(0.5, 0.9), s.draw(0.5, 0.62)
    if s.chance(0.45):
        height = 0.05
        s.box((width, depth, height), (0, 0, 0), top)
    else:
        height = s.draw(0.84, 0.92)
        s.box((width, depth, height), (0, 0, 0), white)
        s.box((width * 0.85, 0.02, height * 0.5), (0, -depth / 2, height * 0.2), BLACK_GLASS)
        s.box((width * 0.8, 0.04, 0.025), (0, -depth / 2 - 0.03, height * 0.74), s.color(METALS))
        s.box((width, depth, 0.02), (0, 0, height), top)
    for x in (-width / 4, width / 4):
        for y in (-depth / 4, depth / 4):
            ring = [(s.draw(0.06, 0.1), 0), (0.06, 0.015)]
            s.turned(ring, (x, y, height + 0.02), s.color(DARKS, METALS))
    for i in range(4):
        x = (i - 1.5) * width / 6
        s.box((0.035, 0.03, 0.035), (x, -depth / 2 - 0.01, height - 0.05), s.color(METALS, DARKS))
    return "stove" if height > 0.1 else "cooktop"


def oven(s: Sketch) -> str:
    width, depth, unit = s.draw(0.55, 0.62), s.draw(0.5, 0.6), s.draw(0.5, 0.62)
    metal, count = s.color(METALS, WHITES, DARKS), s.rng.choice((1, 1, 2))
    for i in range(count):
        z = i * unit
        s.box((width, depth, unit * 0.98), (0, 0, z), metal)
        s.box((width * 0.82, 0.02, unit * 0.5), (0, -depth / 2, z + unit * 0.14), BLACK_GLASS)
        s.bar(
            *((-width * 0.38, -depth / 2 - 0.04, z + unit * 0.72),),
            *((width * 0.38, -depth / 2 - 0.04, z + unit * 0.72), 0.012, s.color(METALS)),
        )
        for x in (-0.18, -0.1, 0.1, 0.18):
            s.box((0.03, 0.03, 0.03), (x, -depth / 2 - 0.01, z + unit * 0.84), s.color(DARKS))
    return "double oven" if count == 2 else "oven"


def range_hood(s: Sketch) -> str:
    s.elevation = 1.5
    width, depth, metal = s.draw(0.55, 0.95), s.draw(0.4, 0.55), s.color(METALS, WHITES, DARKS)
    low = s.draw(0.04, 0.1)
    s.box((width, depth, low), (0, 0, 0), metal)
    skirt = [(math.sqrt(0.5), low), (s.draw(0.25, 0.6), low + s.draw(0.08, 0.3))]
    s.turned(skirt, (0, 0, 0), metal, stretch=(width, depth), sides=4)
    s.box((s.draw(0.2, 0.32), 0.25, s.draw(0.3, 0.7)), (0, depth / 4, low), metal)
    return "range hood"


def refrigerator(s: Sketch) -> str:
    small = s.chance(0.3)
    width, depth = s.draw(0.44, 0.6) if small else s.draw(0.54, 0.95), s.draw(0.45, 0.72)
    height = s.draw(0.5, 0.95) if small else s.draw(1.2, 2.05)
    white, metal = s.color(WHITES, WHITES, METALS, METALS, DARKS, BRIGHTS), s.color(METALS)
    round_, foot = s.chance(0.25), s.rng.choice((0.0, 0.03, 0.06))
    if foot:
        s.legs((width, depth), foot, 0.05, s.color(DARKS))
    s.box((width, depth, height - foot), (0, 0, foot), white)
    split = height if small or s.chance(0.15) else height * s.rng.choice((0.3, 0.45, 0.62, 0.7))
    pieces = [(foot, split - foot)] + ([(split, height - split)] if split < height else [])
    sides, gripped = 2 if width > 0.8 else 1, s.chance(0.7)
    hinge = s.rng.choice((-1, 1))
    for z, tall in pieces:
        for i in range(sides):
            x = (i - (sides - 1) / 2) * width / sides
            front = (width / sides * 0.97, 0.05, tall * 0.97)
            if round_:
                s.cushion(front, (x, -depth / 2 - 0.02, z), white, edge=0.2)
            else:
                s.box(front, (x, -depth / 2 - 0.02, z), white)
            if gripped:
                knob = x + (hinge if sides == 1 else 1 - 2 * i) * width / sides * 0.4
                y, low = -depth / 2 - 0.08, z + tall * s.draw(0.2, 0.5)
                s.bar((knob, y, low), (knob, y, low + tall * s.draw(0.2, 0.4)), 0.012, metal)
    return s.rng.choice(("refrigerator", "fridge"))


def dishwasher(s: Sketch) -> str:
    width, depth, height = s.draw(0.44, 0.62), s.draw(0.5, 0.62), s.draw(0.8, 0.9)
    white = s.color(WHITES, METALS, DARKS)
    s.box((width, depth, height), (0, 0, 0), white)
    s.box((width * 0.97, 0.03, height * 0.72), (0, -depth / 2, 0.1), white)
    s.box(
        (width * 0.97, 0.03, height * 0.1), (0, -depth / 2, height * 0.87), s.color(DARKS, METALS)
    )
    s.box((width * 0.6, 0.04, 0.02), (0, -depth / 2 - 0.03, height * 0.8), s.color(METALS))
    return "dishwasher"


def washing_machine(s: Sketch) -> str:
    width, depth, height = s.draw(0.56, 0.7), s.draw(0.5, 0.7), s.draw(0.82, 0.98)
    white = s.color(WHITES, WHITES, METALS)
    s.box((width, depth, height), (0, 0, 0), white)
    radius, middle = s.draw(0.15, 0.21), height * s.draw(0.42, 0.52)
    s.disc(radius, 0.03, (0, -depth / 2, middle), s.color(METALS, WHITES))
    s.disc(radius * 0.78, 0.045, (0, -depth / 2, middle), BLACK_GLASS)
    s.box((width * 0.96, 0.02, height * 0.12), (0, -depth / 2, height * 0.86), s.color(WHITES))
    s.disc(0.035, 0.04, (s.draw(-0.1, 0.2), -depth / 2, height * 0.92), s.color(METALS, DARKS))
    return s.rng.choice(("washing machine", "tumble dryer"))


def microwave(s: Sketch) -> str:
    width, depth, height = s.draw(0.42, 0.56), s.draw(0.3, 0.42), s.draw(0.24, 0.33)
    s.box((width, depth, height), (0, 0, 0), s.color(WHITES, METALS, DARKS))
    s.box(
        (width * 0.66, 0.015, height * 0.75), (-width * 0.13, -depth / 2, height * 0.1), BLACK_GLASS
    )
    s.box(
        (width * 0.2, 0.015, height * 0.8), (width * 0.36, -depth / 2, height * 0.1), s.color(DARKS)
    )
    s.box((0.015, 0.03, height * 0.7), (width * 0.22, -depth / 2 - 0.02, height * 0.12), METALS[0])
    return "microwave"


def coffee_maker(s: Sketch) -> str:
    width, depth, height = s.draw(0.15, 0.32), s.draw(0.2, 0.36), s.draw(0.26, 0.42)
    body, dark = s.color(DARKS, METALS, BRIGHTS), s.color(DARKS)
    s.box((width, depth * 0.45, height), (0, depth * 0.27, 0), body)
    s.box((width, depth, height * s.draw(0.08, 0.16)), (0, 0, 0), s.color([body], METALS))
    s.box((width, depth, height * 0.28), (0, 0, height * 0.72), body)
    if s.chance(0.55):
        jug = [(0.3, 0), (0.42, height * 0.2), (0.3, height * 0.45), (0.33, height * 0.5)]
        s.turned(jug, (0, -depth * 0.15, height * 0.1), dark, stretch=(width, width))
        for z in (height * 0.2, height * 0.45):
            s.bar((0, -depth * 0.3, z), (0, -depth * 0.3 - 0.06, z), 0.012, dark)
        y = -depth * 0.3 - 0.06
        s.bar((0, y, height * 0.2), (0, y, height * 0.45), 0.012, dark)
        return "coffee maker"
    for x in s.rng.choice(((0.0,), (-width * 0.22, width * 0.22))):
        s.turned([(0.03, 0), (0.035, 0.04)], (x, -depth * 0.2, height * 0.64), s.color(METALS))
        if s.chance(0.6):
            s.bar((x, -depth * 0.25, height * 0.66), (x, -depth * 0.75, height * 0.64), 0.014, dark)
    if s.chance(0.6):
        s.turned([(0.03, 0), (0.04, 0.06)], (0, -depth * 0.2, height * 0.14), s.color(WHITES))
    for x in (-width * 0.3, 0.0, width * 0.3):
        s.disc(0.015, 0.02, (x, -depth / 2, height * 0.86), s.color(METALS, DARKS))
    if s.chance(0.4):
        for x in (-width * 0.25, width * 0.25):
            s.turned([(0.03, 0), (0.04, 0.06)], (x, depth * 0.2, height), s.color(WHITES))
    return "espresso machine"


def water_heater(s: Sketch) -> str:
    radius, height, white = s.draw(0.18, 0.3), s.draw(0.5, 1.3), s.color(WHITES, METALS)
    if s.chance(0.4):
        s.box((2 * radius, s.draw(0.2, 0.35), height * 0.6), (0, 0, 0), white)
        height *= 0.6
    else:
        shape = [(0.8, 0), (1.0, 0.05), (1.0, height - 0.05), (0.8, height)]
        s.turned(shape, (0, 0, 0), white, stretch=(radius, radius))
    for x in (-0.08, 0.08):
        s.bar((x, 0, -0.15), (x, 0, 0), 0.012, s.color(METALS))
    if s.chance(0.5):
        s.bar((0, 0, height), (0, 0, height + 0.25), 0.05, s.color(METALS))
    return "water heater"


def water_cooler(s: Sketch) -> str:
    width, height = s.draw(0.27, 0.36), s.draw(0.8, 1.05)
    white = s.color(WHITES, DARKS, METALS)
    s.box((width, width, height), (0, 0, 0), white)
    hole = (width * 0.7, 0.02, height * 0.2)
    s.box(hole, (0, -width / 2, height * 0.65), s.color(DARKS))
    if s.chance(0.8):
        jug = [(0.06, 0), (0.13, 0.08), (0.14, 0.32), (0.1, 0.38)]
        s.turned(jug, (0, 0, height), (120, 165, 205))
    return "water cooler"


def fan(s: Sketch) -> str:
    color, kind = (
        s.color(WHITES, DARKS, METALS),
        s.rng.choice(("stand", "stand", "ceiling", "tower")),
    )
    if kind == "ceiling":
        return _ceiling_fan(s)
    if kind == "tower":
        radius, tall = s.draw(0.09, 0.13), s.draw(0.7, 1.1)
        s.turned([(radius * 1.5, 0), (radius * 1.4, 0.04)], (0, 0, 0), color)
        s.turned([(radius, 0.04), (radius, tall)], (0, 0, 0), color)
        for i in range(12):
            s.box(
                (radius * 1.2, 0.02, 0.012), (0, -radius, tall * (0.2 + 0.06 * i)), s.color(DARKS)
            )
        return "tower fan"
    radius = s.draw(0.14, 0.25)
    stand = s.draw(0.15, 0.3) if s.chance(0.5) else s.draw(0.7, 1.1)
    s.turned([(radius * 0.8, 0), (radius * 0.7, 0.03), (0.03, 0.05)], (0, 0, 0), color)
    s.bar((0, 0, 0.03), (0, 0, stand + radius), 0.018, color)
    middle = stand + radius
    for i in range(24):
        angle = 2 * math.pi * i / 24
        out = (radius * math.cos(angle), radius * math.sin(angle))
        for y in (-0.09, -0.02):
            s.bar((0, y, middle), (out[0], -0.055, middle + out[1]), 0.003, color)
    s.disc(0.05, 0.12, (0, 0.04, middle), color)
    for i in range(3):
        angle = 2 * math.pi * i / 3
        end = (radius * 0.8 * math.cos(angle), -0.05, middle + radius * 0.8 * math.sin(angle))
        s.bar((0, -0.05, middle), end, 0.035, s.color(DARKS, WHITES))
    return "table fan" if stand < 0.5 else "standing fan"


def _ceiling_fan(s: Sketch) -> str:
    s.elevation = 2.0
    reach, drop, blades = s.draw(0.4, 0.7), s.draw(0.15, 0.4), s.rng.randint(3, 5)
    metal, wood = s.color(METALS, WHITES, DARKS), s.color(WOODS, WHITES, DARKS)
    s.turned([(0.03, 0), (0.12, 0.03), (0.12, 0.1), (0.03, 0.14)], (0, 0, 0.1), metal)
    s.bar((0, 0, 0.2), (0, 0, 0.2 + drop), 0.018, metal)
    s.turned([(0.03, 0), (0.07, 0.05)], (0, 0, 0.18 + drop), metal)
    for i in range(blades):
        angle = 2 * math.pi * i / blades
        x, y = math.cos(angle), math.sin(angle)
        for share in (0.3, 0.5, 0.7, 0.9):  # flat, made of discs
            s.turned(
                [(0.075, 0), (0.075, 0.015)], (reach * share * x, reach * share * y, 0.16), wood
            )
        s.bar((0, 0, 0.165), (reach * x, reach * y, 0.165), 0.03, wood)
    if s.chance(0.5):
        s.turned([(0.04, 0), (0.11, 0.05), (0.1, 0.1)], (0, 0, 0), s.color(WHITES))
    return "ceiling fan"


def television(s: Sketch) -> str:
    case = s.color(DARKS, DARKS, METALS)
    if s.chance(0.3):
        width = s.draw(0.38, 0.85)
        height, depth = width * s.draw(0.74, 0.9), width * s.draw(0.6, 0.85)
        s.box((width, depth * 0.45, height), (0, -depth * 0.27, 0), case)
        for share in (0.8, 0.6, 0.45):  # a tube narrows towards its back
            size = (width * share, depth * 0.25, height * share)
            s.box(size, (0, depth * (0.9 - share), height * (1 - share) / 2), case)
        screen = (width * s.draw(0.7, 0.88), 0.03, height * s.draw(0.68, 0.85))
        s.cushion(screen, (0, -depth / 2, (height - screen[2]) / 2 + 0.01), SCREEN, edge=0.3)
        return s.rng.choice(("television", "tube television"))
    width = s.draw(0.55, 1.6)
    height, low = width * s.draw(0.54, 0.64), s.draw(0.0, 0.1)
    thick = s.draw(0.03, 0.14)
    s.box((width, thick, height), (0, thick / 2, low), case)
    s.box((width * 0.96, 0.012, height * 0.92), (0, -0.005, low + height * 0.04), SCREEN)
    if s.chance(0.4):
        s.box((width * 0.55, thick + 0.06, height * 0.5), (0, thick, low + height * 0.2), case)
    kind = s.rng.choice(("wall", "foot", "two feet"))
    if kind == "foot":
        s.box((width * s.draw(0.25, 0.6), s.draw(0.18, 0.3), 0.02), (0, 0.02, 0), case)
        s.box((width * s.draw(0.06, 0.2), 0.04, low), (0, 0.04, 0), case)
    elif kind == "two feet":
        for x in (-width * 0.35, width * 0.35):
            s.bar((x, -0.1, 0), (x, 0.03, low), 0.012, case)
            s.bar((x, 0.16, 0), (x, 0.03, low), 0.012, case)
    return s.rng.choice(("television", "tv"))


def monitor(s: Sketch) -> str:
    width = s.draw(0.38, 0.68)
    height, case = width * s.draw(0.56, 0.78), s.color(DARKS, METALS, WHITES)
    low = s.draw(0.08, 0.15)
    s.box((width, s.draw(0.02, 0.06), height), (0, 0.02, low), case)
    s.box((width * 0.94, 0.01, height * 0.9), (0, -0.01, low + height * 0.06), SCREEN)
    s.box((0.06, 0.03, low + 0.05), (0, 0.05, 0), case)
    if s.chance(0.5):
        s.turned([(0.11, 0), (0.11, 0.015)], (0, 0.05, 0), case)
    else:
        s.box((0.25, 0.18, 0.015), (0, 0.04, 0), case)
    return s.rng.choice(("monitor", "computer monitor"))


def laptop(s: Sketch) -> str:
    width, depth = s.draw(0.28, 0.4), s.draw(0.2, 0.27)
    case, open_ = s.color(METALS, DARKS, WHITES), s.draw(0.02, 0.12)
    s.box((width, depth, 0.02), (0, 0, 0), case)
    s.box((width * 0.88, depth * 0.5, 0.005), (0, depth * 0.12, 0.02), s.color(DARKS))
    steps = 8
    for i in range(steps):  # the lid leans back
        z, y = 0.02 + i * depth / steps, depth / 2 + i * open_ / steps
        s.box((width, 0.012, depth / steps), (0, y, z), case)
        s.box((width * 0.93, 0.006, depth / steps), (0, y - 0.009, z), SCREEN)
    return "laptop"


def keyboard(s: Sketch) -> str:
    width, depth, case = s.draw(0.35, 0.48), s.draw(0.12, 0.18), s.color(DARKS, WHITES, METALS)
    s.box((width, depth, 0.018), (0, 0, 0), case)
    key = s.color(DARKS, WHITES)
    for row in range(5):
        for column in range(14):
            x, y = (column - 6.5) * width / 14.8, (row - 2) * depth / 5.6
            s.box((width / 17, depth / 7, 0.008), (x, y, 0.018), key)
    return "keyboard"


def printer(s: Sketch) -> str:
    width, depth, height = s.draw(0.36, 0.52), s.draw(0.3, 0.45), s.draw(0.15, 0.35)
    case = s.color(WHITES, DARKS, METALS)
    s.box((width, depth, height), (0, 0, 0), case)
    s.box((width * 0.95, depth * 0.8, 0.03), (0, 0, height), s.color(WHITES, DARKS))
    s.box((width * 0.7, 0.16, 0.015), (0, -depth / 2 - 0.06, height * 0.25), s.color(DARKS))
    s.box((width * 0.72, 0.01, height * 0.25), (0, -depth / 2, height * 0.3), SCREEN)
    s.box((width * 0.5, 0.02, 0.16), (0, depth * 0.35, height + 0.02), PAPER)
    s.box((0.1, 0.06, 0.01), (width * 0.3, -depth * 0.42, height + 0.03), s.color(DARKS))
    return "printer"


def telephone(s: Sketch) -> str:
    case = s.color(DARKS, WHITES, BRIGHTS)
    if s.chance(0.4):
        s.cushion((0.1, 0.12, 0.06), (0, 0, 0), case, edge=0.3)
        s.cushion((0.05, 0.04, 0.17), (0, 0.02, 0.02), case, edge=0.3)
        return "cordless telephone"
    width, depth = s.draw(0.16, 0.22), s.draw(0.18, 0.24)
    for i in range(4):
        share = i / 4
        size = (width, depth / 4, 0.03 + 0.05 * share)
        s.box(size, (0, -depth / 2 + (i + 0.5) * depth / 4, 0), case)
    x = -width * 0.35
    s.bar((x, -depth * 0.4, 0.08), (x, depth * 0.4, 0.11), 0.02, s.color(DARKS, [case]))
    for row in range(4):
        for column in range(3):
            place = (0.01 + column * 0.025, -depth * 0.25 + row * 0.03, 0.06)
            s.box((0.015, 0.015, 0.012), place, s.color(WHITES))
    return "telephone"


def speaker(s: Sketch) -> str:
    width, depth, height = s.draw(0.14, 0.3), s.draw(0.16, 0.3), s.draw(0.22, 0.55)
    if s.chance(0.3):
        height = s.draw(0.8, 1.15)
    s.box((width, depth, height), (0, 0, 0), s.color(DARKS, WOODS))
    cone = s.color(DARKS, METALS)
    s.disc(width * 0.38, 0.02, (0, -depth / 2, height * 0.3), cone)
    s.disc(width * 0.2, 0.035, (0, -depth / 2, height * 0.3), s.color(DARKS))
    s.disc(width * 0.22, 0.02, (0, -depth / 2, height * 0.72), cone)
    return "speaker"


APPLIANCES = {
    "stove": stove,
    "oven": oven,
    "range hood": range_hood,
    "refrigerator": refrigerator,
    "dishwasher": dishwasher,
    "washing machine": washing_machine,
    "microwave": microwave,
    "coffee maker": coffee_maker,
    "water heater": water_heater,
    "water cooler": water_cooler,
    "fan": fan,
    "television": television,
    "monitor": monitor,
    "laptop": laptop,
    "keyboard": keyboard,
    "printer": printer,
    "telephone": telephone,
    "speaker": speaker,
}
