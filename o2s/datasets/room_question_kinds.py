"""All questions that can be asked about a room, before some are picked and worded.

Each is checked against the room's geometry; what is too close to call is not asked. A number is
written as a word ("two").
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from o2s.datasets.room_facts import SEEN_ENOUGH, RoomFacts, RoomObject
from o2s.datasets.room_phrases import (
    ATTRIBUTES,
    ON_WALLS,
    RELATIONS,
    NamedRoom,
    Phrase,
    plural,
    same_color,
)
from o2s.datasets.room_relations import (
    COMPARISONS,
    between,
    nearest,
    rests_on,
    side,
    surface_distance,
)
from o2s.words import NUMBERS


@dataclass(frozen=True)
class Draft:
    """A question without its wording.

    `key` holds the words by which someone who sees only the question would guess; among the drafts
    of one key the picked ones are balanced over `way`: the answer, or what stands for it.
    """

    scene: str
    kind: str
    answer: str
    slots: Mapping[str, str]
    objects: tuple[RoomObject, ...]  # that the answer is about
    key: tuple[str, ...]
    way: str


@dataclass
class Usual:
    """What occurs in rooms of one kind, from which things that a room lacks are asked for."""

    labels: set[str] = field(default_factory=set)
    colors: set[tuple[str, str]] = field(default_factory=set)  # label, colour
    stacks: set[tuple[str, str]] = field(default_factory=set)  # label, label of what it is on


def usual_contents(rooms: Iterable[RoomFacts]) -> dict[str, Usual]:
    """What was scanned well enough in the rooms, by their kind."""
    found: dict[str, Usual] = defaultdict(Usual)
    for room in rooms:
        usual = found[room.kind]
        label_of = {o.id: o.label for o in room.objects}
        for o in room.objects:
            if o.seen < SEEN_ENOUGH:
                continue
            usual.labels.add(o.label)
            if o.color is not None:
                usual.colors.add((o.label, o.color))
            if o.on is not None:
                usual.stacks.add((o.label, label_of[o.on]))
    return found


def draft_questions(named: NamedRoom, usual: Usual) -> list[Draft]:
    """All questions about a room; of the very many comparisons and sides some are drawn."""
    makers = (
        *(_existence(named, usual), _counts(named), _colors(named), _materials(named)),
        *(_comparisons(named), _nearest(named), _sides(named), _on_top(named)),
        *(_supports(named), _room(named), _between(named)),
    )
    return [draft for maker in makers for draft in maker]


def _draft(
    named: NamedRoom,
    kind: str,
    answer: str,
    objects: Iterable[RoomObject],
    key: tuple[str, ...],
    way: str | None = None,
    **slots: str,
) -> Draft:
    way = answer if way is None else way
    return Draft(named.room.name, kind, answer, slots, tuple(objects), key, way)


def _existence(named: NamedRoom, usual: Usual) -> Iterator[Draft]:
    """Asked of classes, of colours of a class, and of classes on something."""

    def ask(phrase: Phrase, found: list[RoomObject], *key: str) -> Draft:
        answer = "yes" if found else "no"
        many, a = phrase.many, phrase.a
        return _draft(named, "existence", answer, found, key, a=a, many=many)

    for label in sorted(usual.labels):
        if named.is_clear(label):
            yield ask(Phrase(label), named.members.get(label, []), label)
    for label, color in sorted(usual.colors):
        members = named.members.get(label, [])
        verdicts = [same_color(color, o.color) for o in members]
        if members and named.is_clear(label) and (True in verdicts or None not in verdicts):
            found = [o for o, verdict in zip(members, verdicts, strict=True) if verdict]
            yield ask(Phrase(label, color), found, label, color)
    for lower, the in named.anchors:
        for label in sorted(upper for upper, under in usual.stacks if under == lower.label):
            if not named.is_clear(label) or label == lower.label:
                continue
            members = named.members.get(label, [])
            verdicts = [rests_on(o, lower) for o in members]
            if True in verdicts or None not in verdicts:
                found = [o for o, verdict in zip(members, verdicts, strict=True) if verdict]
                phrase = Phrase(label, after=f"on {the.the}")
                yield ask(phrase, found, label, "on", lower.label)


def _counts(named: NamedRoom) -> Iterator[Draft]:
    """Of a class, of a colour of it, of a class on something; up to twelve, and never none."""

    def ask(phrase: Phrase, found: list[RoomObject], *key: str) -> Iterator[Draft]:
        if 0 < len(found) <= len(NUMBERS):
            answer = NUMBERS[len(found) - 1]
            yield _draft(named, "count", answer, found, key, many=phrase.many)

    for label in dict.fromkeys(o.label for o in named.objects):
        members = named.members[label]
        if any((o.fine or "").startswith("pile of ") for o in members):
            continue  # one object here, several for who looks at it
        yield from ask(Phrase(label), members, label)
        if len(members) < 2:
            continue
        for color in sorted({o.color for o in members if o.color is not None}):
            verdicts = [same_color(color, o.color) for o in members]
            if None not in verdicts:
                found = [o for o, verdict in zip(members, verdicts, strict=True) if verdict]
                yield from ask(Phrase(label, color), found, label, "color")
        for lower, the in named.anchors:
            verdicts = [rests_on(o, lower) for o in members]
            if None not in verdicts and label != lower.label:
                found = [o for o, verdict in zip(members, verdicts, strict=True) if verdict]
                yield from ask(Phrase(label, after=f"on {the.the}"), found, label, "on")


def _colors(named: NamedRoom) -> Iterator[Draft]:
    for o in named.objects:
        phrase = o.color and named.name(o, (ATTRIBUTES | RELATIONS) - {"color"})
        if o.color and phrase:
            yield _draft(named, "color", o.color, [o], (o.label,), the=phrase.the)


def _materials(named: NamedRoom) -> Iterator[Draft]:
    for o in named.objects:
        phrase = o.material and named.name(o, (ATTRIBUTES | RELATIONS) - {"color", "material"})
        if o.material and phrase:
            yield _draft(named, "material", o.material, [o], (o.label,), the=phrase.the)


def _comparisons(named: NamedRoom) -> Iterator[Draft]:
    """Two objects by height or volume, but none on walls; the answer is the phrase of one of them.

    Balanced over which class is the greater, or over the order where both are of one class.
    """
    free = [o for o in named.objects if o.label not in ON_WALLS]
    pairs = list(combinations(free, 2))
    for a, b in named.rng.sample(pairs, min(_PAIRS, len(pairs))):
        first, second = (named.name(o, {"color", "material"}) for o in (a, b))
        if first is None or second is None or first == second:
            continue
        for greater, less in (("taller", "shorter"), ("larger", "smaller")):
            more = named.rng.choice((greater, less))
            verdict = COMPARISONS[more](a, b)
            if verdict is None:
                continue
            winner = first if verdict else second
            one = a.label == b.label
            is_greater = verdict == (more == greater)
            way = str(verdict) if one else (a if is_greater else b).label
            key = (greater, *sorted((a.label, b.label)))
            slots = {"more": more, "first": first.the, "second": second.the}
            yield _draft(named, "compare", winner.bare, [a, b], key, way, **slots)


def _nearest(named: NamedRoom) -> Iterator[Draft]:
    """What is nearest of all; the answer is a class, of which several may be about as near."""
    clear = {o.id for o in named.objects}
    for anchor in named.objects:
        others = [o for o in named.room.objects if o is not anchor]
        phrase = named.name(anchor, ATTRIBUTES)
        if not others or phrase is None:
            continue
        first = min(others, key=lambda o: surface_distance(anchor, o))
        if first.id == anchor.on or first.on == anchor.id:
            continue  # what stands on what is asked by other kinds
        rivals = [first, *(o for o in others if o.label != first.label)]
        if first.id in clear and nearest(anchor, rivals) is first:
            yield _draft(named, "nearest", first.label, [first], (anchor.label,), the=phrase.the)


def _sides(named: NamedRoom) -> Iterator[Draft]:
    found = []
    for stand, view, at in named.views:
        for o in named.objects:
            where = side(view, o)
            if where is not None and o.id not in at:
                found.append((stand, o, where))
    for stand, o, where in named.rng.sample(found, min(_PAIRS, len(found))):
        phrase = named.name(o, ATTRIBUTES)
        if phrase is not None:
            yield _draft(named, "side", where, [o], (o.label,), stand=stand, the=phrase.the)


def _on_top(named: NamedRoom) -> Iterator[Draft]:
    """What is on something; all of one class, in the plural where there are several."""
    clear = {o.id for o in named.objects}
    for lower in named.objects:
        others = [o for o in named.room.objects if o is not lower]
        verdicts = [rests_on(o, lower) for o in others]
        found = [o for o, verdict in zip(others, verdicts, strict=True) if verdict]
        phrase = named.name(lower, ATTRIBUTES) if found else None
        if phrase is None or None in verdicts or not clear.issuperset(o.id for o in found):
            continue
        label = found[0].label
        if all(o.label == label for o in found):
            answer = plural(label) if len(found) > 1 else label
            yield _draft(named, "on_top", answer, found, (lower.label,), the=phrase.the)


def _supports(named: NamedRoom) -> Iterator[Draft]:
    by_id = {o.id: o for o in named.objects}
    for upper in named.objects:
        lower = None if upper.on is None else by_id.get(upper.on)
        if lower is not None and rests_on(upper, lower):
            phrase = named.name(upper, ATTRIBUTES)
            if phrase is not None:
                key = (upper.label,)
                yield _draft(named, "support", lower.label, [lower], key, the=phrase.the)


def _room(named: NamedRoom) -> Iterator[Draft]:
    yield _draft(named, "room", named.room.kind, [], ())


def _between(named: NamedRoom) -> Iterator[Draft]:
    """The only object between two others, not counting what stands on it."""
    on_floor = [(o, phrase) for o, phrase in named.anchors if o.on is None]
    clear = {o.id for o in named.objects}
    for (a, first), (b, second) in combinations(on_floor, 2):
        others = [o for o in named.room.objects if o is not a and o is not b]
        verdicts = [(o, verdict) for o in others if (verdict := between(o, a, b)) is not False]
        found = [o for o, verdict in verdicts if verdict and o.on is None]
        if len(found) != 1 or found[0].id not in clear:
            continue
        if all(o is found[0] or o.on == found[0].id for o, _ in verdicts):
            key = tuple(sorted((a.label, b.label)))
            slots = {"first": first.the, "second": second.the}
            yield _draft(named, "between", found[0].label, found, key, **slots)


_PAIRS = 60
