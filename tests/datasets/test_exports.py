"""Other projects' arrays, against plain transcripts of what each of them computes.

That they equal the projects' own output was shown by running their scripts beside ours; see the
README. Here stands what that comparison rests on.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scannet_fake import make_scan, write_table

from o2s.datasets.exports import Export, Project, arrays_of, files_of
from o2s.datasets.label_table import DETECTION, REFERRED, read_label_table
from o2s.datasets.preparation import Entry, Parsed
from o2s.datasets.scannet import label_scan
from o2s.datasets.scannet_raw import RawScan

PROJECTS: tuple[Project, ...] = ("votenet", "scanrefer", "mmdet3d", "pointcept")
TRAIN = Entry("scene0000_00", Path(), "train")
TEST = Entry("scene0700_00", Path(), "test", labelled=False)


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "labels.tsv")


def parsed_of(raw: RawScan, table_path: Path) -> Parsed:
    scan, notes = label_scan(raw, read_label_table(table_path), split="train")
    return Parsed(scan, raw.faces, notes, groups=len(raw.groups or ()))


@pytest.fixture(scope="module")
def parsed(table_path: Path) -> Parsed:
    raw = make_scan("scene0000_00", 5, objects=8)
    assert raw.groups is not None
    numbered = [replace(g, object_id=len(raw.groups) - 1 - i) for i, g in enumerate(raw.groups)]
    return parsed_of(replace(raw, groups=tuple(numbered)), table_path)


def plain_boxes(points: np.ndarray, parsed: Parsed, classes: tuple[int, ...]) -> np.ndarray:
    """One row an object in the order of ids; the arithmetic of the points' own type."""
    scan = parsed.scan
    assert scan.objects is not None
    rows = []
    for number in sorted(scan.objects.ids):
        mine = points[scan.instance == number]
        nyu40 = scan.objects.classes["nyu40"][scan.objects.ids.tolist().index(number)]
        if nyu40 in classes:
            low, high = mine.min(axis=0), mine.max(axis=0)
            rows.append([*((low + high) / 2), *(high - low), nyu40, number])
    return np.array(rows, np.float64).reshape(-1, 8)


def test_votenet(parsed: Parsed) -> None:
    arrays = arrays_of("votenet", TRAIN, parsed)
    vert, semantic, instance, boxes = arrays.values()
    assert [a.dtype for a in arrays.values()] == [np.float32, np.uint32, np.uint32, np.float64]
    aligned = parsed.scan.aligned_xyz.astype(np.float32)
    assert np.array_equal(vert[:, :3], aligned)
    assert np.array_equal(vert[:, 3:], np.asarray(parsed.scan.rgb, np.float32))
    assert np.array_equal(semantic, parsed.scan.classes["nyu40"])
    assert np.array_equal(instance, np.asarray(parsed.scan.instance) + 1)
    assert np.array_equal(boxes, plain_boxes(aligned, parsed, DETECTION)[:, :7])
    assert "scannet_train_detection_data/scene0000_00_bbox.npy" in arrays
    assert not arrays_of("votenet", TEST, parsed)


def test_mmdet3d(parsed: Parsed) -> None:
    arrays = arrays_of("mmdet3d", TRAIN, parsed)
    of = {name.removeprefix("scannet_instance_data/scene0000_00_"): a for name, a in arrays.items()}
    assert np.array_equal(of["vert.npy"][:, :3], parsed.scan.xyz)
    assert np.array_equal(
        of["aligned_bbox.npy"], plain_boxes(parsed.scan.aligned_xyz, parsed, DETECTION)[:, :7]
    )
    assert np.array_equal(
        of["unaligned_bbox.npy"], plain_boxes(parsed.scan.xyz, parsed, DETECTION)[:, :7]
    )
    assert np.array_equal(of["axis_align_matrix.npy"], parsed.scan.alignment)
    assert of["points/scene0000_00.bin"].dtype == np.float32
    for mask, labels in (("semantic", "sem_label.npy"), ("instance", "ins_label.npy")):
        assert of[f"{mask}_mask/scene0000_00.bin"].dtype == np.int64
        assert np.array_equal(of[f"{mask}_mask/scene0000_00.bin"], of[labels])
    test = arrays_of("mmdet3d", TEST, parsed)
    assert list(test) == [
        "scannet_instance_data/scene0700_00_vert.npy",
        "points/scene0700_00.bin",
    ]


