"""Random furnished rooms whose facts are known, for the tests of questions and descriptions."""

import math
from dataclasses import replace
from random import Random

from o2s.datasets.room_facts import RoomFacts, RoomObject

FURNITURE = {
    "bedroom": ("bed", "nightstand", "wardrobe", "chair", "desk", "mirror", "bench"),
    "living room": ("sofa", "table", "chair", "tv stand", "bookshelf", "stool", "piano"),
    "office": ("desk", "chair", "cabinet", "bookshelf", "table", "trash can", "printer"),
    "kitchen": ("table", "chair", "refrigerator", "stove", "counter", "trash can", "stool"),
}
SMALL = ("lamp", "book", "vase", "box", "plant", "laptop", "shoes")
FINE = {"chair": ("chair", "office chair", "white chair"), "table": ("table", "dining table")}
COLORS = ("red", "green", "blue", "white", "black", "brown", "yellow", "purple", "orange", "gray")
MATERIALS = ("wood", "metal", "plastic", "leather", "glass", "fabric")
WIDTH, DEPTH = 7.0, 6.0


def make_object(number: int, label: str, box: tuple[float, ...], **changes: object) -> RoomObject:
    """A red object that was scanned whole."""
    values = RoomObject(number, label, label, "red", None, box, 0.0, None, 1.0)
    return replace(values, **changes)


def make_room(
    objects: list[RoomObject], name: str = "scene0000_00", **changes: object
) -> RoomFacts:
    floor = ((0.0, 0.0), (WIDTH, 0.0), (WIDTH, DEPTH), (0.0, DEPTH))
    return replace(RoomFacts(name, "train", "office", tuple(objects), floor), **changes)


def random_room(seed: int, split: str = "train") -> RoomFacts:
    """A room with a door, furniture that does not overlap, and small things on some of it."""
    rng = Random(seed)
    kind = rng.choice(list(FURNITURE))
    objects = [make_object(0, "door", (rng.uniform(1, 6), 0.02, 1.0, 0.9, 0.1, 2.0))]
    palette = rng.sample(COLORS, 6)

    def add(label: str, box: tuple[float, ...], on: int | None) -> None:
        fine = rng.choice(FINE.get(label, (label,)))
        color = rng.choice([*palette, None])
        seen = 1.0 if rng.random() < 0.97 else 0.1
        heading = rng.choice([0.0, math.pi / 2, math.pi, -math.pi / 2])
        objects.append(
            RoomObject(
                len(objects), label, fine, color, rng.choice(MATERIALS), box, heading, on, seen
            )
        )

    for _ in range(60):
        label = rng.choice(FURNITURE[kind])
        w, d, h = rng.uniform(0.4, 1.8), rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.8)
        x, y = rng.uniform(w / 2, WIDTH - w / 2), rng.uniform(d / 2, DEPTH - d / 2)
        clear = all(
            abs(o.box[0] - x) > (o.box[3] + w) / 2 or abs(o.box[1] - y) > (o.box[4] + d) / 2
            for o in objects
        )
        if clear and len(objects) < 12:
            add(label, (x, y, h / 2, w, d, h), None)
    for under in list(objects[1:]):
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            x, y, z, w, d, h = under.box
            small = rng.uniform(0.1, 0.3)
            at = (x + rng.uniform(-w, w) / 3, y + rng.uniform(-d, d) / 3, z + h / 2 + small / 2)
            add(
                rng.choice(SMALL[:3] if rng.random() < 0.5 else SMALL),
                (*at, small, small, small),
                under.id,
            )
    return make_room(objects, f"scene{seed:04d}_00", split=split, kind=kind)


def scaled(room: RoomFacts, factor: float) -> RoomFacts:
    objects = [replace(o, box=tuple(v * factor for v in o.box)) for o in room.objects]
    floor = tuple((x * factor, y * factor) for x, y in room.floor)
    return replace(room, objects=tuple(objects), floor=floor)


def mirrored(room: RoomFacts) -> RoomFacts:
    """The room with x turned to -x."""
    objects = [
        replace(o, box=(-o.box[0], *o.box[1:]), heading=math.pi - o.heading) for o in room.objects
    ]
    return replace(room, objects=tuple(objects), floor=tuple((-x, y) for x, y in room.floor))
