"""Questions and descriptions of random rooms, judged by a reader that knows plain geometry only."""

import ast
import csv
import io
import re
from collections import Counter, defaultdict
from dataclasses import replace
from random import Random

import pytest
from room_language_fake import make_object, make_room, mirrored, random_room, scaled
from room_language_reader import (
    NOUN,
    SINGULAR,
    STANCE,
    SUPERLATIVES,
    WORD,
    distance,
    is_between,
    meant,
    quarter,
    stance,
    things,
)

from o2s.datasets.room_descriptions import (
    NR3D_COLUMNS,
    nr3d_rows,
    tokens,
    write_captions,
    write_descriptions,
)
from o2s.datasets.room_facts import RoomFacts
from o2s.datasets.room_phrases import NamedRoom, plural
from o2s.datasets.room_question_kinds import Draft, draft_questions, usual_contents
from o2s.datasets.room_questions import WEIGHTS, majority_em, write_questions
from o2s.datasets.room_wordings import load_wordings
from o2s.words import NUMBERS

ROOMS = [random_room(seed) for seed in range(24)]
BY_NAME = {room.name: room for room in ROOMS}
QUESTIONS = write_questions(ROOMS, 0, 40, held_out=True)
DESCRIPTIONS = write_descriptions(ROOMS, 0, held_out=True)


def of_kind(kind: str) -> list[tuple[RoomFacts, dict]]:
    found = [(BY_NAME[q["scene_id"]], q) for q in QUESTIONS if q["kind"] == kind]
    assert len(found) >= 12, kind
    return found


def is_seen(room: RoomFacts, label: str) -> bool:
    return all(o.seen >= 0.15 for o in room.objects if o.label == label)


def all_drafts(rooms: list[RoomFacts], seed: int = 0) -> list[Draft]:
    usual = usual_contents(rooms)
    return [
        draft
        for room in rooms
        for draft in draft_questions(NamedRoom(room, Random(seed)), usual[room.kind])
    ]


def test_the_format_is_that_of_scanqa() -> None:
    numbers: Counter[str] = Counter()
    for q in QUESTIONS:
        keys = (
            "scene_id",
            "question_id",
            "question",
            "answers",
            "object_ids",
            "object_names",
            "kind",
        )
        assert tuple(q) == keys
        assert q["question_id"] == f"train-{q['scene_id']}-{numbers[q['scene_id']]}"
        numbers[q["scene_id"]] += 1
        labels = {o.id: o.label for o in BY_NAME[q["scene_id"]].objects}
        assert [labels[i] for i in q["object_ids"]] == q["object_names"]
        assert "{" not in q["question"]
        assert q["question"][0].isupper()
    assert max(numbers.values()) <= 40
    assert {q["kind"] for q in QUESTIONS} == WEIGHTS.keys()
    texts = [(q["scene_id"], q["question"]) for q in QUESTIONS]
    assert len(set(texts)) == len(texts)


def test_existence_and_counts_equal_a_recount() -> None:
    for room, q in of_kind("existence"):
        found = meant(room, q["question"])
        assert q["answers"] == ["yes" if found else "no"]
        assert q["object_ids"] == [o.id for o in found]
    for room, q in of_kind("count"):
        found = meant(room, q["question"])
        assert q["answers"] == [NUMBERS[len(found) - 1]]
        assert is_seen(room, found[0].label)
        assert q["object_ids"] == [o.id for o in found]


def test_colors_and_materials_are_asked_of_one_object() -> None:
    for kind in ("color", "material"):
        for room, q in of_kind(kind):
            (found,) = meant(room, q["question"], q["object_names"][0])
            assert [found.id] == q["object_ids"]
            assert q["answers"] == [getattr(found, kind)]
            assert is_seen(room, found.label)


def test_comparisons_are_clear() -> None:
    sizes = {"taller": "tallest", "shorter": "shortest", "larger": "largest", "smaller": "smallest"}
    for room, q in of_kind("compare"):
        first, second = things(room, q["question"])
        (more,) = re.findall("|".join(sizes), q["question"])
        size = SUPERLATIVES[sizes[more]]
        winner, loser = (first, second) if size(first) > size(second) else (second, first)
        ratio = size(winner) / size(loser)
        assert max(ratio, 1 / ratio) > 1.2
        assert things(room, f"the {q['answers'][0]}") == [winner]


