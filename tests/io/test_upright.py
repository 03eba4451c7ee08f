import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rooms_fake import room, single_view
from torch import Tensor

from o2s.io.upright import find_up, guess_unit, rotation_to_z

Z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
AXES = [sign * axis for axis in torch.eye(3, dtype=torch.float64) for sign in (1, -1)]


def rotation(seed: int, degrees: float | None = None) -> Tensor:
    """Any rotation, or one that tilts z by `degrees` after a turn about z."""
    rng = np.random.default_rng(seed)
    matrix = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    matrix *= torch.det(matrix)
    if degrees is None:
        return matrix
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    tilt = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    a = rng.uniform(0, 2 * np.pi)
    turn = [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]
    return tilt @ torch.tensor(turn, dtype=torch.float64)


def turned(points: Tensor, matrix: Tensor) -> Tensor:
    xyz = points.double() @ matrix.T
    return (xyz - xyz.mean(dim=0)).float()


def error(points: Tensor, matrix: Tensor) -> float:
    """Degrees between what is found in the turned room and the truth."""
    found = find_up(turned(points, matrix))
    assert found.norm().item() == pytest.approx(1)
    return math.degrees(math.acos(min(1.0, max(-1.0, float(found @ matrix[:, 2])))))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ceiling", [False, True])
def test_a_level_room_has_exactly_z_up(seed: int, ceiling: bool) -> None:
    points = room(seed, ceiling=ceiling, furniture=6, noise=0.02).points
    assert torch.equal(find_up(turned(points, torch.eye(3, dtype=torch.float64))), Z)


@pytest.mark.parametrize("axis", AXES, ids=["x", "-x", "y", "-y", "z", "-z"])
@pytest.mark.parametrize("seed", range(2))
def test_every_axis_can_be_up(axis: Tensor, seed: int) -> None:
    points = turned(room(seed, furniture=6).points, rotation_to_z(axis).T)
    assert torch.equal(find_up(points), axis)


@pytest.mark.parametrize("degrees", [3, 5, 12, 25])
def test_a_tilt_is_found(degrees: float) -> None:
    assert error(room(5, furniture=6, noise=0.02).points, rotation(1, degrees)) < 0.7


def test_a_tilt_within_the_noise_is_no_tilt() -> None:
    assert torch.equal(find_up(turned(room(5).points, rotation(1, 0.5))), Z)


@pytest.mark.parametrize(
    "size, wall_density", [((2.0, 2.0, 2.6), 1.0), ((8.0, 1.6, 2.6), 1.0), (None, 12.0)]
)
def test_walls_may_outweigh_the_floor(size: tuple | None, wall_density: float) -> None:
    points = room(2, size=size, wall_density=wall_density, furniture=3).points
    assert error(points, rotation(0, 8)) < 3


def test_most_rooms_in_most_orientations_are_right() -> None:
    good = {"level or tilted": [], "any rotation": []}
    for seed in range(100, 112):
        points = room(seed, ceiling=seed % 3 == 0, furniture=6, points=8000, noise=0.015).points
        good["level or tilted"].append(error(points, rotation(seed, 3.0 * (seed % 8))) < 3)
        good["any rotation"].append(error(points, rotation(seed)) < 3)
    rates = {kind: np.mean(hits) for kind, hits in good.items()}
    assert rates["level or tilted"] >= 0.95, rates
    assert rates["any rotation"] >= 0.8, rates


def test_a_depth_frame_of_floor_and_wall() -> None:
    points = room(7, size=(4.0, 4.0, 2.6), furniture=5, points=150_000).points
    seen, camera = single_view(points, (0.6, 0.6, 1.5), (3.0, 3.0, 0.5))
    frame = points[seen]
    assert error(frame, torch.eye(3, dtype=torch.float64)) < 3
    assert error(frame, rotation(3, 15)) < 3
    assert error(frame, camera) < 3  # x right, y down, z forward, pitched


def test_unit_position_and_order_do_not_matter() -> None:
    points = turned(room(3, furniture=5).points, rotation(4, 12))
    expected = find_up(points)
    assert torch.equal(find_up(points), expected)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(points)))
    for other in (points * 1000, points * 0.01, points + 7, points[order]):
        torch.testing.assert_close(find_up(other), expected, atol=0.01, rtol=0)


def test_stray_points_do_not_matter() -> None:
    points = turned(room(3, furniture=5).points, rotation(4, 12))
    stray = torch.tensor([[500.0, -40.0, -900.0], [float("nan")] * 3, [float("inf"), 0.0, 0.0]])
    expected = find_up(points)
    torch.testing.assert_close(find_up(torch.cat([points, stray])), expected, atol=0.01, rtol=0)


