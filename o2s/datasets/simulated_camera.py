"""A hand-held RGB-D camera in a furnished room of triangles: where it goes and what it measures.

plan_walk        poses of a person who walks over the free floor and looks at the room
simulate_frames  a pose to a colour and a depth image with the errors of a structured-light sensor
  _ray_scene       Embree's tree over the triangles
  _measure         distances to depth: range, noise, quantisation, pixels without a measurement
  _shade           faces to colour: diffuse surfaces under two lamps

The errors of depth follow measurements of the Kinect: Khoshelham and Elberink, "Accuracy and
Resolution of Kinect Depth Data for Indoor Mapping Applications" (Sensors, 2012), for quantisation,
and Nguyen, Izadi and Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and
Tracking" (3DIMPVT, 2012), for axial and lateral noise. How many pixels are lost at grazing angles,
at the edges of objects and on dark or glossy surfaces is our choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from numpy.random import Generator
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from o2s.datasets.sens import Camera
from o2s.errors import InputError
from o2s.ops.kernels import compiled


@dataclass(frozen=True)
class Triangles:
    """A room's surfaces in metres, z up; `owner` is the object of a face, -1 where it has none."""

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int32[np.ndarray, "F 3"]
    colors: UInt8[np.ndarray, "F 3"]
    owner: Int32[np.ndarray, "F"]


@dataclass(frozen=True)
class Sensor:
    """How wrong the camera is; the defaults are a Kinect's, `IDEAL` makes no errors.

    Depth outside `near` to `far` metres is not measured. `axial` multiplies Nguyen's standard
    deviation 0.0012 + 0.0019 (z - 0.4)^2 metres. `lateral` is the standard deviation of where a
    pixel looks, in pixels of an image that is 640 wide. `disparity_step` is that of 1 / z, in
    1 / metres: depth is quantised in steps of `disparity_step` z^2. `dropout` multiplies the
    chances that nothing is measured. The tracker is wrong by smooth errors of `drift` metres and
    `drift_angle` degrees an axis (standard deviations). Colours have noise of `color_noise` levels
    of 255 and an exposure that varies by the share `exposure` (standard deviations).
    """

    near: float = 0.4
    far: float = 5.0
    axial: float = 1.0
    lateral: float = 0.8
    disparity_step: float = 2.85e-3
    dropout: float = 1.0
    drift: float = 0.002
    drift_angle: float = 0.05
    color_noise: float = 4.0
    exposure: float = 0.05


KINECT = Sensor()
IDEAL = Sensor(0.0, np.inf, *[0.0] * 8)


@dataclass(frozen=True)
class ScannedFrame:
    """One moment of a scan: `Frame`'s images, and what a real scanner does not know.

    `depth` is in metres along the camera's axis, 0 where nothing was measured; `owner` is the
    object that was measured there, -1 where it is none. `pose` is where the camera was and
    `measured_pose` where the tracker believes it; both take the base camera's coordinates to the
    world's.
    """

    color: UInt8[np.ndarray, "H W 3"]
    depth: Float32[np.ndarray, "h w"]
    pose: Float64[np.ndarray, "4 4"]
    measured_pose: Float64[np.ndarray, "4 4"]
    owner: Int32[np.ndarray, "h w"]


def kinect_camera(width: int = 160, height: int = 120) -> Camera:
    """A camera with a Kinect's field of view, 58 x 45 degrees."""
    intrinsic = np.eye(4)
    intrinsic[0, 0] = width / 2 / np.tan(np.radians(29))
    intrinsic[1, 1] = height / 2 / np.tan(np.radians(22.5))
    intrinsic[:2, 2] = (width - 1) / 2, (height - 1) / 2
    return Camera(width, height, intrinsic, np.eye(4))


