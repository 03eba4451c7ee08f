"""Made-up appliances: of kitchens and laundries, water heaters and fans.

Each function draws one piece of a class and says what it is called.
"""

import math

from o2s.datasets.sketch import (
    BLACK_GLASS,
    BRIGHTS,
    DARKS,
    METALS,
    WHITES,
    WOODS,
    Color,
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
    if sides == 2 and s.chance(0.4):  # water and ice
        dispenser = (width * 0.2, 0.02, height * 0.17)
        s.box(dispenser, (-width / 4, -depth / 2 - 0.05, height * 0.55), s.color(DARKS))
    if not small and s.chance(0.3):  # what cools it, behind
        s.box((width * 0.9, 0.06, height * 0.8), (0, depth / 2 + 0.02, 0.1), s.color(DARKS))
    if small and s.chance(0.3):
        glass = (width * 0.8, 0.02, height * 0.8)
        s.box(glass, (0, -depth / 2 - 0.05, height * 0.1), BLACK_GLASS)
    return s.rng.choice(("refrigerator", "fridge"))


def dishwasher(s: Sketch) -> str:
    width, depth, height = s.draw(0.44, 0.62), s.draw(0.5, 0.62), s.draw(0.8, 0.9)
    white = s.color(WHITES, METALS, DARKS)
    s.box((width, depth, height), (0, 0, 0), white)
    s.box((width * 0.97, 0.03, height * 0.72), (0, -depth / 2, 0.1), white)
    s.box(
        (width * 0.97, 0.03, height * 0.1), (0, -depth / 2, height * 0.87), s.color(DARKS, METALS)
    )
    if s.chance(0.6):
        s.box((width * 0.6, 0.04, 0.02), (0, -depth / 2 - 0.03, height * 0.8), s.color(METALS))
    else:  # a slit to pull at
        s.box((width * 0.4, 0.03, 0.03), (0, -depth / 2 - 0.01, height * 0.83), s.color(DARKS))
    if s.chance(0.4):
        s.box((width, depth, 0.03), (0, 0, height), s.color(WHITES, WOODS, METALS))
    return "dishwasher"


def washing_machine(s: Sketch) -> str:
    width, depth, height = s.draw(0.4, 0.7), s.draw(0.5, 0.7), s.draw(0.8, 0.98)
    white, panel = s.color(WHITES, WHITES, METALS, DARKS), s.color(WHITES, METALS, DARKS)
    foot = s.rng.choice((0.0, 0.03))
    s.box((width, depth, height - foot), (0, 0, foot), white)
    if width < 0.5 or s.chance(0.25):  # loaded from above
        lid = (width * 0.9, depth * s.draw(0.55, 0.75), 0.02)
        s.box(lid, (0, -depth * 0.1, height), s.color([white], WHITES, [BLACK_GLASS]))
        back = (width, depth * s.draw(0.1, 0.25), s.draw(0.05, 0.2))
        s.box(back, (0, (depth - back[1]) / 2, height), panel)
        for i in range(s.rng.randint(1, 4)):
            knob = (-width * 0.35 + i * width * 0.22, (depth / 2 - back[1]), height + back[2] / 2)
            s.disc(s.draw(0.015, 0.04), 0.03, knob, s.color(METALS, DARKS, WHITES))
        return s.rng.choice(("washing machine", "top-loading washing machine"))
    radius, middle = s.draw(0.14, 0.23), height * s.draw(0.4, 0.55)
    aside, front = s.draw(-0.04, 0.04), -depth / 2
    s.disc(radius, s.draw(0.02, 0.06), (aside, front, middle), s.color(METALS, WHITES, DARKS))
    glass = s.color([BLACK_GLASS], METALS)
    s.disc(radius * s.draw(0.65, 0.85), s.draw(0.03, 0.08), (aside, front, middle), glass)
    s.box((width * 0.98, 0.02, height * s.draw(0.09, 0.16)), (0, front, height * 0.85), panel)
    s.disc(0.035, 0.04, (s.draw(-0.1, 0.2), front, height * 0.92), s.color(METALS, DARKS))
    s.box((width * 0.25, 0.03, height * 0.07), (-width * 0.33, front, height * 0.88), panel)
    return s.rng.choice(("washing machine", "tumble dryer"))


def microwave(s: Sketch) -> str:
    width, depth, height = s.draw(0.4, 0.6), s.draw(0.28, 0.45), s.draw(0.22, 0.36)
    case, front = s.color(WHITES, METALS, DARKS), -depth / 2
    s.box((width, depth, height), (0, 0, 0), case)
    share = s.draw(0.62, 0.78)  # of the front that the door has
    x, wide = -width * (1 - share) / 2, width * share
    s.box((wide * 0.98, 0.02, height * 0.94), (x, front, height * 0.03), s.color([case], DARKS))
    pane = (wide * s.draw(0.7, 0.9), 0.03, height * s.draw(0.5, 0.78))
    s.box(pane, (x, front, (height - pane[2]) / 2), BLACK_GLASS)
    panel, aside = width * (1 - share), width * share / 2
    if s.chance(0.7):
        s.box((panel * 0.9, 0.02, height * 0.9), (aside, front, height * 0.05), s.color(DARKS))
    if s.chance(0.4):
        for z in (0.3, 0.6):
            s.disc(0.025, 0.035, (aside, front, height * z), s.color(METALS, WHITES))
    else:
        s.box((panel * 0.7, 0.03, height * 0.12), (aside, front, height * 0.75), BLACK_GLASS)
        for i in range(6):
            place = (aside + (i % 2 - 0.5) * panel * 0.35, front, height * (0.15 + 0.16 * (i // 2)))
            s.box((panel * 0.25, 0.028, height * 0.08), place, s.color(METALS, WHITES))
    if s.chance(0.6):
        s.box((0.015, 0.05, height * 0.7), (aside - panel / 2, front, height * 0.15), METALS[0])
    return "microwave"


def coffee_maker(s: Sketch) -> str:
    kind = s.rng.choice(("coffee maker", "coffee maker", "espresso machine", "coffee machine"))
    body, dark = s.color(DARKS, METALS, BRIGHTS, WHITES), s.color(DARKS)
    if kind == "coffee machine" and s.chance(0.4):
        return _capsule_machine(s)
    wide = 0.2 if kind == "coffee maker" else 0.5
    width, depth, height = s.draw(0.15, wide), s.draw(0.2, 0.4), s.draw(0.26, 0.45)
    back, front = depth * s.draw(0.35, 0.6), -depth / 2
    s.box((width, back, height), (0, (depth - back) / 2, 0), body)
    s.box((width, depth, height * s.draw(0.08, 0.2)), (0, 0, 0), s.color([body], METALS))
    top = height * s.draw(0.2, 0.42)
    s.box((width, depth * s.draw(0.85, 1.0), top), (0, 0, height - top), body)
    if kind == "coffee maker":
        jug = [(0.3, 0), (0.42, height * 0.2), (0.3, height * 0.45), (0.33, height * 0.5)]
        s.turned(jug, (0, -depth * 0.15, height * 0.1), dark, stretch=(width, width))
        for z in (height * 0.2, height * 0.45):
            s.bar((0, -depth * 0.3, z), (0, -depth * 0.3 - 0.06, z), 0.012, dark)
        y = -depth * 0.3 - 0.06
        s.bar((0, y, height * 0.2), (0, y, height * 0.45), 0.012, dark)
        return kind
    if kind == "coffee machine":  # automatic: a display, a spout, beans above
        s.box((width * 0.5, 0.02, top * 0.5), (0, front, height - top * 0.7), BLACK_GLASS)
        s.box((0.06, 0.07, height * 0.12), (0, front + 0.06, height - top * 1.35), s.color(DARKS))
        s.box((width * 0.6, depth * 0.5, 0.03), (0, depth * 0.15, height), s.color([body], DARKS))
    for x in s.rng.choice(((0.0,), (-width * 0.22, width * 0.22))):
        low = height - top
        s.turned([(0.03, -0.04), (0.035, 0.0)], (x, -depth * 0.2, low), s.color(METALS))
        if kind == "espresso machine" and s.chance(0.8):
            s.bar((x, -depth * 0.25, low - 0.03), (x, -depth * 0.75, low - 0.04), 0.014, dark)
    if s.chance(0.6):
        s.turned([(0.03, 0), (0.04, 0.06)], (0, -depth * 0.2, height * 0.14), s.color(WHITES))
    for x in (-width * 0.3, 0.0, width * 0.3):
        s.disc(0.015, 0.02, (x, front, height - top * 0.3), s.color(METALS, DARKS))
    if s.chance(0.4):
        for x in (-width * 0.25, width * 0.25):
            s.turned([(0.03, 0), (0.04, 0.06)], (x, depth * 0.2, height), s.color(WHITES))
    return kind


def _capsule_machine(s: Sketch) -> str:
    """A rounded body with a head that leans over the cup."""
    width, tall, color = s.draw(0.12, 0.22), s.draw(0.24, 0.34), s.color(DARKS, BRIGHTS, METALS)
    s.cushion((width, 0.16, tall), (0, 0.08, 0), color, edge=0.4)
    s.cushion((width * 0.9, 0.26, tall * 0.35), (0, -0.04, tall * 0.62), color, edge=0.4)
    s.cushion((width * 0.95, 0.3, 0.05), (0, -0.06, 0), s.color(DARKS, METALS), edge=0.3)
    s.turned([(0.06, 0), (0.06, tall * 0.7)], (s.draw(-0.1, 0.1), 0.16, 0), (190, 205, 212))
    if s.chance(0.6):
        s.turned([(0.025, 0), (0.035, 0.06)], (0, -0.12, 0.05), s.color(WHITES))
    return "coffee machine"


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
    kind = s.rng.choice(("standing", "table", "ceiling", "tower", "box"))
    if kind == "ceiling":
        return _ceiling_fan(s)
    color, middle, radius = s.color(WHITES, DARKS, METALS), 0.0, s.draw(0.13, 0.26)
    if kind == "tower":
        radius, tall = s.draw(0.09, 0.13), s.draw(0.8, 1.1)
        s.turned([(radius * 1.5, 0), (radius * 1.4, 0.04)], (0, 0, 0), color)
        s.turned([(radius, 0.04), (radius, tall)], (0, 0, 0), color)
        for z in (tall * (0.2 + 0.06 * i) for i in range(12)):
            s.box((radius * 1.2, 0.02, 0.012), (0, -radius, z), s.color(DARKS))
        return "tower fan"
    if kind == "box":
        side, deep, middle = 2.2 * radius, s.draw(0.1, 0.16), 1.1 * radius
        for x in (-side / 2, side / 2):
            s.box((0.04, deep, side), (x, -0.05, 0), color)
        for z in (0.0, side - 0.04):
            s.box((side, deep, 0.04), (0, -0.05, z), color)
    else:
        stand = s.draw(0.1, 0.3) if kind == "table" else s.draw(0.6, 1.1)
        middle = stand + radius
        if s.chance(0.7):
            s.turned([(radius * 0.8, 0), (radius * 0.7, 0.03), (0.03, 0.05)], (0, 0, 0), color)
        else:  # on crossed feet
            for x, y in ((0.9, 0.6), (0.9, -0.6)):
                foot = (radius * x, radius * y, 0.015)
                s.bar((-foot[0], -foot[1], 0.015), foot, 0.015, color)
        s.bar((0, 0, 0.03), (0, 0, middle), 0.018, color)
        s.disc(0.05, 0.16, (0, 0.08, middle), color)
    _wheel(s, radius, middle, color)
    return f"{kind} fan"


def _wheel(s: Sketch, radius: float, middle: float, color: Color) -> None:
    """The blades of a fan, broad and turned in themselves, between two grilles."""
    blades, blade = s.rng.randint(3, 5), s.color(DARKS, WHITES, METALS, BRIGHTS)
    for i in range(24):
        angle = 2 * math.pi * i / 24
        out = (radius * math.cos(angle), radius * math.sin(angle))
        for y in (-0.11, 0.0):
            s.bar((0, y, middle), (out[0], -0.055, middle + out[1]), 0.003, color)
        after = angle + 2 * math.pi / 24
        end = (radius * math.cos(after), -0.055, middle + radius * math.sin(after))
        s.bar((out[0], -0.055, middle + out[1]), end, 0.006, color)
    s.disc(radius * 0.2, 0.03, (0, -0.09, middle), color)
    for i in range(blades):
        for k in range(5):
            angle = 2 * math.pi * i / blades + 0.16 * k
            end = (radius * 0.85 * math.cos(angle), -0.08 + 0.015 * k)
            tip = (end[0], end[1], middle + radius * 0.85 * math.sin(angle))
            s.bar((0, -0.05, middle), tip, 0.02, blade)


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
}
