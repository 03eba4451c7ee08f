"""S3DIS rooms out of their text files."""

from pathlib import Path

import numpy as np
import pytest

from o2s.datasets.preparation import prepare
from o2s.datasets.s3dis import CLASSES, S3DIS
from o2s.errors import InputError
from o2s.io import read_scene
from o2s.io.labelled import LabelledScan, read_labelled


def points(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.c_[rng.uniform(-20, 20, (count, 3)).round(3), rng.integers(0, 256, (count, 3))]


OBJECTS = {"chair_1": points(0, 30), "chair_2": points(1, 20), "stairs_1": points(2, 10)}


def write_room(raw: Path, area: str, room: str) -> Path:
    folder = raw / area / room / "Annotations"
    folder.mkdir(parents=True)
    for name, rows in OBJECTS.items():
        np.savetxt(folder / f"{name}.txt", rows, fmt="%.3f %.3f %.3f %d %d %d")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_room(tmp_path / "S3 DIS", "Area_1", "office_1")
    write_room(tmp_path / "S3 DIS", "Area_5", "hallway_6")
    return tmp_path / "S3 DIS"


def prepared(raw: Path, out: Path, name: str = "Area_1_office_1") -> LabelledScan:
    report = prepare(S3DIS(raw), out)
    assert not report.failed
    return read_labelled(out / f"{name}.safetensors")


def test_a_room_is_its_objects_one_after_the_other(raw: Path, tmp_path: Path) -> None:
    scan = prepared(raw, tmp_path / "out")
    rows = np.concatenate(list(OBJECTS.values()))
    assert (scan.name, scan.dataset, scan.split) == ("Area_1_office_1", "s3dis", "Area_1")
    assert np.array_equal(scan.xyz, rows[:, :3].astype(np.float32))
    assert np.array_equal(scan.rgb, rows[:, 3:])  # pyright: ignore[reportArgumentType]
    assert np.array_equal(scan.instance, [0] * 30 + [1] * 20 + [2] * 10)  # pyright: ignore
    chair, clutter = CLASSES.index("chair"), CLASSES.index("clutter")
    assert scan.classes["s3dis13"].tolist() == [chair] * 50 + [clutter] * 10
    assert scan.objects is not None
    assert scan.objects.names == ("chair", "chair", "stairs")
    assert scan.objects.classes["s3dis13"].tolist() == [chair, chair, clutter]
    for row, table in enumerate(OBJECTS.values()):
        low, high = table[:, :3].min(0), table[:, :3].max(0)
        assert scan.objects.boxes[row] == pytest.approx([*(low + high) / 2, *high - low], abs=1e-5)
    assert len(read_scene(tmp_path / "out" / "Area_1_office_1.safetensors")) == 60


def test_the_given_angle_is_undone_about_the_middle(raw: Path, tmp_path: Path) -> None:
    angles = raw / "Area_1" / "Area_1_alignmentAngle.txt"
    angles.write_text("## Global alignment angle per disjoint space ##\nhall_1 180\noffice_1 90\n")
    scan = prepared(raw, tmp_path / "out")
    middle = (scan.xyz.min(0) + scan.xyz.max(0)) / 2
    x, y, z = (scan.xyz - middle).T
    expected = np.stack([y, -x, z], axis=1) + middle
    assert scan.aligned_xyz == pytest.approx(expected, abs=1e-4)
    other = prepared(raw, tmp_path / "out", "Area_5_hallway_6")
    assert np.array_equal(other.alignment, np.eye(4))
    for wrong in ("right", "nan"):
        angles.write_text(f"office_1 {wrong}\n")
        failed = prepare(S3DIS(raw), tmp_path / "out").failed
        expected = f"{angles}: the angle of office_1 is '{wrong}'; expected degrees"
        assert failed == {"Area_1_office_1": expected}, "rooms of other areas are not concerned"


def test_a_stray_control_character_parts_words(raw: Path, tmp_path: Path) -> None:
    path = raw / "Area_5" / "hallway_6" / "Annotations" / "chair_1.txt"
    text = path.read_bytes()
    at = text.index(b" ", len(text) // 2)
    path.write_bytes(text[:at] + b"\x10" + text[at + 1 :])
    report = prepare(S3DIS(raw), tmp_path / "out")
    assert report.notes == {
        "Area_5_hallway_6": ["chair_1.txt: stray control characters read as spaces"]
    }
    scan = read_labelled(tmp_path / "out" / "Area_5_hallway_6.safetensors")
    assert np.array_equal(scan.xyz[:30], OBJECTS["chair_1"][:, :3].astype(np.float32))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1 2 3 4 5\n", "line 1 holds 5 numbers; expected 6"),
        ("1 2 3 4 5 6\n1 2 3 4 5 x\n", "line 2 holds 'x'; expected a number"),
        ("nan 2 3 4 5 6\n", "not finite"),
        ("1e39 2 3 4 5 6\n", "not finite or beyond 1,000,000"),
        ("\n", "no points; expected lines of x y z red green blue"),
    ],
)
def test_a_broken_file_is_one_line(raw: Path, tmp_path: Path, text: str, expected: str) -> None:
    path = raw / "Area_1" / "office_1" / "Annotations" / "chair_2.txt"
    path.write_text(text)
    report = prepare(S3DIS(raw), tmp_path / "out")
    assert report.done == 1
    assert report.failed["Area_1_office_1"].startswith(f"{path}: ")
    assert expected in report.failed["Area_1_office_1"]


def test_areas_and_what_is_missing(raw: Path, tmp_path: Path) -> None:
    assert [e.name for e in S3DIS(raw, "Area_5").entries()] == ["Area_5_hallway_6"]
    with pytest.raises(InputError, match="no folder 'Area_6'; --split takes an area"):
        S3DIS(raw, "Area_6")
    with pytest.raises(InputError, match="expected folders such as Area_1/office_1/Annotations"):
        S3DIS(tmp_path).entries()
    with pytest.raises(InputError, match="no such folder"):
        S3DIS(tmp_path / "none")
    (raw / "Area_2" / "empty_1" / "Annotations").mkdir(parents=True)
    failed = prepare(S3DIS(raw), tmp_path / "out").failed
    assert "expected one an object" in failed["Area_2_empty_1"]
