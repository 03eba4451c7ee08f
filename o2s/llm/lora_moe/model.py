"""The tuner: puts experts beside the target layers and a gate on the whole model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from o2s.llm.lora_moe.config import LoraMoeConfig
from o2s.llm.lora_moe.export import write_lora
from o2s.llm.lora_moe.gate import ConstantGate, Gate, Route, RouteState, mean_of_question
from o2s.llm.lora_moe.layer import LoraMoeLinear


class LoraMoeModel(BaseTuner):
    """A model whose LoRA experts are chosen by the question.

    `forward` and `generate` take, beside the model's own arguments, either `question_ids`
    [B, T] with `question_mask` [B, T] (true for the real tokens of the question, without system
    text, scene tokens and padding), or `routing_weights` [B, E], or with gate "task" `task_names`.
    The same question gives the same route in training and in generation, where it is fixed from the
    first token to the last.

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
        self._latest: tuple[Tensor, Tensor, Route] | None = None
        super().__init__(model, *args, **kwargs)

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        if not hasattr(self, "lora_moe_gate"):
            self.lora_moe_gate = nn.ModuleDict()
        config = cast(LoraMoeConfig, self.peft_config[adapter_name])
        embedding = cast(nn.Embedding, cast(Any, model).get_input_embeddings())
        self.state.width = embedding.weight.shape[1]
        gate = None
        if config.chooses and config.gate == "instance":
            gate = Gate(self.state.width, config)
        elif not config.chooses or config.gate in ("learned", "fixed"):
            gate = ConstantGate(config)
        if gate is not None:
            empty = any(p.is_meta for p in gate.parameters())  # filled in when it is loaded
            self.lora_moe_gate[adapter_name] = gate if empty else gate.to(embedding.weight.device)
        if isinstance(gate, ConstantGate):
            self.state.constant[adapter_name] = gate
        others = {n: p.requires_grad for n, p in self.lora_moe_gate.named_parameters()}
        try:  # sets which adapter may learn, the gates included
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            if gate is not None:
                del self.lora_moe_gate[adapter_name]
            raise
        for name, parameter in self.lora_moe_gate.named_parameters():  # as PEFT does in layers
            if name.split(".")[0] != adapter_name:
                parameter.requires_grad_(others[name])

    def forward(
        self,
        *args: Any,
        question_ids: Int[Tensor, "B T"] | None = None,
        question_mask: Tensor | None = None,
        routing_weights: Float[Tensor, "B E"] | None = None,
        task_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        with self._routed(question_ids, question_mask, routing_weights, task_names):
            found = self.model(*args, **kwargs)
        balance = self.balance_loss() if torch.is_grad_enabled() else None
        if balance is not None and getattr(found, "loss", None) is not None:
            found.loss = found.loss + balance.to(found.loss)
        elif balance is not None and isinstance(found, tuple) and kwargs.get("labels") is not None:
            found = (found[0] + balance.to(found[0]), *found[1:])  # return_dict=False
        return found

    def generate(
        self,
        *args: Any,
        question_ids: Int[Tensor, "B T"] | None = None,
        question_mask: Tensor | None = None,
        routing_weights: Float[Tensor, "B E"] | None = None,
        task_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model's own `generate`, every token of it on the question's route."""
        with (
            torch.no_grad(),
            self._without_noise(),
            self._routed(question_ids, question_mask, routing_weights, task_names),
        ):
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

        Raises:
            ValueError: the adapter has no gate of its own for the whole model.
        """
        name = adapter_name or self.active_adapters[0]
        gate = dict(self.lora_moe_gate).get(name)
        if isinstance(gate, ConstantGate):
            return gate().for_rows(len(question_ids))
        if gate is None:
            kind = cast(LoraMoeConfig, self.peft_config[name]).gate
            raise ValueError(f"adapter {name} has gate {kind!r}: no question has one route")
        return gate(self._mean_of_question(question_ids, question_mask))

    def routes_of_layers(
        self,
        question_ids: Int[Tensor, "B T"],
        question_mask: Tensor | None = None,
        adapter_name: str | None = None,
    ) -> dict[str, Route]:
        """The route of each question in each target module, by the module's name; without the
        noise of training."""
        name = adapter_name or self.active_adapters[0]
        with self._without_noise(), self._routed(question_ids, question_mask, None, None, [name]):
            return self._routes_taken(name)

    def layers(self, adapter_name: str) -> dict[str, LoraMoeLinear]:
        """The target modules of an adapter, by name."""
        return {
            key: module
            for key, module in self.model.named_modules()
            if isinstance(module, LoraMoeLinear) and adapter_name in module.lora_moe_A
        }

    def task_weights(self, names: Sequence[str]) -> Float[Tensor, "B E"]:
        """`routing_weights` that give each task its own expert, with gate "task".

        Raises:
            ValueError: a name is not among the `tasks` of the active adapter.
        """
        tasks = cast(LoraMoeConfig, self.peft_config[self.active_adapters[0]]).tasks or []
        unknown = sorted(set(names) - set(tasks))
        if unknown:
            raise ValueError(f"task_names holds {unknown[0]!r}, expected {', '.join(tasks)}")
        device = cast(Any, self.model).get_input_embeddings().weight.device
        return torch.eye(len(tasks), device=device)[[tasks.index(name) for name in names]]

    def balance_loss(self) -> Tensor | None:
        """The losses that keep experts in even use, of the latest call in training: the mean over
        gates. `forward` adds it to the model's loss, where there is one; None if none is wanted."""
        losses = [gate.balance for gate in self._gates() if gate.balance is not None]
        return torch.stack(losses).mean() if losses else None

    def export_route(
        self,
        folder: str | Path,
        *,
        question_ids: Int[Tensor, "1 T"] | None = None,
        question_mask: Tensor | None = None,
        weights: Float[Tensor, "E"] | None = None,
        adapter_name: str | None = None,
    ) -> None:
        """Write one route as a plain LoRA of rank k r, which PEFT, vLLM and others load without
        this package.

        Args:
            folder: an adapter folder in PEFT's layout.
            question_ids, question_mask: the question whose route is taken.
            weights: the route itself, instead; neither where the gate asks for none.
            adapter_name: the (first) active adapter if not given.

        Raises:
            ValueError: the route is not one for all tokens, or neither or both are given.
        """
        name = adapter_name or self.active_adapters[0]
        config = cast(LoraMoeConfig, self.peft_config[name])
        if config.by_token and weights is None:
            raise ValueError("gate is 'token', expected one with a route for all tokens")
        with torch.no_grad():
            given = None if weights is None else self._checked(weights, name)[None]
            question = question_ids, question_mask
            with self._without_noise(), self._routed(*question, given, None, [name]):
                routes = self._routes_taken(name)
            layers = self.layers(name).items()
            folded = {key: layer.folded(name, routes[key]) for key, layer in layers}
            write_lora(Path(folder), config, folded)

    def fix_route(self, weights: Float[Tensor, "E"] | None) -> None:
        """One route for all calls that name no other, and for merging; None takes it away.

        Raises:
            ValueError: not one finite weight for each expert.
        """
        self.state.fixed = {}
        if weights is not None:
            self.state.fixed = {
                name: Route.from_weights(self._checked(weights.detach(), name)[None])
                for name in self.active_adapters
            }

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        for name, gate in self.lora_moe_gate.items():
            gate.requires_grad_(name in self.active_adapters and not inference_mode)

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        super().set_requires_grad(adapter_names, requires_grad)
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            if name in self.lora_moe_gate:
                self.lora_moe_gate[name].requires_grad_(requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        active = list(self.active_adapters)
        super().delete_adapter(adapter_name)
        if adapter_name in self.lora_moe_gate:
            del self.lora_moe_gate[adapter_name]
        for name in set(self.active_adapters) - set(active):  # PEFT has chosen another
            if name in self.lora_moe_gate:
                self.lora_moe_gate[name].requires_grad_(True)
        state = self.state
        for held in (state.current, state.fixed, state.questions, state.constant):
            held.pop(adapter_name, None)

    def _routes_taken(self, name: str) -> dict[str, Route]:
        """What every layer takes inside `_routed`, where no input is needed to say so."""
        return {
            key: layer.route(name, layer.lora_moe_A[name].new_zeros(0))
            for key, layer in self.layers(name).items()
        }

    @contextmanager
    def _without_noise(self) -> Iterator[None]:
        """Gates route as in inference inside the block."""
        training = [gate for gate in self._gates() if gate.training]
        for gate in training:
            gate.eval()
        try:
            yield
        finally:
            for gate in training:
                gate.train()

    def _gates(self) -> list[Gate]:
        """All gates that can be kept in balance."""
        return [module for module in self.modules() if isinstance(module, Gate)]

    def _checked(self, weights: Tensor, name: str) -> Float[Tensor, "E"]:
        """Weights of a route, if they are one finite number for each expert."""
        experts = cast(LoraMoeConfig, self.peft_config[name]).num_experts
        if weights.shape != (experts,) or not torch.isfinite(weights).all():
            raise ValueError(
                f"weights have shape {tuple(weights.shape)}, expected {experts} finite numbers, "
                f"one for each expert of adapter {name}"
            )
        return weights

    def _mean_of_question(
        self, question_ids: Int[Tensor, "B T"], question_mask: Tensor | None
    ) -> Float[Tensor, "B D"]:
        mask = torch.ones_like(question_ids) if question_mask is None else question_mask
        with torch.no_grad():
            embeddings = cast(Any, self.model).get_input_embeddings()(question_ids)
        return mean_of_question(embeddings, cast(Bool[Tensor, "B T"], mask.bool()))

    @contextmanager
    def _routed(
        self,
        question_ids: Int[Tensor, "B T"] | None,
        question_mask: Tensor | None,
        weights: Float[Tensor, "B E"] | None,
        task_names: Sequence[str] | None,
        names: Sequence[str] | None = None,
    ) -> Iterator[None]:
        """While inside, every layer takes the route of this call; of the active adapters, or of
        those that are named."""
        if sum(given is not None for given in (question_ids, weights, task_names)) > 1:
            raise ValueError("give one of question_ids, routing_weights and task_names, not both")
        if task_names is not None:
            weights = self.task_weights(task_names)
        if torch.is_grad_enabled():  # no walk through all modules for each token of a generation
            self._keep_routes_for_backward()
            for gate in self._gates():
                gate.balance = None  # of an earlier call, whose graph may be gone
        routes: dict[str, Route] = {}
        questions: dict[str, Tensor] = {}
        if names is None:
            names = self.active_adapters if self.experts_enabled else []
        for name in names:
            config = cast(LoraMoeConfig, self.peft_config[name])
            if weights is not None:
                if weights.ndim != 2 or weights.shape[1] != config.num_experts:
                    raise ValueError(
                        f"routing_weights have shape {tuple(weights.shape)}, expected [rows, "
                        f"{config.num_experts}]: one for each expert of adapter {name}"
                    )
                routes[name] = self._route_of(weights)
            elif question_ids is not None and config.reads_question:
                question = self._mean_of_question(question_ids, question_mask)
                if config.in_layers:
                    questions[name] = question
                else:
                    routes[name] = self.lora_moe_gate[name](question)
            elif name in self.state.fixed:
                continue
            elif name in self.lora_moe_gate and not config.reads_question:
                routes[name] = self.lora_moe_gate[name]()
            elif not config.by_token:
                raise ValueError(
                    "LoRA-MoE needs a route: pass question_ids and question_mask (the tokens of "
                    'the question alone), or routing_weights, or with gate "task" task_names; '
                    "transformers' Trainer passes them on with remove_unused_columns=False"
                )
        with self._taking(routes, questions):
            yield

    @contextmanager
    def _taking(
        self, routes: Mapping[str, Route], questions: Mapping[str, Tensor]
    ) -> Iterator[None]:
        before = self.state.current, self.state.questions
        self.state.current, self.state.questions = dict(routes), dict(questions)
        try:
            yield
        finally:
            self.state.current, self.state.questions = before

    def _route_of(self, weights: Float[Tensor, "B E"]) -> Route:
        """A route of weights; the same object for the same weights, so that in generation what a
        layer made of it is found again."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return Route.from_weights(weights)
        kept = self._latest
        if kept is None or kept[0] is not weights or not torch.equal(kept[1], weights):
            if not torch.isfinite(weights).all():
                raise ValueError("routing_weights hold a number that is not finite")
            # Beside a copy, since someone may write other weights into the same tensor.
            self._latest = kept = weights, weights.clone(), Route.from_weights(weights)
        return kept[2]

    def _keep_routes_for_backward(self) -> None:
        """Checkpointing runs layers again during backward, when the call is long over: have it
        enter the route that held in the forward pass."""
        for module in self.model.modules():
            function = getattr(module, "_gradient_checkpointing_func", None)
            if function is None or not getattr(module, "gradient_checkpointing", False):
                continue
            if "context_fn" not in getattr(function, "keywords", {}):
                kept = partial(function, context_fn=self._contexts)
                cast(Any, module)._gradient_checkpointing_func = kept

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._taking(self.state.current, self.state.questions)

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
        layer = LoraMoeLinear(target, adapter_name, config, self.state, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)
