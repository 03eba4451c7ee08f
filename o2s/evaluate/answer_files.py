"""Predicted answers and the questions that they belong to.

Predictions are a JSON list, or one JSON object a line, of

    {"question_id": "val-scene0011-0", "answer": "brown"}

or ScanQA's own {"question_id", "answer_top10": [...]}, whose first answer counts; LLaVA-3D's "text"
and Chat-Scene's "qid" and "pred" are understood as well. Texts are taken to the last blank as they
are: the variants of the metrics differ in what they clean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from o2s.datasets.language_files import json_entries
from o2s.errors import InputError
from o2s.evaluate.json_files import read_records
from o2s.io.cloud import quote


@dataclass(frozen=True)
class AskedQuestion:
    """A question with its reference answers, word for word as the file has them.

    `text` has no situation; `prompt` is what a model is asked, with SQA3D's situation before it.
    """

    id: str
    scene_id: str
    text: str
    prompt: str
    kind: str
    answers: tuple[str, ...]


def read_scanqa_questions(path: Path) -> list[AskedQuestion]:
    """The questions of a file in ScanQA's format, with ScanQA's kinds of questions.

    Entries may say their `kind` themselves, as those of `o2s rooms` do.

    Raises:
        InputError: the file is damaged, an id comes twice, or a question has no answers.
    """
    found: dict[str, AskedQuestion] = {}
    for entry in json_entries([path], "ScanQA"):
        identity, text = entry.id("question_id"), entry.text("question")
        answers = _answers(entry.at, entry.values.get("answers"))
        kind = entry.text("kind") if "kind" in entry.values else scanqa_kind(text)
        question = AskedQuestion(identity, entry.text("scene_id"), text, text, kind, answers)
        _add(found, question, entry.at)
    return _some(path, found)


def read_sqa3d_questions(questions: Path, annotations: Path) -> list[AskedQuestion]:
    """The questions of a pair of files in SQA3D's format, with its kinds of questions.

    Raises:
        InputError: as above, or the files do not belong together.
    """
    answers: dict[str, tuple[str, ...]] = {}
    for entry in json_entries([annotations], "SQA3D annotations", "annotations"):
        identity = entry.id("question_id")
        if identity in answers:
            raise InputError(f"{entry.at}question_id: {quote(identity)} comes twice")
        held = entry.values.get("answers")
        texts = [v.get("answer") if isinstance(v, dict) else v for v in held or ()]
        answers[identity] = _answers(entry.at, texts if isinstance(held, list) else held)
    found: dict[str, AskedQuestion] = {}
    for entry in json_entries([questions], "SQA3D questions", "questions"):
        identity, text = entry.id("question_id"), entry.text("question")
        if identity not in answers:
            raise InputError(
                f"{entry.at}question_id: {quote(identity)} is not in {annotations}; expected the "
                "annotations of these questions"
            )
        prompt = f"{entry.text('situation')} {text}"
        scene_id = entry.text("scene_id")
        question = AskedQuestion(
            identity, scene_id, text, prompt, sqa3d_kind(text), answers[identity]
        )
        _add(found, question, entry.at)
    surplus = next((identity for identity in answers if identity not in found), None)
    if surplus is not None:
        raise InputError(
            f"{annotations}: question_id {quote(surplus)} is not in {questions}; expected the "
            "annotations of its questions"
        )
    return _some(questions, found)


def scanqa_kind(question: str) -> str:
    """The kind of a question as ScanQA's scripts/score.py sorts them, in this order."""
    words = {
        **{"Where": "place", "How many": "number", "What color": "color"},
        **{"What is the color": "color", "What shape": "object nature"},
        **{"What type": "object nature", "What kind": "object nature", "What is": "object"},
    }
    return next((kind for beginning, kind in words.items() if beginning in question), "other")


def sqa3d_kind(question: str) -> str:
    """The kind of a question by how it begins, as SQA3D's readers sort them."""
    beginning = question.lstrip().lower()
    kinds = ("what", "is", "how", "can", "which")
    return next((kind for kind in kinds if beginning.startswith(kind)), "other")


