"""Points in text files and in .npy: columns by name and by number, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from o2s.errors import InputError
from o2s.io import read_scene
from o2s.io.plain import read_npy, read_text

XYZ = np.array([[0, 0, 0], [1, 2, 3.5], [4, 5, 6]], np.float64)
RGB = np.array([[255, 0, 0], [0, 255, 0], [51, 51, 51]])
UP = np.array([[0, 0, -1.0], [0.6, 0.8, 0], [1, 0, 0]])


def write(path: Path, columns: np.ndarray, parted: str = " ", head: str = "") -> Path:
    rows = "\n".join(parted.join(f"{value:g}" for value in row) for row in columns)
    path.write_text(f"{head}{rows}\n")
    return path


@pytest.mark.parametrize("parted", [" ", ",", ";", "\t", ", "])
@pytest.mark.parametrize("name", ["a.xyz", "a.txt", "a.csv", "a.pts", "a.asc"])
def test_six_columns_are_points_and_colours(tmp_path: Path, name: str, parted: str) -> None:
    head = "3\n" if name == "a.pts" else "# made up\n\n// x y z\n"
    cloud = read_text(write(tmp_path / name, np.hstack([XYZ, RGB]), parted, head))
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)
    assert cloud.normals is None


def test_columns_go_by_their_number(tmp_path: Path) -> None:
    def read(*columns: np.ndarray) -> tuple[bool, bool]:
        cloud = read_text(write(tmp_path / "a.xyz", np.hstack([XYZ, *columns])))
        np.testing.assert_array_equal(cloud.xyz, XYZ)
        if cloud.rgb is not None:
            np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)
        if cloud.normals is not None:
            np.testing.assert_allclose(cloud.normals, UP, atol=1e-6)
        return cloud.rgb is not None, cloud.normals is not None

    one = np.array([[7], [8], [9]])
    assert read() == (False, False)
    assert read(one) == (False, False)
    assert read(UP) == (False, True)
    assert read(one, RGB) == (True, False)
    assert read(RGB, UP) == (True, True)


def test_columns_may_be_named_in_any_order(tmp_path: Path) -> None:
    columns = np.hstack([RGB, XYZ[:, ::-1]])
    head = "\ufeffRed,Green,Blue,Z,Y,X\r\n"
    cloud = read_text(write(tmp_path / "a.csv", columns, ",", head))
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)


@pytest.mark.parametrize("rows", [np.hstack([XYZ, RGB]), np.hstack([XYZ, RGB]).astype(np.float32)])
def test_an_array_is_read_by_its_columns(tmp_path: Path, rows: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", rows)
    cloud = read_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-6)


def test_read_scene_knows_them(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, 4, (500, 3))
    scenes = [read_scene(write(tmp_path / name, points), up="z", unit="m") for name in ("a.xyz",)]
    np.save(tmp_path / "b.npy", points)
    scenes.append(read_scene(tmp_path / "b.npy", up="z", unit="m"))
    assert [len(scene) for scene in scenes] == [500, 500]
    np.testing.assert_allclose(scenes[0].points, scenes[1].points, atol=1e-4)


@pytest.mark.parametrize(
    "text, says",
    [
        ("# nothing\n\n", "holds no points"),
        ("x y z\n", "holds no points"),
        ("1 2 3\n4 5\n", "line 2 holds 2 numbers; expected 3"),
        ("1 2 3\n4 five 6\n", "line 2 holds 'five'; expected a number"),
        ("x,y,z,red\n1,2,3\n", "line 1 names 4 columns, and the next line holds 3"),
        ("a b c\n1 2 3\n", "no property 'x', 'y', 'z'; found 'a', 'b', 'c'"),
        ("1 2\n3 4\n", r"of shape \[2, 2\], expected one row a point, with x, y and z"),
    ],
)
def test_what_is_wrong_with_a_text_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=says) as error:
        read_text(tmp_path / "a.txt")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "a.txt") in str(error.value)


def test_what_is_wrong_with_an_array_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, says in (
        (XYZ.T.repeat(10, axis=1), r"of shape \[3, 30\], expected one row a point: transpose it"),
        (np.zeros(3), r"holds '\(3,\)'; expected numbers of shape \[N, 3\]"),
        (np.array([["a"] * 3]), "expected numbers of shape"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=says):
            read_npy(path)
    np.save(path, np.array([[{}, {}, {}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"not an \.npy array of numbers"):
        read_npy(path)
    path.write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(InputError, match=r"not an \.npy array of numbers"):
        read_npy(path)
