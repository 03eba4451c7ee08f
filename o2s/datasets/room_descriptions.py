"""Descriptions that single out one object of a room, in the formats of ScanRefer and Nr3D.

What a description says of its object is true of it and surely false of every other of its class.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from random import Random
from typing import Any

from o2s.datasets.room_facts import RoomFacts, RoomObject
from o2s.datasets.room_phrases import (
    ATTRIBUTES,
    Clue,
    NamedRoom,
    Phrase,
    is_plural,
    tells_apart,
)
from o2s.datasets.room_wordings import WordingChooser, Wordings, fill, load_wordings

Description = dict[str, Any]

NR3D_COLUMNS = ("scan_id", "target_id", "instance_type", "assignmentid", "utterance", "tokens")


def write_descriptions(
    rooms: Sequence[RoomFacts],
    seed: int,
    held_out: bool,
    per_object: int = 3,
    wordings: Wordings | None = None,
) -> list[Description]:
    """`per_object` differently worded descriptions of each object that can be told apart:
    scene_id, object_id, object_name, ann_id, description and token, as in ScanRefer.

    With `held_out`, for val and test, every second wording is one that training never has. An
    object that nothing tells apart, or whose class has a member that was hardly scanned, has none.
    """
    wordings = wordings or load_wordings()
    chooser = WordingChooser(wordings.descriptions, Random(seed), held_out=held_out)
    rows: list[Description] = []
    for room in rooms:
        named = NamedRoom(room, Random(f"{seed} {room.name}"))
        for o in named.objects:
            used: list[str] = []
            for text in _texts(named, o, chooser, used, per_object):
                rows.append(_row(room, o, len(used) - 1, text))
    return rows


def write_captions(
    rooms: Sequence[RoomFacts], seed: int, held_out: bool, wordings: Wordings | None = None
) -> list[Description]:
    """One plain sentence about each object that may be spoken of, for dense captioning, in
    ScanRefer's format: its finer name, its colour or material, and where it is.

    All of it is true, but others may be like it.
    """
    wordings = wordings or load_wordings()
    chooser = WordingChooser(wordings.descriptions, Random(seed), held_out=held_out)
    rows: list[Description] = []
    for room in rooms:
        named = NamedRoom(room, Random(f"{seed} {room.name}"))
        for o in named.objects:
            clues = named.clues(o)
            words = [c.before for c in clues if c.kind in ("color", "material")]
            places = [c.after for c in clues if c.kind == "place"]
            phrase = Phrase(
                _fine(o),
                named.rng.choice(words) if words else "",
                named.rng.choice(places) if places else "",
            )
            rows.append(_row(room, o, 0, fill(chooser.next("caption") or "", {"a": phrase.a})))
    return rows


def nr3d_rows(descriptions: Iterable[Description], rooms: Iterable[RoomFacts]) -> list[dict]:
    """Rows of Nr3D's csv, by `NR3D_COLUMNS`, of the descriptions whose object has others of its
    class in the room to be told from; `tokens` is the text of a Python list, as there."""
    several: dict[str, dict[str, int]] = {}
    for room in rooms:
        several[room.name] = defaultdict(int)
        for o in room.objects:
            several[room.name][_underscored(o.label)] += 1
    kept = [d for d in descriptions if several[d["scene_id"]][d["object_name"]] > 1]
    return [
        {
            "scan_id": d["scene_id"],
            "target_id": int(d["object_id"]),
            "instance_type": d["object_name"].replace("_", " "),
            "assignmentid": number,
            "utterance": d["description"],
            "tokens": str(d["token"]),
        }
        for number, d in enumerate(kept)
    ]


def tokens(text: str) -> list[str]:
    """Lower-case words and single punctuation marks, as ScanRefer lists them."""
    return re.findall(r"[a-z0-9'-]+|[^\w\s]", text.lower())


def _texts(
    named: NamedRoom, o: RoomObject, chooser: WordingChooser, used: list[str], count: int
) -> Iterable[str]:
    """Up to `count` texts, kind by kind; the wordings go to `used`."""
    by_kind = _options(named, o)
    kinds = list(by_kind)
    named.rng.shuffle(kinds)
    for slots in by_kind.values():
        named.rng.shuffle(slots)
    while kinds and len(used) < count:
        kind = kinds.pop(0)
        wording = chooser.next(kind, used)
        if wording is None:
            continue
        used.append(wording)
        slots = by_kind[kind]
        slots.append(slots.pop(0))
        kinds.append(kind)
        yield fill(wording, slots[-1])


def _options(named: NamedRoom, o: RoomObject) -> dict[str, list[dict[str, str]]]:
    """What can fill the slots of each kind of description, so that it singles out the object."""
    members = named.members[o.label]
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    noun = _fine(o)
    if len(members) == 1:
        found["only"].append(_slots(Phrase(o.label)))
    clues = named.clues(o)
    for clue in clues:
        if tells_apart([clue], o, members) and clue.kind in _KINDS:
            found[_KINDS[clue.kind]].append(_slots(Phrase(noun), clue))
    attributes = [c for c in clues if c.kind in ATTRIBUTES - {"size"}]
    for pair in product(attributes, [c for c in clues if c.kind == "place"]):
        if tells_apart(pair, o, members):
            found["attribute_place"].append(_slots(Phrase(noun), *pair))
    return found


def _slots(phrase: Phrase, *clues: Clue) -> dict[str, str]:
    """All slots; what follows the noun is a slot of its own."""
    word = " ".join(c.before for c in clues if c.before)
    named = Phrase(phrase.noun, word)
    slots = {"noun": phrase.noun, "word": word, "a": named.a, "the": named.the}
    for c in clues:
        if c.stand:
            slots |= {"stand": c.stand, "where": c.where}
        elif c.after:
            slots["after"] = c.after
    return slots


def _fine(o: RoomObject) -> str:
    """The finer name if it only adds to the class, as office chair does to chair."""
    plain = re.fullmatch(r"[a-z]+( [a-z]+)*", o.fine) and not is_plural(o.fine)
    colored = set(o.fine.split()) & _ATTRIBUTE_WORDS
    return o.fine if plain and not colored and o.fine.endswith(f" {o.label}") else o.label


def _row(room: RoomFacts, o: RoomObject, number: int, text: str) -> Description:
    return {
        "scene_id": room.name,
        "object_id": str(o.id),
        "object_name": _underscored(o.label),
        "ann_id": str(number),
        "description": text,
        "token": tokens(text),
    }


def _underscored(label: str) -> str:
    return label.replace(" ", "_")


_KINDS = {
    "color": "attribute",
    "material": "attribute",
    "size": "size",
    "place": "place",
    "view": "view",
}
# a maker's word for a finish or a size need not be what was measured
_ATTRIBUTE_WORDS = {
    *("black", "white", "gray", "grey", "silver", "red", "green", "blue", "yellow", "orange"),
    *("brown", "beige", "pink", "purple", "dark", "light", "golden", "wooden", "metal", "glass"),
    *("leather", "small", "large", "big", "tall", "short", "high", "low"),
}
