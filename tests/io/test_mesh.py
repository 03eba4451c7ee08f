"""Meshes as scans: points on their faces, with the colours that those have there."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from o2s.errors import InputError
from o2s.io import mesh as mesh_reader
from o2s.io import read_scene
from o2s.io.mesh import read_mesh

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_reader, "FEWEST", 4000)


def halves() -> Image.Image:
    """An image whose left half is red and whose right half is blue."""
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (4, 0, 8, 4))
    return image


def square(visual: Any = None) -> trimesh.Trimesh:
    """Two metres wide along x, one deep along y; the texture lies on it once."""
    corners = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], float)
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)


def textured(material: Any) -> trimesh.Trimesh:
    return square(TextureVisuals(uv=UV, material=material))


def written(folder: Path, name: str, *parts: trimesh.Trimesh) -> Path:
    path = folder / name
    trimesh.Scene(list(parts)).export(path)
    return path


@pytest.mark.parametrize("name", ["room.glb", "room.gltf", "room.obj"])
def test_a_texture_colours_the_points_where_it_lies(name: str, tmp_path: Path) -> None:
    material = (
        SimpleMaterial(image=halves())
        if name == "room.obj"
        else PBRMaterial(baseColorTexture=halves())
    )
    cloud = read_mesh(written(tmp_path, name, textured(material)))
    assert len(cloud) == 4000
    assert cloud.rgb is not None
    assert cloud.normals is not None
    sure = np.abs(cloud.xyz[:, 0] - 1) > 0.01
    left = cloud.xyz[:, 0] < 1
    assert (cloud.rgb[sure & left] == [1, 0, 0]).all()
    assert (cloud.rgb[sure & ~left] == [0, 0, 1]).all()
    np.testing.assert_allclose(cloud.normals, np.tile([0, 0, 1], (4000, 1)), atol=1e-6)
    assert 0.45 < left.mean() < 0.55  # spread evenly
    assert (cloud.xyz.min(axis=0) >= [0, 0, 0]).all()
    assert (cloud.xyz.max(axis=0) <= [2, 1, 0]).all()


def test_the_upper_end_of_a_texture_lies_at_v_1(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 8), RED)  # red above
    image.paste(BLUE, (0, 4, 4, 8))
    cloud = read_mesh(written(tmp_path, "room.glb", textured(PBRMaterial(baseColorTexture=image))))
    assert cloud.rgb is not None
    assert (cloud.rgb[cloud.xyz[:, 1] > 0.51] == [1, 0, 0]).all()
    assert (cloud.rgb[cloud.xyz[:, 1] < 0.49] == [0, 0, 1]).all()


def test_gltf_multiplies_a_texture_by_the_materials_colour(tmp_path: Path) -> None:
    material = PBRMaterial(
        baseColorTexture=Image.new("RGB", (2, 2), (255, 255, 255)),
        baseColorFactor=[0, 255, 0, 255],
    )
    cloud = read_mesh(written(tmp_path, "room.glb", textured(material)))
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, np.tile([0, 1, 0], (4000, 1)), atol=1e-6)


@pytest.mark.parametrize("name", ["room.glb", "room.obj"])
def test_colours_of_vertices_are_blended(name: str, tmp_path: Path) -> None:
    corners = [[*RED, 255], [*BLUE, 255], [*BLUE, 255], [*RED, 255]]
    part = square(ColorVisuals(vertex_colors=corners))
    cloud = read_mesh(written(tmp_path, name, part))
    assert cloud.rgb is not None
    blue = cloud.xyz[:, 0] / 2
    expected = np.stack([1 - blue, np.zeros(4000), blue], axis=1)
    np.testing.assert_allclose(cloud.rgb, expected, atol=0.01)


def test_a_material_colours_all_of_its_faces(tmp_path: Path) -> None:
    plain = textured(PBRMaterial(baseColorFactor=[0, 128, 255, 255]))
    cloud = read_mesh(written(tmp_path, "room.glb", plain))
    assert cloud.rgb is not None
    # In the file it is linear: a half is 0.735 as a byte of an image.
    np.testing.assert_allclose(cloud.rgb, np.tile([0, 0.735, 1], (4000, 1)), atol=0.01)


def test_parts_stand_where_the_scene_puts_them_and_grey_where_they_have_no_colour(
    tmp_path: Path,
) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(textured(PBRMaterial(baseColorTexture=halves())))
    bare = trimesh.creation.box((1, 1, 1))
    scene.add_geometry(bare, transform=trimesh.transformations.translation_matrix([0, 0, 5]))
    path = tmp_path / "room.glb"
    scene.export(path)
    cloud = read_mesh(path)
    assert cloud.rgb is not None
    box = cloud.xyz[:, 2] > 4
    assert 0.7 < box.mean() < 0.8  # 6 of 8 square metres
    np.testing.assert_allclose(cloud.xyz[box].mean(axis=0), [0, 0, 5], atol=0.05)
    colors = np.unique(cloud.rgb[box], axis=0)
    assert len(colors) == 1
    assert np.ptp(colors) == 0  # a grey


def test_a_mesh_without_colours_gives_points_without(tmp_path: Path) -> None:
    path = tmp_path / "room.stl"
    trimesh.creation.box((4, 3, 2.5)).export(path)
    cloud = read_mesh(path)
    assert cloud.rgb is None
    assert cloud.normals is not None
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-5)
    assert np.array_equal(read_mesh(path).xyz, cloud.xyz)


def test_as_many_points_as_vertices_but_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "room.stl"
    trimesh.creation.icosphere(subdivisions=5).export(path)  # 20,480 faces, 10,242 vertices
    assert len(read_mesh(path)) == 10_240
    monkeypatch.setattr(mesh_reader, "MOST", 6000)
    assert len(read_mesh(path)) == 6000


def test_a_mesh_with_y_up_becomes_an_upright_scene(tmp_path: Path) -> None:
    room = trimesh.creation.box((5, 2.6, 4))  # walls, floor and ceiling, y up as in glTF
    room.invert()
    shelf = trimesh.creation.box((1, 0.02, 3))
    shelf.apply_translation([2, -0.5, 0])
    path = written(tmp_path, "room.glb", room, shelf)
    scene = read_scene(path, up="y")
    low, high = scene.points.amin(dim=0), scene.points.amax(dim=0)
    np.testing.assert_allclose((high - low).tolist(), [5, 4, 2.6], atol=0.02)
    assert scene.name == "room"


def test_points_alone_are_points(tmp_path: Path) -> None:
    xyz = np.random.default_rng(0).uniform(0, 4, (500, 3))
    colors = np.tile([255, 0, 0, 255], (500, 1)).astype(np.uint8)
    trimesh.Scene([trimesh.PointCloud(xyz, colors)]).export(tmp_path / "room.glb")
    cloud = read_mesh(tmp_path / "room.glb")
    np.testing.assert_allclose(cloud.xyz, xyz, atol=1e-6)
    assert cloud.rgb is not None
    assert (cloud.rgb == [1, 0, 0]).all()


def test_one_damaged_vertex_takes_only_its_faces_along(tmp_path: Path) -> None:
    lines = [
        "v 0 0 0",
        "v 2 0 0",
        "v 2 1 0",
        "v 0 1 0",
        "v nan 0 0",
        "f 1 2 3",
        "f 1 3 4",
        "f 1 2 5",
    ]
    (tmp_path / "room.obj").write_text("\n".join(lines))
    cloud = read_mesh(tmp_path / "room.obj")
    np.testing.assert_allclose(cloud.xyz.mean(axis=0), [1, 0.5, 0], atol=0.05)


def test_one_texture_in_many_places_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(textured(PBRMaterial(baseColorTexture=halves())), geom_name="wall")
    for i in range(1, 5):
        moved = trimesh.transformations.translation_matrix([0, 0, i])
        scene.graph.update(frame_to=f"wall {i}", geometry="wall", matrix=moved)
    scene.export(tmp_path / "room.glb")
    reduced: list[int] = []
    reduce = Image.Image.reduce

    def counted(image: Image.Image, factor: int) -> Image.Image:
        reduced.append(factor)
        return reduce(image, factor)

    monkeypatch.setattr(Image.Image, "reduce", counted)
    cloud = read_mesh(tmp_path / "room.glb")
    assert len(reduced) == 1
    assert set(np.round(cloud.xyz[:, 2]).astype(int)) == {0, 1, 2, 3, 4}
    assert cloud.rgb is not None
    assert 0.45 < (cloud.rgb == [1, 0, 0]).all(axis=1).mean() < 0.55


def test_large_textures_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "room.glb", textured(PBRMaterial(baseColorTexture=halves())))
    monkeypatch.setattr(mesh_reader, "WIDEST", 2)
    cloud = read_mesh(path)
    assert cloud.rgb is not None
    assert (cloud.rgb[cloud.xyz[:, 0] < 0.99] == [1, 0, 0]).all()


def test_a_missing_texture_is_told_and_leaves_no_colour(tmp_path: Path, caplog: Any) -> None:
    path = written(tmp_path, "room.obj", textured(SimpleMaterial(image=halves())))
    for image in [*tmp_path.glob("*.png"), *tmp_path.glob("*.jpg"), *tmp_path.glob("*.jpeg")]:
        image.unlink()
    cloud = read_mesh(path)
    assert cloud.rgb is None
    assert "room.obj: a texture is missing or cannot be read" in caplog.text


def test_names_of_files_may_be_uris(tmp_path: Path) -> None:
    path = written(tmp_path, "room.gltf", textured(PBRMaterial(baseColorTexture=halves())))
    text = path.read_text()
    for file in [*tmp_path.glob("*.png"), *tmp_path.glob("*.bin")]:
        file.rename(tmp_path / f"größe {file.name}")
        text = text.replace(file.name, f"gr%C3%B6%C3%9Fe%20{file.name}")
    path.write_text(text)
    cloud = read_mesh(path)
    assert cloud.rgb is not None
    assert (cloud.rgb[cloud.xyz[:, 0] < 0.99] == [1, 0, 0]).all()


def test_colours_of_vertices_beside_a_material(tmp_path: Path) -> None:
    lines = [f"v {x} {y} 0 {x / 2} 0 0" for x, y in ((0, 0), (2, 0), (2, 1), (0, 1))]
    (tmp_path / "room.mtl").write_text("newmtl plain\nKd 0.5 0.5 0.5\n")
    lines = ["mtllib room.mtl", *lines, "usemtl plain", "f 1 2 3", "f 1 3 4"]
    (tmp_path / "room.obj").write_text("\n".join(lines))
    cloud = read_mesh(tmp_path / "room.obj")
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb[:, 0], cloud.xyz[:, 0] / 2, atol=0.01)
    assert not cloud.rgb[:, 1:].any()


def test_packed_geometry_is_refused(tmp_path: Path) -> None:
    header = {"asset": {"version": "2.0"}, "extensionsRequired": ["KHR_mesh_quantization"]}
    chunk = json.dumps(header).encode()
    data = b"glTF" + struct.pack("<III", 2, 20 + len(chunk), len(chunk)) + b"JSON" + chunk
    for name, content in (("room.glb", data), ("room.gltf", chunk)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"packed \(quantisation\); export it without"):
            read_scene(tmp_path / name)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("gone.glb", None, "no such file"),
        ("empty.glb", b"", "the file is empty; expected a mesh"),
        ("torn.glb", b"glTF\x02\0\0\0", "not a whole mesh"),
        ("text.stl", b"hello", "has no faces"),
        ("lone.obj", b"v 0 0 0\nv 1e200 0 0\nv 0 1 0\nf 1 2 3\n", "has no faces"),
        ("names.gltf", b"[1, 2]", "not a whole mesh, or a file beside it is missing"),
        ("flat.obj", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no faces with an area"),
        ("nan.obj", b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "has no faces"),
    ],
)
def test_mistakes_are_one_line(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_scene(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
