"""A folder of PLY files as scans without annotation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rooms_fake import room

from o2s.datasets.ply_folder import PlyFolder
from o2s.datasets.preparation import prepare
from o2s.datasets.readers import Augmentation, PreparedScenes
from o2s.errors import InputError
from o2s.io import Cloud, read_scene, write_ply
from o2s.io.labelled import read_labelled


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    fake = room(2, points=4000)
    cloud = Cloud(fake.points.numpy().astype(np.float64), fake.colors.numpy())
    write_ply(tmp_path / "my scans" / "a room.ply", cloud)
    x, y, z = cloud.xyz.T
    turned = Cloud(np.stack([x, z, -y], axis=1) * 1000, cloud.rgb)
    write_ply(tmp_path / "my scans" / "turned.PLY", turned)
    return tmp_path / "my scans"


def test_each_file_becomes_a_scan_upright_and_in_metres(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(PlyFolder(raw), out).done == 2
    for name, file in (("a room", "a room.ply"), ("turned", "turned.PLY")):
        scene, again = read_scene(raw / file), read_scene(out / f"{name}.safetensors")
        torch.testing.assert_close(again.points, scene.points, atol=1e-4, rtol=0)
        torch.testing.assert_close(again.colors, scene.colors, atol=1e-6, rtol=0)
        torch.testing.assert_close(again.from_file, scene.from_file, atol=1e-4, rtol=0)
        assert again.name == name
    samples = list(PreparedScenes(out, points=100))
    assert [len(s.points) for s in samples] == [100, 100]


def test_up_and_unit_can_be_said(raw: Path, tmp_path: Path) -> None:
    prepare(PlyFolder(raw, up="-x", unit="cm"), tmp_path / "out")
    scan = read_labelled(tmp_path / "out" / "a room.safetensors")
    assert scan.aligned_xyz[:, 2] == pytest.approx(-scan.xyz[:, 0] * 0.01, abs=1e-6)
    assert prepare(PlyFolder(raw), tmp_path / "out").done == 2


def test_a_mesh_gets_the_normals_of_its_faces(tmp_path: Path) -> None:
    xyz = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float64)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    write_ply(tmp_path / "raw" / "floor.ply", Cloud(xyz, faces=faces))
    prepare(PlyFolder(tmp_path / "raw", up="z", unit="m"), tmp_path / "out")
    scan = read_labelled(tmp_path / "out" / "floor.safetensors")
    assert scan.rgb is None
    assert scan.normals == pytest.approx(np.tile([0, 0, 1], (4, 1)))


def test_map_coordinates_keep_their_millimetres(tmp_path: Path) -> None:
    lines = ["ply", "format ascii 1.0", "element vertex 500"]
    lines += [f"property double {axis}" for axis in "xyz"] + ["end_header"]
    xyz = np.random.default_rng(0).uniform(0, [4, 3, 2], (500, 3)).round(4)
    xyz += np.array([500_000, 4_649_776, 30])
    lines += [" ".join(f"{v:.4f}" for v in row) for row in xyz]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "survey.ply").write_text("\n".join(lines))
    report = prepare(PlyFolder(tmp_path / "raw", up="z", unit="m"), tmp_path / "out")
    assert "map coordinates" in report.notes["survey"][0]
    scan = read_labelled(tmp_path / "out" / "survey.safetensors")
    assert scan.aligned_xyz == pytest.approx(xyz, abs=1e-6, rel=0)
    (sample,) = PreparedScenes(tmp_path / "out", augment=Augmentation(rotate=0.3))
    back = sample.transform.inverse()
    points = sample.points.double() @ back[:3, :3].T + back[:3, 3]
    assert points.numpy() == pytest.approx(scan.xyz[sample.vertices.numpy()], abs=1e-4)


def test_strays_and_what_is_not_finite_are_left_out_with_a_note(tmp_path: Path) -> None:
    fake = room(2, points=4000)
    xyz = fake.points.numpy().astype(np.float64) * 1000
    xyz[3], xyz[5, 1] = 5e6, np.nan
    faces = np.array([[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 8]], np.int32)
    write_ply(tmp_path / "raw" / "stray.ply", Cloud(xyz, fake.colors.numpy(), faces=faces))
    report = prepare(PlyFolder(tmp_path / "raw"), tmp_path / "out")
    assert report.notes["stray"] == [
        "dropped 1 of 4000 points without finite coordinates",
        "lengths look like mm; scaled to metres",
        "dropped 1 points over 1 km from the rest",
    ]
    assert prepare(PlyFolder(tmp_path / "raw"), tmp_path / "out").notes == report.notes
    again = read_scene(tmp_path / "out" / "stray.safetensors")
    plain = read_scene(tmp_path / "raw" / "stray.ply")
    torch.testing.assert_close(again.points, plain.points, atol=1e-4, rtol=0)


def test_triangles_keep_their_corners_when_points_go() -> None:
    xyz = np.arange(15, dtype=np.float64).reshape(5, 3)
    faces = np.array([[0, 1, 2], [2, 3, 4], [4, 3, 0]], np.int32)
    left = Cloud(xyz, faces=faces).select(np.array([True, False, True, True, True]))
    assert left.faces is not None
    assert np.array_equal(left.xyz[left.faces], xyz[faces[1:]])


def test_a_wide_room_in_millimetres_is_no_map(tmp_path: Path) -> None:
    fake = room(2, points=4000)
    xyz = fake.points.numpy().astype(np.float64) * 1000
    write_ply(tmp_path / "raw" / "wide.ply", Cloud(xyz + 15_000))
    prepare(PlyFolder(tmp_path / "raw", up="z", unit="mm"), tmp_path / "out")
    scan = read_labelled(tmp_path / "out" / "wide.safetensors")
    assert scan.xyz == pytest.approx(xyz + 15_000, abs=0.01)


def test_normals_are_of_length_one_or_zero(tmp_path: Path) -> None:
    fake = room(2, points=4000)
    normals = np.tile(np.array([0, 0, 2], np.float32), (4000, 1))
    normals[0], normals[1] = np.nan, 0
    cloud = Cloud(fake.points.numpy().astype(np.float64), normals=normals)
    write_ply(tmp_path / "raw" / "normals.ply", cloud)
    prepare(PlyFolder(tmp_path / "raw", up="z", unit="m"), tmp_path / "out")
    found = read_labelled(tmp_path / "out" / "normals.safetensors").normals
    assert found is not None
    assert found[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert found[2:].tolist() == [[0, 0, 1]] * 3998


def test_broken_files_are_named(raw: Path, tmp_path: Path) -> None:
    (raw / "broken.ply").write_bytes(b"ply\n")
    (raw / "notes.txt").write_text("not a scan")
    report = prepare(PlyFolder(raw), tmp_path / "out")
    assert report.done == 2
    assert report.failed["broken"].startswith(f"{raw / 'broken.ply'}: ")


def test_what_is_not_a_folder_of_scans_is_one_line(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        PlyFolder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.ply files"):
        PlyFolder(tmp_path / "empty").entries()
    (raw / "turned.ply").write_bytes((raw / "turned.PLY").read_bytes())
    with pytest.raises(InputError, match="several files are named turned"):
        PlyFolder(raw).entries()
