"""Depth images to a mesh, as scanners make it: with holes where nothing was seen.

fuse              a truncated signed distance field (TSDF), kept in blocks of 8^3 voxels
  _open_blocks      near measured surfaces only
  _integrate        every voxel in sight takes the mean of what the frames say
  _make_vertices    naive surface nets: one vertex in a cell that the surface passes
  _make_faces       two triangles for an edge of the grid that the surface passes
  _without_scraps   small floating pieces go

Curless and Levoy, "A Volumetric Method for Building Complex Models from Range Images" (SIGGRAPH
1996); Newcombe et al., "KinectFusion" (ISMAR 2011); blocks as in Niessner et al., "Real-time 3D
Reconstruction at Scale using Voxel Hashing" (SIGGRAPH Asia 2013), which made ScanNet's meshes;
Gibson, "Constrained Elastic Surface Nets" (MICCAI 1998).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from o2s.datasets.sens import Camera
from o2s.datasets.simulated_camera import ScannedFrame
from o2s.ops.kernels import compiled


@dataclass(frozen=True)
class FusedMesh:
    """A scan's mesh in metres, its faces anticlockwise seen from the side of the camera.

    `owner` is the object that most frames saw at a vertex, -1 where that is none.
    """

    xyz: Float32[np.ndarray, "N 3"]
    rgb: UInt8[np.ndarray, "N 3"]
    faces: Int32[np.ndarray, "F 3"]
    owner: Int32[np.ndarray, "N"]


def fuse(
    frames: Iterable[ScannedFrame],
    *,
    depth_camera: Camera,
    bounds: Float64[np.ndarray, "2 3"],
    color_camera: Camera | None = None,
    voxel: float = 0.03,
    truncation: float | None = None,
    scraps: int = 100,
) -> FusedMesh:
    """Fuse frames, placed by their measured poses, to the mesh of what they saw.

    A measurement at depth z has the weight 1 / z^2. The same frames give the same mesh.

    Args:
        frames: of a scan.
        depth_camera: of the frames' depth.
        bounds: the lowest and the highest corner of what is fused, in metres.
        color_camera: of the frames' colours; None for the camera of depth.
        voxel: the grid's spacing in metres, and about that of the mesh's vertices.
        truncation: how far from a surface, in metres, its distance is kept; None for 4 voxels.
        scraps: connected pieces with fewer vertices are removed.

    Raises:
        ValueError: the voxel or the truncation is not positive, or bounds are not finite and in
            order.
    """
    truncation = 4 * voxel if truncation is None else truncation
    if not (voxel > 0 and truncation > 0):
        raise ValueError(f"voxel {voxel} and truncation {truncation}; expected positive metres")
    if not (np.isfinite(bounds).all() and (bounds[0] < bounds[1]).all()):
        raise ValueError(f"bounds {bounds.tolist()}; expected a lowest and a highest corner")
    blocks = np.ceil((bounds[1] - bounds[0]) / (_SIDE * voxel)).astype(int)
    slots = np.full(tuple(blocks + 2), -1, np.int32)  # a border without blocks
    opened = np.empty((int(blocks.prod()), 3), np.int32)
    origin = bounds[0] - _SIDE * voxel  # of the border; voxel (0, 0, 0) is there
    sums, owner = np.zeros((0, _VOXELS, 7), np.float32), np.zeros((0, _VOXELS), np.int32)
    lens, color = _lens(depth_camera), color_camera or depth_camera
    count = 0
    for frame in frames:
        to_world = frame.measured_pose @ depth_camera.extrinsic
        to_color = np.linalg.inv(frame.measured_pose @ color.extrinsic) @ to_world
        grid = origin, voxel, truncation
        count = _open_blocks(frame.depth, to_world, lens, grid, slots, opened, count)
        if count > len(sums):
            sums, owner = _grown(sums, 2 * count), _grown(owner, 2 * count)
        with np.errstate(divide="ignore"):
            inverse = np.where(frame.depth > 0, 1 / frame.depth, 0).astype(np.float32)
        images = frame.depth, inverse, frame.owner, frame.color
        cameras = np.linalg.inv(to_world), lens, to_color, _lens(color)
        _integrate(images, cameras, grid, opened[:count], sums, owner)
    sums, owner, opened = sums[:count], owner[:count], opened[:count]
    with np.errstate(invalid="ignore"):
        field = sums[..., 0] / sums[..., 1]  # NaN where nothing was observed
    field += np.float32(1e-5)  # a surface on the grid's own planes stays on one side of them
    ids = np.full(field.shape, -1, np.int32)
    xyz, rgb, owners = _make_vertices(slots, opened, field, sums, owner, ids)
    xyz = (origin + voxel * xyz).astype(np.float32)
    faces = _make_faces(slots, opened, field, ids, xyz)
    return _without_scraps(FusedMesh(xyz, rgb, faces, owners), scraps)


def _lens(camera: Camera) -> tuple[float, float, float, float]:
    k = camera.intrinsic
    return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])


def _grown(array: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((count - len(array), *array.shape[1:]), array.dtype)])


@compiled
def _open_blocks(depth, to_world, lens, grid, slots, opened, count):
    """Give a slot to each block within the truncation of a measured point; the new count."""
    (fx, fy, cx, cy), (origin, voxel, truncation) = lens, grid
    size = _SIDE * voxel
    steps = int(np.ceil(4 * truncation / size)) + 1  # half a block or less apart
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            z = np.float64(depth[row, column])
            if z <= 0:
                continue
            u, v = (column - cx) / fx, (row - cy) / fy
            for step in range(steps):
                at = z - truncation + 2 * truncation * step / (steps - 1)
                x = _block(to_world[0], u * at, v * at, at, origin[0], size)
                y = _block(to_world[1], u * at, v * at, at, origin[1], size)
                w = _block(to_world[2], u * at, v * at, at, origin[2], size)
                inside = 0 < x < slots.shape[0] - 1 and 0 < y < slots.shape[1] - 1
                if inside and 0 < w < slots.shape[2] - 1 and slots[x, y, w] < 0:
                    slots[x, y, w] = count
                    opened[count, 0], opened[count, 1], opened[count, 2] = x, y, w
                    count += 1
    return count


@compiled
def _block(row, x, y, z, origin, size):
    return int(np.floor((row[0] * x + row[1] * y + row[2] * z + row[3] - origin) / size))


@compiled
def _integrate(images, cameras, grid, opened, sums, owner):
    """Add one frame to all voxels that it sees, up to `truncation` behind a surface.

    `sums` of a voxel: weight times distance over truncation, weight; weight times colour, its
    weight; votes for the owner, less those for others, so that a majority stays (Boyer and Moore).
    Colours and votes count more near the surface.
    """
    depth, inverse, seen, color = images
    to_camera, lens, to_color, color_lens = cameras
    origin, voxel, truncation = grid
    height, width = depth.shape
    fx, fy, cx, cy = lens
    ex, ey, ez = to_camera[:3, 0] * voxel, to_camera[:3, 1] * voxel, to_camera[:3, 2] * voxel
    half, radius = (_SIDE - 1) / 2, _SIDE * voxel * np.sqrt(3.0) / 2
    farthest = depth.max() + truncation + radius
    for slot in range(len(opened)):
        corner = origin + opened[slot] * (_SIDE * voxel)
        start = (to_camera[:3, :3] * corner).sum(axis=1) + to_camera[:3, 3]
        middle = start + half * (ex + ey + ez)
        if middle[2] > farthest or not _in_sight(middle, radius, lens, height, width):
            continue
        px, py, pz = start
        for at in range(_VOXELS):
            i, j, k = at >> 6, (at >> 3) & 7, at & 7
            z = pz + i * ex[2] + j * ey[2] + k * ez[2]
            if z < 0.05:
                continue
            x = px + i * ex[0] + j * ey[0] + k * ez[0]
            y = py + i * ex[1] + j * ey[1] + k * ez[1]
            u, v = fx * x / z + cx, fy * y / z + cy
            if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
                continue
            row, column = int(v + 0.5), int(u + 0.5)
            d = np.float64(depth[row, column])
            if d <= 0 or d - z < -truncation:
                continue
            weight = 1 / (d * d)
            voxel_sums = sums[slot, at]
            if d - z < truncation:
                d = _refined(inverse, u, v, d, voxel)
            distance = (d - z) / truncation
            if distance >= 1:
                voxel_sums[0] += weight
                voxel_sums[1] += weight
                continue
            if distance < 0:  # the farther behind a surface, the less it is known
                weight *= max(1 + distance, 0.01)
            voxel_sums[0] += weight * max(distance, -1.0)
            voxel_sums[1] += weight

            vote = weight * (1 - abs(distance)) ** 2
            at_color = _pixel(to_color, x, y, z, color_lens, color.shape[0], color.shape[1])
            if at_color >= 0:
                pixel = color[at_color // color.shape[1], at_color % color.shape[1]]
                for channel in range(3):
                    voxel_sums[2 + channel] += vote * pixel[channel]
                voxel_sums[5] += vote
            if seen[row, column] == owner[slot, at]:
                voxel_sums[6] += vote
            elif voxel_sums[6] >= vote:
                voxel_sums[6] -= vote
            else:
                voxel_sums[6], owner[slot, at] = vote - voxel_sums[6], seen[row, column]


@compiled
def _in_sight(middle, radius, lens, height, width):
    """Whether a sphere meets the view's pyramid, in camera coordinates."""
    (fx, fy, cx, cy), (x, y, z) = lens, middle
    left, right, top, bottom = cx + 0.5, width - 0.5 - cx, cy + 0.5, height - 0.5 - cy
    return (
        z > -radius
        and fx * x > -left * z - radius * np.hypot(fx, left)
        and fx * x < right * z + radius * np.hypot(fx, right)
        and fy * y > -top * z - radius * np.hypot(fy, top)
        and fy * y < bottom * z + radius * np.hypot(fy, bottom)
    )


