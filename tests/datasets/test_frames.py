"""Frames and crops as `prepare` writes them beside the prepared scans."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from scannet_fake import make_scan, write_download, write_stream

from o2s.datasets.frames import Crops, Frames
from o2s.datasets.preparation import prepare
from o2s.datasets.scannet import ScanNet
from o2s.datasets.sens import SensStream

NAMES = ["scene0000_00", "scene0001_00"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw = write_download(tmp_path / "raw", {"train": NAMES, "test": ["scene0700_00"]}, detail=12)
    for seed, name in enumerate(NAMES):
        write_stream(make_scan(name, seed, detail=12), raw / "scans")
    write_stream(make_scan("scene0700_00", 2, detail=12, labelled=False), raw / "scans_test")
    return raw


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_nth_frame_is_written(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(ScanNet(raw), out, extras=[Frames(2)]).done == 3
    for name in (*NAMES, "scene0700_00"):
        folder = out / "frames" / name
        done = json.loads((folder / "frames.json").read_text())
        assert (done["frames"], done["every"]) == (3, 2)
        assert {path.name for path in (folder / "color").iterdir()} == {"0.jpg", "2.jpg", "4.jpg"}
    with SensStream(raw / "scans" / NAMES[0] / f"{NAMES[0]}.sens") as stream:
        stored = (out / "frames" / NAMES[0] / "color" / "4.jpg").read_bytes()
        assert stored == stream.color_bytes(4)
    assert prepare(ScanNet(raw), out, extras=[Frames(2)]).kept == 3


def test_crops_show_objects_and_say_which(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extras = [Crops(1, 2)]
    prepare(ScanNet(raw), out, extras=extras)
    assert not (out / "crops" / "scene0700_00").exists(), "nothing to crop without annotation"
    for name in NAMES:
        folder = out / "crops" / name
        records = json.loads((folder / "crops.json").read_text())
        groups = make_scan(name, NAMES.index(name), detail=12).groups
        assert groups is not None
        names = {group.object_id: group.label for group in groups}
        assert len(records) >= 2
        for record in records:
            assert record["name"] == names[record["object_id"]]
            left, top, right, bottom = record["box"]
            with Image.open(folder / record["file"]) as image:
                assert image.size == (right - left, bottom - top)
            assert 0 < record["visible"] <= 1
        objects = [record["object_id"] for record in records]
        assert all(objects.count(o) <= 2 for o in objects)
    assert prepare(ScanNet(raw), out, extras=extras).kept == 3


def test_a_newer_stream_or_scan_is_cut_again(raw: Path, tmp_path: Path) -> None:
    out, extras = tmp_path / "out", [Frames(1), Crops(1, 1)]
    prepare(ScanNet(raw), out, extras=extras)
    write_stream(make_scan(NAMES[0], 0, detail=12), raw / "scans", frames=3)
    assert prepare(ScanNet(raw), out, extras=extras).done == 1
    facts = raw / "scans" / NAMES[1] / f"{NAMES[1]}.txt"
    facts.write_text(facts.read_text().replace("sceneId", "scene"))
    assert prepare(ScanNet(raw), out, extras=extras).done == 1
    (out / "frames" / NAMES[0] / "frames.json").unlink()  # killed before the end
    assert prepare(ScanNet(raw), out, extras=extras).done == 1
    prepare(ScanNet(raw), tmp_path / "fresh", extras=extras)
    assert contents(out) == contents(tmp_path / "fresh")


def test_streams_may_go_once_their_frames_are_there(raw: Path, tmp_path: Path) -> None:
    extras = [Frames(1), Crops(1, 2)]
    prepare(ScanNet(raw), tmp_path / "out", extras=extras)
    before = contents(tmp_path / "out")
    for stream in raw.rglob("*.sens"):
        stream.unlink()
    assert prepare(ScanNet(raw), tmp_path / "out", extras=extras).kept == 3
    assert contents(tmp_path / "out") == before


def test_a_missing_or_broken_stream_fails_its_scan_alone(raw: Path, tmp_path: Path) -> None:
    streams = [raw / "scans" / name / f"{name}.sens" for name in NAMES]
    streams[0].unlink()
    os.truncate(streams[1], streams[1].stat().st_size // 2)
    report = prepare(ScanNet(raw), tmp_path / "out", extras=[Frames(1)])
    assert report.done == 1
    assert report.failed[NAMES[0]].startswith(f"{streams[0]}: no such file")
    assert report.failed[NAMES[1]].startswith(f"{streams[1]}: cut short at frame")
