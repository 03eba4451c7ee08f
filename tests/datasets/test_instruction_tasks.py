"""Every task of Scan2Inst against its annotations and the labels of the scenes; the wordings."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from instructions_fake import (
    DESCRIPTIONS,
    QUESTIONS,
    TEST,
    TRAIN,
    ask,
    make,
    of,
    prepare_scenes,
    said,
)

from datasets import Dataset
from o2s.datasets.instruction_tasks import (
    TASKS,
    TEMPLATES,
    TURNS,
    SceneLabels,
    plural,
    read_templates,
)
from o2s.datasets.scan2inst import FEATURES
from o2s.errors import InputError
from o2s.io.labelled import Objects, read_labelled
from o2s.llm.prompts import DESCRIBE_OBJECT


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_scenes(tmp_path_factory.mktemp("prepared scans"))


@pytest.fixture(scope="module")
def records(scenes: Path) -> Dataset:
    return make(scenes)


def test_every_record_is_whole(records: Dataset) -> None:
    assert records.features == FEATURES
    assert list(dict.fromkeys(records["task_type"])) == list(TASKS)
    rows = records.to_list()
    keys = [(row["task_type"], row["question_id"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert row["split"] == "train"
        assert row["scene_id"] in TRAIN
        speakers = [turn["from"] for turn in row["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        assert all(turn["value"].strip() for turn in row["conversations"])
        assert said(row, "gpt")[0] in row["answers"]


def test_classification_names_each_described_object_once(records: Dataset, scenes: Path) -> None:
    rows = of(records, "classification3d")
    expected = dict.fromkeys((d.scene_id, d.object_id) for d in DESCRIPTIONS)
    assert [(row["scene_id"], row["object_id"]) for row in rows] == list(expected)
    for row in rows:
        assert said(row, "gpt") == row["answers"] == ["office chair"] == [row["object_name"]]
        assert said(row, "human")[0] in read_templates()["classification3d"]
        assert_box(scenes, row)


def assert_box(scenes: Path, row: dict[str, Any]) -> None:
    objects = objects_of(scenes, row["scene_id"])
    assert row["box"] == objects.boxes[objects.ids.tolist().index(int(row["object_id"]))].tolist()
    assert row["object_ids"] == [row["object_id"]]


def test_descriptions_have_all_references_of_their_source(records: Dataset, scenes: Path) -> None:
    rows = of(records, "description3d")
    assert [row["question_id"] for row in rows] == [d.id for d in DESCRIPTIONS]
    for row, description in zip(rows, DESCRIPTIONS, strict=True):
        assert said(row, "gpt") == [description.text]
        key = (description.source, description.scene_id, description.object_id)
        assert row["answers"] == [
            d.text for d in DESCRIPTIONS if (d.source, d.scene_id, d.object_id) == key
        ]
        assert_box(scenes, row)


def test_questions_are_in_the_prompt_with_their_situation(records: Dataset) -> None:
    rows = of(records, "VQA3D")
    assert [(row["source"], row["question_id"]) for row in rows] == [
        (q.source, q.id) for q in QUESTIONS
    ]
    for row, question in zip(rows, QUESTIONS, strict=True):
        (prompt,) = said(row, "human")
        assert question.text in str(prompt)
        assert ("I sit on the chair." in str(prompt)) == (question.source == "sqa3d")
        assert said(row, "gpt") == [question.answers[0]]
        assert row["answers"] == list(question.answers)
        assert row["object_ids"] == list(question.object_ids)
        assert (row["object_id"], row["box"]) == (None, None)
        assert row["situation"] == question.situation
        for key in ("position", "rotation"):
            held = getattr(question, key)
            assert row[key] == (None if held is None else list(held))


def test_conversations_hold_each_question_of_one_scene_once(records: Dataset) -> None:
    found: Counter[tuple[str, str]] = Counter()
    for row in of(records, "conversation"):
        asked, answered = said(row, "human"), said(row, "gpt")
        assert 2 <= len(asked) <= TURNS
        assert answered == row["answers"]
        here = [q for q in QUESTIONS if q.scene_id == row["scene_id"]]
        sources = set()
        for prompt, answer in zip(asked, answered, strict=True):
            fitting = [
                q for q in here if q.text in str(prompt) and (q.situation or "\0") in str(prompt)
            ] or [q for q in here if q.text in str(prompt) and q.situation is None]
            (question,) = fitting
            assert answer == question.answers[0]
            found[question.source, question.id] += 1
            sources.add(question.source)
        assert row["source"] == "+".join(sorted(sources))
    assert found == Counter((q.source, q.id) for q in QUESTIONS)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 11])
def test_no_conversation_is_too_short(scenes: Path, count: int) -> None:
    questions = [ask(TRAIN[0], n) for n in range(count)]
    dataset = make(scenes, questions=questions, tasks=["VQA3D", "conversation"])
    lengths = [len(row["answers"]) for row in of(dataset, "conversation")]
    assert sum(lengths) == (count if count > 1 else 0)
    assert all(2 <= length <= TURNS for length in lengths)


def test_dense_captions_list_every_described_object(records: Dataset, scenes: Path) -> None:
    rows = of(records, "dense_captioning")
    assert [row["scene_id"] for row in rows] == list(TRAIN)
    assert rows[0]["object_ids"] == ["3", "4", "5", "8"]
    assert [row["source"] for row in rows] == ["nr3d+scanrefer", "scanrefer"]
    for row in rows:
        objects = objects_of(scenes, row["scene_id"])
        lines = str(said(row, "gpt")[0]).split("\n")
        for object_id, line in zip(row["object_ids"], lines, strict=True):
            read = re.fullmatch(r"<object (\d+)> \[([-\d., ]+)\] (.+)", line)
            assert read is not None
            assert read[1] == object_id
            box = [float(value) for value in read[2].split(",")]
            expected = objects.boxes[objects.ids.tolist().index(int(object_id))]
            assert box == pytest.approx(expected, abs=0.00501)
            assert "-0.00" not in line
            key = (row["scene_id"], object_id)
            assert read[3] in [d.text for d in DESCRIPTIONS if (d.scene_id, d.object_id) == key]


def test_counts_equal_a_plain_recount(records: Dataset, scenes: Path) -> None:
    rows = of(records, "object_counting")
    for scene_id in TRAIN:
        scan = read_labelled(scenes / f"{scene_id}.safetensors")
        objects = objects_of(scenes, scene_id)
        names = [scan.class_names["nyu40"][c] for c in objects.classes["nyu40"]]
        recount = Counter(n for n in names if n in ("chair", "table", "cabinet", "pillow"))
        here = {row["object_name"]: row for row in rows if row["scene_id"] == scene_id}
        assert {
            n: int(row["answers"][0]) for n, row in here.items() if row["object_ids"]
        } == recount
        (absent,) = (n for n, row in here.items() if not row["object_ids"])
        assert absent not in names
        assert said(here[absent], "gpt") == ["0"]
        for name, row in here.items():
            assert f"{name}s" in str(said(row, "human")[0])
            assert said(row, "gpt") == row["answers"] == [str(len(row["object_ids"]))]
            ids = [str(i) for i, n in zip(objects.ids, names, strict=True) if n == name]
            assert row["object_ids"] == ids


def objects_of(scenes: Path, scene_id: str) -> Objects:
    objects = read_labelled(scenes / f"{scene_id}.safetensors").objects
    assert objects is not None
    return objects


def test_scenes_without_labels_are_not_counted(scenes: Path) -> None:
    assert SceneLabels(scenes).counted(TEST[0]) == {}
    assert SceneLabels(scenes).boxes(TEST[0]) == {}
    dataset = make(
        scenes, questions=[ask(TEST[0], 0, object_ids=())], descriptions=[], split="test"
    )
    assert dataset["task_type"] == ["VQA3D"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("chair", "chairs"),
        ("night stand", "night stands"),
        ("bookshelf", "bookshelves"),
        ("box", "boxes"),
        ("bench", "benches"),
        ("glass", "glasses"),
        ("display", "displays"),
        ("trash canopy", "trash canopies"),
        ("person", "people"),
    ],
)
def test_plurals(name: str, expected: str) -> None:
    assert plural(name) == expected


def test_the_same_seed_gives_the_same_records(scenes: Path, records: Dataset) -> None:
    assert make(scenes).to_list() == records.to_list()
    other = make(scenes, seed=1)
    assert other.to_list() != records.to_list()
    assert [sorted(row["answers"]) for row in of(other, "VQA3D")] == [
        sorted(row["answers"]) for row in of(records, "VQA3D")
    ]
    prompts = {said(row, "human")[0] for row in of(records, "classification3d")}
    assert len(prompts) > 1


def test_a_record_does_not_depend_on_the_others(scenes: Path, records: Dataset) -> None:
    for task in TASKS:
        assert make(scenes, tasks=[task]).to_list() == of(records, task)
    few = make(scenes, questions=QUESTIONS[:3], descriptions=DESCRIPTIONS[:3])
    for task in ("VQA3D", "classification3d"):
        assert of(few, task) == of(records, task)[: len(of(few, task))]


def test_the_wording_that_inference_uses_is_among_the_templates() -> None:
    assert DESCRIBE_OBJECT in read_templates()["description3d"]


def test_braces_in_a_question_stay(scenes: Path) -> None:
    text = "What is {this} and {0}?"
    dataset = make(scenes, questions=[ask(TRAIN[0], 0, text=text)], tasks=["VQA3D"])
    assert text in str(said(dataset[0], "human")[0])


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("VQA3D", None, "VQA3D: missing, expected texts"),
        ("VQA3D", [], "VQA3D: '[]', expected texts"),
        ("VQA3D", ["{question}", "What?"], "VQA3D[1]: 'What?', expected a text with {question}"),
        ("VQA3D", ["{question!r}"], "VQA3D[0]: '{question!r}', expected a text with {question}"),
        ("VQA3D", ["{question} {"], "VQA3D[0]: '{question} {', expected"),
        ("classification3d", ["Name {it}."], "classification3d[0]: 'Name {it}.', expected a text"),
        ("description3d", [" "], "description3d[0]: ' ', expected a text with no {names}"),
        ("description3d", [7], "description3d[0]: '7', expected a text"),
        ("describe", ["This"], "describe: no such key"),
    ],
)
def test_templates_are_read_strictly(
    tmp_path: Path, key: str, value: list[str] | None, expected: str
) -> None:
    held = yaml.safe_load(TEMPLATES.read_text())
    held[key] = value
    path = tmp_path / "wordings.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in held.items() if v is not None}))
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        read_templates(path)
    assert str(error.value).startswith(f"{path}: ")


def test_templates_that_are_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "wordings.yaml"
    with pytest.raises(InputError, match="No such file or directory; expected a YAML file"):
        read_templates(path)
    path.write_text("VQA3D: [")
    with pytest.raises(InputError, match="not YAML"):
        read_templates(path)
    path.write_text("- VQA3D")
    with pytest.raises(InputError, match="no keys and values; expected classification3d, "):
        read_templates(path)
