"""Simulated rooms: ScanNet's layout, the same for every seed, and true to their plan."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rooms_library import write_rooms_library
from scipy.spatial import KDTree

from o2s.datasets.exports import Export
from o2s.datasets.frames import Crops, Frames
from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.preparation import prepare
from o2s.datasets.room_layout import lay_out
from o2s.datasets.room_phrases import same_color
from o2s.datasets.room_scan import scan_room, seen_color
from o2s.datasets.rooms import (
    make_rooms,
    read_facts,
    room_name,
    room_scene,
    split_of,
    write_language,
)
from o2s.datasets.scannet import ScanNet
from o2s.datasets.sketched_library import write_furniture
from o2s.errors import InputError
from o2s.io.labelled import read_labelled

pytest.importorskip("embreex")
pytest.importorskip("trimesh")

ROOMS = 3


@pytest.fixture(scope="module")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rooms_library(tmp_path_factory.mktemp("library") / "furniture")


@pytest.fixture(scope="module")
def made(furniture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "rooms"
    make_rooms(furniture, out, rooms=ROOMS, seed=1)
    return out


@pytest.fixture(scope="module")
def prepared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    extras = [Export("votenet"), Export("pointcept"), Frames(5), Crops(1, 2)]
    report = prepare(ScanNet(made), out, extras=extras)
    assert (report.done, report.failed, report.notes) == (ROOMS, {}, {})
    return out


def test_sketched_furniture_stands_in_train_rooms_alone(furniture: Path, tmp_path: Path) -> None:
    write_furniture(tmp_path / "sketched", count=3)
    library = FurnitureLibrary.open(furniture)
    both = library.with_train(FurnitureLibrary.open(tmp_path / "sketched"))
    with pytest.raises(InputError, match="expected folders of different names"):
        both.with_train(FurnitureLibrary.open(tmp_path / "sketched"))
    for split in ("val", "test"):
        assert both.of_class("chair", split) == library.of_class("chair", split)
        plain, mixed = (lay_out(of, split, np.random.default_rng(3)) for of in (library, both))
        pieces = [placement.piece.key for placement in plain.placements]
        assert pieces == [placement.piece.key for placement in mixed.placements]
    made = make_rooms(
        furniture, tmp_path / "rooms", rooms=1, seed=1, sketched=[tmp_path / "sketched"]
    )
    record = json.loads((tmp_path / "rooms/scans/scene0000_00/scene0000_00.room.json").read_text())
    assert made.facts[0].split == "train"
    assert {key.partition("/")[0] for key in record["pieces"]} == {"furniture", "sketched"}
    assert "sketched/" in (tmp_path / "rooms/ATTRIBUTION.txt").read_text()
    with pytest.raises(InputError, match="another furniture"):
        make_rooms(furniture, tmp_path / "rooms", rooms=1, seed=1)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_rooms_pass_the_preparation_and_facts_agree_with_it(made: Path, prepared: Path) -> None:
    for index in range(ROOMS):
        facts = read_facts(made / "scans" / room_name(index))
        scan = read_labelled(prepared / f"{room_name(index)}.safetensors")
        assert (facts.name, facts.split) == (scan.name, scan.split)
        assert 20_000 < len(scan) < 200_000
        assert scan.objects is not None
        rows = {number: row for row, number in enumerate(scan.objects.ids.tolist())}
        assert sorted(rows) == list(range(len(rows))), "ids without gaps, as VoteNet wants them"
        names = [scan.objects.names[rows[thing.id]] for thing in facts.objects]
        assert len(facts.objects) >= 4
        for thing, name in zip(facts.objects, names, strict=True):
            box = scan.objects.boxes[rows[thing.id]]
            assert np.allclose(box, thing.box, atol=0.002), name
            assert thing.on is None or thing.on in rows
            assert 0 <= thing.seen <= 1
        assert {"floor", "wall"} <= set(scan.objects.names)


def test_the_aligned_room_stands_on_its_floor(made: Path, prepared: Path) -> None:
    for index in range(ROOMS):
        facts = read_facts(made / "scans" / room_name(index))
        scan = read_labelled(prepared / f"{room_name(index)}.safetensors")
        xyz = scan.aligned_xyz
        assert abs(np.median(xyz[scan.classes["nyu40"] == 2, 2])) < 0.01
        corners = np.array(facts.floor)
        assert np.allclose(corners.min(axis=0), -corners.max(axis=0))
        assert (xyz[:, :2] > corners.min(axis=0) - 0.12).all()
        assert (xyz[:, :2] < corners.max(axis=0) + 0.12).all()
        turned = scan.alignment[:2, :2]
        assert np.allclose(turned @ turned.T, np.eye(2))
        assert abs(turned[0, 1]) > 0.01, "raw coordinates are turned"


def test_scans_have_holes_and_noise(made: Path, prepared: Path) -> None:
    seen = [
        thing.seen
        for i in range(ROOMS)
        for thing in read_facts(made / "scans" / room_name(i)).objects
    ]
    assert 0.2 < np.mean(seen) < 0.98
    scan = read_labelled(prepared / f"{room_name(0)}.safetensors")
    heights = scan.aligned_xyz[scan.classes["nyu40"] == 2, 2]
    assert 0.0005 < np.std(heights[np.abs(heights) < 0.05]) < 0.02
    spacing, _ = KDTree(scan.xyz).query(scan.xyz[::50], k=2)
    assert 0.01 < np.median(spacing[:, 1]) < 0.05


def test_frames_show_the_objects(prepared: Path) -> None:
    for index in range(ROOMS):
        scan = read_labelled(prepared / f"{room_name(index)}.safetensors")
        crops = list((prepared / "crops" / room_name(index)).glob("*.jpg"))
        assert scan.objects is not None
        assert len(crops) >= len(scan.objects) // 2


def test_neither_workers_nor_interruption_change_a_byte(
    furniture: Path, made: Path, tmp_path: Path
) -> None:
    report = make_rooms(furniture, tmp_path / "two", rooms=ROOMS, seed=1, workers=2)
    assert (report.done, report.kept) == (ROOMS, 0)
    assert contents(tmp_path / "two") == contents(made)
    record = tmp_path / "two" / "scans" / room_name(1) / f"{room_name(1)}.room.json"
    record.unlink()  # written last: this room was not finished
    (tmp_path / "two" / ".0123456789abcdef.tmp.ply").write_bytes(b"left by a killed process")
    report = make_rooms(furniture, tmp_path / "two", rooms=ROOMS, seed=1)
    assert (report.done, report.kept) == (1, ROOMS - 1)
    assert contents(tmp_path / "two") == contents(made)


def test_more_rooms_are_added_and_other_seeds_are_not_mixed(
    furniture: Path, made: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(made, tmp_path / "rooms")
    assert make_rooms(furniture, out, rooms=ROOMS + 1, seed=1).done == 1
    credit = (out / "ATTRIBUTION.txt").read_text()
    assert make_rooms(furniture, out, rooms=1, seed=1).kept == ROOMS + 1, "none is forgotten"
    assert (out / "ATTRIBUTION.txt").read_text() == credit
    with pytest.raises(
        InputError, match=r"rooms\.json: these rooms are of another seed \(1, not 2\)"
    ):
        make_rooms(furniture, out, rooms=1, seed=2)


def test_a_split_without_furniture_has_empty_rooms(furniture: Path, tmp_path: Path) -> None:
    """The library here has no val meshes; room number 8 is of val."""
    library = FurnitureLibrary.open(furniture)
    rng = np.random.default_rng(0)
    plan = lay_out(library, "val", rng)
    assert not plan.placements
    room = scan_room(plan, library, rng, name="scene0008_00", split="val")
    assert not room.facts.objects
    labels = {group.label for group in room.scan.groups or ()}
    assert {"floor", "wall"} <= labels <= {"floor", "wall", "ceiling"}
    write_language([room.facts], tmp_path, "val", 0)
    assert json.loads((tmp_path / "ScanRefer_filtered_val.json").read_text()) == []


def test_splits_attribution_and_table(made: Path) -> None:
    assert [split_of(i) for i in range(10)] == ["train"] * 8 + ["val", "test"]
    assert (made / "scannetv2_train.txt").read_text().split() == [room_name(i) for i in range(3)]
    assert not (made / "scannetv2_test.txt").exists()
    text = (made / "ATTRIBUTION.txt").read_text()
    assert "by Ann; CC0" in text
    assert "wall\twall" in (made / "scannetv2-labels.combined.tsv").read_text()


def test_a_room_is_a_scene_with_normals_that_look_inward(made: Path) -> None:
    scene = room_scene(made / "scans" / room_name(0))
    assert scene.normals is not None
    walls = (scene.points[:, 2] > 0.3) & (scene.points[:, 2] < 2)
    toward_middle = -(scene.points * scene.normals)[walls, :2].sum(dim=1)
    assert (toward_middle > 0).float().mean() > 0.6


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"rooms": 0}, "--scenes is 0, expected at least 1"),
        ({"rooms": 10_000}, "expected at most 9999"),
        ({"workers": 0}, "--workers is 0"),
        ({"seed": -1}, "--seed is -1, expected at least 0"),
    ],
)
def test_wrong_numbers_are_one_line(
    furniture: Path, tmp_path: Path, options: dict, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        make_rooms(furniture, tmp_path / "out", **{"rooms": 1, "seed": 0, **options})
    with pytest.raises(InputError, match="none: no such"):
        make_rooms(tmp_path / "none", tmp_path / "out", rooms=1, seed=0)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_settings_are_one_line(furniture: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "rooms.json").write_text(text)
    with pytest.raises(InputError, match=r"rooms\.json: is damaged; choose another --out"):
        make_rooms(furniture, tmp_path, rooms=1, seed=0)


def test_a_damaged_record_is_one_line(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "scans" / room_name(0), tmp_path / room_name(0))
    record = folder / f"{room_name(0)}.room.json"
    record.write_text("{}")
    with pytest.raises(InputError, match="is damaged; remove it and run `o2s rooms` again"):
        read_facts(folder)
    record.unlink()
    with pytest.raises(InputError, match="no such file; expected one that `o2s rooms` wrote"):
        read_facts(folder)


def test_a_folder_of_real_scans_is_left_as_it_is(furniture: Path, tmp_path: Path) -> None:
    (tmp_path / "scans" / "scene0000_00").mkdir(parents=True)
    with pytest.raises(InputError, match="holds scans that `o2s rooms` did not make"):
        make_rooms(furniture, tmp_path, rooms=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_a_colour_is_what_the_scan_shows_of_it() -> None:
    grey, black, brown = ([90, 90, 90], [10, 10, 10], [110, 70, 40])
    seen = np.array([grey] * 60 + [black] * 40, np.uint8)
    assert seen_color("black", seen) == "black"
    assert seen_color("grey", seen) == "grey"
    assert seen_color("red", seen) is None
    assert seen_color(None, seen) is None
    close = np.array([brown] * 9 + [grey], np.uint8)
    assert same_color("beige", "brown") is None
    assert seen_color("beige", close) == "beige", "the two are taken for each other"
