import json
from pathlib import Path

import pytest

from o2s.errors import InputError
from o2s.evaluate.answer_files import (
    match_answers,
    read_answers,
    read_scanqa_questions,
    read_sqa3d_questions,
    scanqa_kind,
    sqa3d_kind,
)

QUESTION = {
    "scene_id": "scene0011_00",
    "question_id": "val-scene0011-0",
    "question": "What color is the chair?",
    "answers": [" Brown", "brown"],
    "object_ids": [5],
}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_reference_answers_stay_as_they_are(tmp_path: Path) -> None:
    [question] = read_scanqa_questions(write(tmp_path / "q.json", [QUESTION]))
    assert question.answers == (" Brown", "brown")
    assert (question.id, question.kind) == ("val-scene0011-0", "color")


def test_questions_may_say_their_kind(tmp_path: Path) -> None:
    other = {**QUESTION, "question_id": "1", "kind": "hue"}
    found = read_scanqa_questions(write(tmp_path / "q.json", [QUESTION, other]))
    assert [question.kind for question in found] == ["color", "hue"]
    with pytest.raises(InputError, match="kind: '5', expected a text"):
        read_scanqa_questions(write(tmp_path / "q.json", [{**other, "kind": 5}]))


@pytest.mark.parametrize(
    "question, kind",
    [
        ("Where is the chair?", "place"),
        ("How many chairs are Where?", "place"),
        ("How many chairs are there?", "number"),
        ("What color is it?", "color"),
        ("What is the color of it?", "color"),
        ("What type of chair is it?", "object nature"),
        ("What is on the table?", "object"),
        ("what is on the table?", "other"),
        ("Is it red?", "other"),
    ],
)
def test_kinds_of_scanqa(question: str, kind: str) -> None:
    assert scanqa_kind(question) == kind


@pytest.mark.parametrize(
    "question, kind",
    [
        ("  What is left?", "what"),
        ("Is it?", "is"),
        ("how far", "how"),
        ("CAN I", "can"),
        ("Which one", "which"),
        ("Am I", "other"),
    ],
)
def test_kinds_of_sqa3d(question: str, kind: str) -> None:
    assert sqa3d_kind(question) == kind


def test_sqa3d_is_joined_and_asks_with_the_situation(tmp_path: Path) -> None:
    asked = {"question_id": 7, "scene_id": "s", "situation": "I stand.", "question": "Is it red?"}
    questions = write(tmp_path / "q.json", {"questions": [asked]})
    annotation = {"question_id": 7, "answers": [{"answer": "no "}]}
    annotations = write(tmp_path / "a.json", {"annotations": [annotation]})
    [question] = read_sqa3d_questions(questions, annotations)
    assert question.answers == ("no ",)
    assert question.prompt == "I stand. Is it red?"
    other = write(tmp_path / "b.json", {"annotations": [{**annotation, "question_id": 8}]})
    with pytest.raises(InputError, match=r"question_id: .7. is not in .*b\.json"):
        read_sqa3d_questions(questions, other)
    both = {"annotations": [annotation, {**annotation, "question_id": 8}]}
    with pytest.raises(InputError, match=r"question_id .8. is not in .*q\.json"):
        read_sqa3d_questions(questions, write(tmp_path / "c.json", both))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"question_id": "a", "answer": " x "}, {"question_id": 2, "answer": ""}]),
        '{"question_id": "a", "answer": " x "}\n\n{"question_id": 2, "answer": ""}\n',
        json.dumps([{"question_id": "a", "answer_top10": [" x ", "y"]}, {"qid": 2, "pred": ""}]),
        json.dumps([{"question_id": "a", "text": " x "}, {"question_id": "2", "text": ""}]),
    ],
)
def test_predictions_of_several_forms(tmp_path: Path, text: str) -> None:
    assert read_answers(write(tmp_path / "p.json", text)) == {"a": " x ", "2": ""}


@pytest.mark.parametrize(
    "value, message",
    [
        ("not json", "not JSON"),
        ('{"question_id": "a", "answer": "x"}\n{"question', "line 2: not JSON"),
        ("[1, 2", "not JSON"),
        ("[1]", r"\[0\]: .1."),
        ('{"question_id": "a", "question_id": "b", "answer": "x"}', "'question_id' comes twice"),
        ([{"question_id": "a", "answer": "x"}] * 2, r"\[1\]: question_id 'a' comes twice"),
        ([{"answer": "x"}], r"\[0\]: 'answer'; expected the key 'question_id'"),
        ([{"question_id": "a", "anwser": "x"}], "expected the key 'answer'"),
        ([{"question_id": "a", "answer": "x", "text": "y"}], "expected the key 'answer' once"),
        ([{"question_id": "a", "answer": None}], "answer: .None.; expected a text"),
        ([{"question_id": "a", "answer": 3}], "answer: .3.; expected a text"),
        ([{"question_id": "a", "answer_top10": []}], "expected a text"),
        ([{"question_id": True, "answer": "x"}], "expected a number or text"),
        ([{"question_id": "a", "answer": "\ud800"}], "expected a text"),
    ],
)
def test_a_wrong_prediction_is_one_line(tmp_path: Path, value: object, message: str) -> None:
    path = write(tmp_path / "p.json", value)
    with pytest.raises(InputError, match=message) as raised:
        read_answers(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_answers(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read_answers(tmp_path)
    (tmp_path / "latin").write_bytes(b"[\xe9]")
    with pytest.raises(InputError, match="not UTF-8"):
        read_answers(tmp_path / "latin")


@pytest.mark.parametrize("answers", [None, [], "brown", [3], [None]])
def test_a_reference_without_answers_is_refused(tmp_path: Path, answers: object) -> None:
    path = write(tmp_path / "q.json", [{**QUESTION, "answers": answers}])
    with pytest.raises(InputError, match=r"\[0\].answers: .*expected"):
        read_scanqa_questions(path)


def test_a_reference_with_an_id_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[1\].question_id: .*comes twice"):
        read_scanqa_questions(write(tmp_path / "q.json", [QUESTION, QUESTION]))
    with pytest.raises(InputError, match="no questions"):
        read_scanqa_questions(write(tmp_path / "e.json", []))


def test_predictions_must_answer_the_questions(tmp_path: Path) -> None:
    entries = [{**QUESTION, "question_id": name} for name in "abc"]
    questions = read_scanqa_questions(write(tmp_path / "q.json", entries))
    path = tmp_path / "p.json"
    matched, answers = match_answers(questions, {"c": "3", "a": "1", "b": "2"}, path, subset=False)
    assert [q.id for q in matched] == ["a", "b", "c"]
    assert answers == ["1", "2", "3"]
    with pytest.raises(InputError, match="'z' is not in the reference"):
        match_answers(questions, {"a": "1", "z": "2"}, path, subset=True)
    with pytest.raises(InputError, match="no prediction for 2 of 3 questions, first 'b'"):
        match_answers(questions, {"a": "1"}, path, subset=False)
    matched, answers = match_answers(questions, {"b": "2"}, path, subset=True)
    assert ([q.id for q in matched], answers) == (["b"], ["2"])
    with pytest.raises(InputError, match="no predictions"):
        match_answers(questions, {}, path, subset=True)
    everything = {"c": "3", "a": "1", "b": "2"}
    matched, answers = match_answers(questions, everything, path, asked=questions[1:2])
    assert ([q.id for q in matched], answers) == (["b"], ["2"])
    with pytest.raises(InputError, match="no prediction for 1 of 1 questions, first 'b'"):
        match_answers(questions, {"a": "1"}, path, asked=questions[1:2])
