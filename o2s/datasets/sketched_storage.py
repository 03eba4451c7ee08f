"""Made-up furniture to keep things in, and desks.

Each function draws one piece of a class and says what it is called.
"""

from o2s.datasets.sketch import CLOTHS, DARKS, METALS, PAINTS, WHITES, WOODS, Color, Place, Sketch


def desk(s: Sketch) -> str:
    width, depth, height = s.draw(1.0, 1.7), s.draw(0.5, 0.8), s.draw(0.7, 0.78)
    wood = s.color(WOODS, WHITES, DARKS)
    front = wood if s.chance(0.6) else s.color(PAINTS)
    s.box((width, depth, 0.035), (0, 0, height - 0.035), wood)
    sides = s.rng.choice(((-1,), (1,), (-1, 1)))
    for side in (-1, 1):
        x = side * (width / 2 - 0.02)
        if side in sides:
            chest = s.draw(0.32, 0.45)
            middle = side * (width / 2 - chest / 2)
            low = s.rng.choice((0.0, 0.05, 0.12))
            s.box((chest, depth * 0.92, height - 0.035 - low), (middle, 0, low), wood)
            _drawers(s, chest, height - 0.05 - low, (middle, -depth * 0.46, low), front, 3)
        elif s.chance(0.5):
            s.box((0.03, depth * 0.92, height - 0.035), (x, 0, 0), wood)
        else:
            for y in (-depth * 0.42, depth * 0.42):
                s.box((0.05, 0.05, height - 0.035), (x, y, 0), s.color(METALS, WOODS))
    if s.chance(0.6):
        s.box((width * 0.96, 0.02, height * s.draw(0.4, 0.9)), (0, depth * 0.44, 0.05), wood)
    if s.chance(0.25):
        s.box((width, 0.25, 0.02), (0, depth / 2 - 0.12, height + 0.35), wood)
        for x in (-width / 2 + 0.02, width / 2 - 0.02):
            s.box((0.03, 0.25, 0.35), (x, depth / 2 - 0.12, height), wood)
    return "desk"


def cabinet(s: Sketch) -> str:
    kind = s.rng.choice(("cabinet", "sideboard", "cupboard", "filing cabinet", "base cabinet"))
    low, high = {
        "sideboard": ((1.1, 0.38, 0.65), (1.9, 0.5, 0.95)),
        "cupboard": ((0.6, 0.35, 1.2), (1.1, 0.5, 1.95)),
        "filing cabinet": ((0.38, 0.45, 0.65), (0.5, 0.7, 1.35)),
        "base cabinet": ((0.4, 0.5, 0.82), (1.0, 0.62, 0.92)),
    }.get(kind, ((0.5, 0.32, 0.6), (1.0, 0.5, 1.1)))
    width, depth, height = (s.draw(a, b) for a, b in zip(low, high, strict=True))
    color = s.color(METALS, WHITES, DARKS) if kind == "filing cabinet" else s.color(PAINTS)
    foot = s.rng.choice((0.0, 0.06, 0.15))
    if foot > 0.1:
        s.legs((width, depth), foot, 0.05, s.color(WOODS, METALS))
    s.box((width, depth, height - foot), (0, 0, foot), color)
    front = color if s.chance(0.5) else s.color(PAINTS)
    if kind == "filing cabinet":
        count = max(2, round(height / 0.32))
        _drawers(s, width, height - foot, (0, -depth / 2, foot), front, count)
    else:
        if kind == "base cabinet":
            s.box(
                (width + 0.02, depth + 0.03, 0.04), (0, 0, height), s.color(WOODS, METALS, WHITES)
            )
        drawers = height * 0.3 if s.chance(0.4) else 0.0
        doors = max(1, round(width / s.draw(0.4, 0.6)))
        _doors(s, width, height - foot - drawers, (0, -depth / 2, foot), front, doors)
        if drawers:
            place = (0, -depth / 2, height - drawers)
            _drawers(s, width, drawers, place, front, 1, columns=doors)
    return kind


