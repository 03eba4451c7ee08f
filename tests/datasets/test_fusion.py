"""Fusion: true planes from true depth, nothing where nothing was seen, owners and colours kept."""

from dataclasses import replace

import numpy as np
import pytest

from o2s.datasets.fusion import FusedMesh, fuse
from o2s.datasets.sens import Camera
from o2s.datasets.simulated_camera import ScannedFrame, kinect_camera

CAMERA = kinect_camera(80, 60)
ROOM = np.array([3.0, 2.5, 2.4])  # from the origin
BOUNDS = np.array([[-0.19, -0.19, -0.19], [3.2, 2.7, 2.6]])
VOXEL = 0.05


def look(eye: tuple[float, float, float], heading: float, pitch: float) -> np.ndarray:
    """Camera to world; degrees."""
    a, b = np.radians(heading), np.radians(pitch)
    ahead = np.array([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)])
    right = np.array([np.sin(a), -np.cos(a), 0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    pose[:3, 3] = eye
    return pose


def inside_a_box(pose: np.ndarray, camera: Camera = CAMERA) -> ScannedFrame:
    """The room's walls without errors; each of the six has an owner and a colour."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    ray = pixels @ np.linalg.inv(camera.intrinsic[:3, :3]).T @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        to_wall = (np.where(ray > 0, ROOM, 0) - pose[:3, 3]) / ray
    depth, axis = to_wall.min(axis=-1), to_wall.argmin(axis=-1)
    owner = 2 * axis + (np.take_along_axis(ray, axis[..., None], axis=-1)[..., 0] > 0)
    color = (40 * np.stack([owner, 5 - owner, owner], axis=-1) + 20).astype(np.uint8)
    return ScannedFrame(color, depth.astype(np.float32), pose, pose, owner.astype(np.int32))


def all_round(eye: tuple[float, float, float] = (1.5, 1.2, 1.3)) -> list[ScannedFrame]:
    return [inside_a_box(look(eye, h, p)) for p in (-70, -35, 0, 35, 70) for h in range(0, 360, 30)]


def offsets(mesh: FusedMesh) -> np.ndarray:
    """From each vertex to each of the six walls in the order of the owners."""
    return np.abs(np.stack([mesh.xyz, mesh.xyz - ROOM], axis=-1)).reshape(-1, 6)


@pytest.fixture(scope="module")
def room() -> FusedMesh:
    return fuse(all_round(), depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)


def test_planes_are_where_they_were(room):
    error = offsets(room).min(axis=1)
    away = np.sort(offsets(room), axis=1)[:, 1] > 2 * VOXEL  # from edges, which are rounded
    assert away.mean() > 0.8
    assert error[away].max() < VOXEL / 4
    assert error.max() < VOXEL
    area = 2 * (ROOM[0] * ROOM[1] + ROOM[1] * ROOM[2] + ROOM[2] * ROOM[0])
    corners = room.xyz[room.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.linalg.norm(cross, axis=1).sum() / 2 == pytest.approx(area, rel=0.05)


def test_normals_face_the_camera(room):
    corners = room.xyz[room.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = np.array([1.5, 1.2, 1.3]) - corners.mean(axis=1)
    assert ((normals * towards).sum(axis=1) > 0).all()


def test_a_grid_that_meets_the_walls_makes_no_double_surface(room):
    on_walls = np.array([[-0.2, -0.2, -0.2], [3.2, 2.7, 2.6]])
    mesh = fuse(all_round(), depth_camera=CAMERA, bounds=on_walls, voxel=VOXEL)
    assert len(mesh.xyz) == pytest.approx(len(room.xyz), rel=0.2)
    corners = mesh.xyz[mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.linalg.norm(normals, axis=1) > 1e-6).all()
    towards = np.array([1.5, 1.2, 1.3]) - corners.mean(axis=1)
    assert ((normals * towards).sum(axis=1) > 0).mean() > 0.998


def test_the_mesh_is_closed_and_whole(room):
    assert np.isfinite(room.xyz).all()
    assert np.array_equal(np.unique(room.faces), np.arange(len(room.xyz)))
    edges = room.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth, back = ({*map(tuple, e.tolist())} for e in (edges, edges[:, ::-1]))
    assert forth == back  # each edge has a face on either side, turned the same way
    assert len(forth) == len(edges)
    assert len(room.xyz) - len(edges) / 2 + len(room.faces) == 2  # Euler: a sphere


def test_owners_and_colours_are_those_of_the_walls(room):
    walls = offsets(room)
    clear = np.sort(walls, axis=1)[:, 1] > 2 * VOXEL
    assert (room.owner[clear] == walls.argmin(axis=1)[clear]).all()
    owner = room.owner[clear].astype(int)
    expected = 40 * np.stack([owner, 5 - owner, owner], axis=-1) + 20
    assert np.abs(room.rgb[clear] - expected).max() <= 20
    assert np.abs(room.rgb[clear] - expected).mean() < 1
    assert (room.owner >= 0).all()


def test_holes_stay_holes():
    frames = [inside_a_box(look((1.5, 1.2, 1.3), 0, 0))]
    mesh = fuse(frames, depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
    assert (mesh.xyz[:, 0] > 1.5).all()
    assert set(mesh.owner.tolist()) <= {1, 2, 3, 4, 5}
    blind = replace(frames[0], depth=frames[0].depth.copy())
    blind.depth[20:40, 30:50] = 0
    hole = fuse([blind], depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
    assert 0 < len(hole.xyz) < len(mesh.xyz)
    ahead = (np.abs(hole.xyz[:, 1:] - [1.2, 1.3]) < 0.15).all(axis=1)
    assert not ahead.any()


def test_without_depth_or_frames_there_is_no_mesh():
    frame = inside_a_box(look((1.5, 1.2, 1.3), 0, 0))
    for frames in ([], [replace(frame, depth=np.zeros_like(frame.depth))]):
        mesh = fuse(frames, depth_camera=CAMERA, bounds=BOUNDS)
        assert mesh.xyz.shape == mesh.rgb.shape == mesh.faces.shape == (0, 3)
        assert mesh.owner.shape == (0,)


def test_what_lies_outside_the_bounds_is_left_out():
    low = np.array([[-0.2, -0.2, -0.2], [3.2, 2.7, 1.0]])
    mesh = fuse(all_round(), depth_camera=CAMERA, bounds=low, voxel=VOXEL)
    assert 0.5 < mesh.xyz[:, 2].max() < 1.0 + 8 * VOXEL


def test_the_same_frames_give_the_same_mesh(room):
    again = fuse(all_round(), depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
    for name in ("xyz", "rgb", "faces", "owner"):
        np.testing.assert_array_equal(getattr(room, name), getattr(again, name))


def test_the_mesh_moves_with_its_frames(room):
    step = np.eye(4)
    step[:3, 3] = 8 * VOXEL * np.array([1, -2, 3])
    moved = [replace(f, measured_pose=step @ f.pose) for f in all_round()]
    mesh = fuse(moved, depth_camera=CAMERA, bounds=BOUNDS + step[:3, 3], voxel=VOXEL)
    assert abs(len(mesh.xyz) - len(room.xyz)) < 10
    assert (
        offsets(replace(mesh, xyz=mesh.xyz - step[:3, 3].astype(np.float32))).min(axis=1).max()
        < VOXEL
    )


def test_the_majority_owns_and_the_near_count_more():
    pose = look((1.5, 1.2, 1.3), 0, 0)
    frame = inside_a_box(pose)
    other = replace(frame, owner=np.full_like(frame.owner, 9))
    two, one = (
        fuse(frames, depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
        for frames in ([other, frame, other], [frame, other, frame])
    )
    assert (two.owner == 9).all()
    assert (one.owner != 9).all()
    near = inside_a_box(look((2.4, 1.2, 1.3), 0, 0))
    both = fuse([other, near, other], depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
    middle = (both.xyz[:, 0] > 2.9) & (np.abs(both.xyz[:, 1:] - [1.2, 1.3]) < 0.2).all(axis=1)
    assert (both.owner[middle] == 1).all()


def test_noise_averages_out():
    rng = np.random.default_rng(0)
    frame = inside_a_box(look((1.0, 1.2, 1.3), 0, 0))
    noisy = [
        replace(
            frame, depth=frame.depth + rng.normal(0, 0.02, frame.depth.shape).astype(np.float32)
        )
        for _ in range(50)
    ]
    spread = []
    for frames in (noisy[:2], noisy):
        mesh = fuse(frames, depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
        wall = (np.abs(mesh.xyz[:, 0] - 3) < 0.1) & (np.abs(mesh.xyz[:, 1] - 1.2) < 0.5)
        spread.append(mesh.xyz[wall, 0].std())
    assert spread[1] < spread[0] / 2
    assert spread[1] < 0.005


def test_floating_scraps_are_removed():
    frame = inside_a_box(look((1.0, 1.2, 1.3), 0, 0))
    depth = frame.depth.copy()
    depth[26:34, 36:44] = 1.0  # something small in mid-air
    scrap = replace(frame, depth=depth)
    kept = fuse([scrap], depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL, scraps=1)
    cleaned = fuse([scrap], depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL, scraps=60)
    assert (np.abs(kept.xyz[:, 0] - 2) < 0.05).any()
    floating = (np.abs(cleaned.xyz - [2, 1.2, 1.3]) < 0.15).all(axis=1)
    assert not floating.any()


def test_colours_come_from_their_own_camera():
    pose = look((1.0, 1.2, 1.3), 0, 0)
    wide = kinect_camera(160, 120)
    frame = inside_a_box(pose)
    fine = replace(frame, color=inside_a_box(pose, wide).color)
    one = fuse([frame], depth_camera=CAMERA, bounds=BOUNDS, voxel=VOXEL)
    two = fuse([fine], depth_camera=CAMERA, color_camera=wide, bounds=BOUNDS, voxel=VOXEL)
    np.testing.assert_array_equal(one.xyz, two.xyz)
    difference = np.abs(one.rgb.astype(int) - two.rgb)
    assert np.median(difference) == 0
    assert difference.mean() < 3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"voxel": 0.0}, "voxel 0.0 and truncation 0.0; expected positive"),
        ({"truncation": -1.0}, "truncation -1.0; expected positive"),
        ({"bounds": BOUNDS[::-1].copy()}, "expected a lowest and a highest corner"),
        ({"bounds": BOUNDS * np.nan}, "expected a lowest and a highest corner"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    options = {"depth_camera": CAMERA, "bounds": BOUNDS} | changes
    with pytest.raises(ValueError, match=message):
        fuse([], **options)
