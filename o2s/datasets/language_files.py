"""The files of ScanQA, SQA3D, ScanRefer and Nr3D: questions and descriptions of ScanNet's scenes.

    ScanQA     JSON, a list of {scene_id, question_id, question, answers[], object_ids[]}; the test
               files have neither answers nor object_ids
    SQA3D      two JSON files joined on question_id: {"questions": [{question_id, scene_id,
               situation, question}]} and {"annotations": [{question_id, answers: [{answer}],
               position {x, y, z}, rotation {_x, _y, _z, _w}}]}
    ScanRefer  JSON, a list of {scene_id, object_id, object_name, ann_id, description}; ids are
               texts, names have underscores for spaces
    Nr3D       CSV with the columns scan_id, target_id, instance_type, assignmentid, utterance

Further keys and columns are passed over. Texts are kept as they are but for white space around
them; ids become texts. A file of another format is one InputError that names the file, the entry
(`[5].question` is the question of entry 5, counted from 0) and what was expected.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o2s.errors import InputError
from o2s.io.cloud import quote


@dataclass(frozen=True)
class Question:
    """One question about a scene; `answers` is empty in the test files of a benchmark.

    `situation` says where SQA3D's asker stands, `position` (x, y, z) and `rotation` (the quaternion
    x, y, z, w) the same in numbers, in the coordinates of the file.
    """

    source: str
    id: str
    scene_id: str
    text: str
    answers: tuple[str, ...] = ()
    object_ids: tuple[str, ...] = ()
    situation: str | None = None
    position: tuple[float, ...] | None = None
    rotation: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Description:
    """One sentence about one object of a scene."""

    source: str
    id: str
    scene_id: str
    object_id: str
    object_name: str
    text: str


def read_scanqa(paths: Sequence[Path]) -> list[Question]:
    """The questions of ScanQA's files, in their order.

    Raises:
        InputError: a file is missing, damaged or of another format, or a question id comes twice.
    """
    found: list[Question] = []
    ids: dict[str, str] = {}
    for entry in json_entries(paths, "ScanQA"):
        question = Question(
            source="scanqa",
            id=entry.id("question_id"),
            scene_id=entry.text("scene_id"),
            text=entry.text("question"),
            answers=entry.texts("answers"),
            object_ids=entry.ids("object_ids"),
        )
        _claim(ids, question.id, entry, "question_id")
        found.append(question)
    return found


def read_sqa3d(pairs: Sequence[tuple[Path, Path | None]]) -> list[Question]:
    """The questions of SQA3D's pairs of files, in the order of the questions.

    Without a file of annotations, as with a question that is in none, there are no answers.

    Raises:
        InputError: as `read_scanqa`; or annotations of questions that are not there.
    """
    found: list[Question] = []
    ids: dict[str, str] = {}
    for questions, annotations in pairs:
        answers: dict[str, Entry] = {}
        answered: dict[str, str] = {}
        if annotations is not None:
            for entry in json_entries([annotations], "SQA3D annotations", "annotations"):
                _claim(answered, entry.id("question_id"), entry, "question_id")
                answers[entry.id("question_id")] = entry
        for entry in json_entries([questions], "SQA3D questions", "questions"):
            identity = entry.id("question_id")
            _claim(ids, identity, entry, "question_id")
            found.append(_situated(entry, answers.pop(identity, None)))
        if answers:
            surplus = next(iter(answers))
            raise InputError(
                f"{annotations}: question_id {quote(surplus)} is not in {questions}; expected the "
                "annotations of its questions"
            )
    return found


def find_sqa3d(paths: Sequence[Path], split: str) -> list[tuple[Path, Path | None]]:
    """SQA3D's pairs of questions and annotations out of what a user named.

    That is a folder, in which they are found by their names (`v1_balanced_questions_train_…json`
    and `v1_balanced_sqa_annotations_train_…json`, the latter not needed), the two files, or several
    folders and pairs; or one file of questions alone.

    Raises:
        InputError: a folder without such a file or with several; files that make no pairs.
    """
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if not path.is_dir()]
    pairs: list[tuple[Path, Path | None]] = []
    for folder in folders:
        questions = sorted(folder.rglob(f"*questions_{split}*.json"))
        annotations = sorted(folder.rglob(f"*annotations_{split}*.json"))
        if len(questions) != 1 or len(annotations) > 1:
            raise InputError(
                f"{folder}: {len(questions)} files named *questions_{split}*.json and "
                f"{len(annotations)} named *annotations_{split}*.json, expected one of each"
            )
        pairs.append((questions[0], annotations[0] if annotations else None))
    if len(files) == 1:
        return [*pairs, (files[0], None)]
    if len(files) % 2:
        raise InputError(
            f"{files[-1]}: the last of {len(files)} SQA3D files; expected pairs of questions and "
            "annotations, or a folder"
        )
    return [*pairs, *zip(files[::2], files[1::2], strict=True)]


def read_scanrefer(paths: Sequence[Path]) -> list[Description]:
    """The descriptions of ScanRefer's files (or of others' in its format), in their order.

    Raises:
        InputError: as `read_scanqa`, where scene, object and ann_id together make the id.
    """
    found: list[Description] = []
    ids: dict[str, str] = {}
    for entry in json_entries(paths, "ScanRefer"):
        scene_id, object_id = entry.text("scene_id"), entry.id("object_id")
        description = Description(
            source="scanrefer",
            id=f"scanrefer-{scene_id}-{object_id}-{entry.id('ann_id')}",
            scene_id=scene_id,
            object_id=object_id,
            object_name=" ".join(entry.text("object_name").replace("_", " ").split()),
            text=entry.text("description"),
        )
        _claim(ids, description.id, entry, "scene_id, object_id and ann_id together,")
        found.append(description)
    return found


def read_nr3d(paths: Sequence[Path]) -> list[Description]:
    """The utterances of Nr3D's CSV files, in their order.

    All rows are taken, also where the listener guessed wrong or the target's class is not
    mentioned.

    Raises:
        InputError: as `read_scanqa`, where assignmentid is the id.
    """
    found: list[Description] = []
    ids: dict[str, str] = {}
    for entry in _csv_entries(paths):
        description = Description(
            source="nr3d",
            id=f"nr3d-{entry.id('assignmentid')}",
            scene_id=entry.text("scan_id"),
            object_id=entry.id("target_id"),
            object_name=entry.text("instance_type").replace("_", " "),
            text=entry.text("utterance"),
        )
        _claim(ids, description.id, entry, "assignmentid")
        found.append(description)
    return found


@dataclass(frozen=True)
class Entry:
    """The values of one entry of a file; `at` says where it stands, up to its keys.

    Each method takes the value of a key, or raises an InputError that says what was expected.
    """

    kind: str
    at: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        return self._text(key, self.values.get(key))

    def id(self, key: str) -> str:
        return self._id(key, self.values.get(key))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._text(f"{key}[{i}]", v) for i, v in enumerate(self._list(key)))

    def ids(self, key: str) -> tuple[str, ...]:
        return tuple(self._id(f"{key}[{i}]", v) for i, v in enumerate(self._list(key)))

    def answers(self) -> tuple[str, ...]:
        """SQA3D's, which are mappings with the key `answer`."""
        values = [v.get("answer") if isinstance(v, dict) else v for v in self._list("answers")]
        return tuple(self._text(f"answers[{i}].answer", v) for i, v in enumerate(values))

    def numbers(self, key: str, names: Sequence[str]) -> tuple[float, ...]:
        held = self.values.get(key)
        values = [held.get(name) for name in names] if isinstance(held, dict) else []
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(names) or not all(map(math.isfinite, numbers)):
            raise self.wrong(key, held, f"the numbers {', '.join(names)}")
        return tuple(map(float, numbers))

    def wrong(self, key: str, found: object, expected: str) -> InputError:
        shown = "missing" if found is None else quote(found)
        fields = ", ".join(_KEYS[self.kind])
        return InputError(
            f"{self.at}{key}: {shown}, expected {expected}; {self.kind} entries hold {fields}"
        )

    def _list(self, key: str) -> list[Any]:
        values = self.values.get(key)
        if values is None:
            return []
        if not isinstance(values, list):
            raise self.wrong(key, values, "a list")
        return values

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, value, "a text")
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a pair, which JSON may name and no file can hold
            raise self.wrong(key, value.encode("utf-8", "replace"), "a text") from None
        return value.strip()

    def _id(self, key: str, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, value, "a number or text")
        return value.strip()


