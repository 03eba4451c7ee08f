"""Sparse convolution on a CPU: the cells in blocks, so that what is gathered stays in its caches.

Within a kernel weight, sources and targets both rise (`KernelMap`), so that a block of targets is a
range of pairs, whose sources lie close together. `sparse_conv.multiply` and `multiply_back` are the
plain equivalents.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from o2s.ops.kernels import as_array, compiled
from o2s.ops.linear import AVX512, linear
from o2s.ops.sparse_grid import KernelMap

BLOCK = 4096  # cells: 1 MB of 64 channels


def multiply_blocks(
    features: Float32[Tensor, "V C"], kernel: Float32[Tensor, "K C D"], pairs: KernelMap
) -> Float32[Tensor, "W D"]:
    """The sum over weights k and their pairs: out[target] += features[source] @ kernel[k]."""
    inputs, outputs = kernel.shape[1:]
    if pairs.identity is None:
        result = features.new_zeros(pairs.outputs, outputs)
    else:
        result = linear(features, kernel[pairs.identity].T)
    gathered = torch.zeros(BLOCK, inputs)
    sources, targets = as_array(pairs.sources), as_array(pairs.targets)
    from_rows, to_rows = as_array(features), as_array(result)
    rows = gathered.numpy()
    for k, begin, end in _ranges(pairs):
        if k != pairs.identity:
            _take_rows(from_rows, sources, begin, end, rows)
            product = linear(gathered[: _filled(end - begin)], kernel[k].T)
            _add_rows(to_rows, targets, begin, end, product.numpy())
    return result


def multiply_blocks_back(
    grad: Float32[Tensor, "W D"],
    features: Float32[Tensor, "V C"],
    kernel: Float32[Tensor, "K C D"],
    pairs: KernelMap,
    for_features: bool,
) -> tuple[Float32[Tensor, "V C"] | None, Float32[Tensor, "K C D"]]:
    """Gradients in features (if wanted) and kernel."""
    inputs, outputs = kernel.shape[1:]
    to_kernel, to_features = torch.zeros_like(kernel), torch.zeros_like(features)
    seen, wanted = torch.zeros(BLOCK, inputs), torch.zeros(BLOCK, outputs)
    sources, targets = as_array(pairs.sources), as_array(pairs.targets)
    from_rows, grad_rows, to_rows = as_array(features), as_array(grad), as_array(to_features)
    seen_rows, wanted_rows = seen.numpy(), wanted.numpy()
    for k, begin, end in _ranges(pairs):
        filled = _filled(end - begin)
        _take_rows(from_rows, sources, begin, end, seen_rows)
        _take_rows(grad_rows, targets, begin, end, wanted_rows)
        wanted[end - begin : filled] = 0  # a row of zeros adds nothing, whatever it meets
        to_kernel[k] += linear(seen[:filled].T, wanted[:filled].T)
        if for_features:
            product = linear(wanted[:filled], kernel[k])
            _add_rows(to_rows, sources, begin, end, product.numpy())
    return to_features if for_features else None, to_kernel


def _filled(count: int) -> int:
    """So many rows or a few more: oneDNN prepares itself anew for each number that it meets."""
    step = 1 << max(5, count.bit_length() - 3) if AVX512 else 1
    return -(-count // step) * step


def _ranges(pairs: KernelMap) -> list[tuple[int, int, int]]:
    """Weight, first pair and end of what is done at once, block after block of targets."""
    counts = np.asarray(pairs.counts, np.int64)
    cuts = _cuts(as_array(pairs.targets), counts, BLOCK, pairs.outputs)
    ranges = [
        (k, int(cuts[k, block]), int(cuts[k, block + 1]))
        for block in range(cuts.shape[1] - 1)
        for k in range(len(counts))
    ]
    return [(k, begin, end) for k, begin, end in ranges if end > begin]


@compiled
def _cuts(targets, counts, block, outputs):
    """Where in the pairs of each weight each block of targets begins."""
    blocks = (outputs + block - 1) // block
    cuts = np.empty((len(counts), blocks + 1), np.int64)
    begin = 0
    for k in range(len(counts)):
        end = begin + counts[k]
        for b in range(blocks + 1):
            cuts[k, b] = begin + np.searchsorted(targets[begin:end], b * block)
        cuts[k, blocks] = end
        begin = end
    return cuts


@compiled
def _take_rows(values, index, begin, end, rows):
    for i in range(end - begin):
        source = index[begin + i]
        for c in range(values.shape[1]):
            rows[i, c] = values[source, c]


@compiled
def _add_rows(values, index, begin, end, rows):
    for i in range(end - begin):
        target = index[begin + i]
        for c in range(values.shape[1]):
            values[target, c] += rows[i, c]
