"""`o2s eval captions` as a user meets it."""

import json
from pathlib import Path

import pytest
from benchmark_fake import SCENES, table_scores, write
from command_line import o2s

from o2s.evaluate.scene_boxes import read_predicted_boxes, read_true_boxes


def test_right_captions_score_all_there_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = o2s(
        capsys,
        *(
            "eval",
            "captions",
            folder / "captions.json",
            "--reference",
            folder / "ScanRefer_filtered_val.json",
        ),
        *("--boxes", folder / "prepared", "--variant", "ll3da", "--iou", "0.5"),
        *("--out", tmp_path / "scores", "--json"),
    )
    assert code == 0, err
    report = json.loads(out)
    table = report["tables"]["ll3da @0.5IoU"]
    assert table_scores(table)["ROUGE-L"] == pytest.approx(1)
    assert table_scores(table)["ROUGE-L F"] == pytest.approx(1)
    count = len(json.loads((folder / "captions.json").read_text()))
    assert table["all"]["counts"] == {
        **{"objects": count, "found": count, "descriptions": count, "boxes": count}
    }
    assert list(table) == ["all", "chair"]


def test_a_model_describes_its_own_or_true_boxes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("eval", "captions", "--reference", folder / "ScanRefer_filtered_val.json"),
        *("--scenes", folder / "prepared", "--model", folder / "model", "--variant", "ll3da"),
        *("--max-new-tokens", "3", "--draws", "10", "--json"),
    ]
    code, out, err = o2s(capsys, *arguments, "--regions", "reference", "--out", tmp_path / "true")
    assert code == 0, err
    table = json.loads(out)["tables"]["ll3da @0.5IoU"]
    assert table["all"]["counts"]["found"] == table["all"]["counts"]["objects"]
    held = read_predicted_boxes(tmp_path / "true" / "predictions.jsonl")
    true = read_true_boxes(folder / "prepared", "nyu40")
    for scene in SCENES:  # in the coordinates of the annotation, and of its classes
        assert held[scene].boxes == pytest.approx(true[scene].boxes, abs=1e-5)
        assert held[scene].labels == true[scene].labels
    blind = read_predicted_boxes(tmp_path / "true" / "predictions_blind.jsonl")
    assert len({caption for boxes in blind.values() for caption in boxes.captions}) == 1
    code, out, err = o2s(capsys, *arguments, "--out", tmp_path / "found")
    assert code == 0, err
    assert "beside captions without the scene" in "".join(json.loads(out)["tables"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scene_id": "scene0909_00"}, "scene 'scene0909_00' is not in"),
        ({"caption": None}, "has no caption"),
        ({"box": [1, 2, 3, 1, 1, float("nan")]}, "nan"),
    ],
)
def test_wrong_captions_are_one_line(
    folder: Path,
    tmp_path: Path,
    change: dict[str, object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries = json.loads((folder / "captions.json").read_text())
    path = write(tmp_path / "captions.json", [*entries[:-1], entries[-1] | change])
    code, out, err = o2s(
        capsys,
        *("eval", "captions", path, "--reference", folder / "ScanRefer_filtered_val.json"),
        *("--boxes", folder / "prepared", "--out", tmp_path / "scores"),
    )
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "scores").exists()


def test_descriptions_of_unknown_objects_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = json.loads((folder / "ScanRefer_filtered_val.json").read_text())[0] | {
        "object_id": "999"
    }
    code, _, err = o2s(
        capsys,
        *("eval", "captions", folder / "captions.json"),
        *("--reference", write(tmp_path / "r.json", [entry]), "--boxes", folder / "prepared"),
    )
    assert code == 2
    assert "no box of object '999'" in err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"description": "\ud800"}, "description"),
        ({"token": ["a", "\ud800"]}, "token"),
        ({"token": "a chair"}, "token"),
        ({"ann_id": "1", "description": 5}, "description"),
    ],
)
def test_wrong_descriptions_are_one_line(
    folder: Path,
    tmp_path: Path,
    change: dict[str, object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = json.loads((folder / "ScanRefer_filtered_val.json").read_text())[0] | change
    code, _, err = o2s(
        capsys,
        *("eval", "captions", folder / "captions.json", "--boxes", folder / "prepared"),
        *("--reference", write(tmp_path / "r.json", [entry])),
    )
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_baselines_must_be_of_the_same_scenes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((folder / "captions.json").read_text())
    few = [entry for entry in entries if entry["scene_id"] != SCENES[0]]
    code, _, err = o2s(
        capsys,
        *("eval", "captions", folder / "captions.json", "--boxes", folder / "prepared"),
        *("--reference", folder / "ScanRefer_filtered_val.json"),
        *("--blind", write(tmp_path / "few.json", few), "--iou", "0.5"),
    )
    assert code == 2
    assert f"few.json: no boxes of scene {SCENES[0]}" in err


def test_a_wrong_threshold_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("2.0", "nan", "0.0"):
        code, _, err = o2s(
            capsys,
            *("eval", "captions", folder / "captions.json", "--boxes", folder / "prepared"),
            *("--reference", folder / "ScanRefer_filtered_val.json", "--iou", "0.5"),
            *("--iou", value),
        )
        assert code == 2
        assert f"--iou is {value}" in err