def read_answers(path: Path) -> dict[str, str]:
    """Predicted answers by question id, in the order of the file.

    Raises:
        InputError: the file or an entry has another form, or an id comes twice.
    """
    answers: dict[str, str] = {}
    for at, entry in read_records(path, "predictions with question_id and answer"):
        identity = _pick(at, entry, _ID_KEYS, "question_id", _is_id)
        answer = _pick(at, entry, _ANSWER_KEYS, "answer", _is_answer)
        text = answer[0] if isinstance(answer, list) else answer
        if str(identity) in answers:
            raise InputError(f"{at}: question_id {quote(identity)} comes twice in the predictions")
        answers[str(identity)] = text
    return answers


def match_answers(
    reference: Sequence[AskedQuestion],
    answers: Mapping[str, str],
    path: Path,
    *,
    subset: bool = False,
    asked: Sequence[AskedQuestion] | None = None,
) -> tuple[list[AskedQuestion], list[str]]:
    """Questions and their predicted answers side by side, in the order of the questions.

    Args:
        reference: all questions of the reference.
        answers: by question id.
        path: stands in messages.
        subset: whether only the questions that have a prediction are meant.
        asked: those of the reference that need a prediction; all if not given.

    Raises:
        InputError: a prediction for an unknown question; a question without one.
    """
    questions = reference if asked is None else asked
    known = {question.id for question in reference}
    unknown = next((identity for identity in answers if identity not in known), None)
    if unknown is not None:
        raise InputError(
            f"{path}: question_id {quote(unknown)} is not in the reference; expected its "
            f"questions, such as {quote(questions[0].id)}"
        )
    missing = [question.id for question in questions if question.id not in answers]
    if missing and not subset:
        raise InputError(
            f"{path}: no prediction for {len(missing)} of {len(questions)} questions, first "
            f"{quote(missing[0])}; expected one each, or --subset to score only what is there"
        )
    chosen = [question for question in questions if question.id in answers]
    if not chosen:
        raise InputError(f"{path}: no predictions; expected one for each question")
    return chosen, [answers[question.id] for question in chosen]


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a text; half of a pair of code units, which JSON may name, is none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_ID_KEYS = ("question_id", "qid")
_ANSWER_KEYS = ("answer", "answer_top10", "text", "pred")


def _pick(
    at: str, entry: Mapping[str, Any], keys: Sequence[str], name: str, fits: Callable[[Any], bool]
) -> Any:
    """The value of the one key of `keys` that an entry has."""
    there = [key for key in keys if key in entry]
    if len(there) != 1:
        found = ", ".join(map(quote, there or list(entry)[:6])) or "no keys"
        raise InputError(f"{at}: {found}; expected the key {quote(name)} once")
    value = entry[there[0]]
    if not fits(value):
        raise InputError(f"{at}.{there[0]}: {quote(value)}; expected {_EXPECTED[name]}")
    return value


_EXPECTED = {"question_id": "a number or text", "answer": "a text"}


def _is_id(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number or (isinstance(value, str) and bool(value.strip()))


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_answer(v) and isinstance(v, str) for v in value)
    return is_text(value)


def _answers(at: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        shown = "missing" if values is None else quote(values)
        raise InputError(f"{at}answers: {shown}; expected a list of reference answers")
    wrong = next((v for v in values if not is_text(v)), None)
    if wrong is not None or None in values:
        raise InputError(f"{at}answers: {quote(wrong)}; expected texts")
    return tuple(values)


def _add(found: dict[str, AskedQuestion], question: AskedQuestion, at: str) -> None:
    if question.id in found:
        raise InputError(f"{at}question_id: {quote(question.id)} comes twice")
    found[question.id] = question


def _some(path: Path, found: Mapping[str, AskedQuestion]) -> list[AskedQuestion]:
    if not found:
        raise InputError(f"{path}: no questions; expected at least one")
    return list(found.values())
