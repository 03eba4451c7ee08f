"""Boxes out of files: the formats say the same, prepared scans give theirs, mistakes are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from scannet_fake import write_download

from o2s.datasets.preparation import prepare
from o2s.datasets.scannet import ScanNet
from o2s.errors import InputError
from o2s.evaluate.scene_boxes import (
    PredictedBoxes,
    prepared_scans,
    read_predicted_boxes,
    read_true_boxes,
    require_same_scenes,
    scored_classes,
)
from o2s.io.labelled import read_labelled

FIRST = {"centre": [1, 2, 3.5], "size": [1, 1, 2], "heading": 0.5, "score": 0.25, "label": "chair"}
SECOND = {"centre": [0, 0, 0], "size": [0.5, 0, 2]}
THIRD = {"centre": [9, 9, 9], "size": [1, 2, 3], "caption": "a box", "score": 7}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    splits = {"train": ["scene0000_00"], "val": ["scene0001_00"], "test": ["scene0002_00"]}
    prepare(ScanNet(write_download(root / "raw", splits)), root / "prepared")
    return root / "prepared"


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def same(a: dict[str, PredictedBoxes], b: dict[str, PredictedBoxes]) -> bool:
    return list(a) == list(b) and all(
        x.boxes.tobytes() == y.boxes.tobytes()
        and x.scores.tobytes() == y.scores.tobytes()
        and (x.scene_id, x.labels, x.captions) == (y.scene_id, y.labels, y.captions)
        for x, y in zip(a.values(), b.values(), strict=True)
    )


def test_a_folder_a_list_and_lines_say_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    first = {"scan": "rooms/a.ply", "boxes": [FIRST, SECOND]}
    second = {"scan": "rooms/b.ply", "boxes": [THIRD]}
    write(folder / "a.json", first)
    write(folder / "b.json", second | {"untrained": []})
    write(folder / ".0123456789abcdef.tmp.json", "half a fi")  # what a killed command left
    found = read_predicted_boxes(folder)
    assert list(found) == ["a", "b"]
    assert found["a"].boxes.tolist() == [[1, 2, 3.5, 1, 1, 2, 0.5], [0, 0, 0, 0.5, 0, 2, 0]]
    assert found["a"].scores.tolist() == [0.25, 1]
    assert found["a"].labels == ("chair", "")
    assert found["b"].captions == ("a box",)
    flat = [{"scene_id": "a", **FIRST}, {"scene_id": "b", **THIRD}]
    flat.append({"scene_id": "a", "box": [0, 0, 0, 0.5, 0, 2]})  # rows of a scene may be apart
    named = {"scene_id": "b", "scan": "elsewhere.ply", "boxes": [THIRD]}
    lines = "\n".join(json.dumps(row) for row in flat)
    for content in ([first, second], [first, named], flat, lines, lines + "\n\n"):
        assert same(read_predicted_boxes(write(tmp_path / "boxes.json", content)), found)


def test_one_file_of_one_scene_is_read_and_a_scene_may_be_empty(tmp_path: Path) -> None:
    one = read_predicted_boxes(write(tmp_path / "x.json", {"scan": "a.ply", "boxes": []}))
    assert one["a"].boxes.shape == (0, 7)
    mixed = [{"scene_id": "a", "boxes": []}, {"scene_id": "b", **FIRST}]
    assert [len(p) for p in read_predicted_boxes(write(tmp_path / "y.json", mixed)).values()] == [
        0,
        1,
    ]


def nested(**changes: object) -> list[object]:
    return [{"scan": "a.ply", "boxes": [FIRST | changes]}]


@pytest.mark.parametrize(
    "content, named",
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ('{"a": 1}\n{"b":', "line 2: not JSON"),
        ('[{"scene_id": "a", "scene_id": "b"}]', "'scene_id' comes twice"),
        ([], "empty; expected"),
        ("3", "'3'"),
        (["x"], r"\[0\]: 'x'"),
        ([{"boxes": []}], r"\[0\].scan is missing"),
        ([{"scene_id": 3, "boxes": []}], r"\[0\].scene_id is '3', expected a text"),
        ([{"scan": "a.ply", "boxes": {}}], r"\[0\].boxes is '{}', expected a list"),
        ([{"scan": "a.ply", "boxes": [3]}], r"boxes\[0\] is '3'"),
        ([{"scan": "a.ply", "boxes": []}] * 2, "scene 'a' comes twice"),
        ([{"scene_id": "a", **FIRST}, {"scan": "a.ply", "boxes": []}], "scene 'a' comes twice"),
        ([{"scan": "a.ply", "boxes": []}, {"scene_id": "a", **FIRST}], "scene 'a' comes twice"),
        (nested(centre=[1, 2]), r"boxes\[0\].centre is '\[1, 2\]', expected a list of 3 numbers"),
        (nested(centre=None), "centre is missing"),
        (nested(centre=[1, 2, True]), r"centre\[2\] is 'True'"),
        (nested(centre=[1, 2, None]), r"centre\[2\] is 'null'"),
        (nested(centre=[1, 2, float("nan")]), r"centre\[2\] is 'nan'.*finite"),
        (nested(centre=[1, 2, 1e10]), r"centre\[2\] is '1"),
        (nested(size=[1, 2, -0.1]), "no size below 0"),
        (nested(size="large"), "size is 'large'"),
        (nested(heading=float("inf")), "heading is 'inf'"),
        (nested(score=False), "score is 'False', expected a number"),
        (nested(score=float("nan")), "score is 'nan'"),
        (nested(score=10**400), "score is '1"),
        (nested(label=5), "label is '5', expected a text"),
        (nested(label="\ud800"), "expected a text"),
        (nested(scores=1.0), "key 'scores'; expected 'score'"),
        (nested(box=[1, 2, 3, 4, 5, 6]), "expected box alone"),
        ([{"scene_id": "a", "box": [1, 2, 3, 4, 5]}], "list of 6 or 7 numbers"),
        ([{"scene_id": "a", "box": [1, 2, 3, 4, 5, -6]}], "no size below 0"),
    ],
)
def test_a_wrong_prediction_is_one_line(tmp_path: Path, content: object, named: str) -> None:
    path = write(tmp_path / "boxes.json", content)
    with pytest.raises(InputError, match=named) as error:
        read_predicted_boxes(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json: no such file"):
        read_predicted_boxes(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"no .json files"):
        read_predicted_boxes(tmp_path)
    write(tmp_path / "a.json", [])
    with pytest.raises(InputError, match=r'a.json: no "boxes"'):
        read_predicted_boxes(tmp_path)
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"a.json: not UTF-8"):
        read_predicted_boxes(tmp_path)
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InputError, match=r"a.json: is a folder"):
        read_predicted_boxes(tmp_path)


def test_true_boxes_of_a_file(tmp_path: Path) -> None:
    entry = {"scene_id": "a", "object_id": 3, "box": [1, 2, 3, 4, 5, 6, 0.5], "label": "bed"}
    path = write(tmp_path / "truth.json", [entry, entry | {"object_id": "4", "note": "more"}])
    truth = read_true_boxes(path)
    assert truth["a"].ids == ("3", "4")
    assert truth["a"].boxes[0].tolist() == [1, 2, 3, 4, 5, 6, 0.5]
    assert scored_classes(path, "scannet18", truth) == ("bed",)
    with pytest.raises(InputError, match="a file has no splits"):
        read_true_boxes(path, split="val")


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"scene_id": ""}, "scene_id is ''"),
        ({"object_id": True}, "object_id is 'True'"),
        ({"object_id": None}, "object_id is missing"),
        ({"label": None}, "label is missing"),
        ({"box": [1, 2, 3]}, "list of 6 or 7"),
        ({"object_id": 1}, "'1', expected each object of a scene once"),
    ],
)
def test_a_wrong_true_box_is_one_line(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    entry = {"scene_id": "a", "object_id": 1, "box": [0, 0, 0, 1, 1, 1], "label": "bed"}
    path = write(tmp_path / "truth.json", [entry, entry | {"object_id": 2} | changes])
    with pytest.raises(InputError, match=rf"truth.json: \[1\].*{named}") as error:
        read_true_boxes(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", ["nyu40", "scannet18", "scannet200"])
def test_prepared_scans_give_their_aligned_boxes(prepared: Path, classes: str) -> None:
    truth = read_true_boxes(prepared, classes, "train")
    assert list(truth) == ["scene0000_00"]
    scan = read_labelled(prepared / "scene0000_00.safetensors")
    assert scan.objects is not None
    found = truth["scene0000_00"]
    assert found.boxes[:, :6].tobytes() == np.ascontiguousarray(scan.objects.boxes).tobytes()
    assert not found.boxes[:, 6].any()
    assert found.ids == tuple(map(str, scan.objects.ids.tolist()))
    names = scored_classes(prepared, classes, truth)
    none = 0 if classes == "nyu40" else -1
    for label, value in zip(found.labels, scan.objects.classes[classes].tolist(), strict=True):
        assert label == ("" if value <= none else scan.class_names[classes][value])
        assert label in {"", *names}
    assert any(label != "" for label in found.labels)


def test_a_class_list_that_leaves_objects_out_keeps_them_without_a_label(prepared: Path) -> None:
    everything = read_true_boxes(prepared, "nyu40", "train")["scene0000_00"]
    listed = read_true_boxes(prepared, "scannet18", "train")["scene0000_00"]
    unnamed = read_true_boxes(prepared, None, "train")["scene0000_00"]
    assert everything.labels[:3] == ("floor", "wall", "wall")
    assert listed.labels[:3] == ("", "", "")
    assert set(unnamed.labels) == {""}
    assert len(unnamed) == len(listed) == len(everything)


def test_mistakes_with_prepared_folders_are_named(prepared: Path, tmp_path: Path) -> None:
    assert list(prepared_scans(prepared)) == [f"scene000{i}_00" for i in range(3)]
    with pytest.raises(InputError, match=r"no scans of split 'half'.*test, train, val"):
        read_true_boxes(prepared, "scannet18", "half")
    with pytest.raises(InputError, match=r"no class list 'coco'.*scannet18"):
        read_true_boxes(prepared, "coco", "val")
    with pytest.raises(InputError, match=r"scene0002_00.safetensors: not annotated"):
        read_true_boxes(prepared, "scannet18")
    with pytest.raises(InputError, match=r"index.json: no such file"):
        read_true_boxes(tmp_path, "scannet18")
    index = json.loads((prepared / "index.json").read_text())
    write(tmp_path / "index.json", index | {"scans": [3]})
    with pytest.raises(InputError, match=r"index.json: damaged"):
        read_true_boxes(tmp_path, "scannet18")


def test_scenes_must_be_those_of_the_reference(tmp_path: Path) -> None:
    entry = {"object_id": 1, "box": [0, 0, 0, 1, 1, 1], "label": "bed"}
    path = write(tmp_path / "truth.json", [{"scene_id": s, **entry} for s in "abc"])
    truth = read_true_boxes(path)
    content = [{"scene_id": s, "boxes": []} for s in "abcde"]
    found = read_predicted_boxes(write(tmp_path / "boxes.json", content))
    names = {"found_in": tmp_path / "boxes.json", "reference": path}
    require_same_scenes({s: found[s] for s in "cab"}, truth, **names)
    with pytest.raises(InputError, match=r"boxes.json: scene 'd' \(and 1 more\) is not in"):
        require_same_scenes(found, truth, **names)
    with pytest.raises(InputError, match=r"boxes.json: no boxes for scene 'b' \(and 1 more\) of"):
        require_same_scenes({"a": found["a"]}, truth, **names)
