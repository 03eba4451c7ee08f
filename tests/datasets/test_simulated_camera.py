"""The simulated scanner: true distances without its errors, the stated errors with them."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from o2s.datasets.sens import Camera
from o2s.datasets.simulated_camera import (
    IDEAL,
    KINECT,
    ScannedFrame,
    Sensor,
    Triangles,
    kinect_camera,
    plan_walk,
    simulate_frames,
)
from o2s.errors import InputError

CAMERA = kinect_camera(40, 30)
FLOOR = np.array([[0.0, 0], [5, 0], [5, 4], [0, 4]])
FURNITURE = np.array([[1.0, 1, 2.5, 2], [0, 3, 2, 4], [4.5, 0, 5, 1.5]])
LEVEL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # looks along x


def wall(
    distance: float, *, size: float = 20, owner: int = 0, color: int = 200, slope: float = 0
) -> Triangles:
    """A square about the x axis; its distance grows by `slope` to the left."""
    y, z = size * np.array([[-1.0, 1, 1, -1], [-1, -1, 1, 1]]) / 2
    corners = np.column_stack([distance + slope * y, y, z]).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    colors = np.full((2, 3), color, np.uint8)
    return Triangles(corners, faces, colors, np.full(2, owner, np.int32))


def together(*parts: Triangles) -> Triangles:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts]).astype(np.int32)
    return Triangles(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.colors for part in parts]),
        np.concatenate([part.owner for part in parts]),
    )


def record(
    triangles: Triangles,
    *,
    sensor: Sensor = IDEAL,
    count: int = 1,
    seed: int = 0,
    camera: Camera = CAMERA,
    color_camera: Camera | None = None,
) -> list[ScannedFrame]:
    pytest.importorskip("embreex")
    poses, rng = np.tile(LEVEL, (count, 1, 1)), np.random.default_rng(seed)
    frames = simulate_frames(
        triangles, poses, camera, rng, color_camera=color_camera, sensor=sensor
    )
    return list(frames)


def pixel_slopes(camera: Camera) -> np.ndarray:
    """x / z of each pixel's ray."""
    return (np.arange(camera.width) - camera.intrinsic[0, 2]) / camera.intrinsic[0, 0]


@pytest.mark.parametrize("slope", [0.0, 0.5, -1.0])
def test_depth_without_errors_is_the_distance(slope):
    (frame,) = record(wall(3, slope=slope))
    expected = 3 / (1 + slope * pixel_slopes(CAMERA))  # the camera's right is the world's -y
    np.testing.assert_allclose(frame.depth, np.tile(expected, (30, 1)), rtol=1e-5)
    np.testing.assert_array_equal(frame.measured_pose, frame.pose)
    assert not frame.owner.any()


def test_what_stands_behind_is_hidden_and_what_is_beside_is_not():
    (frame,) = record(together(wall(2, size=0.8, owner=5), wall(3, owner=7)))
    shown = np.abs(pixel_slopes(CAMERA)) < 0.2
    rows = (np.arange(30) - CAMERA.intrinsic[1, 2]) / CAMERA.intrinsic[1, 1]
    front = shown & (np.abs(rows) < 0.2)[:, None]
    np.testing.assert_array_equal(frame.owner, np.where(front, 5, 7))
    np.testing.assert_allclose(frame.depth, np.where(front, 2, 3), rtol=1e-5)


def test_nothing_is_measured_where_nothing_stands():
    (frame,) = record(wall(2, size=0.8))
    assert ((frame.owner == -1) == (frame.depth == 0)).all()
    assert (frame.owner == -1).any()


def test_both_sides_of_a_face_are_seen():
    there = wall(2)
    back = replace(there, faces=there.faces[:, ::-1].copy())
    np.testing.assert_array_equal(record(there)[0].depth, record(back)[0].depth)
    np.testing.assert_array_equal(record(there)[0].color, record(back)[0].color)


