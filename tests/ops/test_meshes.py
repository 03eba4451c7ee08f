"""Normals and extents against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.ops.meshes import group_extents, vertex_normals


def random_mesh(seed: int, vertices: int = 40, faces: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(vertices, 3)).astype(np.float32)
    return xyz, rng.integers(0, vertices - 1, (faces, 3)).astype(np.int32)


def plain_normals(xyz: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """float32 throughout, face by face: what Pointcept's script computes."""
    normals = np.zeros_like(xyz)
    for i, j, k in faces:
        cross = np.cross(xyz[j] - xyz[i], xyz[k] - xyz[i])
        length = np.sqrt(np.sum(cross**2)) + np.float32(1e-8)
        weighted = cross / length * (length * np.float32(0.5))
        for corner in (i, j, k):
            normals[corner] += weighted
    return normals / (np.sqrt(np.sum(normals**2, axis=1, keepdims=True)) + np.float32(1e-8))


@pytest.mark.parametrize("seed", range(5))
def test_normals_equal_the_plain_loop_to_the_last_bit(seed: int) -> None:
    xyz, faces = random_mesh(seed)
    assert np.array_equal(vertex_normals(xyz, faces), plain_normals(xyz, faces))


def test_normals_are_weighted_by_area() -> None:
    xyz = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1]], np.float32)
    up, along_x = [0, 1, 2], [0, 2, 3]  # areas 2 and 1
    normals = vertex_normals(xyz, np.array([up, along_x], np.int32))
    assert normals[0] == pytest.approx(np.array([1, 0, 2]) / np.sqrt(5))
    assert normals[1] == pytest.approx([0, 0, 1])


def test_turning_the_mesh_turns_the_normals() -> None:
    xyz, faces = random_mesh(7)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = vertex_normals((xyz @ turn.T).astype(np.float32), faces)
    assert turned == pytest.approx(vertex_normals(xyz, faces) @ turn.T, abs=1e-4)


def test_a_vertex_without_faces_has_no_normal() -> None:
    xyz, faces = random_mesh(0)
    assert not vertex_normals(xyz, faces)[-1].any()
    assert not vertex_normals(xyz, faces[:0]).any()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**16), st.sampled_from([np.float32, np.float64]), st.integers(0, 6))
def test_extents_are_those_of_each_group(seed: int, dtype: type, groups: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 3)).astype(dtype)
    group = rng.integers(-1, groups + 1, 30).astype(np.int32)
    low, high = group_extents(points, group, groups)
    assert low.dtype == high.dtype == dtype
    for g in range(groups):
        members = points[group == g]
        assert np.array_equal(low[g], members.min(axis=0, initial=np.inf))
        assert np.array_equal(high[g], members.max(axis=0, initial=-np.inf))
