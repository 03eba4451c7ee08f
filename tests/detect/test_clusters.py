"""The geometric detector on simulated rooms with known boxes, and on degenerate scans."""

from functools import cache

import pytest
import torch
from fakes import scene_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rooms_fake import FakeRoom, room
from torch import Tensor

from o2s.detect import ClusterDetector, ClustersConfig
from o2s.ops.boxes import box_iou
from o2s.scene import Boxes

SEEDS = range(6)
detector = ClusterDetector()


@cache
def furnished(seed: int, ceiling: bool) -> tuple[FakeRoom, Boxes]:
    made = room(seed, ceiling=ceiling)
    return made, detector(scene_of(made.points))


def scans() -> list[tuple[FakeRoom, Boxes]]:
    return [furnished(seed, ceiling) for seed in SEEDS for ceiling in (False, True)]


def found(truth: Tensor, boxes: Boxes, iou: float = 0.25) -> Tensor:
    """Which of the true boxes, [R, 6], were found."""
    upright = torch.cat([truth, torch.zeros(len(truth), 1)], dim=1)
    return (box_iou(upright, boxes.tensor) >= iou).any(dim=1)


@pytest.mark.parametrize("ceiling", [False, True])
def test_nine_of_ten_pieces_of_furniture_are_found(ceiling: bool) -> None:
    pairs = [furnished(seed, ceiling) for seed in SEEDS]
    hits = torch.cat([found(made.boxes, boxes) for made, boxes in pairs])
    assert len(hits) > 20
    assert hits.float().mean() >= 0.9


def test_scores_are_sorted_and_lie_between_0_and_1() -> None:
    for _, boxes in scans():
        assert ((boxes.scores >= 0) & (boxes.scores <= 1)).all()
        assert torch.equal(boxes.scores, boxes.scores.sort(descending=True).values)
        assert set(boxes.labels) <= set(detector.classes)


def test_furniture_comes_before_remnants_of_the_walls() -> None:
    """Twice as many best boxes as there are pieces hold most of the pieces."""
    hits = torch.cat(
        [found(made.boxes, boxes.best(2 * len(made.boxes))) for made, boxes in scans()]
    )
    assert hits.float().mean() >= 0.75


def test_boxes_lie_within_the_scan() -> None:
    for made, boxes in scans():
        corners = boxes.corners()
        assert (corners.amin(dim=1) >= made.points.amin(dim=0) - 1e-3).all()
        assert (corners.amax(dim=1) <= made.points.amax(dim=0) + 1e-3).all()
        assert (boxes.sizes > 0).all()
        assert not boxes.headings.any()


def test_no_box_covers_the_floor_or_a_wall() -> None:
    for made, boxes in scans():
        extent = made.points.amax(dim=0) - made.points.amin(dim=0)
        share = boxes.sizes / extent
        assert (share[:, 0] * share[:, 1] < 0.4).all()  # the floor
        assert not ((share[:, :2].amax(dim=1) > 0.8) & (share[:, 2] > 0.8)).any()  # a wall


@pytest.mark.parametrize("ceiling", [False, True])
def test_an_empty_room_has_few_boxes_and_none_is_furniture(ceiling: bool) -> None:
    """What is left are strips of wall beside a door or a window."""
    counts = []
    for seed in SEEDS:
        boxes = detector(scene_of(room(seed, ceiling=ceiling, furniture=0).points))
        assert (boxes.sizes[:, :2].amin(dim=1) < 0.1).all()
        counts.append(len(boxes))
    assert sum(counts) <= 2 * len(counts)
    assert counts.count(0) >= len(counts) / 2


def test_a_lone_block_on_the_floor_is_its_box() -> None:
    generator = torch.Generator().manual_seed(0)
    block, floor = torch.rand(2, 8000, 3, generator=generator)
    size, centre = torch.tensor([0.8, 0.6, 0.5]), torch.tensor([2.5, 1.5, 0.25])
    side = torch.arange(8000) % 5
    faces = torch.tensor([[0, 0.0], [0, 1.0], [1, 0.0], [1, 1.0], [2, 1.0]])  # no underside
    block[torch.arange(8000), faces[side, 0].long()] = faces[side, 1]
    block = (block - 0.5) * size + centre
    boxes = detector(scene_of(torch.cat([block, floor * torch.tensor([5.0, 4, 0])])))
    assert len(boxes) == 1
    assert torch.allclose(boxes.centres[0], centre, atol=0.02)
    assert torch.allclose(boxes.sizes[0], size, atol=0.03)


def test_a_flat_plate_in_the_air_is_one_box() -> None:
    """Boxes without volume overlap nothing, so that every reach would give its own."""
    plate, floor = torch.rand(2, 8000, 3, generator=torch.Generator().manual_seed(0))
    plate = plate * torch.tensor([1.0, 0.6, 0]) + torch.tensor([2.0, 2.0, 0.7])
    boxes = detector(scene_of(torch.cat([plate, floor * torch.tensor([5.0, 4, 0])])))
    assert len(boxes) == 1
    assert torch.allclose(boxes.sizes[0], torch.tensor([1.0, 0.6, 0]), atol=0.02)


