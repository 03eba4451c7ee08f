"""Made-up electronics: screens, and what stands on desks.

Each function draws one piece of a class and says what it is called.
"""

from o2s.datasets.sketch import BRIGHTS, DARKS, METALS, PAPER, SCREEN, WHITES, WOODS, Sketch


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


ELECTRONICS = {
    "television": television,
    "monitor": monitor,
    "laptop": laptop,
    "keyboard": keyboard,
    "printer": printer,
    "telephone": telephone,
    "speaker": speaker,
}
