"""Random changes of regions: each does what it says, and nothing when it is switched off."""

import numpy as np
import pytest
from scipy.optimize import linprog

from o2s.regions import GREY
from o2s.train.region_augmentation import (
    RegionAugmentation,
    change_colors,
    change_shape,
    move_box,
    occlude,
    turn_about,
    warp,
)

OFF = RegionAugmentation(
    dropout=0.0, scale=(1.0, 1.0), stretch=(1.0, 1.0), shift=0.0, perturb=0.0, turn=0.0
)


def cloud(count: int = 500, seed: int = 0) -> np.ndarray:
    """Points about (1, 2, 3), longer along x than along z."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(-1, 1, (count, 3)) * [2, 1, 0.5] + [1, 2, 3]).astype(np.float32)


def changed(points: np.ndarray, seed: int = 0, **settings: object) -> np.ndarray:
    values = {name: getattr(OFF, name) for name in OFF.__dataclass_fields__} | settings
    augment = RegionAugmentation(**values)
    return change_shape(np.random.default_rng(seed), points, augment)[0]


def test_switched_off_nothing_changes() -> None:
    points, colors = cloud(), np.random.default_rng(0).random((500, 3), np.float32)
    moved, dropped = change_shape(np.random.default_rng(0), points, OFF)
    np.testing.assert_allclose(moved, points, atol=1e-6)
    assert not dropped.any()
    np.testing.assert_allclose(
        change_colors(np.random.default_rng(0), colors, OFF), colors, atol=1e-6
    )


def test_a_turn_keeps_heights_and_distances() -> None:
    points = cloud()
    moved = changed(points, turn=float(np.pi))
    assert np.abs(moved - points).max() > 0.1
    np.testing.assert_allclose(moved[:, 2], points[:, 2], atol=1e-5)
    before, after = (np.linalg.norm(p - p.mean(axis=0), axis=1) for p in (points, moved))
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_scaling_is_of_all_lengths_and_stretching_of_each_axis() -> None:
    points = cloud()
    sides = [np.ptp(p, axis=0) for p in (points, changed(points, scale=(0.5, 0.7)))]
    factors = sides[1] / sides[0]
    assert np.ptp(factors) < 1e-4
    assert 0.5 <= factors[0] <= 0.7
    factors = np.ptp(changed(points, stretch=(0.5, 1.5)), axis=0) / sides[0]
    assert np.ptp(factors) > 0.05
    assert (factors >= 0.5).all()
    assert (factors <= 1.5).all()


def test_a_warp_bends_shapes_smoothly_and_within_its_bound() -> None:
    points = cloud(2000)
    radius = float(np.linalg.norm(points - points.mean(axis=0), axis=1).max())
    for seed in range(10):
        moves = changed(points, seed, warp=0.2) - points
        lengths = np.linalg.norm(moves, axis=1)
        assert 0.005 * radius < lengths.max() <= 0.2 * radius + 1e-5
        assert np.ptp(moves, axis=0).max() > 0.005 * radius, "a shift alone is no bending"
        # neighbours move alike: the waves' lengths bound the slope by 0.2 * 2
        gaps = np.linalg.norm(points[1:] - points[:-1], axis=1)
        slopes = np.linalg.norm(moves[1:] - moves[:-1], axis=1) / gaps
        assert slopes.max() < 0.4 + 1e-3


def test_a_warp_of_single_points_is_that_of_all() -> None:
    points = cloud(50)
    every = warp(np.random.default_rng(3), points, 0.1)
    single = [warp(np.random.default_rng(3), points[i : i + 1], 0.1)[0] for i in range(50)]
    np.testing.assert_allclose(np.stack(single), every, atol=1e-6)


def test_a_mirror_turns_x_round_and_keeps_the_middle() -> None:
    points = cloud()
    moved = changed(points, mirror=1.0)
    middle = points.mean(axis=0)
    np.testing.assert_allclose(moved[:, 0] - middle[0], middle[0] - points[:, 0], atol=1e-5)
    np.testing.assert_allclose(moved[:, 1:], points[:, 1:], atol=1e-5)


def test_small_turns_stay_within_three_deviations() -> None:
    points = cloud()
    local = points - points.mean(axis=0)
    for seed in range(20):
        moved = changed(points, seed, perturb=0.06)
        relative = moved - moved.mean(axis=0)
        angle = np.arccos(
            np.clip(
                (local * relative).sum(axis=1)
                / (np.linalg.norm(local, axis=1) * np.linalg.norm(relative, axis=1)),
                -1,
                1,
            )
        )
        assert 0 < angle.max() <= np.sqrt(3) * 0.18 + 1e-3


def test_dropped_points_lie_on_the_first() -> None:
    points = cloud(5000)
    augment = RegionAugmentation(dropout=0.8, scale=(1.0, 1.0), shift=0.0, perturb=0.0, turn=0.0)
    shares = []
    for seed in range(30):
        moved, dropped = change_shape(np.random.default_rng(seed), points, augment)
        assert not dropped[0]
        np.testing.assert_array_equal(
            moved[dropped], np.broadcast_to(moved[0], (int(dropped.sum()), 3))
        )
        np.testing.assert_allclose(moved[~dropped], points[~dropped], atol=1e-5)
        shares.append(dropped.mean())
    assert max(shares) < 0.83
    assert 0.25 < np.mean(shares) < 0.55


def test_a_shift_is_measured_in_the_radius() -> None:
    points = cloud()
    radius = np.linalg.norm(points - points.mean(axis=0), axis=1).max()
    move = changed(points, shift=0.1) - points
    assert np.ptp(move, axis=0).max() < 1e-5
    assert 0 < np.abs(move).max() <= 0.1 * radius + 1e-5


def test_scaling_comes_before_shifting_and_turning_after_both() -> None:
    points = cloud()
    middle = points.mean(axis=0)
    radius = np.linalg.norm(points - middle, axis=1).max()

    def moves(**settings: object) -> np.ndarray:
        found = [changed(points, seed, shift=0.1, **settings) for seed in range(200)]
        return np.array([f.mean(axis=0) - middle for f in found]) / radius

    # A shift before scaling would become ten times as long.
    assert np.abs(moves(scale=(10.0, 10.0))).max() <= 0.1 + 1e-4
    # A shift after the turn would stay within its bound along each axis.
    assert np.abs(moves(turn=np.pi)[:, :2]).max() > 0.11
    turned = moves(turn=np.pi)
    assert np.abs(turned[:, 2]).max() <= 0.1 + 1e-4
    # And the turn about z comes last: a tilt before it leaves heights to the tilt alone.
    tilted, both = (changed(points, 3, perturb=0.05, turn=turn) for turn in (0.0, np.pi))
    np.testing.assert_allclose(both[:, 2], tilted[:, 2], atol=1e-5)


def test_a_box_with_moved_faces_holds_other_points() -> None:
    points = cloud(5000)
    box = np.array([1, 2, 3, 2, 1, 0.5], np.float32)
    inside = (np.abs(points - box[:3]) <= box[3:] / 2 + 1e-5).all(axis=1)
    still = move_box(np.random.default_rng(0), points, box, 0.0)
    np.testing.assert_array_equal(still, inside)
    for seed in range(20):
        moved = move_box(np.random.default_rng(seed), points, box, 0.1)
        assert (moved != inside).any()
        low, high = points[moved].min(axis=0), points[moved].max(axis=0)
        assert (low >= box[:3] - box[3:] * 0.71 - 1e-4).all()
        assert (high <= box[:3] + box[3:] * 0.71 + 1e-4).all()


def test_occlusion_leaves_one_side_and_at_least_half() -> None:
    points = cloud(2000)
    for seed in range(20):
        stays = occlude(np.random.default_rng(seed), points)
        assert 0.5 <= stays.mean() <= 1
        if stays.all():
            continue
        # Some plane w·p = b parts them: sign · (w·p - b) >= 1 has a solution.
        sign = np.where(stays, -1.0, 1.0)[:, None]
        rows = np.concatenate([points - points.mean(axis=0), np.full((len(points), 1), -1)], axis=1)
        found = linprog(np.zeros(4), -sign * rows, -np.ones(len(points)), bounds=(None, None))
        assert found.status == 0


def test_colours_stay_in_range_and_may_be_dropped() -> None:
    colors = np.random.default_rng(0).random((100, 3), np.float32)
    wild = RegionAugmentation(color_shift=0.5, color_gain=0.9, color_jitter=0.5)
    found = change_colors(np.random.default_rng(1), colors, wild)
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.abs(found - colors).max() > 0.1
    grey = change_colors(np.random.default_rng(1), colors, RegionAugmentation(color_dropout=1.0))
    assert (grey == np.float32(GREY)).all()


def test_turns_are_counter_clockwise() -> None:
    np.testing.assert_allclose(turn_about(2, np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(turn_about(0, np.pi / 2) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turn_about(1, np.pi / 2) @ [0, 0, 1], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"dropout": 1.5}, {"scale": (2.0, 1.0)}, {"stretch": (0.0, 1.0)}, {"jitter": -0.1}]
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*expected"):
        RegionAugmentation(**wrong)
