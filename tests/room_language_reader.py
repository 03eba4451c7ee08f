"""A reader of questions and descriptions of the random rooms, which knows plain geometry only.

`meant` takes a text apart with regular expressions and looks in the room which objects of a class
fit everything that it says, without margins and without the package's relations.
"""

import math
import re
from collections.abc import Callable

import numpy as np
from room_language_fake import COLORS, FURNITURE, SMALL

from o2s.datasets.room_facts import RoomFacts, RoomObject
from o2s.datasets.room_phrases import plural

ADJECTIVES = ("wooden", "metal", "plastic", "leather", "glass", "fabric")
SUPERLATIVES: dict[str, Callable[[RoomObject], float]] = {
    "tallest": lambda o: o.box[5],
    "shortest": lambda o: -o.box[5],
    "largest": lambda o: math.prod(o.box[3:]),
    "smallest": lambda o: -math.prod(o.box[3:]),
}
LABELS = sorted({"door", *SMALL}.union(*FURNITURE.values()), key=len, reverse=True)
NOUN = f"(?:{'|'.join([*map(plural, LABELS), *LABELS])})"
WORD = f"(?:{'|'.join([*COLORS, *ADJECTIVES, *SUPERLATIVES])})"
THING = rf"the ((?:{WORD} )*{NOUN})\b"
STANCE = re.compile(rf"stand at {THING} (?:facing {THING}|looking in)")
SINGULAR = {form: label for label in LABELS for form in (label, plural(label))}


def distance(a: RoomObject, b: RoomObject) -> float:
    (pa, sa), (pb, sb) = ((np.array(o.box[:3]), np.array(o.box[3:])) for o in (a, b))
    apart = np.maximum(pb - sb / 2 - (pa + sa / 2), pa - sa / 2 - (pb + sb / 2))
    return float(np.linalg.norm(np.maximum(apart, 0)))


def is_next_to(a: RoomObject, b: RoomObject) -> bool:
    level = abs(a.box[2] - b.box[2]) <= (a.box[5] + b.box[5]) / 2 + 1e-9
    reach = 0.25 * (max(a.box[3:5]) + max(b.box[3:5])) / 2
    return level and distance(a, b) <= reach and b.id != a.on and a.id != b.on


def is_between(o: RoomObject, a: RoomObject, b: RoomObject) -> bool:
    p, start, end = (np.array(e.box[:2]) for e in (o, a, b))
    share = (p - start) @ (end - start) / ((end - start) @ (end - start))
    aside = np.linalg.norm(p - start - share * (end - start))
    level = all(abs(o.box[2] - e.box[2]) <= (o.box[5] + e.box[5]) / 2 for e in (a, b))
    width = min(max(a.box[3:5]), max(b.box[3:5])) / 2
    return bool(0.25 <= share <= 0.75 and aside <= width and level)


def quarter(o: RoomObject, x: float, y: float, facing: float) -> str:
    """On which side the centre is, each side a full quarter turn."""
    turn = math.atan2(o.box[1] - y, o.box[0] - x) - facing
    return ("in front", "left", "behind", "right")[round(turn / (math.pi / 2)) % 4]


def stance(room: RoomFacts, text: str) -> tuple[float, float, float] | None:
    """Where the reader is told to stand, and the direction to look in; a door is at y = 0."""
    told = STANCE.search(text)
    if told is None:
        return None
    at = the_one(room, told[1])
    if told[2] is None:
        return at.box[0], at.box[1], math.pi / 2
    to = the_one(room, told[2])
    return at.box[0], at.box[1], math.atan2(to.box[1] - at.box[1], to.box[0] - at.box[0])


def the_one(room: RoomFacts, words: str) -> RoomObject:
    """The only object that a noun with adjectives fits."""
    noun = next(label for label in LABELS if re.search(rf"\b{label}$", words))
    (found,) = with_words(room, noun, words)
    return found


def with_words(room: RoomFacts, label: str, text: str) -> list[RoomObject]:
    members = [o for o in room.objects if o.label == label]
    found = members
    for word in re.findall(rf"\b{WORD}\b", text):
        if word in SUPERLATIVES:
            best = max(map(SUPERLATIVES[word], members))
            found = [o for o in found if SUPERLATIVES[word](o) == best]
        elif word in ADJECTIVES:
            found = [o for o in found if o.material == word.replace("wooden", "wood")]
        else:
            found = [o for o in found if o.color == word]
    return found


def meant(room: RoomFacts, text: str, label: str | None = None) -> list[RoomObject]:
    """The objects of the class that fit everything in the text; the class may be read from it."""
    text = text[0].lower() + text[1:]
    view = stance(room, text)
    text = STANCE.sub("", text)
    tests: list[Callable[[RoomObject], bool]] = []
    nearest_to: list[RoomObject] = []

    def take(pattern: str, use: Callable[[re.Match], None]) -> None:
        nonlocal text
        for match in re.finditer(pattern, text):
            use(match)
        text = re.sub(pattern, "", text)

    def near(match: re.Match) -> None:
        nearest_to.append(the_one(room, match[1]))

    def test(relation: Callable[..., bool]) -> Callable[[re.Match], None]:
        def use(match: re.Match) -> None:
            others = [the_one(room, words) for words in match.groups()]
            tests.append(lambda o: relation(o, *others))

        return use

    take(
        r"in front of you|on your left|on your right|behind you",
        lambda m: tests.append(
            lambda o: (
                view is not None and quarter(o, *view) == re.sub(" of you| you|on your ", "", m[0])
            )
        ),
    )
    take(rf"between {THING} and {THING}", test(is_between))
    take(rf"next to {THING}", test(is_next_to))
    take(rf"closest to {THING}", near)
    take(rf"\bon {THING}", test(lambda o, under: o.on == under.id))
    take(
        "against the wall",
        lambda m: tests.append(
            lambda o: (
                min(
                    o.box[i] - o.box[i + 3] / 2 if far == 0 else far - o.box[i] - o.box[i + 3] / 2
                    for i, ends in ((0, (0, 7.0)), (1, (0, 6.0)))
                    for far in ends
                )
                <= 0.15 * max(o.box[3:5])
            )
        ),
    )
    take(
        rf"with an? ({NOUN}) on it",
        lambda m: tests.append(
            lambda o: any(p.on == o.id and p.label == m[1] for p in room.objects)
        ),
    )
    if label is None:
        label = SINGULAR[re.findall(rf"\b{NOUN}\b", text)[0]]
    members = [o for o in room.objects if o.label == label]
    for anchor in nearest_to:
        least = min(distance(o, anchor) for o in members)
        tests.append(lambda o, anchor=anchor, least=least: distance(o, anchor) == least)
    return [o for o in with_words(room, label, text) if all(fits(o) for fits in tests)]


def things(room: RoomFacts, text: str) -> list[RoomObject]:
    return [the_one(room, words) for words in re.findall(THING, text[0].lower() + text[1:])]
