"""English noun phrases for the objects of a room, and which of them tell an object apart.

An object may be spoken of only if every object of its class was scanned to at least `SEEN_ENOUGH`:
a chair that the scan hardly shows makes both "the chair" and "how many chairs" ambiguous.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations, product
from random import Random

from o2s.datasets.room_facts import SEEN_ENOUGH, RoomFacts, RoomObject
from o2s.datasets.room_relations import (
    SUPERLATIVES,
    Verdict,
    Viewpoint,
    against_wall,
    between,
    hangs_above,
    looking_in,
    most,
    nearest,
    next_to,
    rests_on,
    side,
    standing_at,
)

ATTRIBUTES = frozenset({"color", "material", "size"})
RELATIONS = frozenset({"place", "holding", "view"})
ON_WALLS = {
    *("door", "window", "curtain", "blinds", "mirror", "picture", "clock", "whiteboard"),
    *("shower curtain", "poster", "towel"),
}


@dataclass(frozen=True)
class Phrase:
    """A noun with what stands before and after it, without article."""

    noun: str
    before: str = ""
    after: str = ""

    @property
    def bare(self) -> str:
        return " ".join(filter(None, (self.before, self.noun, self.after)))

    @property
    def the(self) -> str:
        return f"the {self.bare}"

    @property
    def a(self) -> str:
        return with_article(self.bare)

    @property
    def many(self) -> str:
        return Phrase(plural(self.noun), self.before, self.after).bare


@dataclass(frozen=True)
class Clue:
    """Something true of an object, and whether it holds for each object of its class, by id.

    A clue of kind view says `where` the object is for someone who is told how to `stand`.
    """

    kind: str  # one of ATTRIBUTES or RELATIONS
    holds: Mapping[int, Verdict]
    before: str = ""
    after: str = ""
    where: str = ""
    stand: str = ""

    def phrase(self, noun: str, *others: "Clue") -> Phrase:
        """The noun with this clue and the others."""
        clues = (self, *others)
        before, after = ([getattr(c, name) for c in clues] for name in ("before", "after"))
        return Phrase(noun, " ".join(filter(None, before)), " ".join(filter(None, after)))


def with_article(noun: str) -> str:
    """The noun with a or an, by its first sound."""
    vowel = noun[0] in "aeiou" and not noun.startswith(("uni", "uri", "use", "eu", "one"))
    return f"{'an' if vowel or noun.startswith('hour') else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a noun, of which the last word is inflected."""
    if is_plural(noun):
        return noun
    if noun.endswith("shelf"):
        return f"{noun[:-1]}ves"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def is_plural(noun: str) -> bool:
    """Whether a name is a plural already, such as shoes or blinds."""
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is"))


def tells_apart(clues: Sequence[Clue], target: RoomObject, members: Iterable[RoomObject]) -> bool:
    """Whether the clues together hold for the target and surely for no other of its class."""
    return all(
        all(c.holds[o.id] is True for c in clues)
        if o.id == target.id
        else any(c.holds[o.id] is False for c in clues)
        for o in members
    )


def same_color(a: str | None, b: str | None) -> Verdict:
    """Whether two colours are one; None where one is unknown or people confuse the two."""
    if a is None or b is None:
        return None
    a, b = (color.replace("gray", "grey") for color in (a, b))
    if a == b:
        return True
    return None if frozenset((a, b)) in _CLOSE_COLORS else False


def same_material(a: str | None, b: str | None) -> Verdict:
    """Whether two materials are one; None where one is unknown."""
    return None if a is None or b is None else a == b


