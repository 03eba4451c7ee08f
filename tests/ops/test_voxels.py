import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.ops.voxels import Voxels, connected_components, voxel_mean, voxelize


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 80),
    size=st.sampled_from([0.05, 0.3, 1.0]),
    shift=st.sampled_from([0.0, -500.0]),
)
def test_voxels_group_points_by_cell(seed, count, size, shift):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) + shift
    voxels = voxelize(points, size)
    cells = (points / size).floor().long()
    assert torch.equal(voxels.coordinates[voxels.inverse], cells)
    assert voxels.coordinates.tolist() == sorted(
        map(list, {tuple(cell) for cell in cells.tolist()})
    )
    assert torch.equal(voxels.counts, voxels.inverse.bincount(minlength=len(voxels)))
    means = voxel_mean(points, voxels)
    for i in range(len(voxels)):
        torch.testing.assert_close(means[i], points[voxels.inverse == i].mean(dim=0))


def test_gradients_of_the_mean_share_out_evenly():
    values = torch.randn(5, 2, requires_grad=True)
    inverse = torch.tensor([0, 1, 1, 1, 0])
    voxels = Voxels(torch.tensor([[0, 0, 0], [1, 0, 0]]), inverse, inverse.bincount())
    voxel_mean(values, voxels).sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad[:, 0], (1 / voxels.counts)[inverse])


def test_voxelize_says_what_is_wrong():
    points = torch.rand(4, 3)
    for size in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be positive"):
            voxelize(points, size)
    with pytest.raises(ValueError, match="finite"):
        voxelize(points * math.nan, 0.1)
    with pytest.raises(ValueError, match="finite"):
        voxelize(points / 0, 0.1)
    with pytest.raises(ValueError, match=r"a grid of .* cells is too large"):
        voxelize(torch.tensor([[0.0, 0, 0], [1e7, 1e7, 1e7]]), 0.001)


def components(cells: list[list[int]], reach: int) -> list[int]:
    """Plain flood fill, labels by first appearance."""
    labels: dict[tuple[int, ...], int] = {}
    occupied = {tuple(cell) for cell in cells}
    steps = list(product(range(-reach, reach + 1), repeat=3))
    fresh = 0
    for cell in map(tuple, cells):
        if cell in labels:
            continue
        labels[cell], front = fresh, [cell]
        while front:
            x, y, z = front.pop()
            for dx, dy, dz in steps:
                near = (x + dx, y + dy, z + dz)
                if near in occupied and near not in labels:
                    labels[near] = fresh
                    front.append(near)
        fresh += 1
    return [labels[tuple(cell)] for cell in cells]


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 120),
    side=st.integers(1, 14),
    reach=st.integers(1, 3),
    shift=st.sampled_from([0, -7, 10**12]),
)
def test_components_match_a_flood_fill(seed, count, side, reach, shift):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(side, (count, 3), generator=generator) + shift  # with repeats
    assert connected_components(cells, reach=reach).tolist() == components(cells.tolist(), reach)


def test_opposite_borders_of_the_grid_do_not_touch():
    cells = torch.tensor([[0, 0, 9], [0, 1, 0], [5, 0, 0], [4, 9, 9]])
    assert connected_components(cells).tolist() == [0, 1, 2, 3]


def test_a_diagonal_touches_and_a_gap_needs_more_reach():
    cells = torch.tensor([[0, 0, 0], [1, 1, 1], [3, 3, 3]])
    assert connected_components(cells).tolist() == [0, 0, 1]
    assert connected_components(cells, reach=2).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="reach must be at least 1"):
        connected_components(cells, reach=0)