def test_the_nearest_is_nearest_by_a_margin() -> None:
    for room, q in of_kind("nearest"):
        (anchor,) = things(room, q["question"])
        others = [o for o in room.objects if o is not anchor]
        first = min(others, key=lambda o: distance(anchor, o))
        assert first.on != anchor.id != first.id != anchor.on
        assert (q["answers"], q["object_ids"]) == ([first.label], [first.id])
        rest = [distance(anchor, o) for o in others if o.label != first.label]
        assert min(rest) > 1.25 * distance(anchor, first)


def test_sides_are_as_seen_from_the_stated_place() -> None:
    for room, q in of_kind("side"):
        text = q["question"]
        view = stance(room, text)
        assert view is not None
        (target,) = things(room, STANCE.sub("", text))
        assert q["answers"] == [quarter(target, *view)]
        assert q["object_ids"] == [target.id]


def test_what_is_on_what() -> None:
    for room, q in of_kind("on_top"):
        (lower,) = things(room, q["question"])
        found = [o for o in room.objects if o.on == lower.id]
        assert q["object_ids"] == [o.id for o in found]
        (label,) = {o.label for o in found}
        assert q["answers"] == [label if len(found) == 1 else plural(label)]
    for room, q in of_kind("support"):
        (upper,) = things(room, q["question"])
        assert (q["object_ids"], len(q["object_names"])) == ([upper.on], 1)
        assert q["answers"] == q["object_names"]


def test_only_one_thing_is_between() -> None:
    for room, q in of_kind("between"):
        a, b = things(room, q["question"])
        others = [o for o in room.objects if o not in (a, b)]
        (found,) = (o for o in others if is_between(o, a, b) and o.on not in {e.id for e in others})
        assert (q["answers"], q["object_ids"]) == ([found.label], [found.id])


def test_rooms_are_asked_for() -> None:
    for room, q in of_kind("room"):
        assert q["answers"] == [room.kind]


def test_plain_ties_are_not_asked() -> None:
    """A desk with a chair on each side, equally far; two brown chairs, one of a mixed colour."""
    desk = make_object(0, "desk", (3.0, 3.0, 0.4, 1.0, 1.0, 0.8))
    left, right = (
        make_object(i, "chair", (x, 3.0, 0.5, 0.5, 0.5, 1.0), color="brown")
        for i, x in ((1, 1.5), (2, 4.5))
    )
    stool = make_object(3, "stool", (3.0, 4.5, 0.5, 0.5, 0.5, 1.0), color="beige")
    drafts = all_drafts([make_room([desk, left, right, stool])])
    texts = [(d.kind, d.slots.get("the"), d.answer) for d in drafts]
    assert ("nearest", "the desk", "chair") not in texts
    assert ("nearest", "the stool", "desk") in texts
    assert not any("closest" in str(d.slots) for d in drafts)
    mixed = replace(right, color=None)
    drafts = all_drafts([make_room([desk, left, mixed, stool])])
    assert not [
        d for d in drafts if "brown chairs" in d.slots.get("many", "") and d.kind == "count"
    ]
    silent = replace(right, seen=0.1)
    drafts = all_drafts([make_room([desk, left, silent, stool])])
    assert not any("chair" in str(d.slots) or d.answer == "chair" for d in drafts)


def test_scale_changes_no_answer_and_mirrors_only_left_and_right() -> None:
    swap = {"left": "right", "right": "left"}

    def turn(d: Draft) -> tuple:
        text = re.sub("left|right", lambda m: swap[m[0]], str(sorted(d.slots.items())))
        return d.kind, swap.get(d.answer, d.answer), text

    for room in ROOMS[:8]:
        drafts = all_drafts([room])
        big = all_drafts([scaled(room, 2.0)])
        assert [replace(d, objects=()) for d in big] == [replace(d, objects=()) for d in drafts]
        turned = all_drafts([mirrored(room)])
        assert [turn(d) for d in turned] == [
            (d.kind, d.answer, str(sorted(d.slots.items()))) for d in drafts
        ]
        assert any(d.answer in swap for d in drafts)
    plain = write_questions(ROOMS[:8], 0, 20, held_out=False)
    assert write_questions([scaled(r, 0.5) for r in ROOMS[:8]], 0, 20, held_out=False) == plain


