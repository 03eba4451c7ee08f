"""The options of LoRA-MoE, named as PEFT's LoRA names its own."""

from dataclasses import dataclass, field

from peft import PeftConfig, TaskType

LORA_MOE = "LORA_MOE"


@dataclass
class LoraMoeConfig(PeftConfig):
    """E LoRA experts in each target module, of which a question's route activates `top_k`.

    Args:
        r: rank of each expert.
        lora_alpha: the experts' output is scaled by `lora_alpha / r`.
        lora_dropout: dropout on the experts' input, in training.
        num_experts: E, experts a module.
        top_k: how many of them a question activates; their weights sum to 1.
        target_modules: names (or one regular expression, or "all-linear") of the linear layers.
        exclude_modules: names (or one regular expression) of layers to leave alone.
    """

    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    num_experts: int = 4
    top_k: int = 2
    target_modules: list[str] | str | None = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    exclude_modules: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LORA_MOE  # pyright: ignore[reportAttributeAccessIssue]
        if self.task_type is None:  # PEFT's plain wrapper would call the model past its tuner
            self.task_type = TaskType.CAUSAL_LM
        for name in ("r", "num_experts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(
                f"top_k is {self.top_k}, expected 1 to num_experts ({self.num_experts})"
            )
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}, expected 0 <= dropout < 1")
