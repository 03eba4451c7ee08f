"""Scenes from files: upright, in metres, centred, and exactly traceable to the file."""

import io
import logging
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import o2s.io
from o2s.errors import InputError
from o2s.io import Cloud, read_npz, read_scene, scene_from_cloud, write_ply, write_scene
from o2s.scene import Scene

AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}
AXES |= {"-" + axis: tuple(-v for v in unit) for axis, unit in AXES.items()}
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "scans of größe 点"
    folder.mkdir()
    return folder


def cloud_of(count: int = 50, seed: int = 0) -> Cloud:
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Cloud(
        xyz=rng.uniform(-3, 3, (count, 3)).astype(np.float32).astype(np.float64),
        rgb=rng.integers(0, 256, (count, 3)).astype(np.float32) / np.float32(255),
        normals=normals.astype(np.float32),
    )


def as_is(path: Path) -> Scene:
    return read_scene(path, up="z", unit="m")


def assert_equal(a: Scene, b: Scene) -> None:
    for name in (field.name for field in fields(a)):
        left, right = getattr(a, name), getattr(b, name)
        same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
        assert same, name


@pytest.mark.parametrize("up", AXES)
@pytest.mark.parametrize("unit", METRES)
def test_the_named_axis_ends_up_as_z_in_metres(up, unit):
    cloud = cloud_of()
    assert cloud.normals is not None
    scene = scene_from_cloud(cloud, Path("scan.ply"), up=up, unit=unit)
    assert scene.normals is not None
    rotation = scene.from_file[:3, :3].numpy() / METRES[unit]
    np.testing.assert_allclose(rotation @ AXES[up], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)  # a rotation, no mirror
    np.testing.assert_allclose(scene.normals, cloud.normals @ rotation.T, atol=1e-6)


@pytest.mark.parametrize("up", AXES)
def test_from_file_maps_the_file_to_the_scene(up):
    cloud = replace(cloud_of(), xyz=cloud_of().xyz + np.array([431_000.123, 4_500_000.456, 12]))
    scene = scene_from_cloud(cloud, Path("scan.ply"), up=up, unit="cm")
    homogeneous = np.hstack([cloud.xyz, np.ones((len(cloud), 1))])
    mapped = homogeneous @ scene.from_file.numpy().T
    np.testing.assert_allclose(scene.points, mapped[:, :3], atol=1e-7)
    np.testing.assert_allclose(scene.points.mean(dim=0), np.zeros(3), atol=1e-7)
    world = scene.points.double() + scene.offset
    linear = scene.from_file[:3, :3].numpy()
    np.testing.assert_allclose(world, cloud.xyz @ linear.T, atol=1e-7)


@pytest.mark.parametrize("fmt", ["ascii", "binary_big_endian"])
def test_map_coordinates_keep_their_millimetres(folder, fmt):
    grid = np.array([[x, y, z] for x in range(4) for y in range(4) for z in range(4)]) * 0.001
    xyz = grid + np.array([431_000.0, 4_500_000.0, 60.0])
    header = f"ply\nformat {fmt} 1.0\nelement vertex {len(xyz)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    text = "\n".join(" ".join(map(repr, row)) for row in xyz.tolist())
    path = folder / "map.ply"
    path.write_bytes(
        header.encode() + (text.encode() if fmt == "ascii" else xyz.astype(">f8").tobytes())
    )
    points = as_is(path).points.numpy()
    np.testing.assert_allclose(points - points[0], grid, atol=1e-8)


def test_detection_sees_a_bounded_sample_and_its_answer_is_used(monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(o2s.io, "guess_unit", lambda points: seen.append(points) or "mm")
    y_up = torch.tensor([0.0, 1, 0], dtype=torch.float64)
    monkeypatch.setattr(o2s.io, "find_up", lambda points: seen.append(points) or y_up)
    cloud = Cloud(np.random.default_rng(0).uniform(0, 4000, (60_000, 3)) + 1e6)
    with caplog.at_level(logging.INFO):
        first = scene_from_cloud(cloud, Path("scan.ply"))
    assert [tuple(points.shape) for points in seen] == [(50_000, 3)] * 2
    assert seen[0].abs().max() < 2100  # centred: float32 would blur the raw coordinates
    assert seen[1].abs().max() < 2.1  # metres already
    assert "scan.ply: lengths look like mm; scaled to metres" in caplog.text
    assert "scan.ply: y points up in the file; turned upright" in caplog.text
    assert_equal(first, scene_from_cloud(cloud, Path("scan.ply"), up="y", unit="mm"))
    assert_equal(first, scene_from_cloud(cloud, Path("scan.ply")))


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_a_point_a_line_and_a_plane_are_scenes_too(rank, count):
    rng = np.random.default_rng(count)
    xyz = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, 3)) + 7
    scene = scene_from_cloud(Cloud(xyz), Path("scan.ply"))
    assert scene.points.isfinite().all()
    linear = scene.from_file[:3, :3]
    scale = linear.det() ** (1 / 3)  # of a mirror it would be NaN
    torch.testing.assert_close(linear @ linear.T, scale**2 * torch.eye(3, dtype=torch.float64))