def plain_scanrefer_normals(xyz: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Of all faces that have a vertex as their corner k, only the last one adds to it."""
    normals = np.zeros_like(xyz)
    for corner in range(3):
        last = {int(face[corner]): face for face in faces}
        for vertex, (i, j, k) in last.items():
            cross = np.cross(xyz[j] - xyz[i], xyz[k] - xyz[i])
            x, y, z = cross
            normals[vertex] += cross / (np.sqrt(x**2 + y**2 + z**2) + np.float32(1e-8))
    x, y, z = normals.T
    return normals / (np.sqrt(x**2 + y**2 + z**2) + np.float32(1e-8))[:, None]


def test_scanrefer(parsed: Parsed, table_path: Path) -> None:
    vert, aligned_vert, semantic, instance, boxes, aligned_boxes = arrays_of(
        "scanrefer", TRAIN, parsed
    ).values()
    aligned = parsed.scan.aligned_xyz.astype(np.float32)
    assert vert.dtype == aligned_vert.dtype == np.float32
    assert np.array_equal(vert[:, :3], parsed.scan.xyz)
    assert np.array_equal(aligned_vert[:, :3], aligned)
    assert parsed.faces is not None
    normals = plain_scanrefer_normals(parsed.scan.xyz, parsed.faces)
    assert vert[:, 6:] == pytest.approx(normals, abs=3e-7)  # squares of scalars round otherwise
    assert np.array_equal(aligned_vert[:, 3:], vert[:, 3:])
    assert np.array_equal(boxes, plain_boxes(parsed.scan.xyz, parsed, REFERRED))
    assert np.array_equal(aligned_boxes, plain_boxes(aligned, parsed, REFERRED))
    assert semantic.dtype == instance.dtype == np.uint32
    raw = make_scan("scene0000_00", 0)
    assert raw.groups is not None
    lonely = parsed_of(replace(raw, groups=raw.groups[1:2]), table_path)  # a wall, of no class
    assert len(arrays_of("scanrefer", TRAIN, lonely)["scannet_data/scene0000_00_bbox.npy"]) == 1
    unlabelled = parsed_of(replace(raw, segments=None, groups=None), table_path)
    zeros = list(arrays_of("scanrefer", TEST, unlabelled).values())[2:]
    assert not any(a.any() for a in zeros)
    assert [a.shape for a in zeros[2:]] == [(1, 8), (1, 8)]


def test_pointcept(parsed: Parsed) -> None:
    scan = parsed.scan
    arrays = arrays_of("pointcept", TRAIN, parsed)
    of = {Path(name).stem: array for name, array in arrays.items()}
    assert all(name.startswith("train/scene0000_00/") for name in arrays)
    for name, expected in (("coord", scan.xyz), ("color", scan.rgb), ("normal", scan.normals)):
        assert np.array_equal(of[name], np.asarray(expected))
        assert of[name].dtype == np.asarray(expected).dtype
        assert of[name].flags.f_contiguous
    assert np.array_equal(of["segment20"], scan.classes["scannet20"])
    assert np.array_equal(of["segment200"], scan.classes["scannet200"])
    assert scan.objects is not None
    group_of = dict(zip(scan.objects.ids.tolist(), scan.objects.group_ids.tolist(), strict=True))
    assert of["instance"].tolist() == [group_of.get(i, -1) for i in np.asarray(scan.instance)]
    assert all(a.dtype == np.int64 for name, a in of.items() if name.startswith(("seg", "ins")))
    nowhere = arrays_of("pointcept", replace(TRAIN, split=None), parsed)
    assert [Path(name).parts[0] for name in nowhere] == ["test"] * 3


@pytest.mark.parametrize("project", PROJECTS)
def test_a_scan_without_groups_has_no_boxes(project: Project, table_path: Path) -> None:
    parsed = parsed_of(replace(make_scan("scene0000_00", 0), groups=()), table_path)
    for name, array in arrays_of(project, TRAIN, parsed).items():
        if name.endswith("bbox.npy"):
            assert array.shape == (0, 8 if project == "scanrefer" else 7)


def test_points_are_drawn_by_seed_and_name(table_path: Path) -> None:
    parsed = parsed_of(make_scan("scene0000_00", 0, detail=60, objects=3), table_path)
    assert len(parsed.scan) > 50_000
    for project in ("votenet", "scanrefer"):
        first, again, other, all_points = (
            arrays_of(project, TRAIN, parsed, seed) for seed in (1, 1, 2, None)
        )
        vert = next(iter(first))
        assert len(first[vert]) == 50_000
        assert len(np.unique(first[vert][:, :3], axis=0)) > 49_000
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not np.array_equal(first[vert], other[vert])
        assert len(all_points[vert]) == len(parsed.scan)
        box = next(name for name in first if "bbox" in name)
        assert np.array_equal(first[box], all_points[box])
        elsewhere = arrays_of(project, replace(TRAIN, name="scene0000_01"), parsed, 1)
        assert not np.array_equal(first[vert], next(iter(elsewhere.values())))
    assert len(arrays_of("mmdet3d", TRAIN, parsed, 1)["points/scene0000_00.bin"]) > 50_000


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("entry", [TRAIN, TEST])
def test_what_is_written_is_what_was_announced(
    project: Project, entry: Entry, parsed: Parsed, tmp_path: Path
) -> None:
    export, prepared = Export(project), tmp_path / f"{entry.name}.safetensors"
    prepared.touch()
    nothing_to_write = not files_of(project, entry)
    assert export.is_current(entry, prepared) == nothing_to_write
    export.write(entry, parsed, prepared)
    assert export.is_current(entry, prepared)
    root = tmp_path / project
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.*")}
    assert found == set(files_of(project, entry))
    for name, array in arrays_of(project, entry, parsed).items():
        path = root / name
        read = np.fromfile(path, array.dtype) if path.suffix == ".bin" else np.load(path)
        assert np.array_equal(read.reshape(array.shape), array)
        assert read.dtype == array.dtype
    if found:
        (root / sorted(found)[0]).unlink()
        assert not export.is_current(entry, prepared)
