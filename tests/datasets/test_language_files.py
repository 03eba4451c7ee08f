"""Readers of ScanQA, SQA3D, ScanRefer and Nr3D: what they keep, what they refuse."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from o2s.datasets.language_files import (
    Description,
    Question,
    find_sqa3d,
    read_nr3d,
    read_scanqa,
    read_scanrefer,
    read_sqa3d,
)
from o2s.errors import InputError

SCANQA = {
    "answers": ["dark brown", "brown"],
    "object_ids": [4, 5],
    "object_names": ["chair", "chair"],
    "question": " What color is the chair? ",
    "question_id": "val-scene0011-0",
    "scene_id": "scene0011_00",
}
SCANREFER = {
    "scene_id": "scene0000_00",
    "object_id": "5",
    "object_name": "kitchen_cabinets",
    "ann_id": "0",
    "description": "these are brown cabinets. they are above the sink.",
    "token": ["these", "are"],
}
SITUATED = {
    "scene_id": "scene0380_00",
    "situation": "Sitting at the edge of the bed",
    "alternative_situation": ["I am on the bed."],
    "question": "Can I see myself in the mirror?",
    "question_id": 220602000000,
}
ANNOTATED = {
    "scene_id": "scene0380_00",
    "question_id": 220602000000,
    "answers": [{"answer": "no", "answer_confidence": "yes", "answer_id": 1}],
    "position": {"x": -0.97, "y": 0.2, "z": 0},
    "rotation": {"_x": 0, "_y": 0, "_z": -0.99, "_w": 0.1},
}
NR3D = {
    "assignmentid": "2",
    "stimulus_id": "scene0525_00-plant-5-9-10-11-12-13",
    "utterance": 'the "plant", far left',
    "instance_type": "plant",
    "scan_id": "scene0525_00",
    "target_id": "9",
    "tokens": "['the', 'plant', 'far', 'left']",
}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_sqa3d(folder: Path, questions: list[Any], annotations: list[Any]) -> tuple[Path, Path]:
    return (
        write(folder / "questions.json", {"questions": questions}),
        write(folder / "annotations.json", {"annotations": annotations}),
    )


def test_scanqa(tmp_path: Path) -> None:
    test_entry = {k: SCANQA[k] for k in ("scene_id", "question")} | {"question_id": "test-1"}
    first = write(tmp_path / "a.json", [SCANQA])
    second = write(tmp_path / "b.json", [test_entry])
    question, unanswered = read_scanqa([first, second])
    assert question == Question(
        source="scanqa",
        id="val-scene0011-0",
        scene_id="scene0011_00",
        text="What color is the chair?",
        answers=("dark brown", "brown"),
        object_ids=("4", "5"),
    )
    assert (unanswered.answers, unanswered.object_ids) == ((), ())


def test_scanrefer(tmp_path: Path) -> None:
    (description,) = read_scanrefer([write(tmp_path / "a.json", [SCANREFER])])
    assert description == Description(
        source="scanrefer",
        id="scanrefer-scene0000_00-5-0",
        scene_id="scene0000_00",
        object_id="5",
        object_name="kitchen cabinets",
        text="these are brown cabinets. they are above the sink.",
    )


def test_nr3d(tmp_path: Path) -> None:
    (description,) = read_nr3d([write_csv(tmp_path / "nr3d.csv", [NR3D])])
    assert description == Description(
        source="nr3d",
        id="nr3d-2",
        scene_id="scene0525_00",
        object_id="9",
        object_name="plant",
        text='the "plant", far left',
    )


def test_sqa3d_is_joined_on_the_question_id(tmp_path: Path) -> None:
    later = {**SITUATED, "question_id": 7}
    pair = write_sqa3d(tmp_path, [later, SITUATED], [ANNOTATED])
    unanswered, question = read_sqa3d([pair])
    assert question == Question(
        source="sqa3d",
        id="220602000000",
        scene_id="scene0380_00",
        text="Can I see myself in the mirror?",
        answers=("no",),
        situation="Sitting at the edge of the bed",
        position=(-0.97, 0.2, 0.0),
        rotation=(0.0, 0.0, -0.99, 0.1),
    )
    assert (unanswered.id, unanswered.answers, unanswered.position) == ("7", (), None)
    assert [q.answers for q in read_sqa3d([(pair[0], None)])] == [(), ()]


def test_sqa3d_is_found_in_a_folder(tmp_path: Path) -> None:
    inner = tmp_path / "sqa_task" / "balanced"
    names = (
        "v1_balanced_questions_{}_scannetv2.json",
        "v1_balanced_sqa_annotations_{}_scannetv2.json",
    )
    train = tuple(write(inner / name.format("train"), []) for name in names)
    val = write(inner / names[0].format("val"), [])
    assert find_sqa3d([tmp_path], "train") == [train]
    assert find_sqa3d([tmp_path], "val") == [(val, None)]
    assert find_sqa3d(train, "val") == [train]
    assert find_sqa3d([tmp_path, *train], "val") == [(val, None), train]
    assert find_sqa3d([val], "train") == [(val, None)]
    with pytest.raises(InputError, match=r"0 files named \*questions_test\*.json and 0 named"):
        find_sqa3d([tmp_path], "test")
    with pytest.raises(InputError, match="the last of 3 SQA3D files; expected pairs"):
        find_sqa3d([*train, val], "train")


def changed(entry: dict[str, Any], **values: Any) -> dict[str, Any]:
    """An entry with other values; None takes a key out."""
    return {k: v for k, v in (entry | values).items() if v is not None}


@pytest.mark.parametrize(
    "read, value, expected",
    [
        (read_scanqa, {"questions": []}, "not a list; expected the ScanQA format"),
        (read_scanqa, [SCANQA, 7], "[1]: '7'; expected a ScanQA entry with scene_id, question_id"),
        (read_scanqa, [SCANREFER], "[0].question_id: missing, expected a number or text; ScanQA"),
        (read_scanqa, [changed(SCANQA, question=7)], "[0].question: '7', expected a text"),
        (read_scanqa, [changed(SCANQA, answers="no")], "[0].answers: 'no', expected a list"),
        (read_scanqa, [changed(SCANQA, answers=["a", ""])], "[0].answers[1]: '', expected a text"),
        (read_scanqa, [changed(SCANQA, object_ids=[True])], "[0].object_ids[0]: 'True', expected"),
        (read_scanqa, [SCANQA, SCANQA], "[1]: question_id 'val-scene0011-0' comes twice, first in"),
        (read_scanrefer, [SCANQA], "[0].object_id: missing, expected a number or text; ScanRefer"),
        (read_scanrefer, [changed(SCANREFER, description=" ")], "[0].description: ' ', expected"),
        (read_scanrefer, [SCANREFER] * 2, "'scanrefer-scene0000_00-5-0' comes twice, first in"),
    ],
)
def test_damaged_json_is_one_line(
    tmp_path: Path, read: Callable[[list[Path]], Any], value: Any, expected: str
) -> None:
    path = write(tmp_path / "file.json", value)
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        read([path])
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_id_in_two_files_names_both(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, [SCANQA]) for name in ("a.json", "b.json")]
    with pytest.raises(InputError, match=r"b\.json: \[0\]: .* twice, first in .*a\.json: \[0\]"):
        read_scanqa(paths)


@pytest.mark.parametrize(
    "question, annotation, expected",
    [
        (changed(SITUATED, situation=None), ANNOTATED, "questions[0].situation: missing"),
        (SITUATED, changed(ANNOTATED, question_id=8), "question_id '8' is not in"),
        (SITUATED, changed(ANNOTATED, scene_id="x"), "scene_id: 'x', expected 'scene0380_00'"),
        (SITUATED, changed(ANNOTATED, answers=[{}]), "annotations[0].answers[0].answer: missing"),
        (SITUATED, changed(ANNOTATED, position={"x": 1}), "position: \"{'x': 1}\", expected the"),
        (SITUATED, changed(ANNOTATED, rotation=None), "rotation: missing, expected the numbers _x"),
        (
            SITUATED,
            changed(ANNOTATED, position={"x": 1, "y": float("nan"), "z": 0}),
            "expected the numbers x, y, z",
        ),
    ],
)
def test_damaged_sqa3d_is_one_line(
    tmp_path: Path, question: dict[str, Any], annotation: dict[str, Any], expected: str
) -> None:
    pair = write_sqa3d(tmp_path, [question], [annotation])
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        read_sqa3d([pair])
    assert "\n" not in str(error.value)


def test_sqa3d_files_in_the_wrong_order(tmp_path: Path) -> None:
    questions, annotations = write_sqa3d(tmp_path, [SITUATED], [ANNOTATED])
    with pytest.raises(InputError, match='not a list under "annotations"; expected the SQA3D anno'):
        read_sqa3d([(annotations, questions)])


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "no column 'scan_id', 'target_id', 'instance_type', 'assignmentid', 'utterance'"),
        (b"scan_id,target_id,assignmentid,utterance\n", "no column 'instance_type'; expected the"),
        (b"HEAD\nscene0_00,1,chair,5\n", "line 2: not 5 values; expected one for each column"),
        (b"HEAD\nscene0_00,1,chair,5,a,b\n", "line 2: not 5 values"),
        (b'HEAD\nscene0_00,1,chair,5,"the chair', "line 2: not CSV (unexpected end of data)"),
        (b"HEAD\nscene0_00,1,chair,5,\n", "line 2, utterance: '', expected a text"),
        (b"HEAD\ns,1,c,5,a\ns,1,c,5,b\n", "line 3: assignmentid 'nr3d-5' comes twice, first in"),
        (b"HEAD\nscene0_00,1,chair,5,\xff\n", "not UTF-8 text; expected the Nr3D format"),
    ],
)
def test_damaged_csv_is_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "nr3d.csv"
    head = b"scan_id,target_id,instance_type,assignmentid,utterance"
    path.write_bytes(content.replace(b"HEAD", head))
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        read_nr3d([path])
    assert str(error.value).startswith(f"{path}: ")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; expected a file in the ScanQA format"):
        read_scanqa([tmp_path / "none.json"])
    with pytest.raises(InputError, match="is a folder; expected a file in the ScanRefer format"):
        read_scanrefer([tmp_path])
    (tmp_path / "half.json").write_text('[{"scene_id": ')
    with pytest.raises(InputError, match="not JSON; expected the ScanQA format"):
        read_scanqa([tmp_path / "half.json"])
