"""The command `o2s eval detection`: boxes from files, or found on the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scannet_fake import write_download

from o2s.cli_eval_detection import VariantName, detection
from o2s.datasets.preparation import prepare
from o2s.datasets.scannet import ScanNet
from o2s.detect import Tr3d
from o2s.errors import InputError
from o2s.evaluate.scene_boxes import read_predicted_boxes, read_true_boxes
from o2s.io.labelled import read_labelled
from o2s.options import DetectorName
from o2s.scene import Boxes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    splits = {"train": ["scene0000_00"], "val": ["scene0001_00", "scene0002_00"]}
    prepare(ScanNet(write_download(root / "raw", splits, objects=4)), root / "prepared")
    return root / "prepared"


def write_predictions(prepared: Path, folder: Path, label: str | None = None) -> Path:
    """The true boxes of the validation scenes as a detector would write them."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene, objects in read_true_boxes(prepared, "scannet18", "val").items():
        boxes = [
            {"centre": row[:3], "size": row[3:6], "label": label or name}
            for row, name in zip(objects.boxes.tolist(), objects.labels, strict=True)
            if name
        ]
        content = {"scan": f"{scene}.safetensors", "boxes": boxes}
        (folder / f"{scene}.json").write_text(json.dumps(content))
    return folder


def test_the_command_scores_a_folder(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = write_predictions(prepared, tmp_path / "boxes")
    out = tmp_path / "out"
    detection(prepared, boxes, split="val", iou=[0.3], out_folder=out, json_output=True)
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "scores.json").read_text())
    assert (out / "scores.md").is_file()
    rows = report["tables"]["AP and AR at IoU 0.30"]
    assert {row["scores"]["AP"]["value"] for row in rows.values()} == {1.0}
    assert report["made_from"]["classes"] == "scannet18"
    detection(prepared, boxes, split="val", variant=VariantName.mmdet3d)
    assert "as mmdet3d" in capsys.readouterr().out


def test_boxes_without_classes_are_scored_as_one_class(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = write_predictions(prepared, tmp_path / "boxes", "object")
    detection(prepared, boxes, split="val", json_output=True)
    report = json.loads(capsys.readouterr().out)
    rows = report["tables"]["class-agnostic AP and AR at IoU 0.50"]
    assert rows["object"]["scores"]["AP"]["value"] == 1.0
    assert any("no classes" in note for note in report["notes"])


@pytest.mark.parametrize(
    "options, named",
    [
        ({"split": "train"}, "is not in"),
        ({}, "no boxes for scene 'scene0000_00'"),
        ({"split": "val", "iou": [1.0]}, "--iou is 1.0"),
        ({"split": "val", "iou": [0.5, 0.5]}, "--iou 0.5 is given twice"),
        ({"split": "val", "iou": [float("nan")]}, "--iou is nan"),
        ({"split": "val", "recall_at": [0]}, "--recall-at is 0"),
        ({"split": "val", "detector": DetectorName.clusters}, "give one of these"),
        ({"split": "val", "predictions": None}, "give one of these"),
        (
            {"split": "val", "predictions": None, "detector": DetectorName.clusters},
            "--out must be a folder",
        ),
    ],
)
def test_mistakes_are_named(
    prepared: Path, tmp_path: Path, options: dict[str, object], named: str
) -> None:
    boxes = write_predictions(prepared, tmp_path / "boxes")
    with pytest.raises(InputError, match=named):
        detection(prepared, **({"predictions": boxes} | options))


def test_boxes_of_a_class_that_is_left_out_do_not_count(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = write_predictions(prepared, tmp_path / "boxes")
    found = read_predicted_boxes(boxes)
    gone = next(label for held in found.values() for label in held.labels)
    detection(prepared, boxes, split="val", leave_out=[gone], json_output=True)
    rows = json.loads(capsys.readouterr().out)["tables"]["AP and AR at IoU 0.50"]
    assert gone not in rows
    mean = next(row for name, row in rows.items() if name.startswith("mean of"))
    assert mean["scores"]["AP"]["value"] == 1.0


def test_average_precision_is_of_all_boxes(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Boxes(
        centres=torch.rand(100, 3),
        sizes=torch.ones(100, 3),
        headings=torch.zeros(100),
        scores=torch.linspace(1, 0, 100),
        labels=("chair",) * 100,
    )
    monkeypatch.setattr(Tr3d, "forward", lambda self, scene: many)

    def count(name: str, *override: str) -> set[int]:
        options = {"override": list(override), "out_folder": tmp_path / name}
        detection(prepared, detector=DetectorName.tr3d, split="val", **options)
        files = (tmp_path / name / "predictions").glob("*.json")
        return {len(json.loads(file.read_text())["boxes"]) for file in files}

    assert count("all") == {100}
    assert count("few", "encoder.max_regions=7") == {7}


def test_labels_that_are_no_classes_are_named(prepared: Path, tmp_path: Path) -> None:
    boxes = write_predictions(prepared, tmp_path / "boxes")
    content = json.loads((boxes / "scene0001_00.json").read_text())
    content["boxes"][0]["label"] = "unicorn"
    (boxes / "scene0001_00.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="box 0 of scene 'scene0001_00' has the label 'unicorn'"):
        detection(prepared, boxes, split="val")


def test_a_detector_is_run_once_for_each_scan_and_its_boxes_are_aligned(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(**options: object) -> dict[str, Any]:
        detection(
            prepared,
            detector=DetectorName.clusters,
            out_folder=tmp_path,
            json_output=True,
            **options,
        )
        return json.loads(capsys.readouterr().out)

    report = run(split="val")
    assert "class-agnostic AP and AR at IoU 0.25" in report["tables"]
    files = sorted((tmp_path / "predictions").glob("*.json"))
    assert [file.stem for file in files] == ["scene0001_00", "scene0002_00"]
    for file in files:
        room = read_labelled(prepared / f"{file.stem}.safetensors").aligned_xyz
        boxes = json.loads(file.read_text())["boxes"]
        assert boxes
        for box in boxes:
            centre, half = np.array(box["centre"]), np.array(box["size"]) / 2
            assert (centre - half >= room.min(axis=0) - 1e-3).all()
            assert (centre + half <= room.max(axis=0) + 1e-3).all()
    before = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    assert run(split="val") == report
    assert files[0].stat().st_mtime_ns == before[0]
    assert files[1].stat().st_mtime_ns != before[1]
    assert len(run()["tables"]) == len(report["tables"])  # one scan more
    assert run(split="val")["tables"] == report["tables"]
    with pytest.raises(InputError, match="boxes were found with"):
        run(split="val", override=["encoder.max_regions=3"])
    (tmp_path / "detector.json").unlink()
    with pytest.raises(InputError, match="settings that are not there"):
        run(split="val")
