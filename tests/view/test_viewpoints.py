"""What is cut away and from where a scan is looked at."""

import numpy as np
import pytest
import rooms_fake

from o2s.view.viewpoints import below_ceiling, best_viewpoint


def furnished(seed: int, **options) -> np.ndarray:
    scan = rooms_fake.room(seed, size=(5.0, 4.0, 2.6), furniture=6, **options)
    return scan.points.double().numpy()


@pytest.mark.parametrize("seed", range(4))
def test_a_ceiling_is_cut_and_nothing_much_below_it(seed):
    points = furnished(seed, ceiling=True)
    kept = below_ceiling(points)
    assert not kept[points[:, 2] > 2.55].any()
    assert kept[points[:, 2] < 2.3].all()


@pytest.mark.parametrize("seed", range(4))
def test_without_a_ceiling_everything_stays(seed):
    assert below_ceiling(furnished(seed)).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_closed_room_is_seen_from_a_raised_side_with_the_near_walls_away(seed):
    points = furnished(seed)
    view = best_viewpoint(points)
    assert view.elevation > 30
    towards = np.array([np.cos(np.radians(view.azimuth)), np.sin(np.radians(view.azimuth))])
    side = (points[:, :2] - [2.5, 2.0]) / [2.5, 2.0]
    wall = (np.abs(side).max(1) > 0.99) & (points[:, 2] > 0.3)
    facing = np.where(np.abs(side[:, :1]) > 0.99, side[:, :1] * [1, 0], side[:, 1:] * [0, 1])
    nearness = (np.sign(facing.round(1)) * towards).sum(1)
    assert view.drawn[wall & (nearness > 0.5)].mean() < 0.02
    assert view.drawn[wall & (nearness < -0.5)].mean() > 0.7
    assert view.drawn[points[:, 2] < 0.05].all()


@pytest.mark.parametrize("side", [0, 90, 180, -90])
def test_a_single_frame_is_seen_from_where_it_was_taken(side):
    """A board with a hollow in it, as a depth camera at this azimuth sees it."""
    rng = np.random.default_rng(0)
    y, z = rng.uniform(-1.5, 1.5, 20_000), rng.uniform(-1, 1, 20_000)
    deep = (np.abs(y) < 1) & (np.abs(z) < 0.8)
    x = np.where(deep, -0.5, 0.0) + rng.normal(size=20_000) * 0.005
    turn = np.radians(side)
    points = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, z])
    view = best_viewpoint(points.T.copy())
    assert np.cos(np.radians(view.azimuth - side)) > 0.7
    assert view.drawn.all()
