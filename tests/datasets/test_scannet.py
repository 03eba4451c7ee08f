"""Labels, instances and boxes of raw scans, against plain loops over segments."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scannet_fake import make_scan, write_download, write_table

from o2s.datasets.label_table import BENCHMARK, DETECTION, LabelTable, read_label_table
from o2s.datasets.scannet import ScanNet, label_scan
from o2s.datasets.scannet_raw import Group, RawScan
from o2s.errors import InputError
from o2s.ops.meshes import vertex_normals


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LabelTable:
    return read_label_table(write_table(tmp_path_factory.mktemp("table") / "labels.tsv"))


def plain_labels(raw: RawScan, table: LabelTable) -> dict[str, np.ndarray]:
    """Vertex by vertex: nyu40 label by label, everything else group by group."""
    assert raw.segments is not None
    assert raw.groups is not None
    count = len(raw.xyz)
    nyu40, instance = np.zeros(count, int), np.full(count, -1)
    in_20, in_200 = np.full(count, -1), np.full(count, -1)
    for label in dict.fromkeys(g.label for g in raw.groups):
        for group in raw.groups:
            if group.label == label:
                nyu40[[s in set(group.segments) for s in raw.segments.tolist()]] = table.nyu40[
                    label
                ]
    for group in raw.groups:
        mine = [s in set(group.segments) for s in raw.segments.tolist()]
        instance[mine] = group.object_id
        nyu, number = table.nyu40[group.label], table.ids[group.label]
        in_20[mine] = BENCHMARK.index(nyu) if nyu in BENCHMARK else -1
        in_200[mine] = table.scannet200.index(number) if number in table.scannet200 else -1
    in_18 = [DETECTION.index(n) if n in DETECTION else -1 for n in nyu40]
    return {
        "nyu40": nyu40,
        "scannet18": np.array(in_18),
        "scannet20": in_20,
        "scannet200": in_200,
        "instance": instance,
    }


def overlapping(seed: int) -> RawScan:
    """Groups out of order, with holes in their numbers, and segments that several of them claim."""
    raw = make_scan("scene0000_00", seed)
    assert raw.groups is not None
    rng = np.random.default_rng(seed)
    taken = [s for g in raw.groups[3:6] for s in list(g.segments)[:2]]
    groups = [
        replace(
            g, id=2 * i, object_id=int(o), segments=[*g.segments, *rng.choice(taken, 2).tolist()]
        )
        for i, (g, o) in enumerate(zip(raw.groups, rng.permutation(20), strict=False))
    ]
    order = rng.permutation(len(groups))
    return replace(raw, groups=tuple(groups[i] for i in order))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", [False, True])
def test_labels_equal_the_plain_loops(table: LabelTable, seed: int, overlap: bool) -> None:
    raw = overlapping(seed) if overlap else make_scan("scene0000_00", seed)
    scan, _ = label_scan(raw, table, split="train")
    expected = plain_labels(raw, table)
    assert scan.instance is not None
    assert np.array_equal(scan.instance, expected.pop("instance"))
    assert scan.classes.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(scan.classes[name], values), name


@pytest.mark.parametrize("seed", range(3))
def test_objects_and_boxes_are_those_of_their_vertices(table: LabelTable, seed: int) -> None:
    raw = overlapping(seed)
    scan, _ = label_scan(raw, table)
    assert scan.objects is not None
    assert scan.instance is not None
    assert raw.groups is not None
    assert set(scan.objects.ids) == set(scan.instance[scan.instance >= 0])
    group_of = {g.object_id: g for g in raw.groups}
    for i, number in enumerate(scan.objects.ids):
        group = group_of[number]
        assert (scan.objects.names[i], scan.objects.group_ids[i]) == (group.label, group.id)
        for points, boxes in (
            (raw.xyz, scan.objects.raw_boxes),
            (scan.aligned_xyz, scan.objects.boxes),
        ):
            mine = points[scan.instance == number]
            assert boxes[i, :3] == pytest.approx((mine.min(0) + mine.max(0)) / 2, abs=1e-6)
            assert boxes[i, 3:] == pytest.approx(np.ptp(mine, axis=0), abs=1e-6)
        first = scan.classes["nyu40"][raw.segments == group.segments[0]][0]
        assert scan.objects.classes["nyu40"][i] == first


def test_geometry_is_the_raw_scan(table: LabelTable) -> None:
    raw = make_scan("scene0000_00", 0)
    scan, notes = label_scan(raw, table, split="val")
    assert not notes
    assert (scan.name, scan.dataset, scan.split) == ("scene0000_00", "scannet", "val")
    assert np.array_equal(scan.xyz, raw.xyz)
    assert scan.rgb is raw.rgb
    assert scan.normals is not None
    assert np.array_equal(scan.normals, vertex_normals(raw.xyz, raw.faces))
    assert scan.alignment is raw.alignment
    bare, _ = label_scan(replace(raw, alignment=None, segments=None, groups=None), table)
    assert np.array_equal(bare.alignment, np.eye(4))
    assert bare.objects is bare.instance is bare.segments is None
    assert not bare.classes


def test_an_object_whose_segments_others_claim_is_left_out_with_a_note(table: LabelTable) -> None:
    """One published scan lists all of its objects twice."""
    raw = make_scan("scene0217_00", 0)
    assert raw.groups is not None
    count = len(raw.groups)
    twins = [Group(g.id + count, g.object_id + count, g.label, g.segments) for g in raw.groups]
    scan, notes = label_scan(replace(raw, groups=(*raw.groups, *twins)), table)
    once, _ = label_scan(raw, table)
    assert scan.objects is not None
    assert once.objects is not None
    assert scan.objects.ids.tolist() == [g.object_id for g in twins]
    assert np.array_equal(scan.objects.boxes, once.objects.boxes)
    assert np.array_equal(scan.classes["nyu40"], once.classes["nyu40"])
    numbers = ", ".join(str(g.object_id) for g in raw.groups)
    assert notes == (f"later groups claim all segments of objects {numbers}, left out",)


def test_scans_and_splits_of_a_download(tmp_path: Path) -> None:
    raw = write_download(
        tmp_path / "Scan Net",
        {
            "train": ["scene0001_00", "scene0000_00"],
            "val": ["scene0002_00"],
            "test": ["scene0700_00"],
        },
        detail=1,
    )
    entries = ScanNet(raw).entries()
    assert [(e.name[-7:-3], e.split, e.labelled) for e in entries] == [
        ("0000", "train", True),
        ("0001", "train", True),
        ("0002", "val", True),
        ("0700", "test", False),
    ]
    assert [e.name for e in ScanNet(raw, "val").entries()] == ["scene0002_00"]
    some = tmp_path / "some.txt"
    some.write_text("scene0700_00\nscene0009_00\n")
    source = ScanNet(raw, str(some))
    assert [(e.name, e.split) for e in source.entries()] == [("scene0700_00", "test")]
    assert list(source.missing()) == ["scene0009_00"]
    assert "no folder of scan scene0009_00" in source.missing()["scene0009_00"]
    flat = ScanNet(raw / "scans", None, raw / "scannetv2-labels.combined.tsv")
    assert next((e.name, e.split) for e in flat.entries()) == ("scene0000_00", "train")


def test_what_is_annotated(tmp_path: Path) -> None:
    raw = write_download(tmp_path, {"train": ["scene0000_00"], "test": ["scene0700_00"]}, detail=1)
    folder = raw / "scans" / "scene0000_00"
    for path in (*folder.glob("*segs.json"), *folder.glob("*aggregation.json")):
        path.unlink()
    assert ScanNet(raw).entries()[0].labelled, "a train scan has to have its annotation"
    (raw / "scannetv2_train.txt").unlink()
    entry = ScanNet(raw).entries()[0]
    assert (entry.labelled, entry.split) == (False, None)
    (folder / "scene0000_00.aggregation.json").write_text("{}")
    assert ScanNet(raw).entries()[0].labelled, "half an annotation is a broken one"


@pytest.mark.parametrize(
    "split, expected",
    [
        ("train", "no scannetv2_train.txt in it; --split wants it"),
        (
            "nowhere.txt",
            "--split is 'nowhere.txt'; expected train, val, test or a file of scan ids",
        ),
        ("val", "no scans of split val in it"),
    ],
)
def test_a_split_that_cannot_be_had_is_one_line(tmp_path: Path, split: str, expected: str) -> None:
    raw = write_download(tmp_path, {"test": ["scene0700_00"], "val": []}, detail=1)
    (raw / "scannetv2_val.txt").write_text("scene0003_00\n")
    with pytest.raises(InputError, match=expected):
        ScanNet(raw, split).entries()


def test_a_folder_that_is_no_download_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected ScanNet's raw scans"):
        ScanNet(tmp_path / "none")
    with pytest.raises(InputError, match=r"no scannetv2-labels\.combined\.tsv in it; .* --labels"):
        ScanNet(tmp_path)
    write_table(tmp_path / "scannetv2-labels.combined.tsv")
    with pytest.raises(InputError, match="expected folders such as scans/scene0000_00"):
        ScanNet(tmp_path).entries()
    for place in ("scans", "scans_test"):
        (tmp_path / place / "scene0000_00").mkdir(parents=True)
    with pytest.raises(InputError, match="is the same scan; keep one"):
        ScanNet(tmp_path).entries()
