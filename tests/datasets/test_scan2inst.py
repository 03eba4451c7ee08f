"""Scan2Inst records: what is skipped, how they are stored and read again, how they are mixed."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from instructions_fake import (
    QUESTIONS,
    TEST,
    TRAIN,
    VAL,
    ask,
    describe,
    make,
    of,
    prepare_scenes,
    said,
    save,
)

from datasets import Dataset, load_from_disk
from o2s.datasets.data_card import count_records, write_data_card
from o2s.datasets.instruction_tasks import (
    TASKS,
)
from o2s.datasets.scan2inst import (
    FEATURES,
    load_records,
    make_records,
    mix,
    read_octavius,
    write_octavius,
)
from o2s.errors import InputError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_scenes(tmp_path_factory.mktemp("prepared scans"))


@pytest.fixture(scope="module")
def records(scenes: Path) -> Dataset:
    return make(scenes)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_does_not_fit_the_scenes_is_skipped_and_counted(scenes: Path) -> None:
    questions = [
        ask(TRAIN[0], 0),
        ask("scene0500_00", 1),
        ask(VAL[0], 2),
        ask(TRAIN[0], 3, object_ids=("3", "77")),
    ]
    descriptions = [describe(TRAIN[0], 3), describe(VAL[0], 3), describe(TRAIN[0], 99)]
    dataset, skipped = make_records(
        scenes, split="train", questions=questions, descriptions=descriptions
    )
    assert [row["question_id"] for row in of(dataset, "VQA3D")] == [questions[0].id]
    assert [row["object_id"] for row in of(dataset, "description3d")] == ["3"]
    assert skipped.to_json() == {
        "not_prepared": {"scanqa": 1},
        "other_split": {"scanqa": 1, "scanrefer": 1},
        "no_object": [
            {
                "source": "scanqa",
                "id": "scene0000_00-3",
                "scene_id": TRAIN[0],
                "object_ids": ["77"],
            },
            {
                "source": "scanrefer",
                "id": "scanrefer-scene0000_00-99-0",
                "scene_id": TRAIN[0],
                "object_ids": ["99"],
            },
        ],
    }
    assert str(skipped) == (
        "1 of scenes that are not prepared, 2 of scenes of another split, "
        "2 of objects that their scene does not have"
    )


@pytest.mark.parametrize(
    "split, kept", [("train", TRAIN), ("val", (*VAL, *TEST)), ("test", (*VAL, *TEST))]
)
def test_no_question_crosses_from_train_to_the_other_splits(
    scenes: Path, split: str, kept: Sequence[str]
) -> None:
    questions = [ask(name, 0, object_ids=()) for name in (*TRAIN, *VAL, *TEST)]
    dataset, _ = make_records(scenes, split=split, questions=questions, tasks=["VQA3D"])
    assert dataset["scene_id"] == list(kept)


def test_questions_without_answers_are_kept_only_if_asked_for(scenes: Path) -> None:
    questions = [ask(TRAIN[0], 0), ask(TRAIN[0], 1, answers=()), ask(TRAIN[0], 2)]
    with pytest.raises(InputError, match="1 of 3 questions have no answers, the first is 'scene"):
        make(scenes, questions=questions)
    dataset = make(scenes, questions=questions, without_answers=True)
    row = of(dataset, "VQA3D")[1]
    assert said(row, "gpt") == [None]
    assert row["answers"] == []
    (conversation,) = of(dataset, "conversation")
    assert len(conversation["answers"]) == 2
    assert count_records(dataset)["unanswered"] == 1


def test_nothing_left_is_an_error(scenes: Path) -> None:
    with pytest.raises(InputError, match=r"no records of split train .* skipped were 1 of sc"):
        make_records(scenes, split="train", questions=[ask("scene9_00", 0)], tasks=["VQA3D"])


def test_octavius_json_round_trip(scenes: Path, tmp_path: Path) -> None:
    questions = [*QUESTIONS, ask(TRAIN[0], 50, answers=())]
    dataset = make(scenes, questions=questions, without_answers=True)
    path = tmp_path / "new folder" / "scan2inst.json"
    write_octavius(dataset, path)
    assert read_octavius(path).to_list() == dataset.to_list()
    assert read_octavius(path).features == FEATURES
    for row in json.loads(path.read_text()):
        assert list(row)[:5] == [
            "scene_id",
            "object_id",
            "object_name",
            "task_type",
            "conversations",
        ]


TURN = [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "a chair"}]
OCTAVIUS = {
    "scene_id": "scene0000_00",
    "object_id": 5,
    "object_name": "chair",
    "task_type": "classification3d",
    "conversations": TURN,
}


def test_octavius_own_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scan2inst.json"
    path.write_text(json.dumps([OCTAVIUS | {"pcl": "3d/scene0000_00.npy"}]))
    (row,) = read_octavius(path).to_list()
    assert row["object_id"] == "5"
    assert row["conversations"] == TURN
    assert row["answers"] == row["object_ids"] == []
    assert row["box"] is None
    write_octavius(read_octavius(path), path)
    assert json.loads(path.read_text()) == [OCTAVIUS | {"object_id": "5"}]


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"conversations": []}, "[0].conversations: '[]', expected a list of turns"),
        ({"conversations": TURN[1:]}, "[0].conversations[0]: "),
        ({"conversations": [*TURN, TURN[1]]}, "expected a turn of human with a value"),
        ({"conversations": [TURN[0] | {"value": None}]}, "expected a turn of human with a value"),
        ({"conversations": [TURN[0], {"from": "gpt", "value": 7}]}, "a turn of gpt with a value"),
        ({"scene_id": 7}, "[0].scene_id: '7', expected a text"),
        ({"object_id": [1]}, "[0].object_id: '[1]', expected a number or text"),
        ({"object_ids": "5"}, "[0].object_ids: '5', expected a list"),
        ({"box": [1, 2]}, "values of the wrong kind"),
        ({"position": "here"}, "values of the wrong kind"),
        ({"object_name": 7}, "[0].object_name: '7', expected a text"),
    ],
)
def test_damaged_octavius_json_is_one_line(
    tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "scan2inst.json"
    path.write_text(json.dumps([OCTAVIUS | values]))
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        read_octavius(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_saved_records_load_equal_and_runs_agree(records: Dataset, tmp_path: Path) -> None:
    save(records, tmp_path / "a" / "train")
    save(records, tmp_path / "b" / "train")
    loaded, made_from = load_records(tmp_path / "a" / "train")
    assert loaded.features == FEATURES
    assert loaded.to_list() == records.to_list()
    assert load_from_disk(str(tmp_path / "a" / "train")).to_list() == records.to_list()
    assert made_from["seed"] == 0
    for folder in ("a", "b"):
        write_data_card(tmp_path / folder)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_later_run_replaces_an_earlier_one_whole(
    records: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "train"
    save(records, folder)
    (tmp_path / ".train.0123456789abcdef.tmp").mkdir()  # of a killed run
    save(records.select(range(3)), folder)
    assert len(load_records(folder)[0]) == 3
    before = contents(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "here")

    monkeypatch.setattr(Dataset, "save_to_disk", fail)
    with pytest.raises(OSError, match="No space left"):
        save(records, folder)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_other_folders_are_neither_overwritten_nor_read(records: Dataset, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no records and would be overwritten; move it"):
        save(records, tmp_path / "train")
    assert (tmp_path / "train" / "mine.txt").read_text() == "mine"
    with pytest.raises(InputError, match="no records; expected a folder of `o2s instruct`"):
        load_records(tmp_path / "train")
    with pytest.raises(InputError, match="no records of any split"):
        write_data_card(tmp_path)
    save(records, tmp_path / "val")
    (arrow,) = (tmp_path / "val").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(InputError, match="val: damaged"):
        load_records(tmp_path / "val")


def test_mixing_keeps_the_proportions(records: Dataset) -> None:
    sizes, weights = {"a": 600, "b": 900, "c": 300}, {"a": 1.0, "b": 3.0, "c": 2.0}
    sets = {
        name: records.select([i % len(records) for i in range(size)]).add_column(
            "set", [f"{name}{i}" for i in range(size)]
        )
        for name, size in sizes.items()
    }
    mixed = mix(sets, weights, seed=3)
    found = Counter(name[0] for name in mixed["set"])
    for name, weight in weights.items():
        p, n = weight / 6, len(mixed)
        assert abs(found[name] - n * p) < 4 * math.sqrt(n * p * (1 - p))
    assert set(mixed["set"]) == {f"{name}{i}" for name, size in sizes.items() for i in range(size)}
    turned = {name: sets[name] for name in reversed(sets)}
    assert mix(turned, weights, seed=3)["set"] == mixed["set"]
    assert mix(sets, weights, seed=4)["set"] != mixed["set"]


def test_mixing_sets_with_and_without_boxes(records: Dataset) -> None:
    sets = {task: Dataset.from_list(of(records, task), FEATURES) for task in TASKS}
    mixed = mix(sets, dict.fromkeys(TASKS, 1.0), seed=0)
    kept = {json.dumps(row, sort_keys=True) for row in mixed.to_list()}
    assert kept == {json.dumps(row, sort_keys=True) for row in records.to_list()}


def test_mixing_refuses_what_it_cannot_do(records: Dataset) -> None:
    for sets, weights, expected in (
        ({}, {}, "no data sets"),
        ({"a": records}, {}, "no weight for 'a'"),
        ({"a": records}, {"a": 1.0, "b": 1.0}, "no data set for 'b'"),
        ({"a": records}, {"a": 0.0}, "weight of 'a' is 0.0, expected above 0"),
        ({"a": records}, {"a": math.nan}, "weight of 'a' is nan"),
        ({"a": records.select([])}, {"a": 1.0}, "'a' has no records"),
    ):
        with pytest.raises(InputError, match=re.escape(expected)):
            mix(sets, weights, 0)
