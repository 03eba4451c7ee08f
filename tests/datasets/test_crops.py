"""Crops of objects: what a frame sees, which frames are chosen, what is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from o2s.datasets.crops import Crop, find_crops, visible_pixels, write_crops
from o2s.datasets.sens import Camera, Frame, SensStream, write_sens
from o2s.errors import InputError

# A room seen by its middle: a wall behind, and things in front of it. Lower and upper corners.
WALL = np.array([[-4, 2.9, -3], [4, 3.1, 3.0]])
BOX = np.array([[-0.4, 1.8, -0.4], [0.4, 2.2, 0.4]])
PILLAR = np.array([[0.7, 2.0, -0.7], [1.0, 2.3, 0.7]])
BEHIND = np.array([[-0.3, 3.5, -0.3], [0.3, 4.0, 0.3]])  # behind the wall
ROOM = [WALL, BOX, PILLAR, BEHIND]
LOST = np.full((4, 4), -np.inf)


def pinhole(width: int, height: int, focal: float, extrinsic: np.ndarray | None = None) -> Camera:
    intrinsic = np.eye(4)
    intrinsic[[0, 1], [0, 1]] = focal
    intrinsic[:2, 2] = (width - 1) / 2, (height - 1) / 2
    return Camera(width, height, intrinsic, np.eye(4) if extrinsic is None else extrinsic)


COLOR, DEPTH = pinhole(160, 120, 130), pinhole(80, 60, 65)


def look(position: tuple[float, float, float], at: tuple[float, float, float]) -> np.ndarray:
    """The pose of a camera: x right, y down, z ahead."""
    ahead = np.subtract(at, position) / np.linalg.norm(np.subtract(at, position))
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    pose[:3, 3] = position
    return pose


def render(camera: Camera, pose: np.ndarray, boxes: list) -> tuple[np.ndarray, np.ndarray]:
    """Which box each pixel shows (-1 none) and its depth, 0 for none: a ray through each."""
    view = pose @ camera.extrinsic
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    rays = pixels @ np.linalg.inv(camera.intrinsic[:3, :3]).T @ view[:3, :3].T
    shown, depth = np.full(u.shape, -1), np.full(u.shape, np.inf)
    for number, box in enumerate(boxes):
        with np.errstate(divide="ignore"):
            sides = (np.asarray(box)[:, None, None] - view[:3, 3]) / rays
        enter, leave = np.sort(sides, axis=0)
        near = enter.max(-1)
        hit = (near < leave.min(-1)) & (near > 0) & (near < depth)
        shown[hit], depth[hit] = number, near[hit]
    return shown, np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def film(path: Path, poses: list, boxes=ROOM, color=COLOR, depth=DEPTH) -> SensStream:
    def frames():
        for pose in poses:
            seen_from = pose if np.isfinite(pose).all() else np.eye(4)
            shown, _ = render(color, seen_from, boxes)
            image = (60 * (shown[..., None] + 1) % 256).repeat(3, axis=-1).astype(np.uint8)
            yield Frame(image, render(depth, seen_from, boxes)[1], pose)

    write_sens(path, frames(), color_camera=color, depth_camera=depth)
    return SensStream(path)


def surface(box: np.ndarray, count: int = 400, seed: int = 0) -> np.ndarray:
    """Points on the front of a box, the side of least y."""
    points = np.random.default_rng(seed).uniform(*box, (count, 3)).astype(np.float32)
    points[:, 1] = box[0, 1]
    return points


FRONT = look((0, 0, 0), (0, 1, 0))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "scan.sens"


def test_points_in_front_are_visible_and_points_behind_a_wall_are_not(path):
    with film(path, [FRONT]) as stream:
        assert visible_pixels(surface(BOX), stream, 0)[0].mean() > 0.9  # all but its rim
        assert visible_pixels(surface(PILLAR), stream, 0)[0].mean() > 0.85
        hidden, pixels = visible_pixels(surface(BEHIND), stream, 0)
        assert not hidden.any()
        assert np.isfinite(pixels).all()
    with film(path, [FRONT], [BEHIND]) as stream:  # without the wall they are seen
        assert visible_pixels(surface(BEHIND), stream, 0)[0].mean() > 0.9


def test_a_visible_point_is_where_the_image_shows_its_object(path):
    pose = look((0.5, -0.5, 0.4), (0, 2, 0))
    with film(path, [pose]) as stream:
        shown, _ = render(COLOR, pose, ROOM)
        for number in (1, 2):
            seen, pixels = visible_pixels(surface(ROOM[number]), stream, 0)
            column, row = np.rint(pixels[seen]).astype(int).T
            assert (shown[row, column] == number).mean() > 0.95


def test_the_slow_way_one_point_after_the_other_agrees(path):
    pose = look((0.5, -0.5, 0.4), (0, 2, 0))
    points = np.random.default_rng(0).uniform([-2, 1.5, -1.5], [2, 3, 1.5], (600, 3))
    points[:300, 1] = np.where(np.abs(points[:300, [0, 2]]).max(1) < 0.4, 1.8, 2.9)  # surfaces
    with film(path, [pose]) as stream:
        seen, pixels = visible_pixels(points.astype(np.float32), stream, 0)
        depth = stream.depth(0)
    for i, point in enumerate(points.astype(np.float32)):
        x, y, z, _ = np.linalg.inv(pose) @ [*point, 1]
        u, v = 130 * x / z + 79.5, 130 * y / z + 59.5
        np.testing.assert_allclose(pixels[i], [u, v], rtol=1e-4)
        expected = False
        if -0.5 <= u < 159.5 and -0.5 <= v < 119.5:
            row, column = round(65 * y / z + 29.5), round(65 * x / z + 39.5)
            expected = abs(depth[row, column] - z) <= 0.05 + 0.02 * z
        assert seen[i] == expected
    assert 100 < seen.sum() < 500


def test_points_behind_outside_too_near_or_not_finite_are_not_visible(path):
    points = np.array(
        [
            [0, -2, 0],
            [0, 0.05, 0],
            [9, 2, 0],
            [0, 0, 0],
            [np.nan, 2, 0],
            [0, np.inf, 0],
            [0, 2.9, 1],
        ]
    )
    with film(path, [FRONT]) as stream:
        seen, pixels = visible_pixels(points.astype(np.float32), stream, 0)
    assert seen.tolist() == [False] * 6 + [True]
    assert np.isnan(pixels[[0, 1, 3, 4]]).all()


def test_nothing_is_visible_where_no_depth_was_measured(path):
    with film(path, [FRONT], [PILLAR]) as stream:
        assert not visible_pixels(surface(BOX), stream, 0, tolerance=9.0)[0].any()


def test_points_outside_the_colour_image_are_not_visible(path):
    with film(path, [FRONT], color=pinhole(20, 30, 130)) as stream:
        seen, pixels = visible_pixels(surface(BOX), stream, 0)
    inside = (np.abs(pixels - [9.5, 14.5]) < [10, 15]).all(1)
    assert seen.any()
    assert not seen.all()
    np.testing.assert_array_equal(seen, inside)


@pytest.mark.parametrize(
    "tolerance, share, expected", [(0.02, 0.0, 0), (0.2, 0.0, 1), (0.0, 0.04, 0), (0.0, 0.06, 1)]
)
def test_the_tolerance_is_the_callers(path, tolerance, share, expected):
    behind = surface(BOX) + np.array([0, 0.1, 0], np.float32)
    with film(path, [FRONT], [WALL, BOX]) as stream:
        options = {"tolerance": tolerance, "tolerance_of_depth": share}
        inner = behind[np.abs(behind[:, [0, 2]]).max(1) < 0.3]  # away from the box's rim
        seen, _ = visible_pixels(inner, stream, 0, **options)
        assert seen.mean() == expected


def test_extrinsics_are_honoured(path):
    """Two cameras that are turned and moved against the base see the same room."""
    turned = look((0.2, 0.1, -0.1), (0.1, 0.5, 2))
    aside = look((-0.3, 0, 0), (0.2, 0.2, 3))
    color, depth = pinhole(160, 120, 130, turned), pinhole(80, 60, 65, aside)
    base = FRONT @ np.linalg.inv(turned)
    with film(path, [base], color=color, depth=depth) as stream:
        assert visible_pixels(surface(BOX), stream, 0)[0].mean() > 0.9
        _, pixels = visible_pixels(surface(BOX), stream, 0)
    with film(path, [FRONT]) as stream:  # the colour camera stands where it stood without them
        np.testing.assert_allclose(pixels, visible_pixels(surface(BOX), stream, 0)[1], atol=1e-3)


def test_a_frame_without_tracking_is_skipped(path):
    still = np.zeros((4, 4))
    with film(path, [LOST, FRONT, still, np.full((4, 4), np.nan)]) as stream:
        for frame in (0, 2, 3):
            seen, pixels = visible_pixels(surface(BOX), stream, frame)
            assert not seen.any()
            assert np.isnan(pixels).all()
        crops = find_crops(surface(BOX), np.zeros(400, np.int32), stream, every=1, per_object=9)
        assert [crop.frame for crop in crops] == [1]
        assert not find_crops(surface(BOX), np.zeros(400, np.int32), stream, every=2, per_object=9)


def objects() -> tuple[np.ndarray, np.ndarray]:
    """The box is 3, the pillar 8, what is behind the wall 5, the wall is no object; shuffled."""
    parts = [(BOX, 3), (PILLAR, 8), (BEHIND, 5), (WALL, -1)]
    xyz = np.concatenate([surface(box, seed=i) for i, (box, _) in enumerate(parts)])
    instance = np.repeat(np.array([i for _, i in parts], np.int32), 400)
    order = np.random.default_rng(0).permutation(len(xyz))
    return xyz[order], instance[order]


AROUND = [look((x, 0.2 * i, 0), (0, 2, 0)) for i, x in enumerate([-1.5, -0.75, 0, 0.75, 1.5])]


def test_crops_are_the_extent_of_the_visible_points_with_a_margin(path):
    xyz, instance = objects()
    with film(path, AROUND) as stream:
        bare = find_crops(xyz, instance, stream, every=1, per_object=5, margin=0.0, least_pixels=1)
        wide = find_crops(xyz, instance, stream, every=1, per_object=5, margin=0.25)
        assert {crop.object_id for crop in bare} == {3, 8}
        for crop in bare:
            own = xyz[instance == crop.object_id]
            seen, pixels = visible_pixels(own, stream, crop.frame)
            nearest = np.floor(pixels[seen] + 0.5).astype(int)
            assert crop.box == (*nearest.min(0), *(nearest.max(0) + 1))
            assert crop.visible == seen.mean()
    boxes = {(crop.object_id, crop.frame): np.array(crop.box) for crop in bare}
    assert wide
    for crop in wide:
        inner = boxes[crop.object_id, crop.frame]
        extent = inner[2:] - inner[:2]
        border = np.concatenate([-extent, extent]) / 4
        size = np.array([160, 120, 160, 120])
        assert np.abs(np.clip(inner + border, 0, size) - crop.box).max() <= 1.5
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= 160
        assert 0 <= top < bottom <= 120
        assert min(right - left, bottom - top) >= 32


def test_the_best_frames_come_first_and_few_points_or_pixels_are_no_crop(path):
    xyz, instance = objects()
    xyz[instance == 3] *= np.array([0.7, 1, 0.7], np.float32)  # away from the box's rim
    far = look((0, -9, 0), (0, 2, 0))
    half = look((0, 0.6, 0.4), (0, 2, 0.4))  # sees only the upper part of the box, and large
    near = look((0, 0.9, 0), (0, 2, 0))
    with film(path, [far, half, FRONT, near]) as stream:
        options = {"every": 1, "per_object": 4}
        crops = [c for c in find_crops(xyz, instance, stream, **options) if c.object_id == 3]
        # 3 and 2 see all of it, 3 from nearer; in 0 it is too small.
        assert [crop.frame for crop in crops] == [3, 2, 1]
        small = find_crops(xyz, instance, stream, **options, least_pixels=4)
        assert (3, 0) in [(crop.object_id, crop.frame) for crop in small]
        for crop in find_crops(xyz, instance, stream, **options, least_points=350):
            assert crop.visible * 400 >= 350
        best = find_crops(xyz, instance, stream, every=1, per_object=1)
        assert [crop.frame for crop in best if crop.object_id == 3] == [3]


def test_near_duplicates_give_way_to_other_views(path):
    side, xyz = look((1.5, 0.4, 0), (0, 2, 0)), surface(BOX)
    instance = np.zeros(400, np.int32)
    with film(path, [side, FRONT, side, FRONT], [BOX]) as stream:

        def frames(wanted: int) -> list[int]:
            crops = find_crops(xyz, instance, stream, every=1, per_object=wanted)
            return [crop.frame for crop in crops]

        assert frames(1) in ([0], [1])
        assert sorted(frames(2)) == [0, 1]
        assert sorted(frames(3)) in ([0, 1, 2], [0, 1, 3])
        assert sorted(frames(9)) == [0, 1, 2, 3]


def test_the_order_of_points_does_not_matter_and_no_objects_are_no_crops(path):
    xyz, instance = objects()
    order = np.random.default_rng(1).permutation(len(xyz))
    with film(path, AROUND) as stream:
        options = {"every": 2, "per_object": 2}
        crops = find_crops(xyz, instance, stream, **options)
        assert crops
        assert crops == find_crops(xyz[order], instance[order], stream, **options)
        assert {crop.frame for crop in crops} <= {0, 2, 4}
        assert find_crops(xyz, np.full_like(instance, -1), stream, **options) == []
        assert find_crops(xyz[:0], instance[:0], stream, **options) == []
        with pytest.raises(InputError, match="--frames every=0: expected"):
            find_crops(xyz, instance, stream, every=0, per_object=2)


def test_cameras_that_cannot_be_used_are_named(path):
    broken = Camera(80, 60, np.zeros((4, 4)), np.eye(4))
    with film(path, [FRONT]) as stream:
        stream.depth_camera = broken
        with pytest.raises(InputError, match=f"^{path}: the intrinsic matrix of the depth camera"):
            visible_pixels(surface(BOX), stream, 0)


def test_written_crops_are_the_pixels_of_their_boxes(path, tmp_path):
    xyz, instance = objects()
    names = {3: "Schränkchen", 8: "pillar"}
    with film(path, AROUND) as stream:
        crops = find_crops(xyz, instance, stream, every=1, per_object=2)
        write_crops(crops, names, stream, tmp_path / "a")
        write_crops(reversed(crops), names, stream, tmp_path / "b")
        records = json.loads((tmp_path / "a/crops.json").read_text(encoding="utf-8"))
        assert [(r["object_id"], r["frame"]) for r in records] == sorted(
            (crop.object_id, crop.frame) for crop in crops
        )
        for record in records:
            box = tuple(record["box"])
            crop = Crop(record["object_id"], record["frame"], box, record["visible"])
            assert crop in crops
            assert record["name"] == names[crop.object_id]
            assert record["file"] == f"{crop.object_id}_{crop.frame}.jpg"
            left, top, right, bottom = box
            image = np.array(Image.open(tmp_path / "a" / record["file"])).astype(int)
            assert np.abs(image - stream.color(crop.frame)[top:bottom, left:right]).mean() < 3
        files = sorted(p.name for p in (tmp_path / "a").iterdir())
        assert files == sorted(["crops.json", *(record["file"] for record in records)])
        for name in files:  # the same bytes, whatever the order
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        with pytest.raises(KeyError):
            write_crops(crops, {}, stream, tmp_path / "c")
    assert not (tmp_path / "c").exists()
