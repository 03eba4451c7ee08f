"""Vertices and faces of a mesh, as NumPy arrays: normals, extents of groups of vertices, points on
faces."""

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64

from o2s.ops.kernels import compiled


def vertex_normals(
    xyz: Float32[np.ndarray, "N 3"], faces: Int32[np.ndarray, "F 3"]
) -> Float32[np.ndarray, "N 3"]:
    """Unit normals of the vertices: the mean of the normals of their faces, weighted by area.

    Zero where a vertex has no face. Everything happens in float32 and in the order of the faces,
    as in Pointcept's `preprocess_scannet.py`, so that both give the same numbers even where
    opposite faces cancel.
    """
    normals = np.zeros_like(xyz)
    _add_face_normals(np.ascontiguousarray(xyz), np.ascontiguousarray(faces), normals)
    return normals


def group_extents(
    points: Float[np.ndarray, "N 3"], group: Int32[np.ndarray, "N"], groups: int
) -> tuple[Float[np.ndarray, "R 3"], Float[np.ndarray, "R 3"]]:
    """The least and greatest coordinates of each group of points, in the type of the points.

    `group` gives each point's group, from 0 to `groups` - 1; others belong to none. A group without
    points runs from infinity to minus infinity.
    """
    low = np.full((groups, 3), np.inf, points.dtype)
    high = np.full((groups, 3), -np.inf, points.dtype)
    _grow(np.ascontiguousarray(points), group, low, high)
    return low, high


def boxes_of(
    low: Float[np.ndarray, "R 3"], high: Float[np.ndarray, "R 3"]
) -> Float64[np.ndarray, "R 6"]:
    """Centre and size of extents, computed in their own type; NaN and -inf of groups of nothing."""
    with np.errstate(invalid="ignore"):
        return np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float64)


def sample_faces(
    corners: Float64[np.ndarray, "F 3 3"], count: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "P"], Float64[np.ndarray, "P 3"]]:
    """Points spread evenly over triangles by area: the face of each, and where it lies.

    There are none where the triangles have no area.
    """
    face, weights = draw_on_faces(corners, count, rng)
    return face, (corners[face] * weights[..., None]).sum(axis=1)


def draw_on_faces(
    corners: Float64[np.ndarray, "F 3 3"], count: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "P"], Float64[np.ndarray, "P 3"]]:
    """The same points as the face of each and the weights of its corners, which sum to 1."""
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    if not area.sum():
        return np.zeros(0, np.int64), np.zeros((0, 3))
    face = rng.choice(len(corners), count, p=area / area.sum())
    u, v = np.sort(rng.random((2, count)), axis=0)
    return face, np.stack([u, v - u, 1 - v], axis=1)


@compiled
def _add_face_normals(xyz, faces, normals):
    tiny, half = np.float32(1e-8), np.float32(0.5)
    for f in range(len(faces)):
        i, j, k = faces[f]
        ax, ay, az = xyz[j, 0] - xyz[i, 0], xyz[j, 1] - xyz[i, 1], xyz[j, 2] - xyz[i, 2]
        bx, by, bz = xyz[k, 0] - xyz[i, 0], xyz[k, 1] - xyz[i, 1], xyz[k, 2] - xyz[i, 2]
        x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = np.sqrt(x * x + y * y + z * z) + tiny
        area = length * half
        x, y, z = x / length * area, y / length * area, z / length * area
        for corner in (i, j, k):
            normals[corner, 0] += x
            normals[corner, 1] += y
            normals[corner, 2] += z
    for v in range(len(normals)):
        x, y, z = normals[v]
        length = np.sqrt(x * x + y * y + z * z) + tiny
        normals[v, 0], normals[v, 1], normals[v, 2] = x / length, y / length, z / length


@compiled
def _grow(points, group, low, high):
    for i in range(len(points)):
        g = group[i]
        if 0 <= g < len(low):
            for axis in range(3):
                low[g, axis] = min(low[g, axis], points[i, axis])
                high[g, axis] = max(high[g, axis], points[i, axis])
