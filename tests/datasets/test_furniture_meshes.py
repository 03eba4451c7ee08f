"""Furniture meshes: size, up, front, colours, damage."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from furniture_fake import assert_one_line, box, item, png, write_deb, write_library, write_sh3f
from PIL import Image

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_meshes import texture_colors
from o2s.errors import InputError


def test_a_mesh_is_the_same_out_of_every_wrapping(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    file = write_library(tmp_path / "Test.sh3f")
    package = write_deb(tmp_path / "a.deb", {"Test.sh3f": file.read_bytes()}, "w:gz")
    library, other = FurnitureLibrary.open(file), FurnitureLibrary.open(package)
    copy = pickle.loads(pickle.dumps(library))
    for piece in library.pieces:
        mesh = library.load(piece)
        assert library.load(piece) is mesh
        for again in (other.load(piece), copy.load(piece)):
            np.testing.assert_array_equal(again.vertices, mesh.vertices)
            np.testing.assert_array_equal(again.faces, mesh.faces)
            np.testing.assert_array_equal(again.colors, mesh.colors)
        with pytest.raises(ValueError, match="read-only"):
            mesh.vertices[0] = 0


@pytest.mark.parametrize("key", ["Test/chair", "Test/fridge"])
def test_a_mesh_has_its_size_and_stands_upright_with_its_front_towards_us(
    tmp_path: Path, key: str
) -> None:
    pytest.importorskip("trimesh")
    library = FurnitureLibrary.open(write_library(tmp_path / "Test.sh3f"))
    piece = next(piece for piece in library.pieces if piece.key == key)
    mesh = library.load(piece)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    np.testing.assert_allclose(high - low, piece.size, rtol=1e-6)
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-6)
    assert low[2] == 0
    middle = mesh.vertices[mesh.faces].mean(axis=1)
    width, depth, height = piece.size
    for color, axis, place in (
        ((255, 0, 0), 1, -depth / 2),
        ((0, 255, 0), 2, height),
        ((0, 0, 255), 0, width / 2),
    ):
        here = (mesh.colors == color).all(axis=1)
        assert here.sum() == 2
        np.testing.assert_allclose(middle[here, axis], place, rtol=1e-6)


def test_a_flat_mesh_stays_flat(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    rug = "v 0 0 0\nv 1 0 0\nv 1 0 1\nf 1 2 3\n"
    file = write_sh3f(tmp_path / "a.sh3f", [item("Rug", "/rug.obj")], {"rug.obj": rug})
    library = FurnitureLibrary.open(file)
    mesh = library.load(library.pieces[0])
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [0.8, 0.6, 0], atol=1e-6)
    assert (mesh.colors == mesh.colors[0, 0]).all()  # nothing is known, so it is grey


@pytest.mark.parametrize("name", ["wood.png", "C:\\\\Users\\\\me\\\\wood.png", "/home/me/wood.png"])
def test_colors_come_from_the_texture_wherever_it_once_was(tmp_path: Path, name: str) -> None:
    pytest.importorskip("trimesh")
    model = (
        "mtllib table.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 1\n"
        "vt 0.1 0.1\nvt 0.1 0.2\nvt 0.2 0.2\nvt 1.6 0.1\nvt 1.6 0.2\nvt 1.7 0.2\n"
        "usemtl wood\nf 1/1 2/2 3/3\nf 1/4 2/5 4/6\n"
    )
    files = {
        "t/table.obj": model,
        "t/table.mtl": f"newmtl wood\nKd 0 1 0\nmap_Kd {name}\n",
        "t/wood.png": png([[[250, 0, 0], [0, 0, 250]]]),
    }
    file = write_sh3f(tmp_path / "a.sh3f", [item("Table", "/t/table.obj")], files)
    library = FurnitureLibrary.open(file)
    colors = library.load(library.pieces[0]).colors.tolist()
    assert sorted(colors) == [[0, 0, 250], [250, 0, 0]]


@pytest.mark.parametrize("content", [b"no image", png([[[9, 9, 9]]])[:40], None])
def test_without_its_texture_a_face_has_its_material_color(
    tmp_path: Path, content: bytes | None
) -> None:
    pytest.importorskip("trimesh")
    model = "mtllib x.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 1\nvt 0 0\nusemtl wood\nf 1/1 2/1 3/1\n"
    files = {"t.obj": model, "t.mtl": "newmtl wood\nKd 0 1 0\nmap_Kd wood.png\n"}
    files |= {} if content is None else {"wood.png": content}
    file = write_sh3f(tmp_path / "a.sh3f", [item("Table", "/t.obj")], files)
    library = FurnitureLibrary.open(file)
    assert library.load(library.pieces[0]).colors.tolist() == [[0, 255, 0]]


def test_a_texture_counts_where_it_is_opaque_and_over_the_whole_face() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2] = (200, 0, 0, 255)  # the columns between are transparent black
    image = Image.fromarray(pixels)
    whole = np.array([[[0, 0], [1, 0], [0, 1]], [[1, 1], [0, 1], [1.0, 0]]])
    hidden = np.array([[[1.3, 0.5], [1.4, 0.5], [1.3, 0.6]]]) / 64
    colors = texture_colors(image, np.concatenate([whole, hidden]))
    np.testing.assert_allclose(colors, [[200, 0, 0]] * 3, atol=1)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    colors = texture_colors(Image.fromarray(stripes), whole)
    np.testing.assert_allclose(colors, 100, atol=1)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "not a mesh\n",
        "v 0 0 0\nv 1 0 0\nv 0 1 0\n",
        "v 0 0 0\nv 1 0 0\nf 1 2 7\n",
        "v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n",
        "v 0 0\nv 1\nv a b c\nf 1 2 3\n",
        "v 0 0 0\nv 1 0 0\nv 0 1 0\nf a b c\n",
    ],
)
def test_a_broken_mesh_is_one_line_with_its_name(tmp_path: Path, model: str) -> None:
    pytest.importorskip("trimesh")
    file = write_sh3f(tmp_path / "a.sh3f", [item("Chair", "/b/a.obj")], {"b/a.obj": model})
    library = FurnitureLibrary.open(file)
    with pytest.raises(InputError) as caught:
        library.load(library.pieces[0])
    assert str(caught.value).startswith(f"{file}: b/a.obj: ")
    assert_one_line(caught.value)


def test_a_member_that_rots_later_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    file = write_sh3f(tmp_path / "a.sh3f", [item("Chair", "/a.obj")], {"a.obj": box()})
    library = FurnitureLibrary.open(file)
    file.write_bytes(file.read_bytes().replace(b"usemtl", b"usenot"))
    with pytest.raises(InputError) as caught:
        library.load(library.pieces[0])
    assert_one_line(caught.value, file, "a.obj: cannot be read")


def test_without_trimesh_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = FurnitureLibrary.open(write_library(tmp_path / "Test.sh3f"))
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(InputError) as caught:
        library.load(library.pieces[0])
    assert_one_line(caught.value, 'pip install "o2s[rooms]"')
