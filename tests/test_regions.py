"""Regions of interest: which points, how many, and how they are normalised."""

from dataclasses import replace

import pytest
import torch
from fakes import scene_of
from torch import Tensor

from o2s.regions import GREY, RegionConfig, crop_regions
from o2s.scene import Boxes, Regions, Scene


def cloud(count: int = 4000, seed: int = 0) -> Scene:
    """Points whose colour is their place, so that a region tells which points it took."""
    points = 4 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 2
    return scene_of(points, (points + 2) / 4)


def boxes(*rows: list[float]) -> Boxes:
    """Boxes of centre, size and heading."""
    table = torch.tensor(rows).reshape(-1, 7)
    scores = torch.linspace(1, 0.5, len(table))
    labels = tuple(f"box {i}" for i in range(len(table)))
    return Boxes(table[:, :3], table[:, 3:6], table[:, 6], scores, labels)


MIDDLE = [0.2, -0.3, 0.1, 1.0, 1.5, 0.8, 0.0]
CORNER = [1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.0]
TURNED = [-0.5, 0.5, 0.0, 2.0, 0.4, 1.0, 0.6]
FAR = [50.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def places(regions: Regions) -> Tensor:
    """Where the points of each region lie in the scan, [R, P, 3], read off their colour."""
    return 4 * regions.points[..., 3:] - 2


def plainly_inside(point: Tensor, row: list[float], margin: float) -> bool:
    x, y, z, *sizes, heading = torch.tensor(row, dtype=torch.float64)
    cos, sin = heading.cos(), heading.sin()
    dx, dy, dz = point.double() - torch.stack([x, y, z])
    along = (cos * dx + sin * dy, cos * dy - sin * dx, dz)
    return all(a.abs() <= size / 2 + margin + 1e-5 for a, size in zip(along, sizes, strict=True))


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_all_points_come_from_inside_the_box_and_its_margin(margin: float) -> None:
    scene, rows = cloud(), [MIDDLE, TURNED]
    regions = crop_regions(scene, boxes(*rows), RegionConfig(512, margin), channels=6)
    for row, taken in zip(rows, places(regions), strict=True):
        assert all(plainly_inside(point, row, margin) for point in taken)
        in_box = [plainly_inside(point, row, 0.0) for point in taken]
        assert all(in_box) == (margin == 0)  # the margin brings points that the box has not


def test_the_heading_turns_the_box() -> None:
    regions = crop_regions(cloud(), boxes(TURNED), RegionConfig(512), channels=6)
    straight = [*TURNED[:6], 0.0]
    assert not all(plainly_inside(point, straight, 0.0) for point in places(regions)[0])


@pytest.mark.parametrize("points", [1, 7, 64, 3000])
def test_regions_are_centred_and_reach_norm_one(points: int) -> None:
    regions = crop_regions(
        cloud(), boxes(MIDDLE, CORNER, TURNED), RegionConfig(points), channels=3
    ).points
    assert regions.shape == (3, points, 3)
    assert torch.allclose(regions.mean(dim=1), torch.zeros(3, 3), atol=1e-5)
    reach = regions.norm(dim=-1).amax(dim=1)
    assert torch.allclose(reach, torch.full((3,), float(points > 1)), atol=1e-5)


def test_normalising_only_shifts_and_scales() -> None:
    regions = crop_regions(cloud(), boxes(MIDDLE), RegionConfig(100), channels=6)
    taken, normalised = places(regions)[0], regions.points[0, :, :3]
    expected = taken - taken.mean(dim=0)
    assert torch.allclose(normalised, expected / expected.norm(dim=1).max(), atol=1e-5)


def test_colours_are_as_in_the_scan_and_grey_where_it_has_none() -> None:
    scene = cloud()
    assert scene.colors is not None
    config, found = RegionConfig(64), boxes(MIDDLE, CORNER)
    coloured = crop_regions(scene, found, config, channels=6).points
    grey = crop_regions(replace(scene, colors=None), found, config, channels=6).points
    rows = {tuple(color) for color in scene.colors.tolist()}
    assert all(tuple(color) in rows for color in coloured[..., 3:].flatten(0, 1).tolist())
    assert torch.equal(grey[..., 3:], torch.full((2, 64, 3), GREY))
    assert pytest.approx(0.4) == GREY  # what ULIP-2 gives to sets without colour
    assert torch.equal(grey[..., :3], coloured[..., :3])
    assert torch.equal(crop_regions(scene, found, config, channels=3).points, coloured[..., :3])


def test_boxes_without_enough_points_are_dropped_and_the_others_keep_their_order() -> None:
    scene, found = cloud(), boxes(CORNER, FAR, MIDDLE, FAR, TURNED)
    regions = crop_regions(scene, found, RegionConfig(64), channels=3)
    assert regions.boxes.labels == ("box 0", "box 2", "box 4")
    assert torch.equal(regions.boxes.tensor, found.tensor[[0, 2, 4]])
    assert torch.equal(regions.boxes.scores, found.scores[[0, 2, 4]])
    counts = [sum(plainly_inside(p, row, 0) for p in scene.points) for row in (CORNER, MIDDLE)]
    assert counts[0] < counts[1]
    between = RegionConfig(64, min_points=counts[1])
    assert crop_regions(scene, boxes(CORNER, MIDDLE), between, channels=3).boxes.labels == (
        "box 1",
    )


def test_few_points_are_all_there_and_repeat() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.2, 0]])
    scene = scene_of(points, (points + 2) / 4)
    regions = crop_regions(scene, boxes([0.0, 0, 0, 1, 1, 1, 0]), RegionConfig(50), channels=6)
    taken = {tuple(round(v, 4) for v in p) for p in places(regions)[0].tolist()}
    assert taken == {(0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 0.2, 0.0)}