@compiled
def _pixel(to_color, x, y, z, lens, height, width):
    """The number of the pixel, row by row, that shows a point; -1 for none."""
    fx, fy, cx, cy = lens
    ahead = to_color[2, 0] * x + to_color[2, 1] * y + to_color[2, 2] * z + to_color[2, 3]
    if ahead < 0.05:
        return -1
    right = to_color[0, 0] * x + to_color[0, 1] * y + to_color[0, 2] * z + to_color[0, 3]
    down = to_color[1, 0] * x + to_color[1, 1] * y + to_color[1, 2] * z + to_color[1, 3]
    u, v = fx * right / ahead + cx + 0.5, fy * down / ahead + cy + 0.5
    return int(v) * width + int(u) if 0 <= u < width and 0 <= v < height else -1


@compiled
def _refined(inverse, u, v, nearest, tolerance):
    """Depth between four pixels that lie on one surface: 1 / z is linear in a plane's image."""
    column, row = int(np.floor(u)), int(np.floor(v))
    if not (0 <= column < inverse.shape[1] - 1 and 0 <= row < inverse.shape[0] - 1):
        return nearest
    a, b = u - column, v - row
    q00, q01 = inverse[row, column], inverse[row, column + 1]
    q10, q11 = inverse[row + 1, column], inverse[row + 1, column + 1]
    low, high = min(min(q00, q01), min(q10, q11)), max(max(q00, q01), max(q10, q11))
    if low <= 0 or (high - low) * nearest * nearest > 2 * tolerance:
        return nearest
    return 1 / ((1 - b) * ((1 - a) * q00 + a * q01) + b * ((1 - a) * q10 + a * q11))