def dresser(s: Sketch) -> str:
    width, depth, height = s.draw(0.7, 1.6), s.draw(0.4, 0.55), s.draw(0.7, 1.25)
    wood = s.color(WOODS, WHITES, PAINTS)
    foot = s.draw(0.02, 0.15)
    s.legs((width, depth), foot, 0.06, wood)
    s.box((width, depth, height - foot), (0, 0, foot), wood)
    s.box((width + 0.03, depth + 0.02, 0.03), (0, 0, height), wood)
    rows, columns = s.rng.randint(3, 5), 1 if width < 0.95 else s.rng.choice((1, 2, 3))
    _drawers(s, width, height - foot, (0, -depth / 2, foot), wood, rows, columns=columns)
    if s.chance(0.3):
        s.box((width * 0.7, 0.04, 0.7), (0, depth / 2, height + 0.1), wood)
        s.box((width * 0.62, 0.01, 0.6), (0, depth / 2 - 0.03, height + 0.15), (190, 200, 205))
        return "dressing table"
    return s.rng.choice(("dresser", "chest of drawers"))


def nightstand(s: Sketch) -> str:
    width, depth, height = s.draw(0.35, 0.6), s.draw(0.32, 0.48), s.draw(0.4, 0.68)
    wood = s.color(WOODS, WHITES, DARKS)
    foot = s.draw(0.02, 0.3)
    s.legs((width, depth), foot, s.draw(0.03, 0.05), wood)
    s.box((width, depth, height - foot), (0, 0, foot), wood)
    s.box((width + 0.03, depth + 0.02, 0.025), (0, 0, height), wood)
    rows = 1 if height - foot < 0.25 else s.rng.randint(1, 3)
    _drawers(s, width, height - foot, (0, -depth / 2, foot), wood, rows)
    return s.rng.choice(("nightstand", "bedside table"))


def wardrobe(s: Sketch) -> str:
    if s.chance(0.15):
        return _open_wardrobe(s)
    doors = s.rng.randint(1, 4)
    width, depth, height = doors * s.draw(0.42, 0.75), s.draw(0.42, 0.68), s.draw(1.7, 2.4)
    width = min(max(width, 0.6), 2.4)
    wood = s.color(WOODS, WHITES, PAINTS)
    foot = s.rng.choice((0.0, 0.0, 0.1))
    if foot:
        s.legs((width, depth), foot, 0.07, wood)
    s.box((width, depth, height - foot), (0, 0, foot), wood)
    if s.chance(0.4):
        s.box((width + 0.08, depth + 0.06, 0.07), (0, 0, height), wood)
    low = s.rng.choice((0.0, 0.0, height * 0.2))
    front = wood if s.chance(0.6) else s.color(PAINTS)
    at = (0, -depth / 2, max(low, foot))
    if s.chance(0.25):
        for i in range(max(doors, 2)):  # they slide, one before the other
            each = width / max(doors, 2)
            x, y = -width / 2 + (i + 0.5) * each, -depth / 2 - 0.02 - 0.03 * (i % 2)
            glass = s.color([(190, 200, 205)]) if s.chance(0.3) else front
            s.box((each * 1.02, 0.025, height - at[2] - 0.06), (x, y, at[2]), glass)
    else:
        _doors(s, width, height - at[2], at, front, doors)
    if low:
        _drawers(s, width, low - foot, (0, -depth / 2, foot), front, 1, columns=doors)
    return s.rng.choice(("wardrobe", "closet"))


def _open_wardrobe(s: Sketch) -> str:
    """Sides and a back, a rail with clothes, shelves beside them."""
    width, depth, height = s.draw(0.8, 2.0), s.draw(0.42, 0.62), s.draw(1.6, 2.2)
    wood, share = s.color(WOODS, WHITES, PAINTS), s.rng.choice((1.0, 0.6))
    walls = {-width / 2 + 0.015, width / 2 - 0.015, width * (share - 0.5) - 0.015}
    for x in walls:
        s.box((0.03, depth, height), (x, 0, 0), wood)
    for z in (0.06, height - 0.03):
        s.box((width, depth, 0.03), (0, 0, z), wood)
    if s.chance(0.7):
        s.box((width, 0.015, height), (0, depth / 2, 0), wood)
    rail, hung = height * 0.88, width * share
    s.bar((-width / 2, 0, rail), (-width / 2 + hung, 0, rail), 0.015, s.color(METALS))
    x = -width / 2 + 0.06
    while x < -width / 2 + hung - 0.08:
        wide = s.draw(0.02, 0.07)
        if s.chance(0.85):
            long_ = s.draw(0.5, 1.15)
            s.box((wide, depth * s.draw(0.6, 0.9), long_), (x, 0, rail - long_), s.color(CLOTHS))
        x += wide * 1.15
    if share < 1:
        for i in range(1, 6):
            beside = (width * (1 - share), depth, 0.025)
            s.box(beside, (width * share / 2, 0, i * height / 6), wood)
    return s.rng.choice(("open wardrobe", "closet"))


