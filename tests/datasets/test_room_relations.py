"""Facts, and relations against their definitions, written plainly."""

import json
import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from room_language_fake import make_object, make_room, mirrored, random_room, scaled

from o2s.datasets.room_facts import RoomObject, from_json, to_json
from o2s.datasets.room_relations import (
    SIDES,
    Viewpoint,
    against_wall,
    between,
    hangs_above,
    larger,
    looking_in,
    most,
    nearest,
    next_to,
    rests_on,
    side,
    smaller,
    standing_at,
    surface_distance,
    taller,
)
from o2s.errors import InputError

ROOMS = [random_room(seed) for seed in range(12)]
SWAPPED = {"left": "right", "right": "left"}


def chair(number: int, x: float, y: float, *size: float, **changes: object) -> RoomObject:
    w, d, h = size or (0.5, 0.5, 1.0)
    box = tuple(map(float, (x, y, h / 2, w, d, h)))
    return make_object(number, "chair", box, **changes)


def plain_distance(a: RoomObject, b: RoomObject) -> float:
    (pa, sa), (pb, sb) = ((np.array(o.box[:3]), np.array(o.box[3:])) for o in (a, b))
    apart = np.maximum(pb - sb / 2 - (pa + sa / 2), pa - sa / 2 - (pb + sb / 2))
    return float(np.linalg.norm(np.maximum(apart, 0)))


def plain_angle(view: Viewpoint, x: float, y: float) -> float:
    """Counter-clockwise from where the viewer looks, in degrees from -180 to 180."""
    turn = math.atan2(y - view.y, x - view.x) - math.atan2(view.ahead_y, view.ahead_x)
    return (math.degrees(turn) + 180) % 360 - 180


def corners(o: RoomObject) -> list[tuple[float, float]]:
    x, y, _, w, d, _ = o.box
    return [(x + i * w / 2, y + j * d / 2) for i in (-1, 1) for j in (-1, 1)]


def test_facts_survive_json() -> None:
    for room in ROOMS:
        assert from_json(json.loads(json.dumps(to_json(room)))) == room


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"kind": ""}, "room.kind is ''; expected a text"),
        ({"split": "dev"}, "room.split is 'dev'; expected train, val or test"),
        ({"floor": [[0, 0], [1, 0]]}, "room.floor is .*; expected three or more corners"),
        ({"floor": [[0, 0], [1, 0], [0, float("nan")]]}, r"room\.floor is"),
        ({"walls": 4}, "unknown key 'walls'"),
        ({"objects": [3]}, r"room scene0000_00: objects\[0\]: '3'; expected a mapping"),
        ({"objects": {}}, "room.objects is '{}'; expected a list"),
    ],
)
def test_a_broken_room_is_one_line(change: dict, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        from_json({**to_json(make_room([])), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"id": True}, r"objects\[1\]\.id is 'True'; expected a whole number"),
        ({"id": 0}, r"objects\[1\]\.id is 0; expected an id of its own"),
        ({"on": 7}, r"objects\[1\]\.on is 7; expected another object's id"),
        ({"on": 1}, r"objects\[1\]\.on is 1; expected another object's id"),
        ({"seen": 1.5}, "seen is '1.5'; expected a number from 0 to 1"),
        ({"box": [0, 0, 0, 1, 1]}, "box is .*; expected centre and size"),
        ({"box": [0, 0, 0, 1, 1, 0]}, "box is .*; expected centre and size"),
        ({"color": 3}, "color is '3'; expected a text or null"),
        ({"label": None}, "label is 'None'; expected a text"),
    ],
)
def test_a_broken_object_is_one_line(change: dict, expected: str) -> None:
    values = to_json(make_room([chair(0, 1, 1), chair(1, 3, 3)]))
    values["objects"][1] |= change
    with pytest.raises(InputError, match=expected):
        from_json(values)
    with pytest.raises(InputError, match="'5'; expected a mapping"):
        from_json(5)
    del values["objects"][0]["fine"]
    with pytest.raises(InputError, match=r"objects\[0\]: no key 'fine'"):
        from_json(values)


@pytest.mark.parametrize("room", ROOMS[:6], ids=lambda room: room.name)
def test_distances_and_the_nearest(room: object) -> None:
    for a in room.objects:
        others = [o for o in room.objects if o is not a]
        for b in others:
            assert surface_distance(a, b) == pytest.approx(plain_distance(a, b))
        ranked = sorted(others, key=lambda o: plain_distance(a, o))
        first, second = (plain_distance(a, o) for o in ranked[:2])
        clear = second > 1.25 * first and second - first > 0.1 * max(a.box[3:])
        assert nearest(a, others) is (ranked[0] if clear else None)


