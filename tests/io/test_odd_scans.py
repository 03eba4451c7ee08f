"""Scans as people have them: odd colours, other names, large faces, coarse coordinates, feet."""

from pathlib import Path

import numpy as np
import pytest

from o2s.errors import InputError
from o2s.io import Cloud, read_npz, read_ply, read_scene, write_ply
from o2s.io.cloud import unit_colors


@pytest.mark.parametrize("odd", [1.02, 3.0, np.inf, np.nan])
def test_one_odd_colour_does_not_blacken_a_scan(odd: float) -> None:
    values = np.full((1000, 3), 0.5, np.float32)
    values[7, 1] = odd
    found = unit_colors(values)
    assert (np.delete(found, 7, axis=0) == 0.5).all()
    many = np.full((1000, 3), 128.0)
    assert (unit_colors(many) == np.float32(128 / 255)).all()


@pytest.mark.parametrize(
    "names", ["Red Green Blue", "scalar_red scalar_green scalar_blue", "R G B"]
)
def test_colours_may_be_named_in_capitals(tmp_path: Path, names: str) -> None:
    rows = "\n".join("1 2 3 255 0 51" for _ in range(4))
    properties = "\n".join(f"property float {name}" for name in ("x y z " + names).split())
    head = f"ply\nformat ascii 1.0\nelement vertex 4\n{properties}\nend_header\n"
    (tmp_path / "scan.ply").write_text(head + rows + "\n")
    cloud = read_ply(tmp_path / "scan.ply")
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb[0], [1, 0, 0.2])


def test_arrays_of_columns_are_told_to_be_transposed(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", points=np.random.default_rng(0).random((3, 100)))
    with pytest.raises(InputError, match=r"of shape \[3, 100\], expected one row a point"):
        read_npz(tmp_path / "scan.npz")
    up = np.tile([[0.0, 0.0, -1.0]], (100, 1))
    np.savez(tmp_path / "scan.npz", points=np.hstack([np.ones((100, 3)), up]))
    cloud = read_npz(tmp_path / "scan.npz")
    assert cloud.rgb is None
    assert cloud.normals is not None
    np.testing.assert_array_equal(cloud.normals, up)


def test_map_coordinates_in_single_precision_are_told(tmp_path: Path, caplog) -> None:
    xyz = np.random.default_rng(0).uniform(0, 5, (200, 3)) + np.array([500_000, 5_400_000, 30])
    np.savez(tmp_path / "double.npz", points=xyz)
    np.savez(tmp_path / "single.npz", points=xyz.astype(np.float32))
    read_scene(tmp_path / "double.npz", up="z")
    assert "steps" not in caplog.text
    read_scene(tmp_path / "single.npz", up="z")
    assert "coordinates are stored in steps of 0.5 m" in caplog.text


def test_of_a_mesh_of_few_vertices_the_faces_are_seen(tmp_path: Path, caplog) -> None:
    corners = np.array([[0, 0, 0], [4, 0, 0], [4, 3, 0], [0, 3, 0]], np.float64)
    rgb = np.tile(np.array([[0.2, 0.4, 0.6]], np.float32), (4, 1))
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    write_ply(tmp_path / "scan.ply", Cloud(corners, rgb, None, faces))
    with caplog.at_level("INFO"):
        scene = read_scene(tmp_path / "scan.ply", up="z", unit="m")
    assert "a mesh of 4 vertices; 30000 points on its faces are taken" in caplog.text
    assert len(scene) == 30_000
    assert scene.colors is not None
    np.testing.assert_allclose(scene.colors[0], rgb[0], atol=0.003)
    extent = scene.points.amax(0) - scene.points.amin(0)
    np.testing.assert_allclose(extent, [4, 3, 0], atol=0.05)
    dense = np.random.default_rng(0).uniform(0, 1, (4000, 3)) * [4, 3, 0]
    write_ply(tmp_path / "dense.ply", Cloud(dense, None, None, np.array([[0, 1, 2]], np.int32)))
    assert len(read_scene(tmp_path / "dense.ply", up="z", unit="m")) == 4000


def test_a_texture_beside_a_ply_is_told(tmp_path: Path, caplog) -> None:
    xyz = np.random.default_rng(0).uniform(0, 4, (300, 3))
    grey = np.full((300, 3), 0.5, np.float32)
    for name, cloud in (("plain.ply", Cloud(xyz)), ("colored.ply", Cloud(xyz, grey))):
        caplog.clear()
        path = tmp_path / name
        write_ply(path, cloud)
        read_scene(path, up="z")
        assert not caplog.text
        path.write_bytes(
            path.read_bytes().replace(b"ply\n", b"ply\ncomment TextureFile a.png\n", 1)
        )
        read_scene(path, up="z")
        assert ("its texture is not read" in caplog.text) == (cloud.rgb is None)


def test_feet_and_inches_may_be_said(tmp_path: Path) -> None:
    xyz = np.random.default_rng(0).uniform(0, 4, (300, 3))
    for unit, length in (("ft", 0.3048), ("in", 0.0254)):
        np.savez(tmp_path / "scan.npz", points=xyz / length)
        scene = read_scene(tmp_path / "scan.npz", up="z", unit=unit)
        np.testing.assert_allclose(
            scene.points + scene.points.new_tensor(xyz.mean(0)), xyz, atol=1e-4
        )