def bookshelf(s: Sketch) -> str:
    width, depth, height = s.draw(0.5, 1.4), s.draw(0.22, 0.4), s.draw(0.8, 2.2)
    wood = s.color(WOODS, WHITES, DARKS)
    for x in (-width / 2 + 0.012, width / 2 - 0.012):
        s.box((0.024, depth, height), (x, 0, 0), wood)
    if s.chance(0.7):
        s.box((width, 0.015, height), (0, depth / 2 - 0.01, 0), wood)
    shelves = max(3, round(height / s.draw(0.28, 0.42)))
    for i in range(shelves + 1):
        s.box((width, depth, 0.024), (0, 0, i * (height - 0.024) / shelves), wood)
    full = s.rng.choice((0.0, 0.3, 0.8))
    for i in range(shelves):
        x, z = -width / 2 + 0.04, i * (height - 0.024) / shelves + 0.024
        room = height / shelves - 0.03
        while x < width / 2 - 0.08:
            thick = s.draw(0.02, 0.06)
            if s.chance(full):
                size = (thick, depth * s.draw(0.6, 0.85), room * s.draw(0.6, 0.95))
                s.box(size, (x + thick / 2, 0, z), s.color(CLOTHS))
            x += thick
    return s.rng.choice(("bookshelf", "bookcase", "shelf unit"))


def tv_stand(s: Sketch) -> str:
    width, depth, height = s.draw(1.0, 2.0), s.draw(0.35, 0.5), s.draw(0.35, 0.6)
    wood = s.color(WOODS, WHITES, DARKS)
    foot = s.rng.choice((0.0, 0.1))
    s.box((width, depth, 0.03), (0, 0, height - 0.03), wood)
    s.box((width, depth, 0.03), (0, 0, foot), wood)
    s.box((width, 0.02, height - foot), (0, depth / 2 - 0.02, foot), wood)
    columns = s.rng.randint(2, 4)
    for i in range(columns + 1):
        x = -width / 2 + 0.015 + i * (width - 0.03) / columns
        s.box((0.03, depth, height - foot), (x, 0, foot), wood)
    for i in range(columns):
        x = -width / 2 + (i + 0.5) * width / columns
        if s.chance(0.5):
            s.box((width / columns * 0.95, 0.02, height - foot), (x, -depth / 2, foot), wood)
    if foot:
        s.legs((width, depth), foot, 0.05, wood)
    return s.rng.choice(("tv stand", "television cabinet"))


def counter(s: Sketch) -> str:
    kind = s.rng.choice(("counter", "kitchen counter", "kitchen island", "bar counter"))
    if kind == "counter" and s.chance(0.5):
        return _reception(s)
    width, depth, height = s.draw(1.0, 2.6), s.draw(0.55, 1.0), s.draw(0.84, 1.0)
    base, top = s.color(PAINTS), s.color(WOODS, METALS, WHITES, DARKS)
    if kind == "bar counter":
        depth, height = s.draw(0.4, 0.65), s.draw(0.95, 1.2)
        s.box((width * 0.94, depth * 0.6, height - 0.04), (0, depth * 0.1, 0), base)
        s.box((width, depth, 0.05), (0, 0, height - 0.05), top)
        if s.chance(0.5):
            rail = -depth * 0.35
            s.bar((-width * 0.45, rail, 0.2), (width * 0.45, rail, 0.2), 0.02, s.color(METALS))
        return kind
    foot = s.rng.choice((0.0, 0.1))
    s.box((width * 0.96, depth * 0.85, height - 0.04), (0, 0, 0), base)
    s.box((width, depth, 0.04), (0, 0, height - 0.04), top)
    share = s.rng.choice((0.0, 0.25, 1.0))  # of the front that drawers have
    face, front = (height - 0.08 - foot) * (1 - share), -depth * 0.425
    columns = max(1, round(width / s.draw(0.42, 0.6)))
    if share < 1:
        _doors(s, width * 0.96, face, (0, front, foot), base, columns)
    if share:
        rows, tall = (1 if share < 1 else 3), (height - 0.08 - foot) * share
        _drawers(s, width * 0.96, tall, (0, front, foot + face), base, rows, columns=columns)
    if s.chance(0.25) and kind == "kitchen counter":  # the other arm of an L
        side, long_ = s.rng.choice((-1, 1)) * (width / 2 - depth / 2), s.draw(0.5, 1.0)
        s.box((depth * 0.85, long_, height - 0.04), (side, -depth / 2 - long_ / 2, 0), base)
        s.box((depth, long_, 0.04), (side, -depth / 2 - long_ / 2, height - 0.04), top)
    if s.chance(0.25):
        s.box((width, 0.02, s.draw(0.08, 0.5)), (0, depth / 2 - 0.01, height), s.color(WHITES))
    return kind


