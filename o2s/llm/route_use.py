"""Which experts questions take: the use of each expert, by groups of questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 1e-3  # a weight that counts as taken: a dense gate gives none of exactly 0
DEAD = 0.01  # an expert that fewer questions take than this share is dead


@dataclass(frozen=True)
class RouteUse:
    """How some questions are routed.

    Args:
        name: of the group.
        questions: how many.
        weights: the mean weight of each of the E experts.
        used: the share of the questions that take each expert.
        entropy: of a question's weights, in bits, mean over the questions: 0 where each takes one
            expert alone, log2 E where each takes all alike.
        spread: the entropy of the mean weights, in bits: as far as it is above `entropy`, questions
            take different experts.
    """

    name: str
    questions: int
    weights: list[float]
    used: list[float]
    entropy: float
    spread: float

    @property
    def dead(self) -> list[int]:
        """Experts that hardly any of the questions takes."""
        return [expert for expert, share in enumerate(self.used) if share < DEAD]


def use_of(name: str, routes: Float[Tensor, "N E"]) -> RouteUse:
    """The use of experts over N > 0 questions."""
    mean = routes.mean(dim=0)
    return RouteUse(
        name,
        len(routes),
        mean.tolist(),
        (routes.abs() > LEAST).float().mean(dim=0).tolist(),
        float(entropy(routes).mean()),
        float(entropy(mean)),
    )


def use_by_group(routes: Float[Tensor, "N E"], groups: Sequence[str]) -> list[RouteUse]:
    """The use of experts in each group, by name, and first in all of them."""
    names = sorted(set(groups))
    rows = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    parts = [use_of(name, routes[rows[name]]) for name in names]
    return [use_of("all", routes), *(parts if len(names) > 1 else [])]


def entropy(weights: Float[Tensor, "*N E"]) -> Float[Tensor, "*N"]:
    """Of routes, in bits."""
    shares = weights.abs() / weights.abs().sum(dim=-1, keepdim=True)
    return -torch.xlogy(shares, shares).sum(dim=-1) / torch.log(torch.tensor(2.0))
