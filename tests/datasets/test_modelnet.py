"""ModelNet40 as ULIP stores it: text files and pickle agree, code does not run."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from o2s.datasets.modelnet import ColoredModelNet40, ModelNet40
from o2s.datasets.triplets import TripletSource
from o2s.errors import InputError

NAMES = ("airplane", "night_stand", "tv_stand")
SHAPES = ("night_stand_0201", "airplane_0627", "night_stand_0202")
LABELS = ["night stand", "airplane", "night stand"]
NUMBERS = [1, 0, 1]


def rows_of(shape: str) -> np.ndarray:
    generator = np.random.default_rng(list(shape.encode()))
    return np.round(generator.normal(size=(9, 6)), 6).astype(np.float32)


def upright(rows: np.ndarray) -> np.ndarray:
    return np.array([(row[0], -row[2], row[1]) for row in rows], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "modelnet40_normal_resampled"
    root.mkdir()
    (root / "modelnet40_shape_names.txt").write_text("\n".join(NAMES) + "\n")
    (root / "modelnet40_test.txt").write_text("\n".join(SHAPES) + "\n")
    for shape in SHAPES:
        path = root / shape[:-5] / f"{shape}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(",".join(f"{v:.6f}" for v in row) + "\n" for row in rows_of(shape)))
    return root


def pack(root: Path, held: Any = None, name: str = "modelnet40_test_8192pts_fps.dat") -> Path:
    if held is None:
        numbers = [np.array([number]).astype(np.int32) for number in NUMBERS]
        held = [[rows_of(shape) for shape in SHAPES], numbers]
    path = root / name
    path.write_bytes(pickle.dumps(held, 3))
    return path


def test_shapes_are_read_from_text_files_with_z_up(folder: Path) -> None:
    source: TripletSource = ModelNet40(folder)
    assert len(source) == 3
    assert source.classes == ("airplane", "night stand")
    assert not source.metric
    for index, shape in enumerate(SHAPES):
        triplet = source[index]
        np.testing.assert_array_equal(triplet.points, upright(rows_of(shape)))
        assert triplet.label == source.label(index) == LABELS[index]
        assert triplet.texts == (LABELS[index],)
        assert triplet.images == ()
        assert triplet.colors is None


def test_the_pickle_says_the_same_as_the_text_files(folder: Path) -> None:
    text = ModelNet40(folder)
    pack(folder)
    for path in folder.glob("*/*.txt"):
        path.unlink()
    for packed in (ModelNet40(folder), ModelNet40(folder, source="dat")):
        assert packed.classes == text.classes
        assert [packed.label(i) for i in range(len(packed))] == LABELS
        for index, shape in enumerate(SHAPES):
            np.testing.assert_array_equal(packed[index].points, upright(rows_of(shape)))


def test_the_pickle_with_the_most_points_is_taken(folder: Path) -> None:
    pack(folder, [[np.ones((1, 6))], [np.array([0])]], "modelnet40_test_1024pts_fps.dat")
    pack(folder, [[np.ones((3, 6))], [np.array([0])]], "modelnet40_test_10000pts_fps.dat")
    pack(folder, [[np.ones((2, 6))], [np.array([0])]], "modelnet40_test_8192pts_fps.dat")
    assert len(ModelNet40(folder)[0].points) == 3


def test_text_files_can_be_had_beside_a_pickle_and_labels_read_no_points(folder: Path) -> None:
    pack(folder, "no shapes")
    for path in folder.glob("*/*.txt"):
        path.write_text("damaged")
    source = ModelNet40(folder, source="txt")
    assert [source.label(i) for i in range(3)] == LABELS
    with pytest.raises(InputError, match=r"night_stand_0201\.txt: .*expected lines of x,y,z"):
        source[0]


def test_splits_and_modelnet10_have_lists_of_their_own(folder: Path) -> None:
    (folder / "modelnet10_shape_names.txt").write_text("night_stand")
    (folder / "modelnet10_train.txt").write_text(SHAPES[2])
    source = ModelNet40(folder, "train", categories=10)
    assert [source.label(i) for i in range(len(source))] == ["night stand"]
    np.testing.assert_array_equal(source[0].points, upright(rows_of(SHAPES[2])))


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_the_way_out_named(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, [[Trap(tmp_path / "trap")], [np.array([0])]])
    with pytest.raises(InputError) as error:
        ModelNet40(folder)
    line = str(error.value)
    assert line.startswith(f"{path}: a pickle that asks for ")
    assert "no --trust-pickle here" in line
    assert line.endswith("use the .txt files of modelnet40_normal_resampled instead")
    assert not (tmp_path / "trap").exists()


ROWS = np.zeros((2, 6), np.float32)


@pytest.mark.parametrize(
    "held, message",
    [
        ({"a": 1}, "holds a dict; expected a pickle of [points"),
        ([[ROWS]], "holds a list of 1; expected a pickle of [points"),
        ([ROWS, 3], "holds a list of 2; expected"),
        ([[ROWS, ROWS], [np.array([0])]], "2 shapes and 1 classes; expected as many"),
        ([[], []], "0 shapes and 0 classes"),
        ([[ROWS], [np.array([3])]], "class 0: '[3]'; expected a whole number below 3"),
        ([[ROWS], [np.array([-1])]], "class 0: '[-1]'; expected"),
        ([[ROWS], [np.array([0.5])]], "class 0: '[0.5]'; expected"),
        ([[ROWS], ["chair"]], "class 0: 'chair'; expected"),
        ([[ROWS], [np.array([0, 1])]], "class 0: '[0 1]'; expected"),
        ([["text"], [np.array([0])]], "shape 0: 'text'; expected points"),
        ([[ROWS * np.nan], [np.array([0])]], "shape 0: point 0 is not finite"),
    ],
)
def test_mistakes_of_the_pickle_are_named(folder: Path, held: Any, message: str) -> None:
    path = pack(folder, held)
    with pytest.raises(InputError) as error:
        ModelNet40(folder)[0]
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_missing_pickle_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"modelnet40_test_8192pts_fps\.dat: no such file"):
        ModelNet40(folder, source="dat")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("modelnet40_shape_names.txt", None, "modelnet40_shape_names.txt: no such file"),
        ("modelnet40_test.txt", None, "modelnet40_test.txt: no such file"),
        ("modelnet40_test.txt", "sofa_0001", "'sofa_0001' is of none of the 3 classes"),
        ("modelnet40_test.txt", "airplane", "'airplane' is of none of the 3 classes"),
        ("modelnet40_test.txt", "airplane_0001", "airplane/airplane_0001.txt: no such file"),
        ("modelnet40_test.txt", "tv_stand_0001", "tv_stand/tv_stand_0001.txt: no such file"),
        ("night_stand/night_stand_0201.txt", "", "the file is empty"),
        ("night_stand/night_stand_0201.txt", "\n \n", "expected lines of x,y,z,nx,ny,nz"),
        ("night_stand/night_stand_0201.txt", "1,2,3\n1,2", "expected lines of x,y,z,nx,ny,nz"),
        ("night_stand/night_stand_0201.txt", "1,2,café", "expected lines of x,y,z,nx,ny,nz"),
        ("night_stand/night_stand_0201.txt", "1,2\n3,4", "shape [2, 2]; expected points"),
        ("night_stand/night_stand_0201.txt", "1,2,inf", "point 0 is not finite"),
    ],
)
def test_mistakes_of_the_text_files_are_named(
    folder: Path, name: str, content: str | None, message: str
) -> None:
    path = folder / name
    path.unlink()
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(InputError) as error:
        ModelNet40(folder)[0]
    assert message in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def colored(tmp_path: Path, shapes: Any, categories: Any) -> tuple[Path, Path]:
    points, split = tmp_path / "test_pc.npy", tmp_path / "test_split.json"
    held = np.empty(len(shapes), object)
    held[:] = shapes
    np.save(points, held, allow_pickle=True)
    split.write_text(json.dumps([{"name": "x", "category": name} for name in categories]))
    return points, split


def test_openshapes_points_are_grey(tmp_path: Path) -> None:
    xyz = rows_of("a")[:, :3].astype(np.float64)
    shapes = [{"xyz": xyz, "rgb": np.full((9, 3), 100)}, {"xyz": 2 * xyz}]
    source: TripletSource = ColoredModelNet40(*colored(tmp_path, shapes, ["tv_stand", "vase"]))
    assert source.classes == ("tv stand", "vase")
    first, second = source[0], source[1]
    np.testing.assert_array_equal(first.points, upright(xyz))
    np.testing.assert_array_equal(second.points, upright(2 * xyz))
    assert first.colors is not None
    assert (first.colors == 100).all()
    assert second.colors is None
    assert second.texts == ("vase",)


def test_mistakes_of_openshapes_points_are_named(tmp_path: Path) -> None:
    for shapes, categories, message in (
        ([{}], ["a", "b"], "1 shapes, 2 in"),
        (["text"], ["a"], "no list of mappings"),
        ([{}], ["a"], "shape 0: xyz: missing"),
        ([{"xyz": np.ones((2, 3)), "rgb": np.ones(2)}], ["a"], "shape 0: rgb: float64 of shape"),
    ):
        points, split = colored(tmp_path, shapes, categories)
        with pytest.raises(InputError, match=message) as error:
            ColoredModelNet40(points, split)[0]
        assert str(error.value).startswith(f"{points}: ")
    points, split = colored(tmp_path, [{}], [None])
    with pytest.raises(InputError, match=r"\[0\]\.category: missing"):
        ColoredModelNet40(points, split)
