"""Made-up furniture: what is drawn, and the library that it becomes."""

import csv
import math
import random
from pathlib import Path

import numpy as np
import pytest
from command_line import o2s

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_classes import CLASSES
from o2s.datasets.sketch import Sketch
from o2s.datasets.sketched_library import SHAPES, sketch_piece, write_furniture
from o2s.errors import InputError


def corners(sketch: Sketch) -> np.ndarray:
    return np.concatenate([part.vertices for part in sketch.parts])


def extent(label: str, number: int) -> np.ndarray:
    return np.ptp(corners(sketch_piece(label, 0, number)[1]), axis=0)


def test_every_class_of_furniture_can_be_drawn() -> None:
    assert SHAPES.keys() == CLASSES.keys()


@pytest.mark.parametrize("label", SHAPES)
def test_pieces_are_whole_of_a_size_and_differ(label: str) -> None:
    sizes, names = [], set()
    for number in range(20):
        name, sketch = sketch_piece(label, 0, number)
        names.add(name)
        for part in sketch.parts:
            assert np.isfinite(part.vertices).all()
            assert part.faces.min() >= 0
            assert part.faces.max() < len(part.vertices)
            assert all(0 <= channel <= 255 for channel in part.color)
        sizes.append(np.ptp(corners(sketch), axis=0))
        assert 0.1 < sizes[-1].max() < 3.2
    assert np.std(sizes, axis=0).max() > 0.01
    assert all(names)


def test_sizes_are_those_of_such_things() -> None:
    for label, low, high in (
        ("door", (0.75, 0.05, 1.9), (2.3, 0.3, 2.4)),
        ("bed", (0.5, 1.0, 0.4), (2.1, 2.5, 2.2)),
        ("laptop", (0.25, 0.2, 0.15), (0.45, 0.45, 0.4)),
        ("refrigerator", (0.4, 0.45, 0.45), (1.0, 0.9, 2.15)),
    ):
        for number in range(20):
            size = extent(label, number)
            assert (size > low).all(), (label, number)
            assert (size < high).all(), (label, number)


def test_a_class_has_several_forms_each_of_its_own_shape() -> None:
    def forms(label: str) -> dict[str, list[np.ndarray]]:
        found: dict[str, list[np.ndarray]] = {}
        for number in range(60):
            found.setdefault(sketch_piece(label, 0, number)[0], []).append(extent(label, number))
        return found

    fans = forms("fan")
    assert all((size[:2] > 2 * size[2] / 3).all() for size in fans["ceiling fan"])
    assert all((size[:2] * 2 < size[2]).all() for size in fans["tower fan"])
    assert all((size[1] * 1.5 < size[[0, 2]]).all() for size in fans["box fan"])
    washers = forms("washing machine")
    top_loading = np.mean([size[2] for size in washers["top-loading washing machine"]])
    assert top_loading > np.mean([size[2] for size in washers["washing machine"]])
    assert min(size[1] for size in forms("counter")["counter"]) > 0.45
    assert {"stool", "bar stool", "ottoman", "step stool"} <= forms("stool").keys()
    assert "open wardrobe" in forms("wardrobe")
    televisions = forms("television")
    assert all(size[1] > size[0] / 2 for size in televisions["tube television"])
    assert all(size[1] < size[0] / 2 for size in televisions["tv"])
    pianos = forms("piano")
    assert min(size[1] for size in pianos["grand piano"]) > 1.2
    assert min(size[2] for size in pianos["upright piano"]) > 1.0
    assert min(size[2] for size in forms("sink")["sink unit"]) > 0.8
    hung = {name for name, s in (sketch_piece("lamp", 0, i) for i in range(60)) if s.elevation > 1}
    assert hung == {"ceiling lamp", "chandelier", "wall lamp"}
    assert {"plant", "potted plant", "cactus", "fern", "palm", "flower"} <= forms("plant").keys()
    boxes = {"box", "crate", "trunk", "pile of boxes", "storage box", "gift box", "hat box"}
    assert boxes | {"cardboard box", "open cardboard box"} <= forms("box").keys()


def test_the_same_seed_draws_the_same_piece() -> None:
    for label in ("chair", "plant", "curtain"):
        first, again, other = (corners(sketch_piece(label, s, 3)[1]) for s in (0, 0, 1))
        assert np.array_equal(first, again)
        assert first.shape != other.shape or not np.allclose(first, other)


def sketch() -> Sketch:
    return Sketch(random.Random(0))


