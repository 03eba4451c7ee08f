"""Questions and descriptions about prepared scans of made-up rooms, and their records."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from scannet_fake import write_download

from datasets import Dataset
from o2s.datasets.instruction_tasks import TASKS
from o2s.datasets.language_files import Description, Question
from o2s.datasets.preparation import prepare
from o2s.datasets.scan2inst import Skipped, make_records, save_records
from o2s.datasets.scannet import ScanNet

TRAIN, VAL, TEST = ("scene0000_00", "scene0001_00"), ("scene0002_00",), ("scene0700_00",)


def prepare_scenes(root: Path) -> Path:
    """A folder of prepared scans, of which those of TEST have no labels."""
    raw = write_download(root / "raw", {"train": TRAIN, "val": VAL, "test": TEST})
    prepare(ScanNet(raw), root / "out")
    return root / "out"


def ask(scene_id: str, number: int, **values: Any) -> Question:
    question = Question(
        source="scanqa",
        id=f"{scene_id}-{number}",
        scene_id=scene_id,
        text=f"What is number {number}?",
        answers=(f"answer {number % 3}", "another"),
        object_ids=("3",),
    )
    return replace(question, **values)


def situated(scene_id: str, number: int) -> Question:
    return ask(
        scene_id,
        number,
        source="sqa3d",
        id=str(number),
        object_ids=(),
        situation="I sit on the chair",
        position=(1.0, 2.0, 0.5),
        rotation=(0.0, 0.0, 1.0, 0.0),
    )


def describe(
    scene_id: str, object_id: int, number: int = 0, source: str = "scanrefer"
) -> Description:
    return Description(
        source=source,
        id=f"{source}-{scene_id}-{object_id}-{number}",
        scene_id=scene_id,
        object_id=str(object_id),
        object_name="office chair",
        text=f"sentence {number} about {object_id} in {scene_id}.",
    )


QUESTIONS = [
    *(ask(scene, number) for scene in TRAIN for number in range(7)),
    *(situated("scene0001_00", number) for number in range(3)),
]
DESCRIPTIONS = [
    *(describe(scene, object_id, n) for scene in TRAIN for object_id in (8, 3, 5) for n in (0, 1)),
    describe("scene0000_00", 5, source="nr3d"),
    describe("scene0000_00", 4, source="nr3d"),
]


def make(scenes: Path, **options: Any) -> Dataset:
    given = {"questions": QUESTIONS, "descriptions": DESCRIPTIONS, "split": "train"} | options
    dataset, skipped = make_records(scenes, **given)
    assert str(skipped) == ""
    return dataset


def of(dataset: Dataset, task: str) -> list[dict[str, Any]]:
    return [row for row in dataset.to_list() if row["task_type"] == task]


def said(row: dict[str, Any], speaker: str) -> list[str | None]:
    return [turn["value"] for turn in row["conversations"] if turn["from"] == speaker]


def save(dataset: Dataset, folder: Path, seed: int = 0) -> None:
    made_from = {"seed": seed, "tasks": list(TASKS), "files": []}
    save_records(dataset, folder, skipped=Skipped(), made_from=made_from)
