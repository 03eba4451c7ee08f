"""Linear layers on one CPU thread, ours against torch's: `python benchmarks/linear.py`.

float32 layers as o2s has them: rows x inputs -> outputs, without gradients and with those in input,
weight and bias. Both compute the same, which is checked first; the script fails if they differ.
Times are the best of several runs in milliseconds of wall time; `ratio` is torch's over ours. Where
the processor has no AVX-512, both are torch's; ATEN_CPU_CAPABILITY=avx2 makes it so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from point_ops import best_time
from rich.console import Console
from rich.table import Table
from torch import Tensor

from o2s.ops.linear import is_wide, linear

LAYERS = (
    ("Point-BERT (ULIP), MLP", 2052, 384, 1536),
    ("Point-BERT (ULIP), mini-PointNet", 65_536, 512, 512),
    ("Point-BERT (tiny), attention", 4160, 256, 768),
    ("SmolLM2-135M, 8 x 96 tokens", 768, 576, 1536),
    ("a language model of width 2048", 768, 2048, 2048),
    ("SmolLM2-135M, 8 tokens at once", 8, 576, 1536),
    ("SmolLM2-135M, one token", 1, 576, 1536),
)


def main() -> None:
    torch.set_num_threads(1)
    table = Table("layer", "rows x in -> out", "pass", "torch ms", "ours ms", "ratio", "by")
    for name, rows, inputs, outputs in LAYERS:
        x, weight, bias = (
            torch.randn(rows, inputs),
            torch.randn(outputs, inputs),
            torch.randn(outputs),
        )
        torch.testing.assert_close(
            linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-3, rtol=1e-4
        )
        by = "oneDNN" if is_wide(x, weight, bias) else "torch"
        for what, run in (("forward", forward), ("forward + backward", both)):
            theirs = best_time(partial(run, F.linear, x, weight, bias))
            ours = best_time(partial(run, linear, x, weight, bias))
            size = f"{rows:,} x {inputs} -> {outputs}"
            table.add_row(
                name, size, what, f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.2f}", by
            )
    Console(width=120).print(table)


def forward(function: Callable[..., Tensor], *given: Tensor) -> Any:
    with torch.inference_mode():
        return function(*given)


def both(function: Callable[..., Tensor], *given: Tensor) -> Any:
    leaves = [value.detach().requires_grad_() for value in given]
    out = function(*leaves)
    return torch.autograd.grad(out, leaves, torch.ones_like(out))


if __name__ == "__main__":
    main()