@compiled
def _make_vertices(slots, opened, field, sums, owner, ids):
    """Vertices in voxels from the origin, their colours and owners; `ids` of the cells is filled.

    The cell of a voxel lies between it and its neighbours at + 1. It has a vertex, the mean of
    where the surface crosses its edges, if all eight corners were observed.
    """
    most, count = min(8 * (field < 0).sum(), field.size), 0
    xyz, rgb = np.empty((most, 3), np.float64), np.empty((most, 3), np.uint8)
    owners = np.empty(most, np.int32)
    value, where = np.empty(8, np.float32), np.empty((8, 2), np.int64)
    for slot in range(len(opened)):
        for at in range(_VOXELS):
            if np.isnan(field[slot, at]):
                continue
            base = opened[slot] * _SIDE
            base = base[0] + (at >> 6), base[1] + ((at >> 3) & 7), base[2] + (at & 7)
            inside = 0
            for corner in range(8):
                x, y = base[0] + (corner >> 2), base[1] + ((corner >> 1) & 1)
                z = base[2] + (corner & 1)
                s = slots[x >> 3, y >> 3, z >> 3]
                if s < 0:
                    inside = -1
                    break
                local = ((x & 7) << 6) | ((y & 7) << 3) | (z & 7)
                value[corner] = field[s, local]
                if np.isnan(value[corner]):
                    inside = -1
                    break
                where[corner, 0], where[corner, 1] = s, local
                inside += value[corner] < 0
            if not 0 < inside < 8:
                continue
            crossings, step = 0, 0.0
            mean = np.zeros(3)
            for a in range(8):
                for axis in range(3):
                    b = a | (4 >> axis)
                    if b == a or (value[a] < 0) == (value[b] < 0):
                        continue
                    step = max(step, abs(value[a] - value[b]))
                    crossings += 1
                    mean[0] += a >> 2
                    mean[1] += (a >> 1) & 1
                    mean[2] += a & 1
                    mean[axis] += value[a] / (value[a] - value[b])
            if step > _LONGEST_STEP:
                continue
            for axis in range(3):
                xyz[count, axis] = base[axis] + mean[axis] / crossings
            _describe(where, sums, owner, rgb, owners, count)
            ids[slot, at] = count
            count += 1
    return xyz[:count], rgb[:count], owners[:count]


