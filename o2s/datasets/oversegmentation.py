"""Meshes in segments of nearly one normal, the units in which ScanNet's objects are annotated.

ScanNet's segmentator (https://github.com/ScanNet/ScanNet, folder Segmentator) is the method of
Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation" (IJCV 2004), on the edges
of a mesh; what weighs an edge is described under `oversegment`.
"""

import numpy as np
from jaxtyping import Float32, Int32

from o2s.ops.kernels import compiled


def oversegment(
    xyz: Float32[np.ndarray, "N 3"],
    faces: Int32[np.ndarray, "F 3"],
    *,
    threshold: float = 0.01,
    smallest: int = 20,
) -> Int32[np.ndarray, "N"]:
    """The segment of each vertex, named by one vertex of the segment.

    An edge's weight is 1 - the dot product of its ends' normals, where a vertex's normal is the
    mean of the unit normals of its faces; it is squared where the surface is convex. Edges join
    segments in the order of their weights, equal ones in the order of the faces, while the weight
    is at most the largest inside either segment + `threshold` / its number of vertices. Then
    segments of fewer than `smallest` vertices join the neighbour over their lightest edge; what no
    face connects to `smallest` others stays small.

    Raises:
        ValueError: faces name vertices that do not exist.
    """
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(xyz):
        raise ValueError(f"faces name vertices outside 0 to {len(xyz) - 1}")
    xyz, faces = np.ascontiguousarray(xyz), np.ascontiguousarray(faces)
    edges, weights = _weigh(xyz, faces, _mean_normals(xyz, faces))
    order = np.argsort(weights, kind="stable")
    return _join(len(xyz), edges[order], weights[order], threshold, smallest)


def owner_of_segments(
    segments: Int32[np.ndarray, "N"], owner: Int32[np.ndarray, "N"]
) -> tuple[Int32[np.ndarray, "N"], int]:
    """Each vertex's owner if whole segments are annotated, and how many vertices that changes.

    A segment belongs to the owner of most of its vertices, of equal ones to the lowest.
    """
    if not len(segments):
        return owner.copy(), 0
    _, which = np.unique(segments, return_inverse=True)
    owners, column = np.unique(owner, return_inverse=True)
    pairs, votes = np.unique(which * len(owners) + column, return_counts=True)
    row = pairs // len(owners)
    order = np.lexsort((-pairs, votes, row))  # the last of a row has most votes, then lowest owner
    last = order[np.flatnonzero(np.diff(row[order], append=-1))]
    assigned = owners[pairs[last] % len(owners)][which].astype(np.int32)
    return assigned, int((assigned != owner).sum())


def split_by_owner(
    segments: Int32[np.ndarray, "N"], owner: Int32[np.ndarray, "N"]
) -> Int32[np.ndarray, "N"]:
    """Cut segments so that none has two owners; a part is named by its first vertex.

    Segments with one owner keep their name. Parts may be smaller than segments are.
    """
    if not len(segments):
        return segments.copy()
    owners, column = np.unique(owner, return_inverse=True)
    _, which = np.unique(segments, return_inverse=True)
    _, first, part = np.unique(which * len(owners) + column, return_index=True, return_inverse=True)
    parts = np.bincount(which[first])  # of each segment
    return np.where(parts[which] > 1, first[part], segments).astype(np.int32)


@compiled
def _mean_normals(xyz, faces):
    """The mean of the unit normals of a vertex's faces, not a unit vector itself."""
    normals, counts = np.zeros(xyz.shape, np.float32), np.zeros(len(xyz), np.float32)
    for face in faces:
        a, b = xyz[face[1]] - xyz[face[0]], xyz[face[2]] - xyz[face[0]]
        x, y, z = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
        length = np.sqrt(x * x + y * y + z * z)
        if length == 0:  # the face has no normal
            continue
        for corner in face:
            normals[corner, 0] += x / length
            normals[corner, 1] += y / length
            normals[corner, 2] += z / length
            counts[corner] += 1
    for i in range(len(normals)):
        for axis in range(3):
            normals[i, axis] /= max(counts[i], np.float32(1))
    return normals


@compiled
def _weigh(xyz, faces, normals):
    edges = np.empty((3 * len(faces), 2), np.int32)
    weights = np.empty(3 * len(faces), np.float32)
    for f in range(len(faces)):
        for side, (start, end) in enumerate(((0, 1), (0, 2), (2, 1))):
            i, a, b = 3 * f + side, faces[f, start], faces[f, end]
            edges[i, 0], edges[i, 1] = a, b
            along, dot = np.float32(0), np.float32(0)
            for axis in range(3):
                along += normals[b, axis] * (xyz[b, axis] - xyz[a, axis])
                dot += normals[a, axis] * normals[b, axis]
            weight = np.float32(1) - dot
            weights[i] = weight * weight if along > 0 else weight
    return edges, weights


@compiled
def _join(count, edges, weights, threshold, smallest):
    parent, size = np.arange(count, dtype=np.int32), np.ones(count, np.int32)
    limit = np.full(count, np.float32(threshold))
    for i in range(len(edges)):
        a, b = _root(parent, edges[i, 0]), _root(parent, edges[i, 1])
        if a != b and weights[i] <= limit[a] and weights[i] <= limit[b]:
            a = _union(parent, size, a, b)
            limit[a] = weights[i] + np.float32(threshold) / size[a]
    for i in range(len(edges)):
        a, b = _root(parent, edges[i, 0]), _root(parent, edges[i, 1])
        if a != b and min(size[a], size[b]) < smallest:
            _union(parent, size, a, b)
    for i in range(count):
        parent[i] = _root(parent, i)
    return parent


@compiled
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def _union(parent, size, a, b):
    """The root of both is that of the larger."""
    if size[a] > size[b]:
        a, b = b, a
    parent[a] = b
    size[b] += size[a]
    return b
