"""The renderer: where points land, what hides what, and the fast z-buffer against a plain one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.view.splatting import (
    LARGEST_RADIUS,
    Camera,
    nearest_ranks,
    point_spacings,
    render,
    visible_points,
)

RED, BLUE = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]


def cloud(seed: int, count: int = 500) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3)) * [2.0, 3.0, 1.0]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    azimuth=st.floats(-180, 180),
    elevation=st.floats(-80, 90),
    perspective=st.booleans(),
)
def test_framing_holds_every_point_and_touches_the_margin(seed, azimuth, elevation, perspective):
    points = cloud(seed)
    camera = Camera.framing(
        points,
        azimuth=azimuth,
        elevation=elevation,
        size=(300, 200),
        margin=10,
        perspective=perspective,
    )
    pixels, depth = camera.project(points)
    assert (depth > 0).all()
    room = np.concatenate([pixels - 10, np.array([290, 190]) - pixels], axis=1)
    assert room.min() >= -1e-6
    left, up, right, down = room.min(0) < 1e-6
    assert (left and right) or (up and down)


def test_from_above_x_is_right_and_y_is_up():
    corners = np.array([[0.0, 0, 0], [4, 0, 0], [0, 3, 0], [4, 3, 1]])
    camera = Camera.framing(
        corners, azimuth=-90.0, elevation=90.0, size=(420, 320), margin=10, perspective=False
    )
    pixels, depth = camera.project(corners)
    np.testing.assert_allclose(pixels, [[10, 310], [410, 310], [10, 10], [410, 10]], atol=1e-9)
    assert depth[3] == pytest.approx(depth[0] - 1)


def test_a_nearer_point_hides_a_farther_one_in_either_order():
    sight = Camera(np.eye(3), np.zeros(3), 100.0, 60, 40, perspective=True)
    for near in (0, 1):
        points = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
        points[near, 2] = 1.0
        colors = np.array([BLUE, BLUE])
        colors[near] = RED
        image, depths = render(points, colors, np.full(2, 0.05), sight)
        assert image[20, 30].tolist() == [255, 0, 0]
        assert depths[20, 30] == 1.0
        assert np.isinf(depths[0, 0])
        assert image[0, 0].tolist() == [255, 255, 255]


def test_points_behind_the_camera_are_not_drawn():
    sight = Camera(np.eye(3), np.zeros(3), 100.0, 60, 40, perspective=True)
    shown = visible_points(np.array([[0.0, 0, -1], [0, 0, 0]]), np.full(2, 0.05), sight)
    assert (shown == -1).all()


def test_the_order_of_the_points_does_not_matter():
    points, order = cloud(3), np.random.default_rng(0).permutation(500)
    colors, spacings = np.abs(points) / 3, point_spacings(points)
    camera = Camera.framing(points, azimuth=30.0, elevation=20.0, size=(90, 60))
    first, _ = render(points, colors, spacings, camera)
    second, _ = render(points[order], colors[order], spacings[order], camera)
    np.testing.assert_array_equal(first, second)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), count=st.integers(0, 30), widest=st.floats(0.1, 30))
def test_nearest_ranks_equals_painting_disc_after_disc(seed, count, widest):
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, 24, count), rng.integers(0, 31, count)
    wide = rng.uniform(0, widest, count)
    plain = np.full((24, 31), count)
    for rank in reversed(range(count)):
        r = min(max(int(np.ceil((wide[rank] - 1) / 2)), 0), LARGEST_RADIUS)
        for y in range(24):
            for x in range(31):
                if (y - row[rank]) ** 2 + (x - column[rank]) ** 2 <= r * (r + 1):
                    plain[y, x] = rank
    np.testing.assert_array_equal(nearest_ranks(row, column, wide, (24, 31)), plain)


def test_a_sampled_surface_looks_closed():
    points = np.random.default_rng(0).uniform(0, 2, (20_000, 3)) * [1, 1, 0]
    camera = Camera.framing(points, azimuth=20.0, elevation=50.0, size=(400, 300))
    border = np.array([[0.1, 0.1, 0], [1.9, 0.1, 0], [1.9, 1.9, 0], [0.1, 1.9, 0]])
    share = np.random.default_rng(1).dirichlet(np.ones(4), 2000)
    column, row = np.floor(camera.project(share @ border)[0]).astype(int).T
    shown = visible_points(points, point_spacings(points), camera)
    assert (shown[row, column] >= 0).mean() > 0.999


@pytest.mark.parametrize("spacing", [0.005, 0.01, 0.02])
def test_spacing_of_a_grid(spacing):
    side = np.arange(0, 1, spacing) + spacing / 2
    points = np.stack([*np.meshgrid(side, side), np.zeros((len(side),) * 2)], -1).reshape(-1, 3)
    assert np.median(point_spacings(points)) == pytest.approx(spacing, rel=0.1)


def test_a_stray_point_far_away_does_no_harm():
    points = np.concatenate([cloud(0), [[1e9, 1e9, 1e9]]])
    assert np.isfinite(point_spacings(points)).all()
