"""Linear layers on a CPU's widest instructions, in float32.

torch multiplies float32 matrices with MKL, which keeps to AVX2 on processors that are not Intel's.
oneDNN, which comes with torch as well, uses AVX-512 on all that have it: there its products take
half the time (`python benchmarks/linear.py`). Other types and devices, small products, autocast and
torch.compile get torch's own, as do transforms of `torch.func`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# The processor's own, or what the environment variable ATEN_CPU_CAPABILITY sets.
AVX512 = (
    torch.backends.cpu.get_cpu_capability() == "AVX512"
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
FEWEST_ROWS = 4  # below, reading the weight takes all the time
FEWEST_STEPS = 2**20  # multiply-adds; below, what a call of oneDNN takes (10 us) is not won back
ROWS_AT_ONCE = 1024  # of a weight's gradient: a part, transposed, stays in the cache


def linear(
    x: Float[Tensor, "*B in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "*B out"]:
    """x weight^T + bias, as `torch.nn.functional.linear`."""
    return wide_linear(x, weight, bias) if is_wide(x, weight, bias) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    def forward(self, input: Float[Tensor, "*B in"]) -> Float[Tensor, "*B out"]:
        return linear(input, self.weight, self.bias)


def widen(model: nn.Module) -> None:
    """Make each `nn.Linear` inside a model a `Linear`: same parameters, same hooks."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def is_wide(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `linear` leaves these to oneDNN."""
    if not AVX512 or torch.compiler.is_compiling() or x.numel() < FEWEST_ROWS * x.shape[-1]:
        return False
    return (
        x.numel() * weight.shape[0] >= FEWEST_STEPS
        and _is_plain(x)
        and _is_plain(weight)
        and (bias is None or _is_plain(bias))
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def wide_linear(
    x: Float[Tensor, "*B in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, "out"] | None
) -> Float[Tensor, "*B out"]:
    """`linear` where `is_wide`."""
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return _onednn(x, weight, bias)


def _is_plain(values: Tensor) -> bool:
    return values.dtype is torch.float32 and values.is_cpu and type(values) in _PLAIN


_PLAIN = (Tensor, nn.Parameter)  # others know their own ways, such as shards


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # a part of a larger one would be multiplied one by one
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            wide_linear(grad, weight.t(), None) if to_x else None,
            _to_weight(rows, x.reshape(-1, x.shape[-1])) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
        )


def _to_weight(grad: Float[Tensor, "N out"], x: Float[Tensor, "N in"]) -> Float[Tensor, "out in"]:
    """grad^T x."""
    if torch.is_grad_enabled():  # somebody wants second derivatives
        return wide_linear(grad.t(), x.t(), None)
    total: Tensor | None = None
    for some, seen in zip(grad.split(ROWS_AT_ONCE), x.split(ROWS_AT_ONCE), strict=True):
        part = _onednn(some.t(), seen.t(), None)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total
