"""Questions about rooms in ScanQA's format, balanced so that guessing without the room is poor.

More questions are drafted than wanted. Those with two possible answers are taken in pairs, one of
each from the same words, so that "Is there a lamp?" is yes as often as no; the rest are
taken by turns over the words of the question and over the answers, and no answer is given to much
more than its share of the questions of a kind. See `majority_em`.
"""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from o2s.datasets.room_facts import RoomFacts
from o2s.datasets.room_phrases import NamedRoom, plural
from o2s.datasets.room_question_kinds import Draft, draft_questions, usual_contents
from o2s.datasets.room_wordings import WordingChooser, Wordings, fill, load_wordings

Question = dict[str, Any]

WEIGHTS = {  # of the kinds, as far as a set of rooms has enough of each
    "existence": 2.0,
    "count": 2.0,
    "color": 2.0,
    "material": 1.0,
    "compare": 2.0,
    "nearest": 2.0,
    "side": 2.0,
    "on_top": 1.0,
    "support": 1.0,
    "room": 0.5,
    "between": 1.0,
}
IN_PAIRS = ("existence", "compare")
PAIRS_SHARE = 0.15  # of all wanted questions, the most that each kind in pairs may have
ANSWER_SHARE = 0.28  # of a kind's questions, the most that one answer may have, and one more


def write_questions(
    rooms: Sequence[RoomFacts],
    seed: int,
    per_room: int,
    held_out: bool,
    wordings: Wordings | None = None,
) -> list[Question]:
    """Questions about rooms, at most `per_room` each: scene_id, question_id, question, answers,
    object_ids and object_names as in ScanQA, and `kind`, one of `WEIGHTS`.

    With `held_out`, for val and test, every second wording is one that training never has. Rooms
    are balanced as a set: what a room lacks is asked for where other rooms of its kind have it, so
    a single room has no question whose answer is no.
    """
    wordings = wordings or load_wordings()
    usual = usual_contents(rooms)
    drafts: list[Draft] = []
    for room in rooms:
        named = NamedRoom(room, Random(f"{seed} {room.name}"))
        drafts += draft_questions(named, usual[room.kind])
    rng = Random(seed)
    picked = _in_turn(_pick(drafts, per_room, len(rooms), rng))
    chooser = WordingChooser(wordings.questions, rng, held_out=held_out)
    by_scene: dict[str, list[tuple[Draft, str]]] = defaultdict(list)
    for draft in picked:
        wording = chooser.next(draft.kind) or ""
        by_scene[draft.scene].append((draft, fill(wording, draft.slots)))
    return [
        {
            "scene_id": room.name,
            "question_id": f"{room.split}-{room.name}-{number}",
            "question": text,
            "answers": [draft.answer],
            "object_ids": [o.id for o in draft.objects],
            "object_names": [o.label for o in draft.objects],
            "kind": draft.kind,
        }
        for room in rooms
        for number, (draft, text) in enumerate(by_scene[room.name])
    ]


def majority_em(
    questions: Sequence[Question], train: Sequence[Question] | None = None
) -> dict[str, float]:
    """Exact match, 0 to 1, of guessers who never see a room.

    Under each kind and "all": always the most frequent answer of the kind, where "the first of the
    two" is an answer to a comparison. Under "by words": the most frequent answer to questions of
    the kind that name the same classes and colours, where there are `_OFTEN` of them, else that of
    the kind. Frequencies are those of `train`; without it of the questions themselves, so that "by
    words" is an upper bound.
    """
    train = questions if train is None else train
    vocabulary = _vocabulary([*questions, *train])
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    by_words: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for q in train:
        by_kind[q["kind"]].update(_answers(q, vocabulary)[:1])
        by_words[_words(q, vocabulary)].update(_answers(q, vocabulary)[:1])
    hits: dict[str, list[bool]] = defaultdict(list)
    for q in questions:
        guess = _most_frequent(by_kind[q["kind"]])
        hit = guess in _answers(q, vocabulary)
        hits[q["kind"]].append(hit)
        hits["all"].append(hit)
        alike = by_words[_words(q, vocabulary)]
        if alike.total() >= _OFTEN:
            hit = _most_frequent(alike) in _answers(q, vocabulary)
        hits["by words"].append(hit)
    return {name: sum(found) / len(found) for name, found in sorted(hits.items())}