def test_points_without_coordinates_are_dropped_with_their_colors(folder, caplog):
    cloud = cloud_of(6)
    assert cloud.rgb is not None
    assert cloud.normals is not None
    cloud.xyz[1, 2], cloud.xyz[3, 0], cloud.xyz[4, 1] = np.nan, np.inf, 3e38
    cloud.normals[5] = np.nan
    write_ply(folder / "scan.ply", cloud)
    scene = as_is(folder / "scan.ply")
    assert scene.normals is not None
    assert scene.colors is not None
    assert "dropped 3 of 6 points without finite coordinates" in caplog.text
    np.testing.assert_array_equal(scene.colors, cloud.rgb[[0, 2, 5]])
    assert scene.normals[2].tolist() == [0, 0, 0]


@given(
    st.integers(1, 30),
    st.booleans(),
    st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=9),
)
@settings(deadline=None, max_examples=40)
def test_a_prepared_scene_loads_equal(tmp_path_factory, count, has_colors, has_normals, name):
    both = torch.rand(count, 6)  # colours and normals share memory, as slices do
    scene = Scene(
        name=name,
        points=torch.randn(3, count).T,
        colors=both[:, :3] if has_colors else None,
        normals=both[:, 3:] if has_normals else None,
        from_file=torch.randn(4, 4, dtype=torch.float64),
    )
    path = tmp_path_factory.getbasetemp() / "scene.safetensors"
    assert_equal(read_scene(write_scene(scene, path)), scene)
    assert_equal(read_scene(path, up="y", unit="mm"), scene)


def test_a_failed_write_leaves_nothing_behind(folder, monkeypatch):
    scene = scene_from_cloud(cloud_of(), Path("scan.ply"), up="z", unit="m")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_scene(scene, folder / "scene.safetensors")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("points", ["points", "xyz", "coord", "pos"])
@pytest.mark.parametrize("colors", ["colors", "color", "rgb", None])
@pytest.mark.parametrize("normals", ["normals", "normal"])
def test_npz_under_the_usual_names(folder, points, colors, normals):
    cloud = cloud_of()
    assert cloud.rgb is not None
    rgb = (cloud.rgb * 255).round().astype(np.uint8)
    arrays = {points: cloud.xyz if colors else np.hstack([cloud.xyz, rgb]), normals: cloud.normals}
    if colors:
        arrays[colors] = rgb
    np.savez(folder / "scan.npz", **arrays)
    loaded = read_npz(folder / "scan.npz")
    for name in ("xyz", "rgb", "normals"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(cloud, name))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i4"])
def test_npz_of_any_layout_and_type(folder, order, dtype):
    xyz = np.arange(24).reshape(8, 3).astype(dtype, order=order)
    np.savez_compressed(folder / "scan.npz", points=xyz)
    np.testing.assert_array_equal(read_npz(folder / "scan.npz").xyz, xyz.astype(np.float64))


@pytest.mark.parametrize(
    "arrays, message",
    {
        "other names": (
            {"vertices": np.zeros((2, 3)), "a": np.zeros(1)},
            "holds 'vertices', 'a'; expected points under",
        ),
        "nothing": ({}, "holds nothing; expected points under"),
        "objects": ({"points": np.array([[None] * 3])}, "'points.npy' is not a readable array"),
        "words": ({"points": np.array([["a", "b", "c"]])}, "'points.npy' is not a readable array"),
        "two columns": (
            {"points": np.zeros((4, 2))},
            "'points' is float64 of shape [4, 2]; expected",
        ),
        "fewer colours": (
            {"points": np.zeros((4, 3)), "rgb": np.zeros((3, 3))},
            "3 colours for 4 points",
        ),
    }.values(),
)
def test_npz_that_is_not_a_scan(folder, arrays, message):
    np.savez(folder / "scan.npz", **arrays)
    with pytest.raises(InputError) as error:
        as_is(folder / "scan.npz")
    assert message in str(error.value)