@pytest.mark.parametrize("distance", [1.0, 2.0, 4.0])
def test_noise_grows_as_nguyen_measured(distance):
    sensor = replace(IDEAL, axial=1.0)
    depth = np.stack([f.depth for f in record(wall(distance), sensor=sensor, count=60)])
    sigma = 0.0012 + 0.0019 * (distance - 0.4) ** 2
    assert depth.mean() == pytest.approx(distance, abs=sigma / 20)
    assert depth.std() == pytest.approx(sigma, rel=0.1)
    error = depth - distance
    neighbours = (error[:, :, 1:] * error[:, :, :-1]).mean() / error.var()
    assert 0.2 < neighbours < 0.5  # some of it is shared by neighbouring pixels


def test_depth_is_quantised_in_steps_of_disparity():
    sensor = replace(IDEAL, axial=1.0, disparity_step=2.85e-3)
    for distance in (1.0, 4.0):
        levels = np.unique(record(wall(distance), sensor=sensor, count=10)[0].depth)
        step = np.diff(levels).min()
        assert step == pytest.approx(2.85e-3 * distance**2, rel=0.1)


@pytest.mark.parametrize(
    "distance, measured", [(0.3, False), (0.5, True), (4.8, True), (5.2, False)]
)
def test_range(distance, measured):
    (frame,) = record(wall(distance), sensor=replace(IDEAL, near=0.4, far=5.0))
    assert (frame.depth > 0).all() == measured
    assert (frame.depth > 0).any() == measured


def test_grazing_surfaces_are_lost():
    side = np.array([[0.0, 1, -9], [0, 1, 9], [60, 1, 9], [60, 1, -9]], np.float32)
    (frame,) = record(
        replace(wall(3), vertices=side), sensor=replace(IDEAL, dropout=1.0), camera=kinect_camera()
    )
    hit = frame.owner >= 0
    slope = -pixel_slopes(kinect_camera())  # the angle off the surface's normal is 90 - atan
    angle = 90 - np.degrees(np.arctan(slope[slope > 0]))
    kept = hit[60, slope > 0]
    assert kept[angle < 68].mean() > 0.9
    assert not kept[angle > 80.5].any()


def test_edges_and_dark_surfaces_are_lost_more_often():
    sensor = replace(IDEAL, dropout=1.0)
    step = together(wall(1.5, size=0.8, owner=1), wall(3))
    lost = np.mean([f.depth == 0 for f in record(step, sensor=sensor, count=50)], axis=0)
    front = record(step)[0].owner == 1
    edge = np.zeros_like(front)
    for axis in (0, 1):
        changes = np.diff(front.astype(int), axis=axis) != 0
        index = np.argwhere(changes)
        edge[tuple(index.T)] = True
        index[:, axis] += 1
        edge[tuple(index.T)] = True
    assert lost[edge].mean() > 0.15
    assert lost[~edge].mean() < 0.02
    black = [f.depth == 0 for f in record(wall(2, color=5), sensor=sensor, count=20)]
    assert np.mean(black) > 0.2


def test_the_tracker_drifts_slowly_and_stays_rigid():
    frames = record(wall(2), sensor=KINECT, count=400)
    errors = np.stack([np.linalg.inv(f.pose) @ f.measured_pose for f in frames])
    turned = errors[:, :3, :3]
    np.testing.assert_allclose(
        turned @ turned.transpose(0, 2, 1), np.tile(np.eye(3), (400, 1, 1)), atol=1e-9
    )
    moved = errors[:, :3, 3]
    assert moved.std() == pytest.approx(0.002, rel=0.4)
    assert np.abs(np.diff(moved, axis=0)).max() < 0.002
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 0.03 < angle.mean() < 0.15


def test_colours_are_the_faces_under_light():
    (frame,) = record(wall(2, color=200))
    assert (frame.color[..., 0] == frame.color[..., 1]).all()
    assert 80 < frame.color.min() <= frame.color.max() < 255
    darker = record(wall(2, color=100))[0].color
    np.testing.assert_allclose(darker, frame.color / 2, atol=1)