def volume(s: Sketch) -> float:
    """By the divergence theorem: right only where the skin is closed and faces outwards."""
    a, b, c = (s.parts[0].vertices[s.parts[0].faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def test_parts_are_closed_and_face_outwards() -> None:
    s = sketch()
    s.box((2.0, 3.0, 4.0), (1.0, 2.0, 3.0), (1, 2, 3))
    assert volume(s) == pytest.approx(24)
    assert corners(s).min(axis=0).tolist() == [0.0, 0.5, 3.0]
    s = sketch()
    s.turned([(1.0, 0.0), (1.0, 2.0)], (5.0, 0.0, 0.0), (1, 2, 3), sides=200)
    assert volume(s) == pytest.approx(2 * math.pi, rel=1e-3)
    s = sketch()
    s.turned([(math.sqrt(0.5), 0.0), (math.sqrt(0.5), 1.0)], (0.0, 0.0, 0.0), (1, 2, 3), sides=4)
    assert np.ptp(corners(s), axis=0).tolist() == pytest.approx([1, 1, 1])
    s = sketch()
    s.cushion((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 2, 3), edge=1.0)
    assert volume(s) == pytest.approx(math.pi / 6, rel=0.1)
    s = sketch()
    s.disc(1.0, 0.5, (0.0, 0.0, 0.0), (1, 2, 3))
    assert volume(s) == pytest.approx(math.pi / 2, rel=0.02)
    assert corners(s)[:, 1].min() == -0.5
    for end in ((0.0, 0.0, 2.0), (2.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
        s = sketch()
        s.bar((0.0, 0.0, 0.0), end, 0.1, (1, 2, 3))
        octagon = 2 * math.sqrt(2) * 0.01
        assert volume(s) == pytest.approx(octagon * math.hypot(*end))


def test_a_written_library_holds_what_was_drawn(tmp_path: Path) -> None:
    assert write_furniture(tmp_path, count=1) == len(SHAPES)
    library = FurnitureLibrary.open(tmp_path)
    assert not library.skipped
    assert {piece.label for piece in library.pieces} == SHAPES.keys()
    for piece in library.pieces:
        name, drawn = sketch_piece(piece.label, 0, 0)
        assert piece.name == name
        assert piece.licence == "Creative Commons Zero"
        assert piece.size == pytest.approx(np.ptp(corners(drawn), axis=0), abs=1e-5)
        assert piece.elevation == drawn.elevation
        mesh = library.load(piece)
        assert len(mesh.faces) == sum(len(part.faces) for part in drawn.parts)
        assert {tuple(c) for c in mesh.colors.tolist()} == {part.color for part in drawn.parts}
        assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-6)
    (laptop,) = [piece for piece in library.pieces if piece.label == "laptop"]
    mesh = library.load(laptop)
    lid = mesh.vertices[mesh.vertices[:, 2] > laptop.size[2] / 2]
    assert lid[:, 1].min() > 0  # its lid is behind, its front to -y


def test_a_killed_command_does_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("furniture", "--out", tmp_path / "made", "--count", 1, "--seed", 5)
    code, out, _ = o2s(capsys, *arguments)
    assert code == 0
    assert f"{len(SHAPES)} pieces" in out
    rows = list(csv.DictReader((tmp_path / "made" / "furniture.csv").read_text().splitlines()))
    gone, kept = (tmp_path / "made" / rows[i]["file"] for i in (0, 1))
    before, stamp = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    assert o2s(capsys, *arguments)[0] == 0
    assert gone.read_bytes() == before
    assert kept.stat().st_mtime_ns == stamp


def test_a_run_that_was_killed_keeps_the_classes_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_: Sketch) -> str:
        raise KeyboardInterrupt

    second = list(SHAPES)[1]
    with monkeypatch.context() as patch:
        patch.setitem(SHAPES, second, dies)
        with pytest.raises(KeyboardInterrupt):
            write_furniture(tmp_path, count=2)
    first = sorted(tmp_path.glob("*.glb"))
    stamps = [path.stat().st_mtime_ns for path in first]
    assert len(first) == 2
    write_furniture(tmp_path, count=2)
    assert [path.stat().st_mtime_ns for path in first] == stamps


def test_a_list_in_another_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "furniture.csv").write_bytes("file,größe\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"furniture\.csv: columns"):
        write_furniture(tmp_path, count=1)


def test_pieces_that_are_there_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_furniture(tmp_path, count=1)
    before = (tmp_path / "furniture.csv").read_text()
    monkeypatch.setitem(SHAPES, "sofa", lambda sketch: "another name")
    write_furniture(tmp_path, count=1)
    assert (tmp_path / "furniture.csv").read_text() == before


def test_a_second_seed_keeps_the_first_ones_pieces(tmp_path: Path) -> None:
    each = len(SHAPES)
    assert write_furniture(tmp_path, count=1, seed=0) == each
    assert write_furniture(tmp_path, count=2, seed=1) == 3 * each
    (tmp_path / "sofa_0_000.glb").unlink()
    assert write_furniture(tmp_path, count=2, seed=1) == 3 * each - 1
    assert write_furniture(tmp_path, count=1, seed=0) == 3 * each
    rows = list(csv.DictReader((tmp_path / "furniture.csv").read_text().splitlines()))
    assert len({row["file"] for row in rows}) == len(rows) == 3 * each
    lines = [",".join(list(row.values())[:5]) for row in rows if "," not in row["name"]]
    head = "file,name,class,creator,licence"
    (tmp_path / "furniture.csv").write_text("\n".join([head, *lines]))
    assert write_furniture(tmp_path, count=1, seed=0) == 3 * each
    (tmp_path / "furniture.csv").write_text("file,label\n")
    with pytest.raises(InputError, match="expected file,name,class,creator,licence,elevation"):
        write_furniture(tmp_path, count=1)


def test_a_file_in_the_way_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "made").write_text("no folder")
    code, out, err = o2s(capsys, "furniture", "--out", tmp_path / "made", "--count", 1)
    assert (code, out) == (2, "")
    assert "made" in err
    assert len(err.strip().splitlines()) == 1
