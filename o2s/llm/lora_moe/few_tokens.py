"""The experts of a few tokens on a CPU, where each row takes a route of its own."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from o2s.llm.lora_moe.gate import Route
from o2s.ops.kernels import as_array, compiled


@dataclass(frozen=True)
class RoutedExperts:
    """All experts as the loops below read them, and the experts of each row with their weights."""

    down: np.ndarray  # [E, in, r]
    up: np.ndarray  # [E, r, out]
    experts: np.ndarray  # [B, k]
    weights: np.ndarray  # [B, k]

    @classmethod
    def of(
        cls, a: Float[Tensor, "E r in"], b: Float[Tensor, "E out r"], route: Route, scaling: float
    ) -> "RoutedExperts":
        """The experts and route of one layer."""
        weights = scaling * route.weights.to(torch.float32)
        return cls(
            as_array(a.transpose(1, 2)),
            as_array(b.transpose(1, 2)),
            as_array(route.experts),
            as_array(weights),
        )

    def add_to(
        self, result: Float[Tensor, "B *T out"], x: Float[Tensor, "B *T in"]
    ) -> Float[Tensor, "B *T out"]:
        """result + what the experts of each row say of its tokens."""
        out = as_array(result).copy()
        tokens = as_array(x).reshape(len(x), -1, x.shape[-1])
        sums = out.reshape(len(x), -1, out.shape[-1])
        _add(sums, tokens, self.down, self.up, self.experts, self.weights)
        return torch.from_numpy(out)


@compiled
def _add_product(total, factors, rows):
    """total += factors @ rows: by rows, which vectorises, and four at once, to write less often."""
    fours = len(factors) // 4 * 4
    for j in range(0, fours, 4):
        a, b, c, d = factors[j], factors[j + 1], factors[j + 2], factors[j + 3]
        for i in range(len(total)):
            more = a * rows[j, i] + b * rows[j + 1, i]
            total[i] += more + c * rows[j + 2, i] + d * rows[j + 3, i]
    for j in range(fours, len(factors)):
        for i in range(len(total)):
            total[i] += factors[j] * rows[j, i]


@compiled
def _add(sums, tokens, down, up, experts, weights):
    hidden = np.empty(down.shape[2], np.float32)
    for row in range(tokens.shape[0]):
        for active in range(experts.shape[1]):
            expert = experts[row, active]
            for token in range(tokens.shape[1]):
                hidden[:] = 0
                _add_product(hidden, tokens[row, token], down[expert])
                for i in range(len(hidden)):
                    hidden[i] *= weights[row, active]
                _add_product(sums[row, token], hidden, up[expert])