def json_entries(paths: Sequence[Path], kind: str, key: str | None = None) -> Iterator[Entry]:
    """The entries of JSON files that hold a list, or a mapping with a list under `key`.

    Raises:
        InputError: a file is missing, is not JSON, or holds anything else.
    """
    fields = ", ".join(_KEYS[kind])
    for path in paths:
        text = _read(path, kind)
        try:
            held = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(f"{path}: not JSON; expected the {kind} format") from None
        values = held.get(key) if key is not None and isinstance(held, dict) else held
        if not isinstance(values, list):
            where = "a list" if key is None else f'a list under "{key}"'
            raise InputError(f"{path}: not {where}; expected the {kind} format, with {fields}")
        for number, value in enumerate(values):
            at = f"{path}: {key or ''}[{number}]"
            if not isinstance(value, dict):
                shown = quote(value)
                raise InputError(f"{at}: {shown}; expected a {kind} entry with {fields}")
            yield Entry(kind, f"{at}.", value)


_KEYS = {
    "ScanQA": ("scene_id", "question_id", "question", "answers", "object_ids"),
    "SQA3D questions": ("question_id", "scene_id", "situation", "question"),
    "SQA3D annotations": ("question_id", "answers", "position", "rotation"),
    "ScanRefer": ("scene_id", "object_id", "object_name", "ann_id", "description"),
    "Nr3D": ("scan_id", "target_id", "instance_type", "assignmentid", "utterance"),
    "question": ("question",),
    "Scan2Inst": ("scene_id", "object_id", "object_name", "task_type", "conversations"),
}


