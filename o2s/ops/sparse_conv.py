"""Convolution on the occupied cells of voxel grids only, in plain torch, on any device.

    gather the sources of one kernel weight -> one matrix product -> add to the targets

On a CPU `sparse_conv_blocks` does so for a few thousand cells at a time, which its caches hold;
on a GPU spconv does it, if it is installed.

The layers' semantics and the shapes of their parameters are MinkowskiEngine's, so that weights of
networks trained with it load: a kernel is [K, in, out] with x fastest ([in, out] where K is 1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from o2s.ops.linear import linear
from o2s.ops.sparse_conv_blocks import multiply_blocks, multiply_blocks_back
from o2s.ops.sparse_conv_spconv import has_spconv, multiply_spconv, multiply_spconv_back
from o2s.ops.sparse_grid import Grid, KernelMap, occupied, union


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features of the occupied cells of a batch of clouds."""

    features: Float[Tensor, "V C"]
    grid: Grid

    def __post_init__(self) -> None:
        if len(self.features) != len(self.grid):
            raise ValueError(f"{len(self.features)} features for {len(self.grid)} cells")

    def map(self, function: Callable[[Tensor], Tensor]) -> "SparseTensor":
        """The same cells with other features."""
        return replace(self, features=function(self.features))

    def __add__(self, other: "SparseTensor") -> "SparseTensor":
        """The sum over the cells of either; where one has no cell it counts as zero."""
        if self.grid is other.grid:
            return self.map(lambda features: features + other.features)
        grid, here, there = union(self.grid, other.grid)
        features = self.features.new_zeros(len(grid), self.features.shape[1])
        features = features.index_add(0, here, self.features)
        return SparseTensor(features.index_add(0, there, other.features), grid)


def sparse_tensor(
    cells: Int64[Tensor, "N 3"],
    cloud: Int64[Tensor, "N"],
    features: Float[Tensor, "N C"],
    clouds: int,
    *,
    mean: bool = False,
) -> SparseTensor:
    """Points as cells: each keeps the features of the first of its points, or their mean.

    Args:
        cells: of the points, such as floor(xyz / voxel).
        cloud: which cloud of the batch each point belongs to.
        features: of the points.
        clouds: how many there are, empty ones among them.
        mean: average the points of a cell.

    Raises:
        ValueError: a cell further than some 64,000 from the origin.
    """
    grid, inverse = occupied(cells, cloud, clouds)
    if mean:
        sums = features.new_zeros(len(grid), features.shape[1]).index_add(0, inverse, features)
        return SparseTensor(sums / torch.bincount(inverse, minlength=len(grid))[:, None], grid)
    order = torch.arange(len(inverse) - 1, -1, -1, device=inverse.device)
    first = torch.empty_like(grid.keys).scatter_reduce(
        0, inverse, order.flip(0), "amin", include_self=False
    )
    return SparseTensor(features[first], grid)


def sparse_conv(
    features: Float[Tensor, "V C"], kernel: Float[Tensor, "K C D"], pairs: KernelMap
) -> Float[Tensor, "W D"]:
    """The sum over weights k and their pairs: out[target] += features[source] @ kernel[k].

    Differentiable once in features and kernel.
    """
    found = _SparseConv.apply(features, kernel, pairs)
    assert isinstance(found, Tensor)
    return found


