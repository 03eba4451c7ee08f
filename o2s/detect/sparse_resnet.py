"""The sparse residual network that TR3D and FCAF3D begin with: coarser and coarser cells.

Modules are named as in mmdet3d (mmdet3d/models/backbones/mink_resnet.py, projects/TR3D), so that
published weights load.
"""

from collections.abc import Sequence

import torch
from torch import nn

from o2s.ops.sparse_conv import SparseBatchNorm, SparseConv, SparseMaxPool, SparseTensor


class SparseResNet(nn.Module):
    """A stem and stages of residual blocks, each of which doubles the width of the cells.

    Args:
        inputs: channels of the cells.
        stem_width: channels after the first convolution.
        stem_stride: of the first convolution; with `pool`, a maximum over 2 x 2 x 2 follows.
        blocks: residual blocks of each stage.
        widths: channels of each stage.
    """

    def __init__(
        self,
        inputs: int,
        stem_width: int,
        stem_stride: int,
        pool: bool,
        blocks: Sequence[int],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.conv1 = SparseConv(inputs, stem_width, 3, stride=stem_stride)
        self.norm1 = SparseBatchNorm(stem_width)
        self.pool = SparseMaxPool(2, 2) if pool else None
        width = stem_width
        for number, (count, wider) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = [
                BasicBlock(width if i == 0 else wider, wider, first=i == 0) for i in range(count)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            width = wider
        self.stages = len(widths)

    def forward(self, x: SparseTensor) -> list[SparseTensor]:
        """The cells after each stage, fine to coarse."""
        x = self.norm1(self.conv1(x)).map(torch.relu_)
        if self.pool is not None:
            x = self.pool(x)
        found = []
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
            found.append(x)
        return found


class BasicBlock(nn.Module):
    """Two convolutions beside a way past them; the first of a stage halves the resolution."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        stride = 2 if first else 1
        self.conv1 = SparseConv(inputs, outputs, 3, stride=stride)
        self.norm1 = SparseBatchNorm(outputs)
        self.conv2 = SparseConv(outputs, outputs, 3)
        self.norm2 = SparseBatchNorm(outputs)
        self.downsample = None
        if first:
            past = SparseConv(inputs, outputs, 1, stride=stride)
            self.downsample = nn.Sequential(past, SparseBatchNorm(outputs))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [W, D]."""
        past = x if self.downsample is None else self.downsample(x)
        x = self.norm1(self.conv1(x)).map(torch.relu_)
        return (self.norm2(self.conv2(x)) + past).map(torch.relu_)


class ConvNormRelu(nn.Sequential):
    """Convolution, batch normalisation and rectifier, numbered as in mmdet3d."""

    def __init__(self, conv: SparseConv) -> None:
        super().__init__(conv, SparseBatchNorm(conv.kernel.shape[-1]))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[V, C] -> [W, D]."""
        return super().forward(x).map(torch.relu_)
