"""Catalogues as they are shipped, and each kind of damage to them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from furniture_fake import (
    COLUMNS,
    MATERIALS,
    assert_one_line,
    box,
    item,
    write_ar,
    write_deb,
    write_library,
    write_sh3f,
    write_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_catalogues import CATALOGUE, parse_properties
from o2s.errors import InputError


def test_properties_are_read_as_java_does() -> None:
    text = (
        b"# comment\r\n ! another\n\n  plain = a value \ncolon:b\nspace c d\nempty\nequals\\==e\n"
        b"long=one \\\n    two\\\n\t# three\nslash=ends\\\\\nnext=f\n"
        b"code=\\u20ac \\t\\q \\ud83d\\ude00\nlatin=\xe9\x85\nlast=g\\"
    )
    assert parse_properties(text) == {
        "plain": "a value ",
        "colon": "b",
        "space": "c d",
        "empty": "",
        "equals=": "e",
        "long": "one two# three",
        "slash": "ends\\",
        "next": "f",
        "code": "€ \tq 😀",
        "latin": "é\x85",
        "last": "g",
    }


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_what_java_would_write_is_read_back(values: dict[str, str]) -> None:
    def escape(text: str) -> str:
        units = np.frombuffer(text.encode("utf-16-le"), np.uint16)
        return "".join(f"\\u{unit:04x}" for unit in units)

    lines = [f"{escape(key)} = {escape(value)}\n" for key, value in values.items()]
    assert parse_properties("".join(lines).encode()) == values


def test_a_catalogue_is_the_same_in_every_wrapping(tmp_path: Path) -> None:
    file = write_library(tmp_path / "folder" / "deep" / "Test.sh3f")
    package = write_deb(tmp_path / "a.deb", {"x/Test.sh3f": file.read_bytes(), "doc": b"text"})
    library = FurnitureLibrary.open(file)
    for path in (file, tmp_path / "folder", package):
        other = FurnitureLibrary.open(path)
        assert other.pieces == library.pieces
        assert other.skipped == {"Test/man": "people or animals", "Test/thing": "no class"}
    chair, fridge = library.pieces
    assert (chair.key, chair.name, chair.fine) == ("Test/chair", "Office chair", "office chair")
    assert (chair.label, chair.size, chair.elevation) == ("chair", (0.8, 0.6, 0.9), 0.05)
    assert (chair.creator, chair.licence, chair.source) == ("Ann", "CC-BY", "Test, 2, example.org")
    assert (fridge.fine, fridge.label, fridge.licence) == ("refrigerator", "refrigerator", "CC0")


def test_a_folder_of_meshes_with_a_table(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    glb = trimesh.creation.box([1, 2, 3]).export(file_type="glb")
    rows = [
        f"height,{COLUMNS},width,depth",
        "0.9,box.obj,Red Chair,chair,Ann,CC0,0.8,0.6",
        ",box.glb,,bed,Bob,CC-BY 4.0,,",
        ",none.ply,Lost,sofa,,,1,1",
    ]
    folder = write_table(
        tmp_path / "mine", rows, {"box.obj": box(), "box.mtl": MATERIALS, "box.glb": glb}
    )
    with pytest.raises(InputError) as caught:
        FurnitureLibrary.open(folder)
    assert_one_line(caught.value, folder / "furniture.csv", "line 4: height is ''")
    rows[-1] = ",none.ply,Lost,sofa,,,,"
    rows.append(",flat.glb,Print,picture,,,,")
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 3, 0]], [[0, 1, 2]])
    write_table(folder, rows, {"flat.glb": flat.export(file_type="glb")})
    library = FurnitureLibrary.open(folder)
    chair, bed = library.pieces
    assert (chair.key, chair.fine, chair.size) == ("mine/box", "red chair", (0.8, 0.6, 0.9))
    assert (bed.key, bed.fine, bed.size) == ("mine/box-2", "bed", (1.0, 3.0, 2.0))
    assert list(library.skipped) == ["mine/none", "mine/flat"]
    assert library.skipped["mine/flat"].endswith("it is flat: 1 x 0 x 3 m")
    assert_one_line(InputError(library.skipped["mine/none"]), folder / "none.ply")
    mesh = library.load(chair)
    front = mesh.vertices[mesh.faces[(mesh.colors == (255, 0, 0)).all(axis=1)]]
    np.testing.assert_allclose(front[..., 1], -0.3, rtol=1e-6)
    np.testing.assert_allclose(np.ptp(library.load(bed).vertices, axis=0), [1, 3, 2], rtol=1e-6)


@pytest.mark.parametrize(
    "rows, expected",
    [
        (["file,name,class"], "no column 'creator', 'licence'; expected file, name"),
        ([""], "no column 'file'"),
        ([COLUMNS, "a.obj,A,sofaa,,"], "line 2: no class 'sofaa'"),
        ([COLUMNS, ",A,sofa,,"], "line 2: no file; expected the name of a mesh"),
        ([COLUMNS + ",width,depth,height", "a.obj,A,sofa,,,1,x,1"], "line 2: depth is 'x'"),
        ([COLUMNS + ",width,depth,height", "a.obj,A,sofa,,,1,0,1"], "line 2: a length is not"),
        ([COLUMNS + ",width,depth,height", "a.obj,A,sofa,,,1,1,1"], "a.obj: cannot be read"),
        ([COLUMNS + ",width,depth,height", "a.xyz,A,sofa,,,1,1,1"], "'a.xyz'; expected one of"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, rows: list[str], expected: str) -> None:
    folder = write_table(tmp_path / "mine", rows, {})
    with pytest.raises(InputError) as caught:
        FurnitureLibrary.open(folder)
    assert_one_line(caught.value, folder, expected)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"model": "/none.obj"}, "a.sh3f: there is no 'none.obj' in it"),
        ({"model": "/a.zip"}, "'a.zip'; expected one of obj"),
        ({"width": "wide"}, "width is 'wide'; expected a number"),
        ({"height": "0"}, "expected more than 0"),
        ({"depth": "nan"}, "depth is 'nan'"),
        ({"modelRotation": "1 0 0"}, "modelRotation has 3 numbers"),
        ({"modelRotation": "1 0 0 0 1 0 0 0 one"}, "modelRotation is 'one'"),
    ],
)
def test_a_broken_item_is_skipped_with_a_reason(
    tmp_path: Path, change: dict[str, str], expected: str
) -> None:
    items = [item("Chair", "/a.obj"), item("Bed", "/b.obj") | change]
    files = {"a.obj": box(), "b.obj": box()}
    library = FurnitureLibrary.open(write_sh3f(tmp_path / "a.sh3f", items, files))
    assert len(library.pieces) == 1
    (reason,) = library.skipped.values()
    assert reason.startswith("cannot be read: ")
    assert_one_line(InputError(reason), expected)


def test_a_damaged_library_is_one_line_with_its_name(tmp_path: Path) -> None:
    cut = tmp_path / "cut.sh3f"
    cut.write_bytes(write_library(tmp_path / "whole.sh3f").read_bytes()[:-40])
    bare = tmp_path / "bare.sh3f"
    with zipfile.ZipFile(bare, "w") as archive:
        archive.writestr("readme", "text")
    empty = write_sh3f(tmp_path / "empty.sh3f", [], {})
    useless = write_sh3f(tmp_path / "useless.sh3f", [item("Spoon", "/a.obj")], {"a.obj": box()})
    package = write_deb(tmp_path / "plain.deb", {"doc": b"text"})
    short = tmp_path / "short.deb"
    short.write_bytes(package.read_bytes()[:-30])
    rotten = write_ar(tmp_path / "rotten.deb", {"data.tar.xz": b"rotten"})
    zstd = write_ar(tmp_path / "new.deb", {"data.tar.zst": b"\x28\xb5\x2f\xfd and so on"})
    text = tmp_path / "text.deb"
    text.write_text("text")
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, expected in {
        cut: "not a whole .sh3f",
        bare: f"there is no '{CATALOGUE}' in it; expected a library of Sweet Home 3D",
        empty: "lists no furniture",
        useless: "none of its 1 models can be used; useless/a: no class",
        package: "no .sh3f in it",
        short: "no whole data.tar in it",
        rotten: "not a whole package",
        zstd: "packed with zstd",
        text: "no whole data.tar in it",
        folder: "no .sh3f and no furniture.csv in it",
        tmp_path / "none.sh3f": "no such file",
    }.items():
        with pytest.raises(InputError) as caught:
            FurnitureLibrary.open(path)
        assert str(caught.value).startswith(str(path))
        assert_one_line(caught.value, expected)


def test_too_large_a_mesh_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("o2s.datasets.furniture_catalogues.MOST_FACES", 4)
    items = [item("Chair", "/a.obj"), item("Bed", "/b.obj")]
    files = {"a.obj": box(), "b.obj": box() + "f 1 2 3\n"}
    library = FurnitureLibrary.open(write_sh3f(tmp_path / "a.sh3f", items, files))
    assert library.skipped == {"a/b": "too large: 5 polygons"}


def test_the_licence_beside_a_model_goes_before_the_catalogues(tmp_path: Path) -> None:
    items = [
        item("Sofa", "/m/sofa/sofa.obj", license="Public domain"),
        item("Chair", "/m/chair/chair.obj", license="Public domain"),
        item("Bed", "/m/bed/bed.obj", license="Public domain"),
    ]
    files = {f"m/{name}/{name}.obj": box() for name in ("sofa", "chair", "bed")}
    files["m/sofa/12 - LICENSE.html"] = (
        "<p>Released under\n <a>Creative Commons  Attribution 3.0</a> and</p>"
    )
    files["m/chair/LICENSE.txt"] = "Released under\nCreative Commons Zero 1.0\nand so on"
    files["m/LICENSE.TXT"] = "Released under\nCreative Commons Nothing"
    library = FurnitureLibrary.open(write_sh3f(tmp_path / "a.sh3f", items, files))
    licences = {piece.label: piece.licence for piece in library.pieces}
    assert licences == {
        "sofa": "Creative Commons Attribution 3.0",
        "chair": "Creative Commons Zero 1.0",
        "bed": "Public domain",
    }
    text = library.attribution()
    assert "Attribution 3.0: https://creativecommons.org/licenses/by/3.0/" in text