@compiled
def _describe(where, sums, owner, rgb, owners, vertex):
    """Colour and owner of a vertex: the weighted mean and majority of its cell's corners."""
    weight, best = 0.0, np.float64(-1)
    red, green, blue = 0.0, 0.0, 0.0
    owners[vertex] = -1
    for corner in range(8):
        slot, at = where[corner]
        weight += sums[slot, at, 5]
        red += sums[slot, at, 2]
        green += sums[slot, at, 3]
        blue += sums[slot, at, 4]
        votes = 0.0
        for other in range(8):
            if owner[where[other, 0], where[other, 1]] == owner[slot, at]:
                votes += sums[where[other, 0], where[other, 1], 6]
        if votes > best and votes > 0:
            best, owners[vertex] = votes, owner[slot, at]
    scale = 1 / weight if weight > 0 else 0.0
    for channel, total in enumerate((red, green, blue)):
        rgb[vertex, channel] = np.uint8(min(total * scale + 0.5, 255.0))


@compiled
def _make_faces(slots, opened, field, ids, xyz):
    """Two triangles for each edge of the grid with a crossing whose four cells have a vertex."""
    faces, count = np.empty((6 * len(xyz) + 6, 3), np.int32), 0
    ring = np.empty(4, np.int32)
    for slot in range(len(opened)):
        for at in range(_VOXELS):
            value = field[slot, at]
            if np.isnan(value):
                continue
            base = opened[slot] * _SIDE
            base[0] += at >> 6
            base[1] += (at >> 3) & 7
            base[2] += at & 7
            for axis in range(3):
                ahead = base.copy()
                ahead[axis] += 1
                s = slots[ahead[0] >> 3, ahead[1] >> 3, ahead[2] >> 3]
                if s < 0:
                    continue
                local = ((ahead[0] & 7) << 6) | ((ahead[1] & 7) << 3) | (ahead[2] & 7)
                if np.isnan(field[s, local]) or (field[s, local] < 0) == (value < 0):
                    continue
                whole = True
                for i in range(4):  # anticlockwise seen from the end of the axis
                    cell = base.copy()
                    cell[(axis + 1) % 3] -= i == 0 or i == 3
                    cell[(axis + 2) % 3] -= i == 0 or i == 1
                    s = slots[cell[0] >> 3, cell[1] >> 3, cell[2] >> 3]
                    local = ((cell[0] & 7) << 6) | ((cell[1] & 7) << 3) | (cell[2] & 7)
                    ring[i] = ids[s, local] if s >= 0 else -1
                    whole &= ring[i] >= 0
                if not whole:
                    continue
                a, b, c, d = ring
                if value >= 0:  # the free side is the near one: turn round
                    b, d = d, b
                if ((xyz[a] - xyz[c]) ** 2).sum() > ((xyz[b] - xyz[d]) ** 2).sum():
                    a, b, c, d = b, c, d, a
                faces[count, 0], faces[count, 1], faces[count, 2] = a, b, c
                faces[count + 1, 0], faces[count + 1, 1], faces[count + 1, 2] = a, c, d
                count += 2
    return faces[:count]


def _without_scraps(mesh: FusedMesh, least: int) -> FusedMesh:
    """Only the connected pieces of `least` or more vertices; none without a face."""
    count = len(mesh.xyz)
    if not count:
        return mesh
    start, end = mesh.faces[:, [0, 1]].T.ravel(), mesh.faces[:, [1, 2]].T.ravel()
    links = np.ones(len(start), np.int8)
    graph = sparse.csr_array((links, (start, end)), shape=(count, count))
    piece = connected_components(graph, directed=False)[1]
    kept = np.bincount(piece, minlength=1)[piece] >= max(least, 3)
    number = np.cumsum(kept, dtype=np.int32) - 1
    faces = number[mesh.faces[kept[mesh.faces[:, 0]]]]
    return FusedMesh(mesh.xyz[kept], mesh.rgb[kept], faces, mesh.owner[kept])


_SIDE = 8  # voxels along a block
_VOXELS = _SIDE**3
_LONGEST_STEP = 1.5  # of the truncated distance between neighbours; more is a jump, not a surface
