"""What is known about a furnished room: its objects and its floor.

Language about rooms is made from these records alone. Lengths are in metres, z is up.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from o2s.datasets.label_table import SPLITS
from o2s.errors import InputError
from o2s.io.cloud import quote

SEEN_ENOUGH = 0.15  # share of an object's surface; one that was scanned less is never spoken of


@dataclass(frozen=True)
class RoomObject:
    """One object. `on` may also name what it hangs above; `color` is None where it is mixed."""

    id: int  # as in ScanNet's aggregation file
    label: str  # class: "chair", "nightstand"
    fine: str  # finer name: "office chair"; may equal the label
    color: str | None  # name of the dominant colour
    material: str | None
    box: tuple[float, ...]  # centre (3), size (3), axis-aligned
    heading: float  # direction that its front faces, radians about z from +x
    on: int | None  # id of the object that it stands on or hangs above; None: floor or wall
    seen: float  # share of its surface that was scanned, 0 to 1
    size: tuple[float, ...] | None = None  # its own width, depth, height; None: as the box


@dataclass(frozen=True)
class RoomFacts:
    """One room. `floor` is a polygon, its corners in order, either way round.

    `unseen` are the classes of things that are there and that the scan does not show, or hardly.
    """

    name: str  # scan id, such as scene0000_00
    split: str  # train, val or test
    kind: str  # "living room"
    objects: tuple[RoomObject, ...]
    floor: tuple[tuple[float, float], ...]
    unseen: tuple[str, ...] = ()


def to_json(room: RoomFacts) -> dict[str, Any]:
    """The room as plain values, for a JSON file."""
    values = asdict(room)
    values["objects"] = [
        {**o, "box": list(o["box"]), "size": o["size"] and list(o["size"])}
        for o in values["objects"]
    ]
    values["unseen"] = list(room.unseen)
    values["floor"] = [list(corner) for corner in room.floor]
    return values


def from_json(values: object) -> RoomFacts:
    """The inverse of `to_json`. Whole numbers serve as floats.

    Raises:
        InputError: keys are missing or unknown, a value does not fit, two objects have one id, or
            `on` names no other object of the room.
    """
    read = _read(values, RoomFacts, _ROOM, "room")
    where = f"room {read['name']}"
    objects = tuple(
        RoomObject(**_read(o, RoomObject, _OBJECT, f"{where}: objects[{i}]"))
        for i, o in enumerate(read.pop("objects"))
    )
    ids = [o.id for o in objects]
    for i, o in enumerate(objects):
        if o.id in ids[:i]:
            raise InputError(f"{where}: objects[{i}].id is {o.id}; expected an id of its own")
        if o.on is not None and (o.on == o.id or o.on not in ids):
            raise InputError(f"{where}: objects[{i}].on is {o.on}; expected another object's id")
    return RoomFacts(**read, objects=objects)


def _read(
    values: object,
    kind: type,
    readers: Mapping[str, tuple[Callable[[Any], Any], str]],
    where: str,
) -> dict[str, Any]:
    """The values of a record's fields; a reader returns None or raises for what does not fit."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: {quote(values)}; expected a mapping")
    names = [f.name for f in fields(kind)]
    for name in values:
        if name not in names:
            raise InputError(f"{where}: unknown key {quote(name)}; expected {', '.join(names)}")
    read: dict[str, Any] = {}
    for name in names:
        if name not in values:
            raise InputError(f"{where}: no key {quote(name)}; expected {', '.join(names)}")
        value = values[name]
        if value is None and name in _MAY_BE_NONE:
            read[name] = None
            continue
        reader, expected = readers[name]
        read[name] = reader(value)
        if read[name] is None:
            raise InputError(f"{where}.{name} is {quote(value)}; expected {expected}")
    return read


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _split(value: object) -> str | None:
    return value if isinstance(value, str) and value in SPLITS else None


def _list(value: object) -> Sequence[object] | None:
    return value if isinstance(value, list | tuple) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _share(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    numbers = [_number(v) for v in _list(value) or ()]
    known = tuple(n for n in numbers if n is not None)
    return known if len(known) == len(numbers) == count else None


def _box(value: object) -> tuple[float, ...] | None:
    box = _numbers(value, 6)
    return box if box is not None and min(box[3:]) > 0 else None


def _polygon(value: object) -> tuple[tuple[float, ...], ...] | None:
    corners = [_numbers(v, 2) for v in _list(value) or ()]
    known = tuple(c for c in corners if c is not None)
    return known if len(known) == len(corners) >= 3 else None


def _sides(value: object) -> tuple[float, ...] | None:
    sides = _numbers(value, 3)
    return sides if sides is not None and min(sides) > 0 else None


def _texts(value: object) -> tuple[str, ...] | None:
    texts = _list(value)
    known = tuple(t for v in texts or () if (t := _text(v)) is not None)
    return known if texts is not None and len(known) == len(texts) else None


_MAY_BE_NONE = ("color", "material", "on", "size")
_ROOM = {
    "name": (_text, "a text"),
    "split": (_split, "train, val or test"),
    "kind": (_text, "a text"),
    "objects": (_list, "a list"),
    "floor": (_polygon, "three or more corners of two numbers"),
    "unseen": (_texts, "a list of texts"),
}
_OBJECT = {
    "id": (_whole, "a whole number from 0"),
    "label": (_text, "a text"),
    "fine": (_text, "a text"),
    "color": (_text, "a text or null"),
    "material": (_text, "a text or null"),
    "box": (_box, "centre and size, six numbers, sizes above 0"),
    "heading": (_number, "a number"),
    "on": (_whole, "an object's id or null"),
    "seen": (_share, "a number from 0 to 1"),
    "size": (_sides, "three numbers above 0, or null"),
}