class _SparseConv(torch.autograd.Function):
    """Gathers, multiplies and adds a few pairs at a time, so that no copy of all pairs' features is
    ever held, neither for the result nor for the gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, kernel: Tensor, pairs: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.pairs = pairs  # pyright: ignore[reportAttributeAccessIssue]
        return _strategy(features)[0](features, kernel, pairs)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, kernel = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        pairs: KernelMap = ctx.pairs  # pyright: ignore[reportAttributeAccessIssue]
        needs = ctx.needs_input_grad  # pyright: ignore[reportAttributeAccessIssue]
        back = _strategy(features)[1]
        to_features, to_kernel = back(grads[0].contiguous(), features, kernel, pairs, needs[0])
        return to_features, to_kernel, None


def _strategy(features: Float[Tensor, "V C"]) -> tuple[Callable, Callable]:
    """Forward and backward: in blocks on a CPU, spconv on a GPU that has it, else plain torch."""
    device = features.device.type
    if device == "cpu" and features.dtype == torch.float32:
        return multiply_blocks, multiply_blocks_back
    if device == "cuda" and has_spconv():
        return multiply_spconv, multiply_spconv_back
    return multiply, multiply_back


def multiply(
    features: Float[Tensor, "V C"], kernel: Float[Tensor, "K C D"], pairs: KernelMap
) -> Float[Tensor, "W D"]:
    """The sum in plain torch, one kernel weight at a time."""
    result = features.new_zeros(pairs.outputs, kernel.shape[2])
    for k, (source, target) in enumerate(pairs.pairs()):
        if k == pairs.identity:
            result += features @ kernel[k]
        elif len(source):
            result.index_add_(0, target, features.index_select(0, source) @ kernel[k])
    return result


def multiply_back(
    grad: Float[Tensor, "W D"],
    features: Float[Tensor, "V C"],
    kernel: Float[Tensor, "K C D"],
    pairs: KernelMap,
    for_features: bool,
) -> tuple[Float[Tensor, "V C"] | None, Float[Tensor, "K C D"]]:
    """Gradients in features (if wanted) and kernel, in plain torch."""
    to_kernel = torch.zeros_like(kernel)
    to_features = torch.zeros_like(features) if for_features else None
    for k, (source, target) in enumerate(pairs.pairs()):
        if len(source):
            rows = grad.index_select(0, target)
            torch.mm(features.index_select(0, source).T, rows, out=to_kernel[k])
            if to_features is not None:
                to_features.index_add_(0, source, rows @ kernel[k].T)
    return to_features, to_kernel


class SparseConv(nn.Module):
    """Convolution: with stride 1 on the same cells (submanifold), else on the coarser cells that
    hold them.

    Shape letters: V cells before, W cells after, C and D channels.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, *, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        volume = kernel_size**3
        shape = (volume, inputs, outputs) if volume > 1 else (inputs, outputs)
        self.kernel = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(1, outputs)) if bias else None
        # Kaiming for what a cell sends out, as the published networks begin.
        nn.init.normal_(self.kernel, std=(2 / (outputs * volume)) ** 0.5)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [W, D]."""
        grid = x.grid.coarser(self.stride) if self.stride > 1 else x.grid
        if self.kernel_size == 1 and self.stride == 1:
            features = linear(x.features, self.kernel.T)
        else:
            kernel = self.kernel if self.kernel.ndim == 3 else self.kernel[None]
            features = sparse_conv(x.features, kernel, x.grid.kernel_map(grid, self.kernel_size))
        return SparseTensor(features if self.bias is None else features + self.bias, grid)


class GenerativeTransposedConv(SparseConv):
    """Transposed convolution onto all finer cells that it reaches (Gwak et al., ECCV 2020)."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [W, D]."""
        grid = x.grid.spread(self.kernel_size, self.stride)
        # What a cell spreads to is what it would be gathered from.
        gathered = grid.kernel_map(x.grid, self.kernel_size)
        pairs = KernelMap(gathered.targets, gathered.sources, gathered.counts, len(grid))
        features = sparse_conv(x.features, self.kernel, pairs)
        return SparseTensor(features if self.bias is None else features + self.bias, grid)


class SparseMaxPool(nn.Module):
    """The largest value of each channel among the cells of a kernel, on coarser cells."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [W, C]."""
        grid = x.grid.coarser(self.stride)
        pairs = x.grid.kernel_map(grid, self.kernel_size)
        index = pairs.targets[:, None].expand(-1, x.features.shape[1])
        empty = x.features.new_zeros(len(grid), x.features.shape[1])
        gathered = x.features[pairs.sources]
        return SparseTensor(
            empty.scatter_reduce(0, index, gathered, "amax", include_self=False), grid
        )


class SparseBatchNorm(nn.Module):
    """Batch normalisation over all cells of a batch; a batch of less than two cells, which has no
    variance, is normalised as in use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [V, C]."""
        bn = self.bn
        if self.training and len(x.features) < 2:
            return x.map(
                lambda f: F.batch_norm(
                    f, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps
                )
            )
        return x.map(bn)


class SparseInstanceNorm(nn.Module):
    """Normalisation over the cells of each cloud by itself."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, channels))
        self.bias = nn.Parameter(torch.zeros(1, channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [V, C]."""
        cloud, clouds = x.grid.cloud, x.grid.clouds
        count = torch.bincount(cloud, minlength=clouds).clamp(min=1)[:, None]
        zeros = x.features.new_zeros(clouds, x.features.shape[1])
        centred = x.features - (zeros.index_add(0, cloud, x.features) / count)[cloud]
        variance = zeros.index_add(0, cloud, centred**2) / count
        scaled = centred * (variance + self.eps).rsqrt()[cloud]
        return SparseTensor(scaled * self.weight + self.bias, x.grid)