def test_guessing_is_poor() -> None:
    rooms = [random_room(seed) for seed in range(60)]
    questions = write_questions(rooms, 1, 12, held_out=False)
    assert len(questions) == 12 * len(rooms)
    shares = majority_em(questions)
    assert max(shares["all"], shares["by words"]) <= 0.35
    assert shares["existence"] == 0.5
    assert max(shares["count"], shares["color"], shares["side"], shares["nearest"]) <= 1 / 3
    others = write_questions([random_room(100 + i) for i in range(20)], 1, 12, held_out=True)
    transfer = majority_em(others, questions)
    assert max(transfer["all"], transfer["by words"]) <= 0.35


def test_existence_is_yes_as_often_as_no_whatever_is_asked_for() -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, q in of_kind("existence"):
        text = re.sub(rf"on the (?:{WORD} )*", "on the ", q["question"])
        key = [w for w in re.findall(rf"\b(?:{NOUN}|{WORD}|on)\b", text) if w]
        answers[str([SINGULAR.get(w, w) for w in key])].update(q["answers"])
    assert all(count["yes"] == count["no"] for count in answers.values())


def test_majority_em_counts() -> None:
    def question(kind: str, text: str, answer: str, *names: str) -> dict:
        return {"kind": kind, "question": text, "answers": [answer], "object_names": list(names)}

    questions = [question("count", "How many chairs?", "two", "chair")] * 4
    questions += [question("count", "How many beds?", "one", "bed")] * 5
    questions += [question("compare", "Is the red bed or the chair larger?", "red bed", "bed")] * 2
    questions += [question("compare", "Is the red bed or the chair larger?", "chair", "bed")]
    shares = majority_em(questions)
    assert shares["count"] == 5 / 9
    assert shares["compare"] == 2 / 3
    assert shares["all"] == 7 / 12
    assert shares["by words"] == 11 / 12
    assert majority_em(questions[:4], questions[4:]) == {"count": 0, "all": 0, "by words": 0}
    assert majority_em([]) == {}


def is_of(text: str, wordings: tuple[str, ...]) -> bool:
    """Whether a text can be one of the wordings."""
    for wording in wordings:
        pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(wording))
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return True
    return False


@pytest.mark.parametrize("held_out", [False, True])
def test_held_out_wordings_stay_out_of_training(held_out: bool) -> None:
    wordings = load_wordings()
    questions = write_questions(ROOMS[:12], 0, 20, held_out=held_out)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for q in questions:
        kinds[q["kind"]].append(is_of(q["question"], wordings.questions[q["kind"]].held_out))
    for kind, new in kinds.items():
        assert abs(sum(new) - held_out * len(new) / 2) <= 0.5, kind
    every = tuple(w for kind in wordings.descriptions.values() for w in kind.held_out)
    descriptions = write_descriptions(ROOMS[:12], 0, held_out)
    share = sum(is_of(d["description"], every) for d in descriptions) / len(descriptions)
    assert (share > 0.35) if held_out else (share == 0)


def test_everything_is_the_same_for_a_seed() -> None:
    assert write_questions(ROOMS[:5], 3, 9, True) == write_questions(ROOMS[:5], 3, 9, True)
    assert write_questions(ROOMS[:5], 3, 9, True) != write_questions(ROOMS[:5], 4, 9, True)
    assert write_descriptions(ROOMS[:5], 3, True) == write_descriptions(ROOMS[:5], 3, True)
    assert write_descriptions(ROOMS[:5], 3, True) != write_descriptions(ROOMS[:5], 4, True)
    assert write_captions(ROOMS[:5], 3, True) == write_captions(ROOMS[:5], 3, True)


def test_descriptions_single_out_one_object() -> None:
    described = defaultdict(set)
    for d in DESCRIPTIONS:
        room = BY_NAME[d["scene_id"]]
        label = d["object_name"].replace("_", " ")
        found = meant(room, d["description"], label)
        assert [str(o.id) for o in found] == [d["object_id"]], d["description"]
        assert is_seen(room, label)
        described[d["scene_id"], d["object_id"]].add(d["description"])
    assert all(len(texts) == 3 for texts in described.values())
    assert len(described) > 0.8 * sum(len(room.objects) for room in ROOMS)