def test_the_colour_camera_may_be_another():
    other = kinect_camera(80, 60)
    (frame,) = record(together(wall(2, size=0.8, color=50), wall(3)), color_camera=other)
    assert frame.color.shape == (60, 80, 3)
    assert frame.depth.shape == (30, 40)
    half = frame.color.reshape(30, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(half[..., 0].ravel(), frame.depth.ravel())[0, 1] > 0.8


def test_the_same_state_gives_the_same_frames():
    scene = together(wall(2, size=0.8, color=20), wall(3))
    first, again = (record(scene, sensor=KINECT, count=3, seed=4) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        for name in ("color", "depth", "owner", "pose", "measured_pose"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (record(scene, sensor=KINECT, seed=5)[0].depth != first[0].depth).any()


def test_faces_must_exist(monkeypatch):
    poses, rng = LEVEL[None], np.random.default_rng(0)
    one = wall(1)
    with pytest.raises(ValueError, match="faces name vertices outside 0 to 3"):
        simulate_frames(replace(one, faces=one.faces + 1), poses, CAMERA, rng)
    none = Triangles(one.vertices, one.faces[:0], one.colors[:0], one.owner[:0])
    with pytest.raises(ValueError, match="no faces"):
        simulate_frames(none, poses, CAMERA, rng)
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    with pytest.raises(InputError, match=r'pip install "o2s\[rooms\]"'):
        simulate_frames(one, poses, CAMERA, rng)


def test_the_default_camera_sees_58_by_45_degrees():
    k, (width, height) = kinect_camera().intrinsic, (160, 120)
    assert 2 * np.degrees(np.arctan(width / 2 / k[0, 0])) == pytest.approx(58)
    assert 2 * np.degrees(np.arctan(height / 2 / k[1, 1])) == pytest.approx(45)


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_stays_on_the_free_floor_and_sees_the_room(seed):
    poses = plan_walk(np.random.default_rng(seed), FLOOR, FURNITURE, 2.6, 150)
    again = plan_walk(np.random.default_rng(seed), FLOOR, FURNITURE, 2.6, 150)
    np.testing.assert_array_equal(poses, again)
    turn = poses[:, :3, :3]
    np.testing.assert_allclose(
        turn @ turn.transpose(0, 2, 1), np.tile(np.eye(3), (150, 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(turn), 1)
    x, y, z = poses[:, :3, 3].T
    assert ((x > 0.1) & (x < 4.9) & (y > 0.1) & (y < 3.9)).all()
    for x0, y0, x1, y1 in FURNITURE:
        assert not ((x > x0) & (x < x1) & (y > y0) & (y < y1)).any()
    assert ((z >= 1.28) & (z <= 1.72)).all()
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.6
    right, down, ahead = turn[:, :, 0], turn[:, :, 1], turn[:, :, 2]
    assert (down[:, 2] < 0).all()  # never upside down
    assert np.abs(right[:, 2]).max() < 0.15  # and nearly level
    assert -0.4 < ahead[:, 2].mean() < -0.1  # rather downwards
    heading = np.histogram(np.arctan2(ahead[:, 1], ahead[:, 0]), 8, (-np.pi, np.pi))[0]
    assert heading.min() > 0
    assert np.linalg.norm(np.ptp(poses[:, :2, 3], axis=0)) > 1.5


@pytest.mark.parametrize("frames", [1, 2, 13, 60])
def test_short_walks_and_crowded_rooms(frames):
    everywhere = np.array([[-1.0, -1, 9, 9]])
    poses = plan_walk(np.random.default_rng(0), FLOOR, everywhere, 1.5, frames)
    assert poses.shape == (frames, 4, 4)
    assert (poses[:, 2, 3] < 1.25).all()  # under a low ceiling
    empty = plan_walk(np.random.default_rng(0), FLOOR, np.zeros((0, 4)), 2.6, frames)
    assert np.isfinite(empty).all()


def test_walks_follow_rooms_of_other_shapes():
    corner = np.array([[0.0, 0], [4, 0], [4, 2], [2, 2], [2, 4], [0, 4]])
    for order in (corner, corner[::-1].copy()):
        poses = plan_walk(np.random.default_rng(1), order, np.zeros((0, 4)), 2.6, 100)
        x, y = poses[:, 0, 3], poses[:, 1, 3]
        assert not ((x > 2) & (y > 2)).any()


def test_no_floor_and_no_frames_are_refused():
    with pytest.raises(ValueError, match="no free floor"):
        plan_walk(np.random.default_rng(0), FLOOR / 50, np.zeros((0, 4)), 2.6, 10)
    with pytest.raises(ValueError, match="a walk of 0 frames"):
        plan_walk(np.random.default_rng(0), FLOOR, np.zeros((0, 4)), 2.6, 0)
