"""The tuner: puts experts beside the target layers and one gate on the whole model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from o2s.llm.lora_moe.config import LoraMoeConfig
from o2s.llm.lora_moe.gate import InstanceGate, Route, RouteState
from o2s.llm.lora_moe.layer import LoraMoeLinear


class LoraMoeModel(BaseTuner):
    """A model whose LoRA experts are chosen by the question.

    `forward` and `generate` take, beside the model's own arguments, either `question_ids`
    [B, T] with `question_mask` [B, T] (true for the real tokens of the question, without system
    text, scene tokens and padding), or `routing_weights` [B, E]. The same question gives the same
    route in training and in generation, where it is fixed from the first token to the last.

        model = get_peft_model(language_model, LoraMoeConfig(num_experts=4, top_k=2))
        model(input_ids=..., labels=..., question_ids=..., question_mask=...)
    """

    prefix = "lora_moe_"
    tuner_layer_cls = LoraMoeLinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (PEFT reads it off the class)
    uses_shared_state = True

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        # Before PEFT's constructor, which injects the layers that share the state.
        self.state = RouteState()
        self.experts_enabled = True
        super().__init__(model, *args, **kwargs)

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        if not hasattr(self, "lora_moe_gate"):
            self.lora_moe_gate = nn.ModuleDict()
        config = cast(LoraMoeConfig, self.peft_config[adapter_name])
        embedding = cast(nn.Embedding, cast(Any, model).get_input_embeddings())
        gate = InstanceGate(embedding.weight.shape[1], config.num_experts, config.top_k)
        self.lora_moe_gate[adapter_name] = gate.to(embedding.weight.device)
        # Sets which adapter may learn, the gates included.
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def forward(
        self,
        *args: Any,
        question_ids: Int[Tensor, "B T"] | None = None,
        question_mask: Tensor | None = None,
        routing_weights: Float[Tensor, "B E"] | None = None,
        **kwargs: Any,
    ) -> Any:
        with self._routed(question_ids, question_mask, routing_weights):
            return self.model(*args, **kwargs)

    def generate(
        self,
        *args: Any,
        question_ids: Int[Tensor, "B T"] | None = None,
        question_mask: Tensor | None = None,
        routing_weights: Float[Tensor, "B E"] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model's own `generate`, every token of it on the question's route."""
        with self._routed(question_ids, question_mask, routing_weights):
            return cast(Any, self.model).generate(*args, **kwargs)

    def route(
        self,
        question_ids: Int[Tensor, "B T"],
        question_mask: Tensor | None = None,
        adapter_name: str | None = None,
    ) -> Route:
        """The route of each question, with gradient to the gate.

        Args:
            question_ids: token ids of the questions.
            question_mask: true for real tokens; all of them if not given.
            adapter_name: whose gate; the (first) active adapter if not given.
        """
        mask = torch.ones_like(question_ids) if question_mask is None else question_mask
        with torch.no_grad():
            embeddings = cast(Any, self.model).get_input_embeddings()(question_ids)
        gate = self.lora_moe_gate[adapter_name or self.active_adapters[0]]
        return gate(embeddings, cast(Bool[Tensor, "B T"], mask.bool()))

    def fix_route(self, weights: Float[Tensor, "E"] | None) -> None:
        """One route for all calls that name no other, and for merging; None takes it away."""
        self.state.fixed = {}
        if weights is not None:
            fixed = Route.from_weights(weights[None])
            self.state.fixed = dict.fromkeys(self.active_adapters, fixed)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        for name, gate in self.lora_moe_gate.items():
            gate.requires_grad_(name in self.active_adapters and not inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        del self.lora_moe_gate[adapter_name]
        self.state.current.pop(adapter_name, None)
        self.state.fixed.pop(adapter_name, None)

    @contextmanager
    def _routed(
        self,
        question_ids: Int[Tensor, "B T"] | None,
        question_mask: Tensor | None,
        weights: Float[Tensor, "B E"] | None,
    ) -> Iterator[None]:
        if question_ids is not None and weights is not None:
            raise ValueError("give question_ids or routing_weights, not both")
        before = self.state.current
        if weights is not None:
            self.state.current = dict.fromkeys(self.active_adapters, Route.from_weights(weights))
        elif question_ids is not None:
            self.state.current = {
                name: self.route(question_ids, question_mask, name) for name in self.active_adapters
            }
        elif self.experts_enabled and not self.state.fixed:
            raise ValueError(
                "LoRA-MoE needs a route: pass question_ids and question_mask (the tokens of the "
                "question alone), or routing_weights"
            )
        else:
            self.state.current = {}
        try:
            yield
        finally:
            # Checkpointing runs the layers again during backward: it needs this route until then.
            if not (torch.is_grad_enabled() and self._checkpoints()):
                self.state.current = before

    def _checkpoints(self) -> bool:
        return any(
            getattr(module, "gradient_checkpointing", False) for module in self.model.modules()
        )

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        super()._enable_adapter_layers(enabled)
        self.experts_enabled = enabled

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        config = cast(LoraMoeConfig, peft_config)
        if isinstance(target, LoraMoeLinear):
            target.update_layer(adapter_name, config)
            return
        if not isinstance(target, nn.Linear):
            raise ValueError(
                f"{current_key} is a {type(target).__name__}; LoRA-MoE takes linear layers only"
            )
        layer = LoraMoeLinear(target, adapter_name, config, self.state)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)
