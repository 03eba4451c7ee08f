"""The options of LoRA-MoE, named as PEFT's LoRA names its own."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from peft import PeftConfig, TaskType

LORA_MOE = "LORA_MOE"
GateKind = Literal["instance", "layer", "token", "task", "learned", "fixed"]


@dataclass
class LoraMoeConfig(PeftConfig):
    """E LoRA experts in each target module, of which a route activates some.

    Args:
        r: rank of each expert.
        lora_alpha: the experts' output is scaled by `lora_alpha / r`.
        use_rslora: scale by `lora_alpha / sqrt(r)` instead (Kalajdzievski 2023, arXiv 2312.03732).
        rank_pattern, alpha_pattern: r and lora_alpha of layers whose name ends in a key, which may
            be a regular expression.
        lora_dropout: dropout on the experts' input, in training.
        num_experts: E, experts a module. With one this is plain LoRA, whatever the gate.
        gate: what chooses the experts of a row.
            "instance": one gate on the question, for the whole model (Octavius, arXiv 2311.02684).
            "layer": a gate on the question in each target module.
            "token": a gate on the input of each target module, for each token by itself.
            "task": the expert of the task that the call names, see `tasks`.
            "learned": the same weights for whatever is asked, softmax of E learned numbers.
            "fixed": the same weights for whatever is asked, `expert_weights`.
        top_k: how many experts the first three activate; their weights sum to 1. With `num_experts`
            all are active. With 1 the weight is always 1, so that the gate learns from
            `importance_loss` and `load_loss` alone.
        tasks: with gate "task", the name of each expert's task.
        expert_weights: with gate "fixed", the weight of each expert.
        gate_noise: standard deviation of noise on the gate's logits, in training.
        importance_loss: weight of a loss that keeps the sums of the experts' weights over a batch
            alike: their squared coefficient of variation (Shazeer et al. 2017, arXiv 1701.06538,
            equation 7). It is added to the model's loss in training; see `balance_loss`.
        load_loss: the same of how often each expert is chosen (their equation 11).
        target_modules: names (or one regular expression, or "all-linear") of the linear layers.
        exclude_modules: names (or one regular expression) of layers to leave alone.
        modules_to_save: names of further modules that learn and are saved as they are, such as the
            new head of a classifier (with task type SEQ_CLS PEFT adds that itself).
    """

    r: int = 8
    lora_alpha: float = 16.0
    use_rslora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    lora_dropout: float = 0.0
    num_experts: int = 4
    gate: GateKind = "instance"
    top_k: int = 2
    tasks: list[str] | None = None
    expert_weights: list[float] | None = None
    gate_noise: float = 0.0
    importance_loss: float = 0.0
    load_loss: float = 0.0
    target_modules: list[str] | str | None = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LORA_MOE  # pyright: ignore[reportAttributeAccessIssue]
        if self.task_type is None:  # PEFT's plain wrapper would call the model past its tuner
            self.task_type = TaskType.CAUSAL_LM
        self._check_numbers()
        self._check_gate()

    @property
    def chooses(self) -> bool:
        """Whether the gate has something to choose."""
        return self.num_experts > 1

    @property
    def reads_question(self) -> bool:
        """Whether the route depends on the question."""
        return self.chooses and self.gate in ("instance", "layer")

    @property
    def in_layers(self) -> bool:
        """Whether each target module has a gate of its own."""
        return self.chooses and self.gate in ("layer", "token")

    @property
    def by_token(self) -> bool:
        """Whether each token has a route of its own."""
        return self.chooses and self.gate == "token"

    def scaling(self, r: int, alpha: float) -> float:
        """What the output of an expert of rank `r` is multiplied by."""
        return alpha / (math.sqrt(r) if self.use_rslora else r)

    def _check_numbers(self) -> None:
        patterns: dict[str, Any] = {f"rank_pattern[{k}]": v for k, v in self.rank_pattern.items()}
        for name, value in {"r": self.r, "num_experts": self.num_experts, **patterns}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        alphas = {f"alpha_pattern[{k}]": v for k, v in self.alpha_pattern.items()}
        for name, value in {"lora_alpha": self.lora_alpha, **alphas}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, expected a number above 0")
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(
                f"top_k is {self.top_k}, expected 1 to num_experts ({self.num_experts})"
            )
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}, expected 0 <= dropout < 1")
        for name in ("gate_noise", "importance_loss", "load_loss"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 0")

    def _check_gate(self) -> None:
        kinds, experts = get_args(GateKind), self.num_experts
        if self.gate not in kinds:
            raise ValueError(f"gate is {self.gate!r}, expected one of {', '.join(kinds)}")
        for name, wanted in (("tasks", "task"), ("expert_weights", "fixed")):
            value = getattr(self, name)
            if (value is not None) != (self.gate == wanted):
                raise ValueError(f"{name} is {value}, expected a list with gate {wanted!r} alone")
            if value is not None and len(value) != experts:
                raise ValueError(f"{name} has {len(value)} entries, expected {experts}")
        if self.tasks is not None and len(set(self.tasks)) != experts:
            raise ValueError(f"tasks is {self.tasks}, expected different names")
        if self.expert_weights is not None and not all(map(math.isfinite, self.expert_weights)):
            raise ValueError(f"expert_weights is {self.expert_weights}, expected finite numbers")
        if self.gate not in ("instance", "layer", "token"):
            for name in ("gate_noise", "importance_loss", "load_loss"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} is {getattr(self, name)}, expected 0 with gate {self.gate!r}"
                    )
        if self.load_loss and not self.gate_noise:
            raise ValueError(
                f"load_loss is {self.load_loss}, expected 0 without gate_noise: only noise makes "
                "the choice of experts smooth"
            )
