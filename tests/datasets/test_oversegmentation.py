"""Over-segmentation: the published method beside a plain one, and the laws of both."""

import numpy as np
import pytest

from o2s.datasets.oversegmentation import oversegment, owner_of_segments, split_by_owner


def sheet(width: int, length: int, *, fold: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A grid of vertices 1/32 m apart that stands up at right angles after the row `fold`."""
    rows, columns = np.mgrid[:length, :width]
    height = np.zeros_like(rows) if fold is None else np.maximum(rows - fold, 0)
    flat = rows if fold is None else np.minimum(rows, fold)
    xyz = np.stack([columns, flat, height], axis=-1).reshape(-1, 3) / 32
    at = rows[:-1, :-1].ravel() * width + columns[:-1, :-1].ravel()
    lower = np.stack([at, at + 1, at + width + 1], axis=1)
    upper = np.stack([at, at + width + 1, at + width], axis=1)
    return xyz.astype(np.float32), np.concatenate([lower, upper]).astype(np.int32)


def bumpy(seed: int, size: int = 14) -> tuple[np.ndarray, np.ndarray]:
    xyz, faces = sheet(size, size)
    rng = np.random.default_rng(seed)
    xyz[:, 2] = rng.integers(0, 8, len(xyz)) / 256 + (xyz[:, 0] > 0.2) * xyz[:, 0]
    return xyz, faces


def plain(xyz, faces, threshold=0.01, smallest=20) -> np.ndarray:
    """Felzenszwalb and Huttenlocher with sets, on ScanNet's edge weights."""
    xyz = xyz.astype(np.float64)
    own = [[] for _ in xyz]
    for face in faces:
        a, b, c = xyz[face]
        normal = np.cross(b - a, c - a)
        for corner in face:
            own[corner].append(normal / np.linalg.norm(normal))
    normals = [np.mean(n, axis=0) if n else np.zeros(3) for n in own]
    edges = []
    for i, j, k in faces:
        for a, b in ((i, j), (i, k), (k, j)):
            weight = 1 - normals[a] @ normals[b]
            convex = normals[b] @ (xyz[b] - xyz[a]) > 0
            edges.append((weight**2 if convex else weight, a, b))
    edges.sort(key=lambda edge: edge[0])
    sets = [{i} for i in range(len(xyz))]
    limit = {id(s): threshold for s in sets}

    def join(a, b):
        sets[a] |= sets[b]
        for i in sets[b]:
            sets[i] = sets[a]

    for weight, a, b in edges:
        if sets[a] is not sets[b] and weight <= min(limit[id(sets[a])], limit[id(sets[b])]):
            join(a, b)
            limit[id(sets[a])] = weight + threshold / len(sets[a])
    for _, a, b in edges:
        if sets[a] is not sets[b] and min(len(sets[a]), len(sets[b])) < smallest:
            join(a, b)
    return np.array([min(s) for s in sets])


def first_members(segments: np.ndarray) -> np.ndarray:
    """The same partition, each segment named by its first vertex."""
    _, first, which = np.unique(segments, return_index=True, return_inverse=True)
    return first[which]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_published_method(seed):
    xyz, faces = bumpy(seed)
    xyz = xyz + np.random.default_rng(seed).normal(0, 2e-3, xyz.shape).astype(np.float32)
    segments = oversegment(xyz, faces)
    assert 1 < len(np.unique(segments)) < len(xyz) / 20
    np.testing.assert_array_equal(first_members(segments), plain(xyz, faces))
    fine = oversegment(xyz, faces, threshold=0.1, smallest=3)
    np.testing.assert_array_equal(first_members(fine), plain(xyz, faces, 0.1, 3))


def test_two_planes_are_two_segments():
    xyz, faces = sheet(12, 24, fold=12)
    segments = oversegment(xyz, faces)
    assert len(np.unique(segments)) == 2
    flat, upright = xyz[:, 1] < 11.5 / 32, xyz[:, 2] > 0.5 / 32
    assert len(np.unique(segments[flat])) == len(np.unique(segments[upright])) == 1


def test_a_plane_is_one_segment():
    assert len(np.unique(oversegment(*sheet(9, 9)))) == 1


@pytest.mark.parametrize("seed", range(3))
def test_segments_are_named_by_a_member_and_large_enough(seed):
    segments = oversegment(*bumpy(seed))
    assert (segments[segments] == segments).all()
    assert np.unique(segments, return_counts=True)[1].min() >= 20


def test_pieces_too_small_to_join_anything_stay():
    xyz, faces = sheet(8, 8)
    lonely = np.concatenate([xyz, xyz[:3] + 5, xyz[:1] - 5])
    more = np.concatenate([faces, [[64, 65, 66]]]).astype(np.int32)
    lonely[66, 1] += 1
    segments = oversegment(lonely, more)
    assert np.unique(segments, return_counts=True)[1].tolist() == [64, 3, 1]
    assert segments[67] == 67


def test_moving_and_renaming_change_nothing():
    xyz, faces = bumpy(1)
    segments = first_members(oversegment(xyz, faces))
    moved = xyz + np.array([4, -8, 2], np.float32)  # exact in float32
    np.testing.assert_array_equal(first_members(oversegment(moved, faces)), segments)
    order = np.random.default_rng(0).permutation(len(xyz))  # new vertex i is old order[i]
    name = np.argsort(order).astype(np.int32)
    shuffled = oversegment(xyz[order], name[faces])
    np.testing.assert_array_equal(first_members(shuffled[name]), segments)


def test_faces_without_area_and_meshes_without_faces():
    xyz, faces = sheet(6, 6)
    flat = np.concatenate([faces, [[0, 0, 1], [2, 2, 2]]]).astype(np.int32)
    np.testing.assert_array_equal(oversegment(xyz, flat), oversegment(xyz, faces))
    np.testing.assert_array_equal(oversegment(xyz, faces[:0]), np.arange(36))
    assert oversegment(xyz[:0], faces[:0]).shape == (0,)
    with pytest.raises(ValueError, match="faces name vertices outside 0 to 35"):
        oversegment(xyz, faces + 1)


def test_a_segment_belongs_to_most_of_its_vertices():
    segments = np.array([4, 4, 2, 4, 2, 5, 5], np.int32)
    owner = np.array([1, 1, -1, 3, 7, 8, 6], np.int32)
    assigned, changed = owner_of_segments(segments, owner)
    assert assigned.tolist() == [1, 1, -1, 1, -1, 6, 6]  # of equal ones the lowest
    assert assigned.dtype == np.int32
    assert changed == 3


def test_assignment_against_a_plain_one():
    rng = np.random.default_rng(0)
    segments, owner = rng.integers(0, 9, (2, 300)).astype(np.int32)
    assigned, changed = owner_of_segments(segments, owner - 2)
    for segment in range(9):
        votes = np.bincount(owner[segments == segment])
        assert (assigned[segments == segment] == votes.argmax() - 2).all()
    assert changed == (assigned != owner - 2).sum()
    again, none = owner_of_segments(segments, assigned)
    np.testing.assert_array_equal(again, assigned)
    assert none == 0


def test_split_segments_have_one_owner_and_whole_ones_keep_their_name():
    xyz, faces = bumpy(2)
    segments = oversegment(xyz, faces)
    owner = (xyz[:, 0] > 0.3).astype(np.int32) - 1
    parts = split_by_owner(segments, owner)
    assert parts.dtype == np.int32
    assert (parts[parts] == parts).all()
    for part in np.unique(parts):
        assert len(np.unique(owner[parts == part])) == len(np.unique(segments[parts == part])) == 1
    whole = [s for s in np.unique(segments) if len(np.unique(owner[segments == s])) == 1]
    assert whole
    assert np.isin(whole, parts).all()
    pairs = {*zip(segments.tolist(), owner.tolist(), strict=True)}
    assert len(np.unique(parts)) == len(pairs)
    np.testing.assert_array_equal(split_by_owner(segments, np.zeros_like(owner)), segments)


def test_no_vertices():
    none = np.zeros(0, np.int32)
    assert owner_of_segments(none, none)[1] == 0
    assert split_by_owner(none, none).shape == (0,)