def test_npz_whose_header_promises_too_much(folder):

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 3)}
    )
    with zipfile.ZipFile(folder / "scan.npz", "w") as archive:
        archive.writestr("points.npy", buffer.getvalue())
    with pytest.raises(InputError, match=r"'points\.npy' is not a readable array"):
        as_is(folder / "scan.npz")


@given(st.sampled_from([".ply", ".npz", ".safetensors"]), st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path_factory, suffix, data):
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    cloud = cloud_of(4)
    if suffix == ".ply":
        write_ply(path, cloud)
    elif suffix == ".npz":
        np.savez(path, points=cloud.xyz, normals=cloud.xyz)
    else:
        write_scene(scene_from_cloud(cloud, path, up="z", unit="m"), path)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    path.write_bytes(damaged)
    try:
        scene = as_is(path)
        message = f"{path}: "
        assert scene.points.isfinite().all()
        assert scene.colors is None or scene.colors.isfinite().all()
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


PLY = b"ply\nformat ascii 1.0\nelement vertex %d\n"
PLY += b"property float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    "name, content, message",
    {
        "missing": ("scan.ply", None, "no such file"),
        "missing other": ("scan.las", None, "no such file"),
        "missing prepared": ("scan.safetensors", None, "no such file"),
        "no points": ("scan.ply", PLY % 0, "holds no points"),
        "all NaN": (
            "scan.PLY",
            PLY % 2 + b"nan 1 2\n0 0 inf\n",
            "2 points, none with finite coordinates",
        ),
        "suffix": (
            "scan.ptx",
            b"100",
            "files of type .ptx cannot be read; expected one of .ply",
        ),
        "no suffix": ("scan", b"ply", "files of type unknown cannot be read"),
        "mesh": ("chair.fbx", b"Kaydara", "meshes of type .fbx cannot be read; export it as .glb"),
        "mesh, binary": ("chair.GLB", b"glTF", "not a whole mesh"),
        "no zip": ("scan.npz", b"PK but not really", "not an .npz archive"),
        "empty": ("scan.npz", b"", "the file is empty"),
        "cut": ("scan.safetensors", b"\x00" * 6, "not a whole .safetensors file"),
    }.values(),
)
def test_a_wrong_file_is_refused_in_one_line(folder, name, content, message):
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        as_is(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["scan.ply", "scan.pcd", "scan.npz", "scan.safetensors", "scan"])
def test_a_folder_is_no_scan(folder, name):
    (folder / name).mkdir()
    with pytest.raises(InputError, match=r"is a folder; expected a scan file"):
        read_scene(folder / name)


def test_a_safetensors_file_of_others_is_refused(folder):
    path = folder / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="something else; expected the scan, or a prepared one"):
        read_scene(path)
    ours = {"format": "o2s.scene", "version": "1", "name": "a"}
    save_file({"points": torch.zeros(4, 2)}, path, metadata=ours)
    with pytest.raises(InputError, match=r"'points' is torch\.float32 of shape"):
        read_scene(path)
    save_file({"points": torch.zeros(4, 3)}, path, metadata=ours)
    with pytest.raises(InputError, match="no 'from_file'"):
        read_scene(path)
    save_file({"points": torch.zeros(4, 3)}, path, metadata=ours | {"version": "9"})
    with pytest.raises(InputError, match="version '9' of a prepared scene; expected 1"):
        read_scene(path)


def test_a_prepared_scene_is_written_under_its_own_suffix(folder):
    scene = scene_from_cloud(cloud_of(), Path("scan.ply"), up="z", unit="m")
    with pytest.raises(InputError, match=r"a name ending in \.safetensors"):
        write_scene(scene, folder / "scene.ply")


def test_stray_points_are_dropped_with_a_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = np.random.default_rng(0).uniform(0, 4, (500, 3))
    strays = np.array([[1e6, 0, 0], [0, -5e3, 1]])
    np.savez(tmp_path / "room.npz", points=room)
    np.savez(tmp_path / "stray.npz", points=np.concatenate([room, strays]))
    clean = read_scene(tmp_path / "room.npz", up="z", unit="m")
    with caplog.at_level("WARNING"):
        scene = read_scene(tmp_path / "stray.npz", up="z", unit="m")
    assert "dropped 2 points over 1 km from the rest" in caplog.text
    assert torch.equal(scene.points, clean.points)
    assert torch.equal(scene.from_file, clean.from_file)
