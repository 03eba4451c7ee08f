"""A linear layer with E LoRA experts beside it."""

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from o2s.llm.lora_moe.config import LoraMoeConfig
from o2s.llm.lora_moe.few_tokens import RoutedExperts
from o2s.llm.lora_moe.gate import Gate, Route, RouteState
from o2s.ops.linear import is_wide, linear, wide_linear

FEW = 4  # tokens a row up to which it is cheaper to compute all experts than to gather the active


class LoraMoeLinear(nn.Module, BaseTunerLayer):
    """y = W x + scaling * sum over active experts e of w_e B_e A_e x.

    A is stored as [E, r, in] and B as [E, out, r]. Each expert's A begins as LoRA's does
    (Kaiming-uniform over its own matrix), B at zero: before training the layer equals its base.
    """

    adapter_layer_names = ("lora_moe_A", "lora_moe_B", "lora_moe_layer_gate")
    other_param_names = ("r", "scaling", "lora_moe_dropout")

    def __init__(
        self,
        base_layer: nn.Linear,
        adapter_name: str,
        config: LoraMoeConfig,
        state: RouteState,
        name: str = "",
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.state = state
        self.name = name
        self.lora_moe_A = nn.ParameterDict()
        self.lora_moe_B = nn.ParameterDict()
        self.lora_moe_layer_gate = nn.ModuleDict()
        self.lora_moe_dropout = nn.ModuleDict()
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.by_token: dict[str, bool] = {}
        self.merged_adapters: list[str] = []
        self._unmerged: dict[str, Tensor] = {}
        self._kept: dict[str, tuple[tuple[object, ...], list[object], Any]] = {}
        self._active_adapter = [adapter_name]
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: LoraMoeConfig) -> None:
        """Add the experts of another adapter."""
        base = cast(nn.Linear, self.get_base_layer())
        experts, key = config.num_experts, self.name
        r = config.rank_pattern.get(get_pattern_key(list(config.rank_pattern), key), config.r)
        alpha = config.alpha_pattern.get(
            get_pattern_key(list(config.alpha_pattern), key), config.lora_alpha
        )
        a = torch.empty(experts, r, base.in_features)
        for expert in a:
            nn.init.kaiming_uniform_(expert, a=math.sqrt(5))
        self.lora_moe_A[adapter_name] = nn.Parameter(a)
        self.lora_moe_B[adapter_name] = nn.Parameter(torch.zeros(experts, base.out_features, r))
        self.lora_moe_dropout[adapter_name] = nn.Dropout(config.lora_dropout)
        self.r[adapter_name] = r
        self.scaling[adapter_name] = config.scaling(r, alpha)
        self.by_token[adapter_name] = config.by_token
        if config.in_layers:
            width = self.state.width if config.gate == "layer" else base.in_features
            self.lora_moe_layer_gate[adapter_name] = Gate(width, config)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(cast(Any, self.active_adapters), inference_mode=config.inference_mode)

    def forward(self, x: Float[Tensor, "*B in"], *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus that of the active experts."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self._base(x, *args, **kwargs)
        if self.disable_adapters or self.merged or not x.numel():
            return result
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            self._kept.clear()  # an optimiser may follow, and a fused one leaves no trace
        for name in self.active_adapters:
            if name in self.lora_moe_A:
                result = self._add_experts(result, x, name)
        return result

    def _base(self, x: Float[Tensor, "*B in"], *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output; a plain one without hooks by way of `linear`."""
        base = self.base_layer
        hooks = base._forward_hooks, base._forward_pre_hooks, base._backward_hooks
        plain = type(base) is nn.Linear and "forward" not in base.__dict__
        if plain and not (any(hooks) or base._backward_pre_hooks or args or kwargs):
            return linear(x, cast(nn.Linear, base).weight, cast(nn.Linear, base).bias)
        return base(x, *args, **kwargs)

    def route(self, name: str, x: Float[Tensor, "*B in"]) -> Route:
        """The route that an adapter's experts take for this input.

        Raises:
            RuntimeError: there is none, that is, the model was called past its tuner.
        """
        question, route = self.state.questions.get(name), self.state.current.get(name)
        if question is None and route is None:  # the call names none
            route = self.state.fixed.get(name)
        if route is not None:
            return route
        if name in self.lora_moe_layer_gate:
            gate = cast(Gate, self.lora_moe_layer_gate[name])
            if self.by_token[name]:
                return gate(x)
            if question is not None:
                return self._keep(f"{name} route", (question, gate.weight), lambda: gate(question))
        raise RuntimeError(
            f"adapter {name} has no route: call the PEFT model with question_ids and "
            "question_mask, or with routing_weights"
        )

    def delta_weight(self, adapter_name: str, route: Route) -> Float[Tensor, "out in"]:
        """What the experts of one route add to the base weight."""
        down, up = self.folded(adapter_name, route)
        return up.T @ down

    def folded(
        self, adapter_name: str, route: Route
    ) -> tuple[Float[Tensor, "kr in"], Float[Tensor, "kr out"]]:
        """The experts of one route as a single LoRA of rank k r, its scaling in the second."""
        if route.experts.shape[0] != 1 or route.experts.ndim != 2:
            raise ValueError(f"expected one route, the model holds {tuple(route.experts.shape)}")
        a = self.lora_moe_A[adapter_name][route.experts[0]]
        b = self.lora_moe_B[adapter_name][route.experts[0]]
        weights = route.weights[0].to(a.dtype) * self.scaling[adapter_name]
        return a.flatten(0, 1), (weights[:, None, None] * b).transpose(1, 2).flatten(0, 1)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the experts of one route (`LoraMoeModel.fix_route`) to the base weight."""
        base = cast(nn.Linear, self.get_base_layer())
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.lora_moe_A]
        if names and not base.weight.is_floating_point():
            raise ValueError(
                f"{self.name} is stored as {base.weight.dtype}, which nothing can be merged "
                "into; load the model unquantised for that"
            )
        routes = {name: self.state.without_question(name) for name in names}
        for name, route in routes.items():
            if route is None:
                raise RuntimeError(f"adapter {name} has no route to merge: call fix_route first")
        for name, route in routes.items():
            delta = self.delta_weight(name, cast(Route, route)).to(base.weight)
            if safe_merge and not torch.isfinite(base.weight + delta).all():
                raise ValueError(f"adapter {name} holds values that are not finite")
            self._unmerged[name] = base.weight.clone()
            base.weight += delta
            self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Make the base weight what it was before experts were merged, bit for bit."""
        base = cast(nn.Linear, self.get_base_layer())
        while self.merged_adapters:
            base.weight.copy_(self._unmerged.pop(self.merged_adapters.pop()))

    def delete_adapter(self, adapter_name: str) -> None:
        """Take an adapter's experts away, and what was made of them."""
        super().delete_adapter(adapter_name)
        self._kept.clear()

    def __getstate__(self) -> dict[str, Any]:
        """All but what can be made again."""
        return {**self.__dict__, "_kept": {}}

    def _add_experts(
        self, result: Float[Tensor, "*B out"], x: Float[Tensor, "*B in"], name: str
    ) -> Float[Tensor, "*B out"]:
        """Add what the active experts say, in the way that is fastest (benchmarks/lora_moe.py).

        Without gradients a route that all rows share is made into one LoRA of rank k r, which is
        kept. For few tokens of different routes all experts are computed at once, which costs less
        than gathering the active ones; on a CPU loops that read the active ones alone cost less
        still. Else each row's active experts are gathered: two batched products, whose cost does
        not depend on E. Routes of tokens need all experts.
        """
        a, b = self.lora_moe_A[name], self.lora_moe_B[name]
        x = x.to(a.dtype)
        route, scaling = self.route(name, x), self.scaling[name]
        if self.training:
            x = self.lora_moe_dropout[name](x)
        by_token = route.experts.ndim > 2
        keeps = _may_keep()
        if not by_token and (len(route.experts) == 1 or (keeps and route.one)):

            def one() -> tuple[Tensor, Tensor]:
                return self.folded(name, Route(route.experts[:1], route.weights[:1]))

            down, up = self._keep(f"{name} one", (route, a, b), one)
            return _add_product(result, linear(x, down), up)
        if by_token or (keeps and x.numel() <= FEW * len(x) * x.shape[-1]):
            route = route if by_token else route.for_rows(len(x))
            if not by_token and _in_float32_on_cpu(result, x, b):
                make = partial(RoutedExperts.of, a, b, route, scaling)
                return self._keep(f"{name} routed", (route, a, b), make).add_to(result, x)

            def spread() -> tuple[Tensor, Tensor, Tensor]:
                weights = scaling * route.dense(len(a)).to(a.dtype)
                weights = weights.repeat_interleave(a.shape[1], dim=-1)
                weights = weights[(slice(None), *[None] * (x.ndim - weights.ndim))]
                return a.flatten(0, 1), weights, b.transpose(1, 2).flatten(0, 1)

            sources = (route, a, b)
            kept = spread() if by_token else self._keep(f"{name} {x.ndim}", sources, spread)
            down, weights, up = kept
            return _add_product(result, linear(x, down) * weights, up)
        route = route.for_rows(len(x))
        down = a[route.experts].flatten(1, 2)  # [B, k r, in]
        up = b[route.experts].transpose(2, 3).flatten(1, 2)  # [B, k r, out]
        weights = (scaling * route.weights.to(a.dtype)).repeat_interleave(a.shape[1], dim=1)
        hidden = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), down.transpose(1, 2))
        return _add_product(result, hidden * weights[:, None], up)

    def _keep(self, key: str, sources: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """What is made of some sources; without gradients it is kept until one of them changes."""
        if not _may_keep():
            return make()
        states = [_state(source) for source in sources]
        kept = self._kept.get(key)
        if kept is not None and kept[1] == states and all(map(operator.is_, kept[0], sources)):
            return kept[2]
        made = make()
        self._kept[key] = (sources, states, made)
        return made


def _may_keep() -> bool:
    """Whether a call's tensors are what they seem: neither compiled, traced nor differentiated."""
    unlike = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return not (unlike or torch.is_grad_enabled())


def _in_float32_on_cpu(*values: Tensor) -> bool:
    return all(value.dtype is torch.float32 and value.is_cpu for value in values)


def _state(source: object) -> object:
    """What changes when a tensor does."""
    if not isinstance(source, Tensor) or source.is_inference():
        return None
    return source.data_ptr(), source._version


def _add_product(
    result: Float[Tensor, "*B out"], hidden: Float[Tensor, "*H kr"], up: Float[Tensor, "*U kr out"]
) -> Float[Tensor, "*B out"]:
    """result + hidden up, in one operation where that is faster and the types allow it."""
    if not result.dtype == hidden.dtype == up.dtype:
        said = (hidden.to(up.dtype) @ up).reshape(result.shape)
        return (result + said).to(result.dtype)  # rounded once, as PEFT's LoRA does
    if up.ndim == 3:
        return torch.baddbmm(result.reshape(*hidden.shape[:-1], -1), hidden, up).reshape_as(result)
    if is_wide(hidden, up.T):
        return result + wide_linear(hidden, up.T, None)
    out, hidden = result.reshape(-1, result.shape[-1]), hidden.reshape(-1, hidden.shape[-1])
    return torch.addmm(out, hidden, up).reshape(result.shape)