def plane(normal: tuple[float, float, float], count: int = 4000) -> Tensor:
    xy = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (count, 3)))
    xy[:, 2] = 0
    up = torch.tensor(normal, dtype=torch.float64)
    return (xy @ rotation_to_z(up / up.norm())).float()


@pytest.mark.parametrize(
    "points",
    [
        torch.zeros(0, 3),
        torch.ones(1, 3),
        torch.full((1000, 3), 0.7),
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]),
        torch.linspace(0, 1, 5000)[:, None] * torch.tensor([1.0, 0, 0]),
        torch.linspace(0, 1, 5000)[:, None] * torch.tensor([1.0, 2, 3]),
        plane((0, 0, 1)),
        plane((1, 0, 0)),
        plane((0, 1, 0)),
        plane((1, 1, 0)),
        torch.full((10, 3), float("nan")),
    ],
)
def test_no_evidence_gives_z(points: Tensor) -> None:
    assert torch.equal(find_up(points), Z)


def test_a_lone_slanting_floor_is_levelled() -> None:
    normal = (0.2, 0.1, 0.95)
    expected = torch.tensor(normal, dtype=torch.float64)
    torch.testing.assert_close(
        find_up(plane(normal)), expected / expected.norm(), atol=1e-4, rtol=0
    )


def direction(angle: float, z: float) -> Tensor:
    radius = math.sqrt(1 - z * z)
    up = torch.tensor([radius * math.cos(angle), radius * math.sin(angle), z], dtype=torch.float64)
    return up / up.norm()


@settings(deadline=None, max_examples=60)
@given(
    angle=st.floats(-4, 4),
    z=st.floats(-1, 1) | st.sampled_from([1e-9 - 1, 1e-15 - 1, -1.0, 1.0, 1 - 1e-12]),
)
def test_rotation_to_z_is_the_smallest(angle: float, z: float) -> None:
    up = direction(angle, z)
    matrix = rotation_to_z(up)
    torch.testing.assert_close(matrix @ up, Z, atol=1e-6, rtol=0)
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, identity, atol=1e-6, rtol=0)
    assert torch.det(matrix).item() == pytest.approx(1)
    # The trace gives the angle; no rotation can do with less than that between up and z.
    assert (matrix.trace().item() - 1) / 2 == pytest.approx(up[2].item(), abs=1e-6)


@pytest.mark.parametrize("axis", AXES, ids=["x", "-x", "y", "-y", "z", "-z"])
def test_rotation_to_z_is_exact_for_axes(axis: Tensor) -> None:
    matrix = rotation_to_z(axis)
    assert torch.equal(matrix @ axis, Z)
    assert set(matrix.flatten().tolist()) <= {-1.0, 0.0, 1.0}
    assert not torch.signbit(matrix[matrix == 0]).any()
    if torch.equal(axis, Z):
        assert torch.equal(matrix, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(
    "unit, scale, sides",
    [("m", 1, (0.4, 1.5, 8, 30, 55)), ("cm", 100, (0.7, 1.5, 8, 14)), ("mm", 1000, (1.6, 5, 30))],
)
def test_unit(unit: str, scale: float, sides: tuple[float, ...]) -> None:
    for side in sides:
        points = room(0, size=(side, side * 0.8, side * 0.5), furniture=0, points=4000).points
        points = points - points.mean(dim=0)
        assert guess_unit(points * scale) == unit
        far = torch.tensor([[1e6, 0, 0], [0, -1e6, 0], [float("nan")] * 3])
        assert guess_unit(torch.cat([points * scale, far])) == unit


def test_unit_without_evidence_is_metres() -> None:
    assert guess_unit(torch.zeros(0, 3)) == "m"
    assert guess_unit(torch.ones(1, 3)) == "m"


def test_a_room_that_is_asked_for_is_what_comes() -> None:
    points, colors, boxes = room(1, size=(5.0, 4.0, 2.5), noise=0.0, ceiling=True, furniture=5)
    assert points.shape == colors.shape == (20_000, 3)
    assert 1 <= len(boxes) <= 5
    assert points.min() >= -1e-6
    assert (points.amax(dim=0) - torch.tensor([5.0, 4.0, 2.5])).abs().max() < 0.02
    assert colors.min() >= 0
    assert colors.max() <= 1
    for box in boxes:
        centre, size = box.split(3)
        inside = points[((points - centre).abs() <= size / 2 + 1e-4).all(dim=1)]
        assert (inside.amax(dim=0) - inside.amin(dim=0) - size).abs().max() < 0.2
    again = room(1, size=(5.0, 4.0, 2.5), noise=0.0, ceiling=True, furniture=5)
    assert torch.equal(again.points, points)