def _situated(question: Entry, annotation: Entry | None) -> Question:
    scene_id = question.text("scene_id")
    answers, position, rotation = (), None, None
    if annotation is not None:
        if annotation.values.get("scene_id", scene_id) != scene_id:
            raise annotation.wrong("scene_id", annotation.values["scene_id"], quote(scene_id))
        answers = annotation.answers()
        position = annotation.numbers("position", ("x", "y", "z"))
        rotation = annotation.numbers("rotation", ("_x", "_y", "_z", "_w"))
    return Question(
        source="sqa3d",
        id=question.id("question_id"),
        scene_id=scene_id,
        text=question.text("question"),
        answers=answers,
        situation=question.text("situation"),
        position=position,
        rotation=rotation,
    )


def _claim(ids: dict[str, str], identity: str, entry: Entry, key: str) -> None:
    """Note an id, or refuse it where it was there before."""
    if identity in ids:
        raise InputError(
            f"{entry.at.rstrip('., ')}: {key} {quote(identity)} comes twice, first in "
            f"{ids[identity]}; expected one entry for each"
        )
    ids[identity] = entry.at.rstrip("., ")


def _csv_entries(paths: Sequence[Path]) -> Iterator[Entry]:
    for path in paths:
        rows = csv.DictReader(io.StringIO(_read(path, "Nr3D"), newline=""), strict=True)
        try:
            lacking = [name for name in _KEYS["Nr3D"] if name not in (rows.fieldnames or ())]
            if lacking:
                names = ", ".join(map(quote, lacking))
                raise InputError(f"{path}: no column {names}; expected the columns of Nr3D's CSV")
            for row in rows:
                at = f"{path}: line {rows.line_num}"
                if None in row or None in row.values():
                    count = len(rows.fieldnames or ())
                    raise InputError(f"{at}: not {count} values; expected one for each column")
                yield Entry("Nr3D", f"{at}, ", row)
        except csv.Error as error:
            raise InputError(
                f"{path}: line {rows.reader.line_num}: not CSV ({error}); expected Nr3D's file"
            ) from None


def _read(path: Path, kind: str) -> str:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; expected a file in the {kind} format")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; expected the {kind} format") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