class NamedRoom:
    """A room with the names and clues of its objects.

    `objects` are those that may be spoken of, `members` all objects by class. Of the very many
    viewpoints a few are drawn with `rng`.
    """

    def __init__(self, room: RoomFacts, rng: Random) -> None:
        self.room = room
        self.rng = rng
        self.members: dict[str, list[RoomObject]] = defaultdict(list)
        for o in room.objects:
            self.members[o.label].append(o)
        self.objects = [o for o in room.objects if self.is_clear(o.label)]
        self._clues: dict[int, list[Clue]] = {}
        self._names: dict[tuple[int, frozenset[str]], list[Phrase]] = {}

    def is_clear(self, label: str) -> bool:
        """Whether a class may be spoken of: all of its objects are seen, its name is a singular."""
        if is_plural(label) or label in self.room.unseen:
            return False
        if any(
            o.label != label and (o.fine or "").startswith(f"{label} of ")
            for o in self.room.objects
        ):
            return False  # a vase of flowers is a plant, and people would count it as a vase
        return all(o.seen >= SEEN_ENOUGH for o in self.members.get(label, ()))

    @cached_property
    def anchors(self) -> list[tuple[RoomObject, Phrase]]:
        """The objects that can be named by their class alone, or with their colour."""
        found = []
        for o in self.objects:
            members = self.members[o.label]
            color = self._colors(o)
            if len(members) == 1:
                found.append((o, Phrase(o.label)))
            elif color and tells_apart(color, o, members):
                found.append((o, color[0].phrase(o.label)))
        return found

    @cached_property
    def views(self) -> list[tuple[str, Viewpoint, frozenset[int]]]:
        """How to stand, the view that gives, and the objects that it names; at most `_VIEWS`."""
        found = []
        on_floor = [(o, p) for o, p in self.anchors if o.on is None]
        for (a, at), (b, towards) in permutations(on_floor, 2):
            view = standing_at(a, b)
            if view is not None and a.label != b.label and a.label not in ON_WALLS - {"window"}:
                found.append((f"stand at {at.the} facing {towards.the}", view, {a.id, b.id}))
        self.rng.shuffle(found)
        for o, phrase in self.anchors:
            view = looking_in(o, self.room.floor) if o.label == "door" else None
            if view is not None:
                found.insert(0, (f"stand at {phrase.the} looking in", view, {o.id}))
        return [(stand, view, frozenset(ids)) for stand, view, ids in found[:_VIEWS]]

    def name(self, o: RoomObject, allowed: Collection[str]) -> Phrase | None:
        """A phrase that only this object answers to, with clues of the allowed kinds.

        The class alone where that will do, else the class and one clue, else an attribute and a
        relation; None where nothing tells it apart.
        """
        kinds = frozenset(allowed)
        if (o.id, kinds) not in self._names:
            self._names[o.id, kinds] = self._phrases(o, kinds)
        names = self._names[o.id, kinds]
        return self.rng.choice(names) if names else None

    def clues(self, o: RoomObject) -> list[Clue]:
        """All clues that hold for an object that may be spoken of."""
        if o.id not in self._clues:
            found = [*self._attributes(o), *self._places(o), *self._holding(o), *self._sides(o)]
            self._clues[o.id] = list({(c.before, c.after): c for c in found}.values())
        return self._clues[o.id]

    def _attributes(self, o: RoomObject) -> list[Clue]:
        members = self.members[o.label]
        found = self._colors(o)
        if o.material is not None:
            holds = {p.id: same_material(o.material, p.material) for p in members}
            found.append(Clue("material", holds, before=_ADJECTIVES.get(o.material, o.material)))
        for word, compare in ({} if o.label in ON_WALLS else SUPERLATIVES).items():
            if most(members, compare) is o:
                found.append(Clue("size", {p.id: p is o for p in members}, before=word))
        return found

    def _phrases(self, o: RoomObject, kinds: frozenset[str]) -> list[Phrase]:
        members = self.members[o.label]
        if len(members) == 1:
            return [Phrase(o.label)]
        clues = [c for c in self.clues(o) if c.kind in kinds]
        single = [c.phrase(o.label) for c in clues if tells_apart([c], o, members)]
        if single:
            return single
        attributes, relations = (
            [c for c in clues if c.kind in group] for group in (ATTRIBUTES, RELATIONS)
        )
        pairs = product(attributes, relations)
        return [c.phrase(o.label, d) for c, d in pairs if tells_apart((c, d), o, members)]

    def _colors(self, o: RoomObject) -> list[Clue]:
        if o.color is None:
            return []
        holds = {p.id: same_color(o.color, p.color) for p in self.members[o.label]}
        return [Clue("color", holds, before=o.color)]

    def _places(self, o: RoomObject) -> list[Clue]:
        found: list[Clue] = []
        members = self.members[o.label]

        def add(after: str, test: Callable[[RoomObject], Verdict]) -> None:
            if test(o) is True:
                found.append(Clue("place", {p.id: test(p) for p in members}, after=after))

        anchors = [(a, phrase.the) for a, phrase in self.anchors if a.label != o.label]
        for anchor, the in anchors:
            add(f"next to {the}", lambda p, a=anchor: next_to(p, a))
            add(f"on {the}", lambda p, a=anchor: rests_on(p, a))
            add(f"above {the}", lambda p, a=anchor: hangs_above(p, a))
            if len(members) > 1 and nearest(anchor, members) is o:
                add(f"closest to {the}", lambda p: p is o)
        if o.on is None:
            on_floor = [(a, the) for a, the in anchors if a.on is None]
            for (a, first), (b, second) in combinations(on_floor, 2):
                add(f"between {first} and {second}", lambda p, a=a, b=b: between(p, a, b))
            if o.label not in ON_WALLS:
                add("against the wall", lambda p: against_wall(p, self.room.floor))
        return found

    def _holding(self, o: RoomObject) -> list[Clue]:
        found = []
        for label in dict.fromkeys(p.label for p in self.objects if p.on == o.id):
            holds = {
                lower.id: _any(rests_on(upper, lower) for upper in self.members[label])
                for lower in self.members[o.label]
            }
            if holds[o.id] and label != o.label:
                found.append(Clue("holding", holds, after=f"with {with_article(label)} on it"))
        return found

    def _sides(self, o: RoomObject) -> list[Clue]:
        found = []
        members = self.members[o.label]
        for stand, view, named in self.views:
            where = side(view, o)
            if where is None or any(p.id in named for p in members):
                continue
            seen = {p.id: side(view, p) for p in members}
            holds = {i: None if s is None else s == where for i, s in seen.items()}
            words = WHERE[where]
            found.append(
                Clue("view", holds, after=f"{words} when you {stand}", where=words, stand=stand)
            )
        return found


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    values = list(verdicts)
    if True in values:
        return True
    return None if None in values else False


WHERE = {
    "in front": "in front of you",
    "left": "on your left",
    "behind": "behind you",
    "right": "on your right",
}
_VIEWS = 24
_ADJECTIVES = {"wood": "wooden"}
_CLOSE_COLORS = {
    frozenset(pair)
    for pair in (
        *(("grey", "white"), ("grey", "black"), ("grey", "silver"), ("grey", "beige")),
        *(("white", "beige"), ("white", "silver"), ("beige", "brown"), ("beige", "yellow")),
        *(("beige", "orange"), ("beige", "pink"), ("brown", "black"), ("brown", "orange")),
        *(("brown", "red"), ("orange", "red"), ("orange", "yellow"), ("yellow", "green")),
        *(("red", "pink"), ("pink", "purple"), ("purple", "blue"), ("blue", "green")),
    )
}