def test_twins_get_no_description_but_a_caption() -> None:
    twins = [make_object(i, "chair", (x, 3.0, 0.5, 0.5, 0.5, 1.0)) for i, x in ((0, 2.0), (1, 5.0))]
    door = make_object(2, "door", (3.5, 0.02, 1.0, 0.9, 0.1, 2.0))
    room = make_room([*twins, door])
    assert {d["object_name"] for d in write_descriptions([make_room(twins)], 0, False)} == set()
    assert {d["object_name"] for d in write_descriptions([room], 0, False)} == {"door"}
    captions = write_captions([room], 0, False)
    assert [c["object_id"] for c in captions] == ["0", "1", "2"]
    assert all("red chair" in c["description"] for c in captions[:2])
    (row,) = write_descriptions([make_room(twins[:1])], 0, False, per_object=1)
    assert "chair" in row["description"]


@pytest.mark.parametrize(
    "fine, used",
    [("office chair", True), ("white chair", False), ("chair 2", False), ("seat", False)],
)
def test_a_finer_name_is_used_if_it_only_adds_to_the_class(fine: str, used: bool) -> None:
    chair = make_object(0, "chair", (2.0, 3.0, 0.5, 0.5, 0.5, 1.0), fine=fine)
    (caption,) = write_captions([make_room([chair])], 0, False)
    assert (fine in caption["description"]) == used
    assert caption["object_name"] == "chair"


def test_captions_are_true() -> None:
    for caption in write_captions(ROOMS, 0, held_out=False):
        room = BY_NAME[caption["scene_id"]]
        found = meant(room, caption["description"], caption["object_name"].replace("_", " "))
        assert caption["object_id"] in [str(o.id) for o in found]


def test_the_formats_are_those_of_scanrefer_and_nr3d() -> None:
    keys = ("scene_id", "object_id", "object_name", "ann_id", "description", "token")
    assert all(tuple(d) == keys for d in DESCRIPTIONS)
    assert [d["ann_id"] for d in DESCRIPTIONS[:6]] == ["0", "1", "2"] * 2
    assert "tv_stand" in {d["object_name"] for d in DESCRIPTIONS}
    assert tokens("This is the TV stand, isn't it?") == [
        *("this", "is", "the", "tv", "stand", ",", "isn't", "it", "?")
    ]
    rows = nr3d_rows(DESCRIPTIONS, ROOMS)
    text = io.StringIO()
    writer = csv.DictWriter(text, NR3D_COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    text.seek(0)
    read = list(csv.DictReader(text))
    assert len(read) == len(rows) > 100
    for row in read:
        room = BY_NAME[row["scan_id"]]
        labels = [o.label for o in room.objects]
        target = next(o for o in room.objects if o.id == int(row["target_id"]))
        assert labels.count(row["instance_type"]) > 1
        assert row["instance_type"] == target.label
        assert ast.literal_eval(row["tokens"]) == tokens(row["utterance"])


def test_nothing_is_said_of_a_class_with_unseen_members() -> None:
    rooms = [random_room(seed) for seed in range(12)]
    hidden = [replace(room, unseen=("chair",)) for room in rooms]
    assert any("chair" in q["object_names"] for q in write_questions(rooms, 0, 30, False))
    assert not any("chair" in q["question"] for q in write_questions(hidden, 0, 30, False))
    assert not any(d["object_name"] == "chair" for d in write_descriptions(hidden, 0, False))


def test_what_people_would_count_otherwise_is_not_asked_for() -> None:
    place = (1.0, 1.0, 0.5, 0.4, 0.4, 0.9)
    others = [make_object(i, "vase", (1.0 + i, 3.0, *place[2:])) for i in (1, 2)]
    flowers = make_room([make_object(0, "plant", place, fine="vase of flowers"), *others])
    assert not any(o.label == "vase" for o in NamedRoom(flowers, Random(0)).objects)
    plain = make_room([make_object(0, "plant", place, fine="fern"), *others])
    assert sum(o.label == "vase" for o in NamedRoom(plain, Random(0)).objects) == 2

    def counted(fine: str) -> list[Draft]:
        room = make_room([make_object(0, "box", place, fine=fine)])
        return [d for d in all_drafts([room]) if d.kind == "count"]

    assert counted("box")
    assert not counted("pile of boxes")
