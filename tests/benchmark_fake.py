"""A benchmark on made-up scans: prepared scans, questions, descriptions and right predictions."""

import json
from pathlib import Path
from typing import Any

from o2s.datasets.preparation import prepare
from o2s.datasets.scannet import ScanNet
from o2s.evaluate.scene_boxes import read_true_boxes

SCENES = ("scene0000_00", "scene0001_00", "scene0002_00")


def write_benchmark(raw: Path, folder: Path) -> None:
    """`prepared`, and files in the formats of ScanQA and ScanRefer with what is right for them.

    There are two questions about each scan, and one description of each of up to four objects.
    """
    prepare(ScanNet(raw), folder / "prepared")
    questions, described, captions = [], [], []
    for scene, true in read_true_boxes(folder / "prepared", split="val").items():
        asked = [("What color is it?", ["red", "dark red"]), ("Where is it?", ["near the door"])]
        for number, (text, answers) in enumerate(asked):
            identity = {"scene_id": scene, "question_id": f"{scene}-{number}", "object_ids": []}
            questions.append(identity | {"question": text, "answers": answers})
        for number, identity in list(enumerate(true.ids))[:4]:
            words = ["object", identity, "of", scene, "."]
            refer = {"scene_id": scene, "object_id": identity, "object_name": "chair"}
            text = {"ann_id": "0", "description": " ".join(words), "token": words}
            described.append(refer | text)
            box = true.boxes[number, :6].tolist()
            captions.append({"scene_id": scene, "box": box, "caption": " ".join(words)})
    right = [{"question_id": q["question_id"], "answer": q["answers"][0]} for q in questions]
    files = {
        "ScanQA_v1.0_val.json": questions,
        "answers.json": right,
        "ScanRefer_filtered_val.json": described,
        "captions.json": captions,
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def table_scores(table: dict[str, Any], row: str = "all") -> dict[str, float | None]:
    return {name: score["value"] for name, score in table[row]["scores"].items()}
