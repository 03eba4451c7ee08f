"""Pictures of what a detector found: which boxes count as right, and that they are drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scannet_fake import write_download

from o2s.cli_eval_detection import detection
from o2s.datasets.preparation import prepare
from o2s.datasets.scannet import ScanNet
from o2s.errors import InputError
from o2s.evaluate.detection_pictures import judge
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes
from o2s.options import DetectorName

CUBE = [1.0, 1, 1, 0]


def true(centres: list[float], labels: list[str]) -> TrueBoxes:
    rows = np.array([[x, 0, 0, *CUBE] for x in centres])
    return TrueBoxes("a", tuple(map(str, range(len(labels)))), rows, tuple(labels))


def found(centres: list[float], labels: list[str], scores: list[float]) -> PredictedBoxes:
    rows = np.array([[x, 0, 0, *CUBE] for x in centres])
    return PredictedBoxes("a", rows, np.array(scores), tuple(labels), (None,) * len(labels))


def test_the_best_box_of_an_object_is_right_and_others_are_wrong() -> None:
    truth = true([0, 10, 20, 30], ["bed", "chair", "chair", "wall"])
    boxes = found(
        [0.5, 0.0, 10.1, 20.4, 30.0, 40.0, 0.1],
        ["bed", "bed", "bed", "chair", "chair", "bed", "chair"],
        [0.5, 0.9, 0.8, 0.7, 0.6, 0.1, 0.4],
    )
    judged = judge(boxes, truth, ("bed", "chair"))
    assert judged.right == (1, 3)  # the second bed by score, and the moved chair
    # Of another class, on what is no object, once more; the last box lies on a better one.
    assert judged.wrong == (2, 4, 0)
    assert judged.missed == (1,)


def test_boxes_without_classes_find_anything() -> None:
    truth = true([0, 10], ["bed", "chair"])
    judged = judge(found([10.0, 0.0], ["object"] * 2, [0.9, 0.5]), truth, ("bed", "chair"))
    assert (judged.right, judged.wrong, judged.missed) == ((0, 1), (), ())


def test_the_threshold_is_not_met_by_equality() -> None:
    truth = true([0.0], ["bed"])
    boxes = found([0.6], ["bed"], [0.9])  # 0.4 of 1.6 is a quarter
    assert judge(boxes, truth, ("bed",), iou=0.2).right == (0,)
    assert judge(boxes, truth, ("bed",), iou=0.3).right == ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    splits = {"val": ["scene0001_00", "scene0002_00"]}
    prepare(ScanNet(write_download(root / "raw", splits, objects=4)), root / "prepared")
    return root / "prepared"


def test_the_command_draws_scenes_and_leaves_classes_out(prepared: Path, tmp_path: Path) -> None:
    detection(
        prepared,
        detector=DetectorName.clusters,
        classes="nyu40",
        leave_out=["wall", "floor"],
        out_folder=tmp_path,
        pictures=1,
    )
    (picture,) = (tmp_path / "pictures").glob("*.png")
    assert picture.stem == "scene0001_00"
    with Image.open(picture) as image:
        assert image.size == (1600, 900)
    assert "left out" in (tmp_path / "scores.json").read_text()


def test_wrong_options_are_named(prepared: Path, tmp_path: Path) -> None:
    options = {"detector": DetectorName.clusters, "out_folder": tmp_path}
    with pytest.raises(InputError, match="--leave-out unicorn: no such class"):
        detection(prepared, leave_out=["unicorn"], **options)
    with pytest.raises(InputError, match="--pictures needs --out"):
        detection(prepared, tmp_path, pictures=3)
