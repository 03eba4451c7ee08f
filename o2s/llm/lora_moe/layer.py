"""A linear layer with E LoRA experts beside it."""

import math
from typing import Any, cast

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from o2s.llm.lora_moe.config import LoraMoeConfig
from o2s.llm.lora_moe.gate import Route, RouteState


class LoraMoeLinear(nn.Module, BaseTunerLayer):
    """y = W x + (alpha / r) * sum over active experts e of w_e B_e A_e x.

    A is stored as [E, r, in] and B as [E, out, r]. Each expert's A begins as LoRA's does
    (Kaiming-uniform over its own matrix), B at zero: before training the layer equals its base.
    """

    adapter_layer_names = ("lora_moe_A", "lora_moe_B")
    other_param_names = ("r", "scaling", "lora_moe_dropout")

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str, config: LoraMoeConfig, state: RouteState
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.state = state
        self.lora_moe_A = nn.ParameterDict()
        self.lora_moe_B = nn.ParameterDict()
        self.lora_moe_dropout = nn.ModuleDict()
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self._merged_deltas: dict[str, Tensor] = {}
        self._active_adapter = [adapter_name]
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: LoraMoeConfig) -> None:
        """Add the experts of another adapter."""
        base = cast(nn.Linear, self.get_base_layer())
        experts, r = config.num_experts, config.r
        a = torch.empty(experts, r, base.in_features)
        for expert in a:
            nn.init.kaiming_uniform_(expert, a=math.sqrt(5))
        self.lora_moe_A[adapter_name] = nn.Parameter(a)
        self.lora_moe_B[adapter_name] = nn.Parameter(torch.zeros(experts, base.out_features, r))
        self.lora_moe_dropout[adapter_name] = nn.Dropout(config.lora_dropout)
        self.r[adapter_name] = r
        self.scaling[adapter_name] = config.lora_alpha / r
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(cast(Any, self.active_adapters), inference_mode=config.inference_mode)

    def forward(self, x: Float[Tensor, "*B in"], *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus that of the active experts."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name not in self.lora_moe_A:
                continue
            result = result + self._experts(x, name).to(result.dtype)
        return result

    def delta_weight(self, adapter_name: str, route: Route) -> Float[Tensor, "out in"]:
        """What the experts of one route add to the base weight."""
        if len(route.experts) != 1:
            raise ValueError(f"merging takes one route, the model holds {len(route.experts)}")
        a = self.lora_moe_A[adapter_name][route.experts[0]]
        b = self.lora_moe_B[adapter_name][route.experts[0]]
        weights = route.weights[0].to(a.dtype) * self.scaling[adapter_name]
        return torch.einsum("e,eor,eri->oi", weights, b, a)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the experts of one route (`LoraMoeModel.fix_route`) to the base weight."""
        base = cast(nn.Linear, self.get_base_layer())
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.lora_moe_A:
                continue
            if name not in self.state.fixed:
                raise RuntimeError(f"adapter {name} has no route to merge: call fix_route first")
            delta = self.delta_weight(name, self.state.fixed[name]).to(base.weight)
            if safe_merge and not torch.isfinite(base.weight + delta).all():
                raise ValueError(f"adapter {name} holds values that are not finite")
            base.weight += delta
            self._merged_deltas[name] = delta
            self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the merged experts out of the base weight again."""
        base = cast(nn.Linear, self.get_base_layer())
        while self.merged_adapters:
            base.weight -= self._merged_deltas.pop(self.merged_adapters.pop())

    def _experts(self, x: Float[Tensor, "*B in"], name: str) -> Float[Tensor, "*B out"]:
        """Gather the active experts of each row and apply them as two batched products."""
        a, b = self.lora_moe_A[name], self.lora_moe_B[name]
        rows = self.lora_moe_dropout[name](x).to(a.dtype).reshape(len(x), -1, x.shape[-1])
        route = self.state.of(name).for_rows(len(x))
        down = a[route.experts].flatten(1, 2)  # [B, k r, in]
        up = b[route.experts].transpose(2, 3).flatten(1, 2)  # [B, k r, out]
        weights = route.weights.to(a.dtype) * self.scaling[name]
        hidden = torch.bmm(rows, down.transpose(1, 2))
        hidden = hidden * weights.repeat_interleave(a.shape[1], dim=1)[:, None]
        return torch.bmm(hidden, up).reshape(*x.shape[:-1], -1)
