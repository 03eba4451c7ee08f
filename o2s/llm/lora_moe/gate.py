"""The gate: which experts a question activates, and how strongly."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Route:
    """The active experts of each row of a batch and their weights, which sum to 1."""

    experts: Int[Tensor, "B k"]
    weights: Float[Tensor, "B k"]

    @classmethod
    def from_weights(cls, weights: Float[Tensor, "B E"]) -> "Route":
        """The route that one weight an expert describes; experts of weight 0 are inactive."""
        active = max(1, int((weights != 0).sum(dim=-1).max()))
        top = weights.topk(active, dim=-1)
        return cls(top.indices, top.values)

    def dense(self, num_experts: int) -> Float[Tensor, "B E"]:
        """One weight an expert, 0 for the inactive ones."""
        zeros = self.weights.new_zeros(len(self.weights), num_experts)
        return zeros.scatter(1, self.experts, self.weights)

    def for_rows(self, rows: int) -> "Route":
        """The same route when each row of the batch has become several (beams)."""
        if rows == len(self.experts):
            return self
        if rows % len(self.experts):
            raise ValueError(f"a route for {len(self.experts)} rows met a batch of {rows}")
        copies = rows // len(self.experts)
        return type(self)(
            self.experts.repeat_interleave(copies, dim=0),
            self.weights.repeat_interleave(copies, dim=0),
        )


@dataclass
class RouteState:
    """What every layer of a model looks at: the route of each adapter.

    `current` is that of the latest call, `fixed` the one that holds while no call names another.
    """

    current: dict[str, Route] = field(default_factory=dict)
    fixed: dict[str, Route] = field(default_factory=dict)

    def of(self, adapter_name: str) -> Route:
        """The route to take.

        Raises:
            RuntimeError: there is none, that is, the model was called past its tuner.
        """
        route = self.current.get(adapter_name) or self.fixed.get(adapter_name)
        if route is None:
            raise RuntimeError(
                f"adapter {adapter_name} has no route: call the PEFT model with question_ids and "
                "question_mask, or with routing_weights"
            )
        return route


class InstanceGate(nn.Module):
    """One route a question, read from the language model's own token embeddings.

    softmax(mean over real tokens of e W), the `top_k` largest kept and renormalised (Shazeer et
    al. 2017, arXiv 1701.06538, without noise; Octavius, arXiv 2311.02684). What stands in padded
    places never matters, so a question takes the same route alone and in a batch.
    """

    def __init__(self, width: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, embeddings: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Route:
        """Route each question.

        Args:
            embeddings: the question's token embeddings.
            mask: true for real tokens.
        """
        # In float32 also under autocast: rounding would route training unlike inference.
        with torch.autocast(embeddings.device.type, enabled=False):
            real = embeddings.float().masked_fill(~mask[..., None], 0)
            mean = real.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)
            top = (mean @ self.weight.float().T).softmax(dim=-1).topk(self.top_k, dim=-1)
        return Route(top.indices, top.values / top.values.sum(dim=-1, keepdim=True))
