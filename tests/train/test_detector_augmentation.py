"""Changes of scans in training: what they do to points and boxes together."""

import numpy as np
import pytest
from jaxtyping import Float

from o2s.train.detector_augmentation import DetectorAugmentation, change_scan, crop_cuboid

NOTHING = DetectorAugmentation(
    keep=(1.0, 1.0), flip_x=0.0, flip_y=0.0, turn=0.0, scale=(1.0, 1.0), shift=0.0
)


def changed(
    seed: int = 0, yaw: bool = False, heading: float = 0.0, **changes: object
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Eight corners of a box of 1 x 2 x 0.5 m, and the box."""
    augment = DetectorAugmentation(**{**NOTHING.__dict__, **changes})  # pyright: ignore
    box = np.array([[1.0, 2.0, 0.5, 1.0, 2.0, 0.5, heading]], np.float32)
    colors = np.linspace(0, 1, 24, dtype=np.float32).reshape(8, 3)
    rng = np.random.default_rng(seed)
    return change_scan(rng, corners(box), colors, box, augment, yaw=yaw)[:3]


def corners(box: Float[np.ndarray, "1 7"]) -> Float[np.ndarray, "8 3"]:
    x, y, z, *size, heading = box[0]
    signs = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) - 0.5
    local = signs * size
    cos, sin = np.cos(heading), np.sin(heading)
    turned = local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return (turned + np.array([x, y, z])).astype(np.float32)


def extent(points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "6"]:
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low])


def test_switched_off_nothing_changes() -> None:
    points, colors, boxes = changed()
    assert colors is not None
    np.testing.assert_allclose(extent(points), boxes[0, :6])
    np.testing.assert_array_equal(boxes, [[1, 2, 0.5, 1, 2, 0.5, 0]])
    np.testing.assert_allclose(colors.ravel(), np.linspace(0, 1, 24), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_an_upright_box_still_is_the_extent_of_its_points(seed: int) -> None:
    points, _, boxes = changed(
        seed, flip_x=0.5, flip_y=0.5, quarter_turns=True, scale=(0.8, 1.2), shift=0.3, turn=0.5
    )
    np.testing.assert_allclose(extent(points), boxes[0, :6], atol=1e-4)
    assert boxes[0, 6] == 0
    assert not np.allclose(boxes[0, :3], [1, 2, 0.5])


@pytest.mark.parametrize("seed", range(6))
def test_a_turned_box_turns_along(seed: int) -> None:
    options = {"flip_x": 0.5, "flip_y": 0.5, "turn": 3.0, "scale": (0.8, 1.2), "shift": 0.3}
    points, _, boxes = changed(seed, yaw=True, heading=0.3, **options)
    found, expected = corners(boxes), points
    order = lambda rows: rows[np.lexsort(np.round(rows, 3).T)]  # noqa: E731
    np.testing.assert_allclose(order(found), order(expected), atol=1e-3)


def test_points_are_dropped_and_boxes_are_not() -> None:
    points, colors, boxes = changed(keep=(0.5, 0.5))
    assert len(points) == 4
    assert colors is not None
    assert len(colors) == 4
    assert len(boxes) == 1
    assert len(changed(most=3)[0]) == 3


def test_colours_stay_in_range_and_may_be_missing() -> None:
    _, colors, _ = changed(color_shift=0.5, color_gain=0.5)
    assert colors is not None
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert not np.allclose(colors.ravel(), np.linspace(0, 1, 24), atol=1e-2)
    assert changed(color_dropout=1.0)[1] is None


@pytest.mark.parametrize("seed", range(5))
def test_a_cuboid_keeps_what_is_in_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, [8, 6, 3], (5000, 3)).astype(np.float32)
    boxes = np.concatenate([points[:40], np.ones((40, 4), np.float32)], axis=1)
    augment = DetectorAugmentation(cuboid=0.5, cuboid_points=500)
    inside, kept = crop_cuboid(rng, points, boxes, augment)
    assert 500 <= len(inside) < 5000
    assert 0 < len(kept) < 40
    low, high = points[inside].min(axis=0), points[inside].max(axis=0)
    assert (((points >= low) & (points <= high)).all(axis=1)).sum() == len(inside)
    assert set(kept) == set(np.flatnonzero(np.isin(np.arange(40), inside)))
    assert (np.ptp(points[inside], axis=0) > 0.2 * np.array([8, 6, 3])).all()


def test_a_cuboid_that_cannot_be_had_is_all() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 5, (300, 3)).astype(np.float32)
    boxes = np.zeros((2, 7), np.float32)
    inside, kept = crop_cuboid(rng, points, boxes, DetectorAugmentation(cuboid=0.5))
    assert (len(inside), kept.tolist()) == (300, [0, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": (0.0, 1.0)},
        {"keep": (0.5, 1.5)},
        {"scale": (1.1, 0.9)},
        {"flip_x": 1.5},
        {"turn": 4.0},
        {"most": 0},
        {"cuboid": 0.0},
        {"shift": -0.1},
    ],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetectorAugmentation(**wrong)  # pyright: ignore[reportArgumentType]