def _pick(drafts: Iterable[Draft], per_room: int, rooms: int, rng: Random) -> list[Draft]:
    """Of the surplus, units from each kind by its weight, until the rooms are full."""
    by_kind: dict[str, list[Draft]] = {kind: [] for kind in WEIGHTS}
    for draft in drafts:
        by_kind[draft.kind].append(draft)
    queues = {kind: deque(_units(kind, of, rng)) for kind, of in by_kind.items()}
    tries = {kind: _TRIES * len(queue) for kind, queue in queues.items()}
    picked: list[Draft] = []
    in_room: Counter[str] = Counter()
    in_kind: Counter[str] = Counter()
    answers: Counter[tuple[str, str]] = Counter()

    shares = {}
    for kind, of in by_kind.items():
        different = len({draft.answer for draft in of})
        shares[kind] = max(ANSWER_SHARE, 1.1 / different) if different > 1 else ANSWER_SHARE

    def fits(unit: Sequence[Draft]) -> bool:
        kind = unit[0].kind
        after = in_kind[kind] + len(unit)
        if kind in IN_PAIRS and after > max(2.0, PAIRS_SHARE * per_room * rooms):
            return False
        most = shares[kind] * after + 1
        added = Counter(draft.answer for draft in unit)
        return all(answers[kind, answer] + n <= most for answer, n in added.items())

    while any(queues.values()):
        kind = min((k for k in queues if queues[k]), key=lambda k: in_kind[k] / WEIGHTS[k])
        unit = queues[kind].popleft()
        tries[kind] -= 1
        scenes = Counter(draft.scene for draft in unit)
        if any(in_room[scene] + n > per_room for scene, n in scenes.items()):
            continue
        if not fits(unit):
            if tries[kind] > 0:
                queues[kind].append(unit)
            continue
        picked += unit
        in_room.update(scenes)
        in_kind[kind] += len(unit)
        answers.update((kind, draft.answer) for draft in unit)
    return picked


def _in_turn(drafts: Iterable[Draft]) -> list[Draft]:
    """The drafts, with the answer of every second comparison named first."""
    found: list[Draft] = []
    comparisons = 0
    for draft in drafts:
        if draft.kind == "compare":
            names = sorted(
                (draft.slots["first"], draft.slots["second"]),
                key=lambda name: (name == f"the {draft.answer}") == bool(comparisons % 2),
            )
            draft = replace(draft, slots={**draft.slots, "first": names[0], "second": names[1]})
            comparisons += 1
        found.append(draft)
    return found


def _units(kind: str, drafts: Iterable[Draft], rng: Random) -> list[list[Draft]]:
    """What is taken together, in the order in which to take it.

    The drafts of a key are dealt in rounds, one of each way a round. A round of several ways gives
    no hint; one of a single way comes last, and not at all for the kinds that are taken in pairs.
    """
    by_key: dict[tuple[str, ...], dict[str, list[Draft]]] = defaultdict(lambda: defaultdict(list))
    for draft in drafts:
        by_key[draft.key][draft.way].append(draft)
    ranked: list[tuple[bool, int, float, list[Draft]]] = []
    for ways in by_key.values():
        for of_way in ways.values():
            rng.shuffle(of_way)
        for number in range(max(map(len, ways.values()))):
            dealt = [of_way[number] for of_way in ways.values() if len(of_way) > number]
            rng.shuffle(dealt)
            alone = len(dealt) == 1
            if kind in IN_PAIRS and not alone:
                ranked.append((False, number, rng.random(), dealt[:2]))
            elif kind not in IN_PAIRS:
                ranked += [(alone, number, rng.random(), [draft]) for draft in dealt]
    return [unit for *_, unit in sorted(ranked, key=lambda entry: entry[:3])]


def _most_frequent(counts: Counter[str]) -> str:
    """The first in the alphabet among equals; empty if there is none."""
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")


def _vocabulary(questions: Iterable[Question]) -> re.Pattern[str]:
    """All classes and colours that occur, the longest first."""
    words: set[str] = set()
    for q in questions:
        words.update(form for name in q["object_names"] for form in (name, plural(name)))
        words.update(q["answers"] if q["kind"] == "color" else ())
    longest = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b")


def _words(question: Question, vocabulary: re.Pattern[str]) -> tuple[str, ...]:
    """The kind and what the question names, in the plural."""
    found = vocabulary.findall(question["question"].lower())
    return (question["kind"], *sorted(plural(word) for word in found))


def _answers(question: Question, vocabulary: re.Pattern[str]) -> list[str]:
    """The answers; to a comparison, which of the two that it names is the answer."""
    if question["kind"] != "compare":
        return question["answers"]
    text = question["question"].lower()
    first = vocabulary.search(text)
    named = re.search(rf"\bthe {re.escape(question['answers'][0])}\b", text)
    is_first = first and named and named.start() < first.start()
    return ["first" if is_first else "second"]


_OFTEN = 4
_TRIES = 4