def test_enough_points_never_repeat() -> None:
    regions = crop_regions(cloud(), boxes(MIDDLE), RegionConfig(64), channels=6)
    assert len(torch.unique(regions.points[0], dim=0)) == 64


def test_the_same_seed_takes_the_same_points_and_another_seed_others() -> None:
    scene, found = cloud(), boxes(MIDDLE, TURNED)

    def points(seed: int) -> Tensor:
        return crop_regions(scene, found, RegionConfig(64, seed=seed), channels=6).points

    assert torch.equal(points(0), points(0))
    assert not torch.equal(points(0), points(7))


def test_the_sampling_does_not_touch_the_generator_of_the_caller() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    crop_regions(cloud(), boxes(MIDDLE), RegionConfig(64), channels=3)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("found", [Boxes.none(), boxes(FAR)], ids=["no boxes", "empty box"])
@pytest.mark.parametrize("channels", [3, 6])
def test_nothing_found_is_no_regions(found: Boxes, channels: int) -> None:
    regions = crop_regions(cloud(), found, RegionConfig(64), channels=channels)
    assert len(regions) == 0
    assert regions.points.shape == (0, 64, channels)


def test_a_box_around_one_place_is_finite() -> None:
    scene = scene_of(torch.ones(20, 3))
    regions = crop_regions(scene, boxes([1.0, 1, 1, 1, 1, 1, 0]), RegionConfig(8), channels=3)
    assert torch.equal(regions.points, torch.zeros(1, 8, 3))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"points": 0}, "points is 0, expected at least 1"),
        ({"min_points": 0}, "min_points is 0, expected at least 1"),
        ({"margin": -0.1}, "margin is -0.1, expected 0 or more"),
        ({"margin": float("nan")}, "margin is nan, expected 0 or more"),
    ],
)
def test_a_wrong_config_names_field_value_and_what_was_expected(
    wrong: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RegionConfig(**wrong)  # pyright: ignore[reportArgumentType]