def _reception(s: Sketch) -> str:
    """A counter to stand at: a high front, straight or about a corner, a desk behind it."""
    width, depth, height = s.draw(1.2, 2.8), s.draw(0.5, 0.85), s.draw(0.95, 1.2)
    front, top = s.color(PAINTS), s.color(WOODS, METALS, WHITES, DARKS)
    arms = [(width, 0.06, (0.0, -depth / 2))]
    for side in s.rng.choice(((), (-1,), (1,), (-1, 1))):
        arms.append((0.06, depth, (side * width / 2, 0.0)))
    for wide, deep, (x, y) in arms:
        s.box((wide, deep, height), (x, y, 0), front)
        ledge = (wide + 0.24, deep + 0.24, 0.04) if s.chance(0.7) else (wide, deep, 0.04)
        s.box(ledge, (x, y, height), top)
    s.box((width * 0.97, depth, 0.035), (0, 0, s.draw(0.7, 0.78)), top)
    if s.chance(0.5):
        panels = s.rng.randint(2, 5)
        for i in range(panels):
            x = (i - (panels - 1) / 2) * width / panels
            panel = (width / panels * 0.85, 0.03, height * 0.75)
            s.box(panel, (x, -depth / 2 - 0.03, height * 0.12), s.color([front], PAINTS))
    return "counter"


def _doors(
    s: Sketch,
    width: float,
    height: float,
    at: Place,
    color: Color,
    count: int,
) -> None:
    """Doors beside each other before a front; `at` is the middle of its foot."""
    handle = s.color(METALS, WOODS, DARKS)
    each = width / count
    for i in range(count):
        x = at[0] - width / 2 + (i + 0.5) * each
        s.box((each * 0.95, 0.02, height * 0.96), (x, at[1] - 0.01, at[2] + height * 0.02), color)
        side = 1 if i % 2 == 0 and count > 1 else -1
        knob = (x + side * each * 0.38, at[1] - 0.03, at[2] + height * s.draw(0.45, 0.55))
        s.box((0.015, 0.025, s.draw(0.03, 0.15)), knob, handle)


def _drawers(
    s: Sketch,
    width: float,
    height: float,
    at: Place,
    color: Color,
    rows: int,
    *,
    columns: int = 1,
) -> None:
    """Drawers in rows and columns before a front; `at` is the middle of its foot."""
    handle, long_ = s.color(METALS, WOODS, DARKS), s.chance(0.5)
    wide, tall = width / columns, height / rows
    for row in range(rows):
        for column in range(columns):
            x, z = at[0] - width / 2 + (column + 0.5) * wide, at[2] + row * tall
            s.box((wide * 0.94, 0.02, tall * 0.9), (x, at[1] - 0.01, z + tall * 0.05), color)
            size = (wide * 0.35, 0.025, 0.015) if long_ else (0.03, 0.03, 0.03)
            s.box(size, (x, at[1] - 0.03, z + tall * 0.5), handle)


STORAGE = {
    "desk": desk,
    "cabinet": cabinet,
    "dresser": dresser,
    "nightstand": nightstand,
    "wardrobe": wardrobe,
    "bookshelf": bookshelf,
    "tv stand": tv_stand,
    "counter": counter,
}
