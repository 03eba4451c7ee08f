"""The objects of prepared scans and the meshes of furniture as triplets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms_library import write_rooms_library
from scannet_fake import make_scan, write_download, write_stream

from o2s.datasets.frames import Crops
from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_objects import FurnitureObjects, sample_surface
from o2s.datasets.preparation import prepare
from o2s.datasets.rooms import make_rooms, read_facts
from o2s.datasets.scan_objects import STRUCTURE, ScanObjects
from o2s.datasets.scannet import ScanNet
from o2s.errors import InputError
from o2s.io.labelled import read_labelled

NAME = "scene0000_00"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    raw = write_download(folder / "raw", {"train": [NAME], "val": ["scene0001_00"]}, detail=12)
    write_stream(make_scan(NAME, 0, detail=12), raw / "scans")
    write_stream(make_scan("scene0001_00", 1, detail=12), raw / "scans")
    prepare(ScanNet(raw), folder / "prepared", extras=[Crops(1, 2)])
    return folder / "prepared"


def test_objects_are_those_of_the_annotation_but_structure(prepared: Path) -> None:
    scan = read_labelled(prepared / f"{NAME}.safetensors")
    assert scan.objects is not None
    expected = [name for name in scan.objects.names if name not in STRUCTURE]
    assert len(expected) < len(scan.objects)
    found = ScanObjects(prepared, split="train")
    assert [found.label(i) for i in range(len(found))] == expected
    assert found.classes == tuple(sorted(set(expected)))
    assert [found[i].texts[0] for i in range(len(found))] == expected


def test_points_of_the_box_are_those_of_the_scan(prepared: Path) -> None:
    scan = read_labelled(prepared / f"{NAME}.safetensors")
    assert scan.objects is not None
    rows = [i for i, name in enumerate(scan.objects.names) if name not in STRUCTURE]
    found = ScanObjects(prepared, split="train", most_points=10**6, margin=0.2)
    xyz = scan.aligned_xyz
    for i, row in enumerate(rows):
        triplet = found[i]
        assert triplet.box is not None
        centre, size = scan.objects.boxes[row, :3], scan.objects.boxes[row, 3:]
        np.testing.assert_allclose(triplet.box, [0, 0, 0, *size], atol=1e-5)
        near = (np.abs(xyz - centre) <= size / 2 + 0.2).all(axis=1)
        assert abs(len(triplet.points) - near.sum()) <= 0.02 * near.sum()
        assert (np.abs(triplet.points) <= size / 2 + 0.2 + 1e-4).all()
        within = (np.abs(triplet.points) <= size / 2 + 1e-4).all(axis=1)
        assert within.sum() >= (scan.instance == scan.objects.ids[row]).sum()


def test_many_points_are_drawn_the_same_every_time(prepared: Path) -> None:
    once, again = (ScanObjects(prepared, split="train", most_points=50) for _ in range(2))
    for i in range(len(once)):
        assert len(once[i].points) <= 50
        np.testing.assert_array_equal(once[i].points, again[i].points)
        assert once[i].colors is not None
        assert len(once[i].colors) == len(once[i].points)


def test_descriptions_belong_to_their_object(prepared: Path, tmp_path: Path) -> None:
    scan = read_labelled(prepared / f"{NAME}.safetensors")
    assert scan.objects is not None
    number = int(scan.objects.ids[-1])
    said = [{"scene_id": NAME, "object_id": str(number), "object_name": "x", "ann_id": "0"}]
    path = tmp_path / "scanrefer.json"
    path.write_text(json.dumps([said[0] | {"description": "the one by the wall"}]))
    found = ScanObjects(prepared, split="train", descriptions=[path])
    texts = [found[i].texts for i in range(len(found))]
    assert [t[-1] == "the one by the wall" for t in texts] == [False] * (len(found) - 1) + [True]


def test_a_split_without_scans_is_one_line(prepared: Path) -> None:
    with pytest.raises(InputError, match="no scans of the split 'test' with annotated objects"):
        ScanObjects(prepared, split="test")


def test_damaged_crops_are_one_line(prepared: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    (copy / "crops" / NAME / "crops.json").write_text("[{}]")
    with pytest.raises(InputError, match=r"crops\.json: is damaged; run `o2s prepare`"):
        ScanObjects(copy, split="train")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("embreex")
    pytest.importorskip("trimesh")
    return write_rooms_library(tmp_path_factory.mktemp("library") / "furniture")


def test_rooms_bring_finer_names_colours_and_crops(library: Path, tmp_path: Path) -> None:
    make_rooms(library, tmp_path / "rooms", rooms=1, seed=1)
    prepare(ScanNet(tmp_path / "rooms"), tmp_path / "prepared", extras=[Crops(1, 2)])
    found = ScanObjects(tmp_path / "prepared", split="train", rooms=tmp_path / "rooms")
    facts = read_facts(tmp_path / "rooms" / "scans" / "scene0000_00")
    colors = {o.color for o in facts.objects if o.color}
    assert colors
    phrases = [text for i in range(len(found)) for text in found[i].texts]
    assert any(text.split()[0] in colors for text in phrases)
    assert {o.fine for o in facts.objects} <= set(phrases)
    crops = tmp_path / "prepared" / "crops" / "scene0000_00"
    records = json.loads((crops / "crops.json").read_text())
    shown = {crops / r["file"] for r in records if r["name"] not in STRUCTURE}
    assert shown
    assert {path for i in range(len(found)) for path in found[i].images} == shown
    for i in range(len(found)):
        assert len({path.name.split("_")[0] for path in found[i].images}) <= 1


def test_a_mesh_comes_whole_and_in_parts(library: Path, tmp_path: Path) -> None:
    opened = FurnitureLibrary.open(library)
    found = FurnitureObjects(opened, split="test", images=tmp_path / "views", scans=2)
    assert len(found) == 3 * len(found.pieces)
    for i in range(0, 9, 3):
        whole, *parts = (found[i + j] for j in range(3))
        size = np.array(found.pieces[i // 3].size)
        np.testing.assert_allclose(np.ptp(whole.points, axis=0), size, rtol=0.05, atol=0.02)
        for part in parts:
            assert part.label == whole.label
            assert (np.abs(part.points) <= size + 0.2).all()
            assert (part.points[:, 2] > -0.1).all()
        assert len(whole.images) == 8
        for path in whole.images:
            with Image.open(path) as image:
                assert min(image.size) > 4


def test_views_are_taken_once(library: Path, tmp_path: Path) -> None:
    own, views = shutil.copytree(library, tmp_path / "furniture"), tmp_path / "views"
    views.mkdir()

    def take() -> dict[Path, int]:
        FurnitureObjects(FurnitureLibrary.open(own), split="test", images=views, scans=0)
        return {path: path.stat().st_mtime_ns for path in views.iterdir()}

    before = take()
    assert take() == before
    table = own / "furniture.csv"
    table.write_text(table.read_text().replace(",0.9,", ",0.8,"))
    assert len(take()) > len(before)  # of other shapes


def test_a_surface_is_sampled_evenly_by_area(library: Path) -> None:
    opened = FurnitureLibrary.open(library)
    piece = opened.of_class("bed", "train")[0]
    mesh = opened.load(piece)
    points, colors = sample_surface(mesh, 20_000, seed=0)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    areas = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    for color in np.unique(mesh.colors, axis=0):
        share = areas[(mesh.colors == color).all(axis=1)].sum() / areas.sum()
        assert (colors == color).all(axis=1).mean() == pytest.approx(share, abs=0.02)
    np.testing.assert_array_equal(points, sample_surface(mesh, 20_000, seed=0)[0])


def test_a_split_without_furniture_is_one_line(library: Path) -> None:
    opened = FurnitureLibrary.open(library)
    opened.pieces = ()
    with pytest.raises(InputError, match="no piece of the split test"):
        FurnitureObjects(opened, split="test", images=None)