@pytest.mark.parametrize("room", ROOMS[:6], ids=lambda room: room.name)
def test_sides_are_angles(room: object) -> None:
    axes = {"in front": 0, "left": 90, "behind": 180, "right": -90}
    seen = set()
    for a, b in permutations(room.objects, 2):
        view = standing_at(a, b)
        if view is None:
            continue
        assert plain_angle(view, b.box[0], b.box[1]) == pytest.approx(0, abs=1e-6)
        for o in room.objects:
            expected = None
            for name, axis in axes.items():
                off = [abs((plain_angle(view, *p) - axis + 180) % 360 - 180) for p in corners(o)]
                middle = abs((plain_angle(view, *o.box[:2]) - axis + 180) % 360 - 180)
                if middle <= 30 and max(off) < 90:
                    expected = name
            assert side(view, o) == expected
            seen.add(expected)
    assert seen == {*SIDES, None}


@pytest.mark.parametrize("room", ROOMS[:6], ids=lambda room: room.name)
def test_between_is_a_corridor(room: object) -> None:
    for a, b in permutations(room.objects[:12], 2):
        pa, pb = np.array(a.box[:2]), np.array(b.box[:2])
        width = min(max(a.box[3:5]), max(b.box[3:5])) / 2
        for o in room.objects:
            if o is a or o is b or np.allclose(pa, pb):
                continue
            p = np.array(o.box[:2])
            share = float((p - pa) @ (pb - pa) / ((pb - pa) @ (pb - pa)))
            aside = float(np.linalg.norm(p - (pa + share * (pb - pa))))
            verdict = between(o, a, b)
            if verdict is True:
                assert 0.25 - 1e-9 <= share <= 0.75 + 1e-9
                assert aside <= width + 1e-9
                assert all(abs(o.box[2] - e.box[2]) <= (o.box[5] + e.box[5]) / 2 for e in (a, b))
            elif 0.26 < share < 0.74 and aside < 0.99 * width and verdict is False:
                assert any(abs(o.box[2] - e.box[2]) > (o.box[5] + e.box[5]) / 2 for e in (a, b))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_mirrors_swap_left_and_right_and_scales_change_nothing(room: object) -> None:
    turned, large = mirrored(room), scaled(room, 3.7)
    pairs = list(permutations(range(len(room.objects)), 2))
    swapped = 0
    for i, j in pairs:
        views = [standing_at(r.objects[i], r.objects[j]) for r in (room, turned, large)]
        assert len({v is None for v in views}) == 1
        if views[0] is None:
            continue
        for a, b, c in zip(room.objects, turned.objects, large.objects, strict=True):
            here, there, far = (side(v, o) for v, o in zip(views, (a, b, c), strict=True))
            assert there == SWAPPED.get(here, here)
            assert far == here
            swapped += here in SWAPPED
    assert swapped
    for relation in (next_to, rests_on, hangs_above, taller, larger):
        for i, j in pairs:
            found = {relation(r.objects[i], r.objects[j]) for r in (room, turned, large)}
            assert len(found) == 1
    for triple in zip(room.objects, turned.objects, large.objects, strict=True):
        floors = (room.floor, turned.floor, large.floor)
        assert len({against_wall(o, f) for o, f in zip(triple, floors, strict=True)}) == 1


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    "at, size, ahead",
    [
        ((3.0, 0.0), (0.9, 0.1), (0, 1)),
        ((3.0, 6.0), (0.9, 0.1), (0, -1)),
        ((0.0, 3.0), (0.1, 0.9), (1, 0)),
        ((7.0, 5.4), (0.1, 0.9), (-1, 0)),
    ],
)
def test_from_the_door_one_looks_into_the_room(
    turn: int, at: tuple[float, float], size: tuple[float, float], ahead: tuple[int, int]
) -> None:
    room = make_room([make_object(0, "door", (*at, 1.0, *size, 2.0))])
    view = looking_in(room.objects[0], room.floor[::turn])
    assert view is not None
    assert (view.ahead_x, view.ahead_y) == pytest.approx(ahead)


@pytest.mark.parametrize("box", [(3.0, 3.0, 1.0, 0.9, 0.1, 2.0), (3.0, 0.0, 1.0, 0.8, 0.8, 2.0)])
def test_a_door_that_is_in_no_wall_gives_no_view(box: tuple[float, ...]) -> None:
    room = make_room([make_object(0, "door", box)])
    assert looking_in(room.objects[0], room.floor) is None


