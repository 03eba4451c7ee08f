"""ScanNet's raw layout: what is written is read, and every kind of damage is one line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scannet_fake import make_scan

from o2s.datasets.scannet_raw import GROUPS, MESH, SEGMENTS, read_raw_scan, write_raw_scan
from o2s.errors import InputError
from o2s.io import read_ply

NAME = "scene0000_00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_raw_scan(make_scan(NAME, 3), tmp_path / "raw scans")
    return tmp_path / "raw scans" / NAME


def test_what_is_written_is_read(folder: Path) -> None:
    scan, again = make_scan(NAME, 3), read_raw_scan(folder)
    assert again.name == NAME
    assert again.groups == scan.groups
    for field in ("xyz", "rgb", "faces", "alignment", "segments"):
        left, right = getattr(scan, field), getattr(again, field)
        assert left.dtype == right.dtype
        assert np.array_equal(left, right), field
    assert read_ply(folder / f"{NAME}{MESH}", extra=["alpha"]).extra["alpha"].min() == 255


def test_a_test_scan_has_no_annotation(tmp_path: Path) -> None:
    write_raw_scan(make_scan(NAME, 3, labelled=False), tmp_path)
    scan = read_raw_scan(tmp_path / NAME, labelled=False)
    assert scan.segments is scan.groups is scan.alignment is None
    (tmp_path / NAME / f"{NAME}.txt").unlink()
    assert len(read_raw_scan(tmp_path / NAME, labelled=False).xyz) == len(scan.xyz)


@pytest.mark.parametrize(
    "line", ["axisAlignment = {}", "axisAlignment={}  \r", "  axisAlignment =  {}\nx = 1"]
)
def test_the_alignment_is_read_row_by_row(folder: Path, line: str) -> None:
    rows = [[0, -1, 0, 3], [1, 0, 0, -2.5], [0, 0, 1, 0.125], [0, 0, 0, 1]]
    numbers = " ".join(str(number) for row in rows for number in row)
    (folder / f"{NAME}.txt").write_text(f"appVersionId = 2\n{line.format(numbers)}\n")
    alignment = read_raw_scan(folder).alignment
    assert alignment is not None
    assert alignment.tolist() == rows


def edit(suffix: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / f"{NAME}{suffix}"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return apply


def groups(change: Callable[[list], object]) -> Callable[[Path], None]:
    return edit(GROUPS, lambda values: change(values["segGroups"]))


def segments(change: Callable[[list], object]) -> Callable[[Path], None]:
    return edit(SEGMENTS, lambda values: change(values["segIndices"]))


def cut(suffix: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / f"{NAME}{suffix}"
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    return apply


def remove(suffix: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{NAME}{suffix}").unlink()


def rewrite(suffix: str, text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / f"{NAME}{suffix}").write_text(text)

    return apply


def not_finite(folder: Path) -> None:
    path = folder / f"{NAME}{MESH}"
    data = bytearray(path.read_bytes())
    at = data.index(b"end_header\n") + len("end_header\n")
    data[at : at + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage, suffix, expected",
    [
        (remove(MESH), MESH, "no such file"),
        (remove(SEGMENTS), SEGMENTS, "no such file"),
        (remove(GROUPS), GROUPS, "no such file"),
        (remove(".txt"), ".txt", "no such file"),
        (cut(MESH), MESH, "the header promises"),
        (cut(SEGMENTS), SEGMENTS, "not whole JSON"),
        (cut(GROUPS), GROUPS, "not whole JSON"),
        (rewrite(GROUPS, "[]"), GROUPS, "no list 'segGroups'"),
        (rewrite(SEGMENTS, '{"segIndices": 3}'), SEGMENTS, "no list 'segIndices'"),
        (rewrite(".txt", "axisAlignment = 1 2 3\n"), ".txt", "'1 2 3'; expected 16 numbers"),
        (rewrite(".txt", "axisAlignment = " + "nan " * 16), ".txt", "expected 16 numbers"),
        (rewrite(".txt", "axisAlignment = " + "0 " * 16), ".txt", "not a rotation and a shift"),
        (
            rewrite(".txt", "axisAlignment = " + "1 0 0 0 0 1 0 0 0 0 1 0 5 5 5 5"),
            ".txt",
            "not a r",
        ),
        (rewrite(".txt", "axisAl"), ".txt", "'axisAl' is not 'key = value'; is the file cut short"),
        (groups(lambda g: g[0].update(id=True)), GROUPS, "expected id and objectId from 0"),
        (not_finite, MESH, "1 of .* vertices are not finite"),
        (segments(lambda ids: ids.append(0)), SEGMENTS, r"\d+ segment ids for \d+ vertices"),
        (segments(lambda ids: ids.pop()), SEGMENTS, r"\d+ segment ids for \d+ vertices"),
        (segments(lambda ids: ids.__setitem__(0, -1)), SEGMENTS, "not whole numbers"),
        (segments(lambda ids: ids.__setitem__(0, 0.5)), SEGMENTS, "not whole numbers"),
        (segments(lambda ids: ids.__setitem__(0, [1])), SEGMENTS, "not whole numbers"),
        (segments(lambda ids: ids.__setitem__(0, 2**70)), SEGMENTS, "not whole numbers"),
        (groups(lambda g: g[1]["segments"].append(10**8)), GROUPS, "names segment 100000000 that"),
        (groups(lambda g: g[1]["segments"].extend([-1, -2])), GROUPS, "segment -1 and 1 more"),
        (groups(lambda g: g[1].update(segments=[])), GROUPS, "'wall'.* has no vertices"),
        (groups(lambda g: g[1].update(id=0)), GROUPS, "two groups have the id 0"),
        (groups(lambda g: g[1].update(objectId=0)), GROUPS, "two groups have the objectId 0"),
        (groups(lambda g: g.append(g[0])), GROUPS, "two groups have the id 0"),
        (groups(lambda g: g[0].pop("label")), GROUPS, "entry 0 of segGroups"),
        (groups(lambda g: g.insert(0, 7)), GROUPS, "entry 0 of segGroups is '7'"),
        (groups(lambda g: g[0].update(objectId=-1)), GROUPS, "expected id and objectId from 0"),
        (groups(lambda g: g[0].update(segments=["1"])), GROUPS, "segments are not whole numbers"),
    ],
)
def test_damage_is_one_line_that_names_the_file(
    folder: Path, damage: Callable[[Path], None], suffix: str, expected: str
) -> None:
    damage(folder)
    with pytest.raises(InputError, match=expected) as caught:
        read_raw_scan(folder)
    assert str(caught.value).startswith(f"{folder / NAME}{suffix}: ")
    assert "\n" not in str(caught.value)


def test_a_mesh_without_colours_is_refused(folder: Path) -> None:
    path = folder / f"{NAME}{MESH}"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    )
    with pytest.raises(InputError, match="no property 'red', 'green', 'blue'"):
        read_raw_scan(folder)
