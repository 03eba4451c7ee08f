"""Training samples: seeded, consistent with their scan under augmentation, padded in batches."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scannet_fake import write_download
from torch.utils.data import DataLoader

from o2s.datasets.preparation import prepare
from o2s.datasets.readers import Augmentation, PreparedScenes, SceneSample, collate
from o2s.datasets.scannet import ScanNet
from o2s.errors import InputError
from o2s.io.labelled import LabelledScan

NOTHING = Augmentation(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared scans")
    splits = {"train": ["scene0000_00", "scene0001_00", "scene0002_00"], "test": ["scene0700_00"]}
    prepare(ScanNet(write_download(root / "raw", splits)), root / "out")
    return root / "out"


def scenes(folder: Path, **options: object) -> PreparedScenes:
    return PreparedScenes(folder, **{"classes": "scannet20", **options})  # pyright: ignore


def equal(a: SceneSample, b: SceneSample) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@pytest.mark.parametrize("augment", [None, NOTHING])
def test_without_changes_a_sample_is_the_scan(folder: Path, augment: Augmentation | None) -> None:
    data = scenes(folder, augment=augment)
    assert len(data) == 4
    sample, scan = data[1], data.scan(1)
    assert sample.name == scan.name == "scene0001_00"
    assert np.allclose(sample.points, scan.aligned_xyz, atol=1e-6)
    assert np.array_equal(sample.semantic, scan.classes["scannet20"])
    assert np.array_equal(sample.vertices, np.arange(len(scan)))
    assert scan.objects is not None
    assert np.allclose(sample.boxes[:, :6], scan.objects.boxes, atol=1e-6)
    assert not sample.boxes[:, 6].any()
    assert np.array_equal(sample.box_classes, scan.objects.classes["scannet20"])
    ids = np.append(scan.objects.ids, -1)[sample.instance]
    assert np.array_equal(ids, scan.instance)
    assert sample.colors is not None
    assert np.allclose(sample.colors * 255, scan.rgb, atol=1e-4)
    assert sample.normals is not None
    assert np.allclose(sample.normals, scan.normals @ scan.alignment[:3, :3].T, atol=1e-5)


def assert_consistent(sample: SceneSample, scan: LabelledScan) -> None:
    """All that a sample says of its points holds for the scan, mapped by `transform`."""
    vertices = sample.vertices.numpy()
    homogeneous = np.c_[scan.xyz.astype(np.float64), np.ones(len(scan))]
    mapped = (homogeneous @ sample.transform.numpy().T)[:, :3]
    assert np.allclose(sample.points, mapped[vertices], atol=1e-5)
    assert np.array_equal(sample.semantic, scan.classes["scannet20"][vertices])
    assert scan.objects is not None
    for row, number in enumerate(sample.object_ids.tolist()):
        mine = mapped[scan.instance == number]
        assert np.allclose(sample.boxes[row, :3], (mine.min(0) + mine.max(0)) / 2, atol=1e-5)
        assert np.allclose(sample.boxes[row, 3:6], np.ptp(mine, axis=0), atol=1e-5)
    assert sample.normals is not None
    lengths = sample.normals.norm(dim=1)
    assert ((lengths < 1e-3) | ((lengths - 1).abs() < 1e-4)).all()


def test_augmentation_moves_points_normals_and_boxes_together(folder: Path) -> None:
    data = scenes(folder, split="train", augment=Augmentation(), points=500)
    handed = set()
    for epoch in range(6):
        data.set_epoch(epoch)
        for index in range(len(data)):
            sample = data[index]
            assert len(sample.points) == 500
            assert_consistent(sample, data.scan(index))
            linear = sample.transform[:3, :3]
            handed.add(bool(torch.linalg.det(linear) < 0))
            scale = linear.det().abs() ** (1 / 3)
            assert 0.9 <= scale <= 1.1
            assert torch.allclose(linear[2], torch.tensor([0, 0, 1.0]).double() * scale)
    assert len(handed) == 2, "some are mirrored and some are not"


def test_the_floor_stays_where_it_is(folder: Path) -> None:
    plain, changed = scenes(folder), scenes(folder, augment=replace(Augmentation(), dropout=0.0))
    for a, b in zip(plain, changed, strict=True):
        assert a.points[:, 2].min().item() == pytest.approx(b.points[:, 2].min().item(), abs=1e-5)
        middle = [(s.points[:, :2].amin(0) + s.points[:, :2].amax(0)) / 2 for s in (a, b)]
        assert (middle[0] - middle[1]).norm() < 1.5


def test_colours_change_a_little_and_stay_in_range(folder: Path) -> None:
    only = replace(NOTHING, color_shift=0.1, color_jitter=0.05)
    for plain, changed in zip(scenes(folder), scenes(folder, augment=only), strict=True):
        assert plain.colors is not None
        assert changed.colors is not None
        assert torch.equal(plain.points, changed.points)
        assert changed.colors.min() >= 0
        assert changed.colors.max() <= 1
        difference = (plain.colors - changed.colors).abs()
        assert 0.01 < difference.mean() < 0.15


def test_dropout_drops_up_to_its_share(folder: Path) -> None:
    data = scenes(folder, augment=replace(NOTHING, dropout=0.5))
    shares = []
    for epoch in range(10):
        data.set_epoch(epoch)
        shares += [len(data[i].points) / len(data.scan(i)) for i in range(len(data))]
    assert 0.45 < min(shares) < 0.65
    assert 0.9 < max(shares) <= 1


def test_samples_depend_on_seed_epoch_and_name_alone(folder: Path) -> None:
    options = {"points": 300, "augment": Augmentation()}
    data, again = scenes(folder, **options), scenes(folder, split="train", **options)
    assert equal(data[2], again[2]), "whatever else is in the list"
    assert equal(data[2], data[2])
    assert not equal(data[2], scenes(folder, seed=1, **options)[2])
    data.set_epoch(1)
    assert not equal(data[2], again[2])
    data.set_epoch(0)
    assert equal(data[2], again[2])


def test_points_are_drawn_at_random_without_repetition(folder: Path) -> None:
    data = scenes(folder, points=700)
    sample = data[0]
    assert len(sample.vertices.unique()) == 700
    assert sample.vertices.float().mean() == pytest.approx(len(data.scan(0)) / 2, rel=0.1)
    assert (sample.vertices.diff() < 0).float().mean() == pytest.approx(0.5, abs=0.1)
    everything = scenes(folder, points=10**6)[0]
    assert sorted(everything.vertices.tolist()) == list(range(len(scenes(folder).scan(0))))


def test_a_scan_without_annotation_has_no_labels(folder: Path) -> None:
    sample = scenes(folder, split="test", augment=Augmentation())[0]
    assert (sample.semantic == -1).all()
    assert (sample.instance == -1).all()
    assert sample.boxes.shape == (0, 7)
    assert len(sample.box_classes) == len(sample.object_ids) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_its_samples_and_padding(folder: Path, workers: int) -> None:
    data = scenes(folder, augment=Augmentation())
    (batch,) = DataLoader(data, batch_size=4, collate_fn=collate, num_workers=workers)
    assert len(batch) == 4
    assert batch.names == tuple(entry["name"] for entry in data.entries)
    for row, sample in enumerate(data):
        mask, box_mask = batch.mask[row], batch.box_mask[row]
        assert mask.sum() == len(sample.points)
        assert box_mask.sum() == len(sample.boxes)
        for name in ("points", "colors", "normals", "semantic", "instance", "vertices"):
            assert torch.equal(getattr(batch, name)[row][mask], getattr(sample, name)), name
            padding = getattr(batch, name)[row][~mask]
            assert (padding == (0 if padding.is_floating_point() else -1)).all(), name
        for name in ("boxes", "box_classes", "object_ids"):
            assert torch.equal(getattr(batch, name)[row][box_mask], getattr(sample, name)), name
        assert torch.equal(batch.transform[row], sample.transform)
    assert (~batch.box_mask[3]).all()
    assert batch.to("cpu").points.shape == batch.points.shape


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_reach_the_workers(folder: Path, persistent: bool) -> None:
    data = scenes(folder, points=200, augment=Augmentation())
    loader = DataLoader(
        data, batch_size=4, collate_fn=collate, num_workers=1, persistent_workers=persistent
    )
    found = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        found += [batch.points for batch in loader]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_colours_are_batched_only_if_all_scans_have_them(folder: Path) -> None:
    a, b = scenes(folder)[0], scenes(folder)[1]
    assert collate([a, replace(b, colors=None)]).colors is None
    assert collate([a, replace(b, colors=None)]).normals is not None
    with pytest.raises(ValueError, match="no samples"):
        collate([])


def test_what_is_not_there_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index\.json: no such file; expected a folder that"):
        PreparedScenes(tmp_path)
    with pytest.raises(InputError, match="no scans of split 'val'; found test, train"):
        PreparedScenes(folder, split="val")
    with pytest.raises(InputError, match="no class list 'coco'; expected one of nyu40, scannet18"):
        PreparedScenes(folder, classes="coco")
    with pytest.raises(ValueError, match="points is 0"):
        PreparedScenes(folder, points=0)
    with pytest.raises(ValueError, match="seed is -1"):
        PreparedScenes(folder, seed=-1)
    for broken, expected in (({"flip": 2.0}, "flip is 2"), ({"dropout": 1.0}, "less than 1")):
        with pytest.raises(ValueError, match=expected):
            Augmentation(**broken)
    with pytest.raises(ValueError, match="the less first"):
        Augmentation(scale=(2.0, 1.0))
