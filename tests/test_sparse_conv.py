"""Sparse convolution: equal to dense convolution, to finite differences, and for odd clouds."""

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from o2s.ops import linear, sparse_conv_blocks
from o2s.ops.sparse_conv import (
    GenerativeTransposedConv,
    SparseBatchNorm,
    SparseConv,
    SparseInstanceNorm,
    SparseMaxPool,
    SparseTensor,
    multiply,
    multiply_back,
    sparse_conv,
    sparse_tensor,
)
from o2s.ops.sparse_conv_blocks import multiply_blocks, multiply_blocks_back
from o2s.ops.sparse_conv_spconv import multiply_spconv, multiply_spconv_back
from o2s.ops.sparse_grid import Grid, KernelMap, occupied

SIDE = 12  # of the dense grids, which begin at cell -4


def cloud(seed: int = 0, channels: int = 3) -> SparseTensor:
    """Three clouds, the second empty, with negative cells."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(-4, 8, (300, 3), generator=generator)
    batch = torch.randint(0, 2, (300,), generator=generator) * 2
    features = torch.randn(300, channels, generator=generator)
    return sparse_tensor(cells, batch, features, 3)


def dense(x: SparseTensor) -> Float[Tensor, "B C X Y Z"]:
    grid = x.features.new_zeros(x.grid.clouds, x.features.shape[1], SIDE, SIDE, SIDE)
    i, j, k = (x.grid.coordinates + 4).unbind(1)
    grid[x.grid.cloud, :, i, j, k] = x.features
    return grid


def at(values: Float[Tensor, "B C X Y Z"], grid: Grid) -> Float[Tensor, "V C"]:
    i, j, k = ((grid.coordinates + 4) // grid.stride).unbind(1)
    return values[grid.cloud, :, i, j, k]


def as_dense_kernel(kernel: Float[Tensor, "K C D"], size: int) -> Float[Tensor, "D C X Y Z"]:
    """x is fastest in ours and the first axis of the dense grid."""
    return kernel.reshape(size, size, size, *kernel.shape[1:]).permute(4, 3, 2, 1, 0)


@pytest.mark.parametrize("size", [3, 5])
def test_submanifold_convolution_is_the_dense_one_at_the_occupied_cells(size: int) -> None:
    x, layer = cloud(), SparseConv(3, 4, size)
    expected = F.conv3d(dense(x), as_dense_kernel(layer.kernel, size), padding=size // 2)
    assert layer(x).grid is x.grid
    torch.testing.assert_close(layer(x).features, at(expected, x.grid), atol=1e-5, rtol=1e-5)


def test_strided_convolution_is_the_dense_one() -> None:
    x, layer = cloud(), SparseConv(3, 4, 3, stride=2, bias=True)
    expected = F.conv3d(dense(x), as_dense_kernel(layer.kernel, 3), padding=1, stride=2)
    y = layer(x)
    assert y.grid.stride == 2
    torch.testing.assert_close(y.features, at(expected, y.grid), atol=1e-5, rtol=1e-5)


def test_generative_convolution_is_the_dense_transposed_one_wherever_it_reaches() -> None:
    x = SparseConv(3, 4, 3, stride=2)(cloud())
    layer = GenerativeTransposedConv(4, 2, 3, stride=2)
    y = layer(x)
    coarse = x.features.new_zeros(3, 4, SIDE // 2, SIDE // 2, SIDE // 2)
    i, j, k = ((x.grid.coordinates + 4) // 2).unbind(1)
    coarse[x.grid.cloud, :, i, j, k] = x.features
    weight = as_dense_kernel(layer.kernel, 3).transpose(0, 1)
    expected = F.conv_transpose3d(coarse, weight, stride=2)  # begins one cell before
    i, j, k = (y.grid.coordinates + 5).unbind(1)
    found = expected[y.grid.cloud, :, i, j, k]
    torch.testing.assert_close(y.features, found, atol=1e-5, rtol=1e-5)
    assert y.grid.stride == 1
    assert len(y.grid) > len(x.grid)


def test_max_pool_is_the_largest_of_the_occupied_cells() -> None:
    x = cloud()
    y = SparseMaxPool(2, 2)(x)
    for row in range(len(y.grid)):
        inside = (x.grid.coordinates // 2 * 2 == y.grid.coordinates[row]).all(dim=1)
        inside &= x.grid.cloud == y.grid.cloud[row]
        assert torch.equal(y.features[row], x.features[inside].amax(dim=0))


def test_gradients_equal_finite_differences() -> None:
    x = cloud()
    pairs = x.grid.kernel_map(x.grid, 3)
    features = x.features[:, :2].double().requires_grad_()
    kernel = torch.randn(27, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, k: sparse_conv(f, k, pairs), (features, kernel))


def test_both_backends_find_the_same_pairs() -> None:
    x = cloud()
    coarse = x.grid.coarser(2)
    for outputs, size in ((x.grid, 3), (coarse, 3), (coarse, 2)):
        a = x.grid.kernel_map(outputs, size, "numba")
        b = x.grid.kernel_map(outputs, size, "torch")
        assert isinstance(a, KernelMap)
        assert a.counts == b.counts
        assert torch.equal(a.sources, b.sources)
        assert torch.equal(a.targets, b.targets)


def test_a_batch_gives_what_its_clouds_give_alone() -> None:
    x, layer = cloud(), SparseConv(3, 4, 3)
    norm = SparseInstanceNorm(4)
    together = norm(layer(x))
    for number in (0, 2):
        own = x.grid.cloud == number
        alone = sparse_tensor(
            x.grid.coordinates[own], torch.zeros(int(own.sum()), dtype=torch.long),
            x.features[own], 1,
        )  # fmt: skip
        torch.testing.assert_close(norm(layer(alone)).features, together.features[own])


def test_the_sum_covers_the_cells_of_either() -> None:
    a, b = cloud(1), cloud(2)
    torch.testing.assert_close(dense(a + b), dense(a) + dense(b))


def test_a_cell_keeps_its_first_point_or_the_mean() -> None:
    cells: Int64[Tensor, "3 3"] = torch.tensor([[0, 0, 0], [-1, 2, 0], [0, 0, 0]])
    batch, values = torch.zeros(3, dtype=torch.long), torch.tensor([[1.0], [5.0], [3.0]])
    assert sparse_tensor(cells, batch, values, 1).features[:, 0].tolist() == [5, 1]
    assert sparse_tensor(cells, batch, values, 1, mean=True).features[:, 0].tolist() == [5, 2]


def test_one_cell_and_none_at_all() -> None:
    layers = torch.nn.Sequential(
        SparseConv(1, 2, 3, stride=2),
        SparseBatchNorm(2),
        GenerativeTransposedConv(2, 2, 3, stride=2),
    )
    for count, reached in ((1, 27), (0, 0)):
        x = sparse_tensor(
            torch.zeros(count, 3, dtype=torch.long), torch.zeros(count, dtype=torch.long),
            torch.ones(count, 1), 1,
        )  # fmt: skip
        assert layers(x).features.shape == (reached, 2)


def test_cells_too_far_out_are_refused() -> None:
    with pytest.raises(ValueError, match="from the origin"):
        occupied(torch.tensor([[70_000, 0, 0]]), torch.zeros(1, dtype=torch.long), 1)


@pytest.mark.parametrize("block, onednn", [(16, False), (64, True)])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_and_whole_weights_give_the_same(
    stride: int, block: int, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_conv_blocks, "BLOCK", block)
    monkeypatch.setattr(sparse_conv_blocks, "AVX512", onednn)
    for name, value in (("AVX512", onednn), ("FEWEST_ROWS", 1), ("FEWEST_STEPS", 1)):
        monkeypatch.setattr(linear, name, value)
    x, generator = cloud(5, 7), torch.Generator().manual_seed(0)
    for before, after in ((x.grid, x.grid.coarser(stride)), (x.grid.coarser(stride), x.grid)):
        pairs = before.kernel_map(after if stride > 1 else before, 3)
        features = torch.randn(len(before), 7, generator=generator)
        kernel = torch.randn(27, 7, 5, generator=generator)
        grad = torch.randn(pairs.outputs, 5, generator=generator)
        plain, fast = multiply(features, kernel, pairs), multiply_blocks(features, kernel, pairs)
        torch.testing.assert_close(fast, plain, atol=1e-4, rtol=1e-4)
        for wanted in (True, False):
            plain = multiply_back(grad, features, kernel, pairs, wanted)
            fast = multiply_blocks_back(grad, features, kernel, pairs, wanted)
            torch.testing.assert_close(fast[1], plain[1], atol=1e-4, rtol=1e-4)
            assert (plain[0] is None) == (fast[0] is None) == (not wanted)
            if plain[0] is not None and fast[0] is not None:
                torch.testing.assert_close(fast[0], plain[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_spconv_gives_the_same(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    operations = pytest.importorskip("spconv.pytorch.ops")
    monkeypatch.setattr(operations, "get_current_stream", lambda: 0)
    x, generator = cloud(6, 8), torch.Generator().manual_seed(0)
    pairs = x.grid.kernel_map(x.grid.coarser(stride) if stride > 1 else x.grid, 3)
    kernel = torch.randn(27, 8, 16, generator=generator)
    grad = torch.randn(pairs.outputs, 16, generator=generator)
    found = multiply_spconv(x.features, kernel, pairs)
    torch.testing.assert_close(found, multiply(x.features, kernel, pairs), atol=1e-4, rtol=1e-4)
    found = multiply_spconv_back(grad, x.features, kernel, pairs, True)
    expected = multiply_back(grad, x.features, kernel, pairs, True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
