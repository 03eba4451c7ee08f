"""The recipe of instruction tuning: a YAML file as a dataclass."""

import math
from dataclasses import dataclass, field

from o2s.llm.configuration import SceneLMRecipe
from o2s.train.checks import check_optimisation
from o2s.train.scene_lm_data import PROMPTED, LookAugmentation


@dataclass(frozen=True)
class InstructionData:
    """What is learned from.

    Args:
        instructions: the folder of `o2s instruct`, with train and val.
        encoded: the folder of `o2s encode`, with the scans of both.
        weights: how often records of each task are drawn.
        val_records: how many records of val an evaluation takes.
    """

    instructions: str = "instructions"
    encoded: str = "encoded"
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "VQA3D": 0.2,
            "conversation": 0.35,
            "classification3d": 0.1,
            "description3d": 0.25,
            "object_counting": 0.1,
        }
    )
    val_records: int = 300

    def __post_init__(self) -> None:
        unknown = sorted(self.weights.keys() - PROMPTED.keys())
        if unknown or not self.weights:
            raise ValueError(f"weights are of {unknown}, expected some of {', '.join(PROMPTED)}")
        wrong = {k: v for k, v in self.weights.items() if not 0 < v < math.inf}
        if wrong:
            raise ValueError(f"weights are {wrong}, expected numbers above 0")
        if self.val_records < 1:
            raise ValueError(f"val_records is {self.val_records}, expected at least 1")


@dataclass(frozen=True)
class SceneLMOptimisation:
    """How long and how fast it learns.

    Args:
        steps: of the optimiser.
        every: steps from one evaluation and checkpoint to the next.
        batch_size: records in each process at each step.
        accumulate: batches to a step.
        object_tokens_rate: the learning rate of object tokens, in learning rates.
        pointers_rate: that of the pointers of the focus. They are fitted to changed rooms before
            (`train.focus_fit`); by answers alone they come to know the rooms of training too well.
        warmup: share of the steps in which the learning rate rises; then it falls as `schedule`.
        checkpointing: whether layers are computed again in the backward pass, to save memory.
    """

    steps: int = 400
    every: int = 100
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    object_tokens_rate: float = 0.3
    pointers_rate: float = 0.1
    weight_decay: float = 0.0
    beta2: float = 0.98
    warmup: float = 0.05
    schedule: str = "cosine"
    clip: float = 1.0
    checkpointing: bool = False
    bf16: bool = False
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_optimisation(self)
        if self.schedule not in ("cosine", "linear", "constant_with_warmup"):
            raise ValueError(
                f"schedule is {self.schedule!r}, expected cosine, linear or constant_with_warmup"
            )


@dataclass(frozen=True)
class InstructionRecipe:
    """All that `o2s train scene-lm` does.

    Args:
        model: what is trained; its `weights`, if given, are gone on from.
        data: what it learns from.
        begin_in_language: whether new object tokens begin as words (`train.language_bridge`), and a
            new focus with pointers that find things (`train.focus_fit`).
        focus_steps: of fitting these pointers.
        augment: how the regions are changed at each draw.
        optimisation: how.
    """

    model: SceneLMRecipe = field(default_factory=SceneLMRecipe)
    data: InstructionData = field(default_factory=InstructionData)
    begin_in_language: bool = True
    focus_steps: int = 900
    augment: LookAugmentation = field(default_factory=LookAugmentation)
    optimisation: SceneLMOptimisation = field(default_factory=SceneLMOptimisation)

    def __post_init__(self) -> None:
        if self.focus_steps < 0:
            raise ValueError(f"focus_steps is {self.focus_steps}, expected 0 or more")