def test_ties_are_not_called() -> None:
    a, left, right = chair(0, 3, 3), chair(1, 2, 3), chair(2, 4, 3)
    assert nearest(a, [left, right]) is None
    assert nearest(a, [left, chair(2, 4.6, 3)]) is left
    assert nearest(a, []) is None
    assert taller(a, left) is larger(a, left) is smaller(a, left) is None
    assert taller(a, chair(3, 0, 0, 0.5, 0.5, 0.8)) is True
    assert taller(a, chair(3, 0, 0, 0.5, 0.5, 0.85)) is None
    assert most([a, left, right], taller) is None
    assert most([a, chair(3, 0, 0, 0.5, 0.5, 0.8), chair(4, 0, 0, 0.5, 0.5, 0.7)], taller) is a
    assert most([a], taller) is None
    view = standing_at(a, right)
    assert view is not None
    assert side(view, chair(3, 4, 4, 0.1, 0.1, 1)) is None  # on the diagonal
    assert side(view, chair(3, 3, 5)) == "left"
    assert side(view, chair(3, 3, 4, 0.5, 3, 1)) is None  # reaches past the viewer
    assert standing_at(a, chair(3, 3.2, 3.2)) is None


def test_larger_allows_for_boxes_of_turned_objects() -> None:
    straight = chair(0, 0, 0, 1.0, 1.0, 1.0)
    small = chair(1, 0, 0, 1.2, 1.2, 1.0)
    assert larger(small, straight) is True
    turned = chair(1, 0, 0, 1.2, 1.2, 1.0, heading=math.radians(40))
    assert larger(turned, straight) is None  # its sides may be 0.85 long
    assert larger(chair(2, 0, 0, 1.2, 1.2, 1.0, heading=math.pi / 2), straight) is True


def test_next_to_and_against_the_wall() -> None:
    a, room = chair(0, 1, 3, 1, 1, 1), make_room([])
    assert [next_to(a, chair(1, x, 3, 1, 1, 1)) for x in (2.2, 2.3, 2.4)] == [True, None, False]
    shelf = make_object(1, "shelf", (1.0, 3.0, 2.0, 1.0, 1.0, 0.5))
    assert next_to(a, shelf) is False  # high above
    assert [against_wall(chair(0, x, 3, 1, 1, 1), room.floor) for x in (0.6, 0.7, 0.9)] == [
        True,
        None,
        False,
    ]
    assert against_wall(chair(0, 0, 3, 1, 1, 1), room.floor) is True  # in the wall


def test_on_and_above_need_the_record_and_the_boxes() -> None:
    table = make_object(0, "table", (1.0, 1.0, 0.4, 1.0, 1.0, 0.8))

    def lamp(z: float, on: int | None = 0, x: float = 1.0) -> RoomObject:
        return make_object(1, "lamp", (x, 1.0, z, 0.2, 0.2, 0.2), on=on)

    assert rests_on(lamp(0.9), table) is True
    assert rests_on(lamp(0.9, None), table) is None
    assert rests_on(lamp(0.9, x=2.0), table) is False
    assert rests_on(lamp(0.3, None), table) is None  # half inside
    assert rests_on(lamp(0.1, None), table) is False  # under it
    assert rests_on(lamp(1.9), table) is False
    assert hangs_above(lamp(1.9), table) is True
    assert hangs_above(lamp(1.9, None), table) is None
    assert hangs_above(lamp(0.3), table) is False
    bed = make_object(0, "bed", (1.0, 1.0, 0.5, 2.0, 1.5, 1.0))
    assert rests_on(lamp(0.6), bed) is True  # below the headboard
    assert rests_on(lamp(0.6), make_object(0, "table", bed.box)) is None


def test_an_objects_own_size_counts_more_than_its_scanned_box() -> None:
    """A chair of which the scan shows the legs alone is still the taller one."""
    half_seen = replace(chair(1, 0, 0, 0.5, 0.5, 0.4), size=(0.5, 0.5, 1.0))
    box = chair(2, 2, 0, 0.5, 0.5, 0.6)
    assert taller(half_seen, box) is True
    assert larger(half_seen, box) is True
    assert taller(replace(half_seen, size=None), box) is False


def test_sizes_and_unseen_classes_survive_json() -> None:
    room = make_room([replace(chair(1, 0, 0), size=(0.5, 0.4, 1.0))], unseen=("lamp",))
    assert from_json(json.loads(json.dumps(to_json(room)))) == room
