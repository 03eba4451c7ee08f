"""Gates and routes: which experts are active, and how strongly."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from o2s.llm.lora_moe.config import LoraMoeConfig


@dataclass(frozen=True, eq=False)
class Route:
    """The active experts of each row of a batch, or of each of its tokens, and their weights."""

    experts: Int[Tensor, "*B k"]
    weights: Float[Tensor, "*B k"]

    @classmethod
    def from_weights(cls, weights: Float[Tensor, "B E"]) -> "Route":
        """The route that one weight an expert describes; experts of weight 0 are inactive."""
        active = max(1, int((weights != 0).sum(dim=-1).max()))
        chosen = weights.abs().topk(active, dim=-1).indices
        return cls(chosen, weights.gather(1, chosen))

    def dense(self, num_experts: int) -> Float[Tensor, "*B E"]:
        """One weight an expert, 0 for the inactive ones."""
        zeros = self.weights.new_zeros(*self.weights.shape[:-1], num_experts)
        return zeros.scatter(-1, self.experts, self.weights)

    def for_rows(self, rows: int) -> "Route":
        """The same route when each row of the batch has become several (beams)."""
        have = len(self.experts)
        if rows == have:
            return self
        if rows % have:
            raise ValueError(f"a route for {have} rows met a batch of {rows}")
        if rows not in self._for_rows:
            copies = rows // have
            self._for_rows[rows] = Route(
                self.experts.repeat_interleave(copies, dim=0),
                self.weights.repeat_interleave(copies, dim=0),
            )
        return self._for_rows[rows]

    @cached_property
    def _for_rows(self) -> dict[int, "Route"]:
        return {}

    @cached_property
    def one(self) -> bool:
        """Whether all rows take the same route."""
        same = (self.experts == self.experts[:1]).all() & (self.weights == self.weights[:1]).all()
        return bool(same)


@dataclass
class RouteState:
    """What every layer of a model looks at: for each adapter its route, or the question that gates
    in the layers read, which is `width` wide.

    `current` is that of the latest call, `fixed` the route that holds while no call names another,
    `constant` what gives the route of adapters whose gate asks for nothing.
    """

    current: dict[str, Route] = field(default_factory=dict)
    fixed: dict[str, Route] = field(default_factory=dict)
    questions: dict[str, Float[Tensor, "B D"]] = field(default_factory=dict)
    constant: dict[str, "ConstantGate"] = field(default_factory=dict)
    width: int = 0

    def without_question(self, name: str) -> Route | None:
        """The route that an adapter takes whatever is asked, if there is one."""
        if name in self.fixed or name not in self.constant:
            return self.fixed.get(name)
        return self.constant[name]()


def mean_of_question(
    embeddings: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B D"]:
    """The mean over real tokens. What stands in padded places never matters, so a question takes
    the same route alone and in a batch."""
    real = embeddings.float().masked_fill(~mask[..., None], 0)
    return real.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)


class Gate(nn.Module):
    """softmax(x W), the `top_k` largest kept and renormalised.

    Noisy top-k gating of Shazeer et al. (2017, arXiv 1701.06538), with noise of one width.
    `balance` is the loss of the latest call that keeps experts in even use; None if none is wanted.
    """

    def __init__(self, width: int, config: LoraMoeConfig) -> None:
        super().__init__()
        self.top_k, self.noise = config.top_k, config.gate_noise
        self.importance_loss, self.load_loss = config.importance_loss, config.load_loss
        self.balance: Tensor | None = None
        self.weight = nn.Parameter(torch.empty(config.num_experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)

    def __getstate__(self) -> dict[str, Any]:
        """All but the loss of a call, whose graph cannot be copied."""
        return {**self.__dict__, "balance": None}

    def forward(self, x: Float[Tensor, "*B D"]) -> Route:
        """Route each row: x is the mean of a question's token embeddings, or a token's own."""
        # In float32 also under autocast: rounding would route training unlike inference.
        with torch.autocast(x.device.type, enabled=False):
            clean = x.float() @ self.weight.float().T
            logits = clean
            if self.training and self.noise:
                logits = clean + self.noise * torch.randn_like(clean)
            top = logits.softmax(dim=-1).topk(self.top_k, dim=-1)
            route = Route(top.indices, top.values / top.values.sum(dim=-1, keepdim=True))
            self.balance = self._balance(clean, logits, route) if self.training else None
        return route

    def _balance(
        self, clean: Float[Tensor, "*B E"], logits: Float[Tensor, "*B E"], route: Route
    ) -> Tensor | None:
        loss: Tensor | None = None
        if self.importance_loss:
            weights = route.dense(len(self.weight)).flatten(0, -2)
            loss = self.importance_loss * unevenness(weights.sum(dim=0))
        if self.load_loss and self.top_k < len(self.weight):
            chances = chosen_chances(clean, logits, self.top_k, self.noise).flatten(0, -2)
            load = self.load_loss * unevenness(chances.sum(dim=0))
            loss = load if loss is None else loss + load
        return loss


class ConstantGate(nn.Module):
    """The same weights for whatever is asked: fixed, or softmax of learned numbers."""

    def __init__(self, config: LoraMoeConfig) -> None:
        super().__init__()
        fixed = config.expert_weights or ([1.0] if not config.chooses else None)
        self.weight = nn.Parameter(torch.zeros(config.num_experts)) if fixed is None else None
        values = None if fixed is None else torch.tensor(fixed)
        self.register_buffer("fixed", values, persistent=False)

    def forward(self) -> Route:
        """One row, of all experts."""
        fixed = cast(Tensor | None, self.fixed)
        weights = fixed if self.weight is None else self.weight.float().softmax(dim=-1)
        assert weights is not None
        return Route(torch.arange(len(weights), device=weights.device)[None], weights[None])


def unevenness(uses: Float[Tensor, "E"]) -> Float[Tensor, ""]:
    """The squared coefficient of variation: variance over squared mean, 0 where all are alike."""
    return uses.var(correction=0) / uses.mean().square().clamp_min(1e-10)


def chosen_chances(
    clean: Float[Tensor, "*B E"], noisy: Float[Tensor, "*B E"], top_k: int, noise: float
) -> Float[Tensor, "*B E"]:
    """How likely each expert is to be among the `top_k` if the noise on it were drawn again, that
    on the others being what it is (Shazeer et al. 2017, equations 8 and 9)."""
    best = noisy.topk(top_k + 1, dim=-1).values
    inside = noisy >= best[..., -2:-1]
    # The best that an expert must beat: of those inside the one that would follow.
    bar = torch.where(inside, best[..., -1:], best[..., -2:-1])
    return torch.special.ndtr((clean - bar) / noise)