def plan_walk(
    rng: Generator,
    floor: Float64[np.ndarray, "K 2"],
    blocked: Float64[np.ndarray, "R 4"],
    height: float,
    frames: int,
) -> Float64[np.ndarray, "T 4 4"]:
    """Poses (camera to world) of a hand-held scan of a room whose floor lies at z = 0.

    The camera visits up to seven places far from each other on the free floor, one after the other
    by the shortest way, and turns round at each, up and down; it is held 1.3 to 1.7 m high, lower
    under a low ceiling, and trembles.

    Args:
        rng: makes the walk; the same state gives the same walk.
        floor: the corners of the room in order, in metres.
        blocked: the furniture seen from above as (x0, y0, x1, y1). It is walked through only
            where it leaves no free floor.
        height: of the room.
        frames: how many poses.

    Raises:
        ValueError: the floor is too small to stand on, or there are no frames.
    """
    if frames < 1:
        raise ValueError(f"a walk of {frames} frames; expected 1 or more")
    places, room = _free_floor(floor, blocked)
    most = max(1, min(2 + int(len(places) * _CELL**2), 7, frames // 12))
    stops = _stops(rng, places, int(rng.integers((most + 1) // 2, most + 1)))
    ways = _ways(places, stops)
    lengths = np.array([len(way) for way in ways])
    travel = np.maximum(1, 0.4 * frames * lengths / max(lengths.sum(), 1)).astype(int)
    turn = max(1, (frames - int(travel.sum())) // len(stops))

    ahead = np.arctan2(*(floor.mean(axis=0) - places).T[::-1])  # to the middle of the room
    xy, yaw = [], [rng.uniform(-np.pi, np.pi)]
    for i, stop in enumerate(stops):
        reach = np.pi if room[stop] > 0.9 else np.radians(110)
        starts = ahead[stop] + np.array([-reach, reach])
        which = int(np.argmax(np.cos(starts - yaw[-1])))
        sweep = starts[which] + np.linspace(0, (2, -2)[which] * reach, turn)
        if i:
            way = ways[i - 1][np.linspace(0, len(ways[i - 1]) - 1, travel[i - 1], dtype=int)]
            turns = np.unwrap([yaw[-1], ahead[way[len(way) // 2]], sweep[0]])
            yaw += np.interp(np.linspace(0, 2, len(way)), [0, 1, 2], turns).tolist()
            xy += list(places[way])
        xy += [places[stop]] * turn
        yaw += sweep.tolist()

    keep = np.minimum(np.arange(frames), len(xy) - 1)  # rounding leaves a few frames over
    shake = _smooth_noise(rng, frames, 1.5)
    eye = np.empty((frames, 3))
    eye[:, :2] = ndimage.gaussian_filter1d(np.array(xy)[keep], 1.5, axis=0, mode="nearest")
    lift = np.clip(1.5 + 0.12 * _smooth_noise(rng, frames, 15.0)[:, 0], 1.32, 1.68)
    eye[:, 2] = np.minimum(lift, height - 0.3)
    eye += np.clip(shake[:, :3], -2, 2) * [0.015, 0.015, 0.01]
    cell = places[KDTree(places).query(eye[:, :2])[1]]  # corners were cut: back to the free floor
    eye[:, :2] = np.clip(eye[:, :2], cell - 0.49 * _CELL, cell + 0.49 * _CELL)

    heading = ndimage.gaussian_filter1d(np.unwrap(yaw[1:])[keep], 1.0, mode="nearest")
    nod = np.sin(2 * np.pi * np.arange(frames) / rng.uniform(5.5, 7.5))
    pitch = rng.uniform(-24, -14) + 21 * nod + shake[:, 3]
    angles = np.stack([np.degrees(heading) + shake[:, 4], -pitch, 1.5 * shake[:, 5]], axis=1)
    turned = Rotation.from_euler("ZYX", angles, degrees=True) * Rotation.from_matrix(_LEVEL)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = turned.as_matrix(), eye
    return poses


def simulate_frames(
    triangles: Triangles,
    poses: Float64[np.ndarray, "T 4 4"],
    camera: Camera,
    rng: Generator,
    *,
    color_camera: Camera | None = None,
    sensor: Sensor = KINECT,
) -> Iterator[ScannedFrame]:
    """What the camera records at each of its poses.

    Args:
        triangles: what stands in the room; both sides of a face can be seen.
        poses: the base camera's, to the world.
        camera: of depth.
        rng: makes all errors and the lamps; the same state gives the same frames.
        color_camera: of colour; None for the camera of depth, which needs half the rays.
        sensor: what kind and size of errors.

    Raises:
        InputError: Embree is not installed.
        ValueError: there are no faces, or faces name vertices that do not exist.
    """
    if not len(triangles.faces):
        raise ValueError("no faces; expected a room to look at")
    if not 0 <= triangles.faces.min() <= triangles.faces.max() < len(triangles.vertices):
        raise ValueError(f"faces name vertices outside 0 to {len(triangles.vertices) - 1}")
    scene = _ray_scene(triangles)
    rng = np.random.default_rng(rng.integers(2**63))  # frames are made when they are asked for
    low, high = triangles.vertices.min(axis=0), triangles.vertices.max(axis=0)
    lamps = low + (high - low) * np.column_stack([rng.uniform(0.3, 0.7, (2, 2)), [0.85, 0.85]])
    dullness, texture = _dullness(triangles, rng), rng.random((32, 32, 32))
    errors = _smooth_noise(rng, len(poses), 10.0)
    exposure = 1 + sensor.exposure * _smooth_noise(rng, len(poses), 5.0)[:, 0]
    blur, shape = sensor.lateral * camera.width / 640, (camera.height, camera.width)
    limits = sensor.near, sensor.far, sensor.axial, sensor.disparity_step, sensor.dropout

    def frames() -> Iterator[ScannedFrame]:
        for pose, error, light in zip(poses, errors, exposure, strict=True):
            view = _cast(scene, camera, pose, blur * rng.standard_normal((*shape, 2)))
            white, wave = rng.standard_normal((2, *shape), np.float32)
            smooth = ndimage.gaussian_filter(wave, _BLUR, mode="wrap")
            noise = 0.8 * white + 0.6 * (2 * _BLUR * np.sqrt(np.pi)) * smooth  # of variance one
            chance = rng.random((2, *shape), np.float32)
            depth, face = _measure(view, dullness, texture, noise, chance, limits)
            if color_camera is not None:
                view = _cast(scene, color_camera, pose, np.zeros(2))
            grain = sensor.color_noise * rng.standard_normal(view.ray.shape, np.float32)
            color = _shade(view, triangles.colors, lamps, light, grain)
            drift = np.eye(4)
            drift[:3, :3] = Rotation.from_rotvec(sensor.drift_angle * error[3:], True).as_matrix()
            drift[:3, 3] = sensor.drift * error[:3]
            owner = np.where(face >= 0, triangles.owner[face], -1).astype(np.int32)
            yield ScannedFrame(color, depth, pose, pose @ drift, owner)

    return frames()


class _View(NamedTuple):
    """What each pixel's `ray`, as long as one metre of depth, meets: `face` is -1 for nothing."""

    eye: Float32[np.ndarray, "3"]
    ray: Float32[np.ndarray, "h w 3"]
    face: Int32[np.ndarray, "h w"]
    distance: Float32[np.ndarray, "h w"]
    normal: Float32[np.ndarray, "h w 3"]


def _ray_scene(triangles: Triangles) -> Any:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        message = 'embreex is missing; expected it for casting rays: pip install "o2s[rooms]"'
        raise InputError(message) from None
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, *map(np.ascontiguousarray, (triangles.vertices, triangles.faces)))
    return scene


def _cast(scene: Any, camera: Camera, pose: Float64[np.ndarray, "4 4"], shift: np.ndarray) -> _View:
    """Rays through the pixels' centres, moved by `shift` [h, w, 2] or [2] pixels."""
    to_world = pose @ camera.extrinsic
    eye = to_world[:3, 3].astype(np.float32)
    rows, columns = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([columns, rows], axis=-1) + shift
    ahead = np.concatenate([pixels, np.ones((*rows.shape, 1))], axis=-1)
    turn = to_world[:3, :3] @ np.linalg.inv(camera.intrinsic[:3, :3])
    ray = (ahead @ turn.T).astype(np.float32)
    hit = scene.run(np.tile(eye, (rows.size, 1)), ray.reshape(-1, 3), output=True)
    face, distance = (hit[key].reshape(rows.shape) for key in ("primID", "tfar"))
    return _View(eye, ray, face, distance, hit["Ng"].reshape(ray.shape))


def _dullness(triangles: Triangles, rng: Generator) -> Float32[np.ndarray, "F 2"]:
    """The share of a face that does not return the sensor's pattern: always, and seen aslant."""
    luminance = triangles.colors @ np.array([0.299, 0.587, 0.114])
    dark = 0.45 * np.clip((60 - luminance) / 60, 0, 1)
    owners, which = np.unique(triangles.owner, return_inverse=True)
    corners = triangles.vertices[triangles.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.bincount(which, np.linalg.norm(normals, axis=1) / 2)
    chosen = (rng.random(len(owners)) < 0.1) & (area < 6)  # a glossy wall would be a mirror
    glossy = np.where(chosen, rng.uniform(0.3, 0.6, len(owners)), 0)
    return np.stack([dark, glossy[which]], axis=1).astype(np.float32)


@compiled
def _measure(view, dullness, texture, noise, chance, limits):
    """The depth image [h, w] and the face that each pixel measured, -1 where it measured none."""
    eye, ray, face, distance, normal = view
    near, far, axial, step, dropout = limits
    height, width = face.shape
    depth, seen = np.zeros((height, width), np.float32), np.full((height, width), -1, np.int32)
    for row in range(height):
        for column in range(width):
            y, x, jump, lost = row, column, np.float32(0), 0.005
            for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                r, c = row + down, column + right
                if 0 <= r < height and 0 <= c < width:
                    gap = distance[row, column] - distance[r, c]
                    if abs(gap) > abs(jump):
                        jump, y, x = gap, r, c
            if abs(jump) > 0.05 * min(distance[row, column], distance[y, x]):
                lost = 0.4 if jump > 0 else 0.15  # the pattern's shadow lies on what is behind
            if lost < 0.01 or chance[0, row, column] >= 0.25 * dropout:
                y, x = row, column  # not the neighbour across an edge
            hit, z = face[y, x], distance[y, x]
            if hit < 0 or not near <= z <= far:
                continue
            a, b = normal[y, x], ray[y, x]
            cosine = abs(_dot(a, b)) / np.sqrt(_dot(a, a) * _dot(b, b) + 1e-20)
            angle = np.arccos(min(cosine, 1.0))
            lost = max(lost, (np.degrees(angle) - 70) / 10)
            dull = dullness[hit, 0] + (dullness[hit, 1] if cosine < 0.7 else 0)
            if dull > 0:  # the same places of a surface are lost in most frames
                lost = max(lost, 0.9 if _texture_at(texture, eye + b * z) < dull else 0.1)
            if chance[1, row, column] < dropout * lost:
                continue
            measured = z + axial * (0.0012 + 0.0019 * (z - 0.4) ** 2) * noise[row, column]
            if step > 0:
                measured = 1 / (np.rint(1 / max(measured, 0.05) / step) * step)
            if near <= measured <= far:
                depth[row, column], seen[row, column] = measured, hit
    return depth, seen


@compiled
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def _texture_at(texture, point):
    """Value noise in [0, 1) that changes over some 10 cm; `texture` is its lattice."""
    x, y, z = point * 10
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    value = 0.0
    for corner in range(8):
        a, b, c = i + (corner >> 2), j + ((corner >> 1) & 1), k + (corner & 1)
        share = (1 - abs(x - a)) * (1 - abs(y - b)) * (1 - abs(z - c))
        value += share * texture[a & 31, b & 31, c & 31]
    return value


@compiled
def _shade(view, colors, lamps, exposure, grain):
    """The colour image [H, W, 3] under lamps [2, 3] and even light; grey where nothing is hit."""
    eye, ray, face, distance, normal = view
    image = np.full(ray.shape, np.uint8(220), np.uint8)
    for row, column in np.ndindex(face.shape):
        hit, n, d = face[row, column], normal[row, column], ray[row, column]
        if hit < 0:
            continue
        side, away = -np.sign(_dot(n, d)) / np.sqrt(_dot(n, n) + 1e-20), distance[row, column]
        light = 0.45
        for lamp in lamps:
            x = lamp[0] - eye[0] - d[0] * away
            y = lamp[1] - eye[1] - d[1] * away
            z = lamp[2] - eye[2] - d[2] * away
            square = x * x + y * y + z * z + 1e-6
            cosine = side * (n[0] * x + n[1] * y + n[2] * z) / np.sqrt(square)
            light += max(cosine, 0.0) * 0.5 / (1 + 0.12 * square)
        for channel in range(3):
            level = colors[hit, channel] * light * exposure + grain[row, column, channel]
            image[row, column, channel] = np.uint8(min(max(level + 0.5, 0.0), 255.0))
    return image


def _smooth_noise(rng: Generator, count: int, sigma: float) -> Float64[np.ndarray, "T 6"]:
    """Gaussian noise of variance one that changes over about `sigma` steps."""
    margin = int(4 * sigma) + 1
    white = rng.standard_normal((count + 2 * margin, 6))
    smooth = ndimage.gaussian_filter1d(white, sigma, axis=0)[margin : margin + count]
    return smooth * np.sqrt(2 * sigma * np.sqrt(np.pi))


def _free_floor(
    floor: Float64[np.ndarray, "K 2"], blocked: Float64[np.ndarray, "R 4"]
) -> tuple[Float64[np.ndarray, "P 2"], Float64[np.ndarray, "P"]]:
    """Where a person can walk, as centres of cells, and how far each is from what is in the way."""
    low = floor.min(axis=0) - 1.5 * _CELL
    size = np.ceil((floor.max(axis=0) + 1.5 * _CELL - low) / _CELL).astype(int)
    centres = low + np.moveaxis(np.mgrid[: size[0], : size[1]], 0, -1) * _CELL
    x, y = centres[..., 0], centres[..., 1]
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(floor, np.roll(floor, -1, axis=0), strict=True):
        if y0 != y1:  # even-odd rule
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    unblocked = inside.copy()
    for x0, y0, x1, y1 in blocked:
        unblocked &= ~((x > x0) & (x < x1) & (y > y0) & (y < y1))
    for ground, least in product((unblocked, inside), (0.25, 0.15, 0.05)):
        room = np.asarray(ndimage.distance_transform_edt(ground)) * _CELL
        parts = np.asarray(ndimage.label(room > least)[0])  # pyright: ignore
        sizes = np.bincount(parts[parts > 0], minlength=1)
        if sizes.max() * _CELL**2 >= 0.25:
            return centres[parts == sizes.argmax()], room[parts == sizes.argmax()]
    raise ValueError("no free floor; expected a room that a person can stand in")


def _stops(rng: Generator, places: Float64[np.ndarray, "P 2"], count: int) -> list[int]:
    """Places to look from by farthest point sampling, ordered so that the next is the nearest."""
    left = [int(rng.integers(len(places)))]
    nearest = np.full(len(places), np.inf)
    while len(left) < count:
        nearest = np.minimum(nearest, np.linalg.norm(places - places[left[-1]], axis=1))
        left.append(int(nearest.argmax()))
    order = [left.pop(0)]
    while left:
        at = np.linalg.norm(places[left] - places[order[-1]], axis=1).argmin()
        order.append(left.pop(int(at)))
    return order


def _ways(places: Float64[np.ndarray, "P 2"], stops: list[int]) -> list[Int64[np.ndarray, "_"]]:
    """The cells of the shortest way from each stop to the next."""
    pairs = KDTree(places).query_pairs(1.5 * _CELL, output_type="ndarray")
    length = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    graph = sparse.csr_array((length, pairs.T), shape=(len(places), len(places)))
    _, before = dijkstra(graph, directed=False, indices=stops, return_predecessors=True)
    ways = []
    for row, goal in enumerate(stops[1:]):
        way = [goal]
        while way[-1] != stops[row]:
            way.append(int(before[row, way[-1]]))
        ways.append(np.array(way[::-1]))
    return ways


_CELL = 0.1  # metres of the grid on the floor
_BLUR = 3.0  # pixels over which a part of the noise of depth is alike
_LEVEL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # the axes of a camera that looks along x