@pytest.mark.parametrize("stray", [1, 200])
def test_points_scattered_in_the_air_are_tolerated(stray: int) -> None:
    hits = []
    for seed in SEEDS:
        made = furnished(seed, True)[0]
        generator = torch.Generator().manual_seed(seed)
        clutter = torch.rand(stray, 3, generator=generator) * made.points.amax(dim=0)
        boxes = detector(scene_of(torch.cat([made.points, clutter])))
        hits.append(found(made.boxes, boxes))
    assert torch.cat(hits).float().mean() >= 0.9


def test_one_point_far_away_does_not_matter() -> None:
    made, boxes = furnished(1, False)
    for distance in (20.0, 1000.0):
        stray = torch.full((1, 3), distance)
        again = detector(scene_of(torch.cat([made.points, stray])))
        assert torch.equal(found(made.boxes, again), found(made.boxes, boxes))


@pytest.mark.parametrize("max_size", [0.5, 1.0, 1.6])
@pytest.mark.parametrize("min_size", [0.1, 0.4])
def test_sizes_stay_between_the_smallest_and_the_largest(max_size: float, min_size: float) -> None:
    config = ClustersConfig(max_size=max_size, min_size=min_size)
    boxes = ClusterDetector(config)(scene_of(furnished(1, False)[0].points))
    longest = boxes.sizes.amax(dim=1)
    assert ((longest >= min_size) & (longest <= max_size + 1e-6)).all()
    assert len(boxes) > 0


def test_boxes_that_stay_overlap_little() -> None:
    for _, boxes in scans()[:4]:
        overlap = box_iou(boxes.tensor, boxes.tensor) - torch.eye(len(boxes))
        assert (overlap <= detector.config.nms_iou + 1e-6).all()


def test_the_same_scan_gives_the_same_boxes_alone_and_among_others() -> None:
    made, boxes = furnished(0, True)
    scene, other = scene_of(made.points), scene_of(furnished(1, True)[0].points)
    again = detector.detect([other, scene])[1]
    assert torch.equal(boxes.tensor, again.tensor)
    assert torch.equal(boxes.scores, again.scores)


def test_the_order_of_the_points_and_their_colours_do_not_matter() -> None:
    made, boxes = furnished(2, False)
    order = torch.randperm(len(made.points), generator=torch.Generator().manual_seed(0))
    again = detector(scene_of(made.points[order], made.colors))
    assert torch.allclose(boxes.tensor, again.tensor, atol=1e-5)


POINTS = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) * 4
DEGENERATE = {
    "no points": POINTS[:0],
    "one point": POINTS[:1],
    "two points": POINTS[:2],
    "eleven points": POINTS[:11],
    "one place": torch.ones(500, 3),
    "a floor": POINTS * torch.tensor([1.0, 1, 0]),
    "a wall": POINTS * torch.tensor([1.0, 0, 1]),
    "a wall askew": POINTS[:, [0, 0, 2]],
    "a horizontal line": POINTS * torch.tensor([1.0, 0, 0]),
}


@pytest.mark.parametrize("points", DEGENERATE.values(), ids=DEGENERATE)
def test_scans_without_an_object_give_no_boxes(points: Tensor) -> None:
    assert len(detector(scene_of(points))) == 0


@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 400), spread=st.floats(0.01, 5), seed=st.integers(0, 99))
def test_any_cloud_is_without_error(count: int, spread: float, seed: int) -> None:
    points = spread * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    boxes = detector(scene_of(points))
    assert boxes.tensor.isfinite().all()
    assert boxes.scores.isfinite().all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"voxel": 0.0}, "voxel is 0.0, expected more than 0 metres"),
        ({"voxel": float("nan")}, "voxel is nan, expected more than 0 metres"),
        ({"thickness": -1.0}, "thickness is -1.0, expected more than 0 metres"),
        ({"max_size": 0.0}, "max_size is 0.0, expected more than 0 metres"),
        ({"reaches": []}, r"reaches is \[\], expected whole numbers from 1"),
        ({"reaches": [2, 0]}, r"reaches is \[2, 0\], expected whole numbers from 1"),
        ({"nms_iou": 0.0}, "nms_iou is 0.0, expected 0 < nms_iou <= 1"),
        ({"nms_iou": 1.5}, "nms_iou is 1.5, expected 0 < nms_iou <= 1"),
    ],
    ids=str,
)
def test_a_wrong_config_names_field_value_and_what_was_expected(
    wrong: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClustersConfig(**wrong)  # pyright: ignore[reportArgumentType]
