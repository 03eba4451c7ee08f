"""Sparse convolution by spconv (github.com/traveller59/spconv) where it is installed: on GPUs.

Only its products run here: the pairs of cells are ours, so that all layers are the same with and
without it.
"""

import importlib
import importlib.util
from functools import cache
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from o2s.ops.sparse_grid import KernelMap


@cache
def has_spconv() -> bool:
    """Whether spconv is installed."""
    return importlib.util.find_spec("spconv") is not None


def multiply_spconv(
    features: Float[Tensor, "V C"], kernel: Float[Tensor, "K C D"], pairs: KernelMap
) -> Float[Tensor, "W D"]:
    """The sum over weights k and their pairs: out[target] += features[source] @ kernel[k]."""
    places, counts = _table(pairs)
    filters = _filters(kernel)
    return _ops().indice_conv(features, filters, places, counts, pairs.outputs)


def multiply_spconv_back(
    grad: Float[Tensor, "W D"],
    features: Float[Tensor, "V C"],
    kernel: Float[Tensor, "K C D"],
    pairs: KernelMap,
    for_features: bool,
) -> tuple[Float[Tensor, "V C"] | None, Float[Tensor, "K C D"]]:
    """Gradients in features (if wanted) and kernel."""
    places, counts = _table(pairs)
    filters = _filters(kernel)
    to_features, to_filters = _ops().indice_conv_backward(features, filters, grad, places, counts)
    to_kernel = to_filters.reshape(kernel.shape[2], len(kernel), kernel.shape[1]).permute(1, 2, 0)
    return to_features if for_features else None, to_kernel.contiguous()


def _ops() -> ModuleType:
    return importlib.import_module("spconv.pytorch.ops")


def _filters(kernel: Float[Tensor, "K C D"]) -> Float[Tensor, "D X Y Z C"]:
    """spconv's order: out, the kernel's three axes, in."""
    return kernel.permute(2, 0, 1).reshape(kernel.shape[2], -1, 1, 1, kernel.shape[1]).contiguous()


def _table(pairs: KernelMap) -> tuple[Tensor, Tensor]:
    """Sources and targets [2, K, most], -1 where there is none, and how many each weight has."""
    device = pairs.sources.device
    counts = torch.tensor(pairs.counts, dtype=torch.int32, device=device)
    most = max(pairs.counts, default=0)
    places = torch.full((2, len(pairs.counts), most), -1, dtype=torch.int32, device=device)
    for k, (source, target) in enumerate(pairs.pairs()):
        places[0, k, : len(source)] = source
        places[1, k, : len(target)] = target
    return places, counts
