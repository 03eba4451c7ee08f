"""What a SceneLM is built from, and what is stored of it beside its weights."""

from dataclasses import dataclass, field
from typing import Any, Literal, no_type_check

from transformers import AutoConfig, PreTrainedConfig

from o2s.encoder import EncoderConfig
from o2s.llm.lora_moe import LoraMoeConfig
from o2s.llm.scene_tokens import SceneTokenKind


@dataclass
class SceneLMRecipe:
    """What a new SceneLM is built from.

    `dtype` is the language model's ("auto": as it is stored); what is ours stays in float32.
    `scene_tokens` is what it reads of a scene: what Octavius' queries gather ("octavius"), a few
    tokens for each object ("objects"), or both. Regions below `least_score` are not shown to it.
    With `focus` what a question speaks of is read again beside the question (`llm.focus`); that
    takes object tokens.
    Without `lora_moe` the language model stays as it is. `weights` are what `o2s train scene-lm`
    trained of such a model: "pretrained" for those that come with o2s, or a file.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    language_model: str = "smollm2-135m"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    scene_tokens: SceneTokenKind = "octavius"
    least_score: float = 0.0
    focus: bool = False
    lora_moe: LoraMoeConfig | None = None
    weights: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.focus and self.scene_tokens == "octavius":
            raise ValueError("focus is true, expected false where scene_tokens is octavius")
        if self.lora_moe is not None and self.lora_moe.gate == "task":
            raise ValueError(
                "lora_moe.gate is task, expected another: questions about scenes name no task"
            )


@no_type_check  # its constructor takes more than the fields, and checks them itself
class SceneLMConfig(PreTrainedConfig):
    """What is stored of a SceneLM beside its weights.

    `language_model` is the name or folder of the base model, which is not stored itself, and
    `language_model_dtype` what to load it as; `encoder` and `lora_moe` the values of an
    `EncoderConfig` and a `LoraMoeConfig`; `untrained` names the parts that still hold the random
    numbers that they began with.
    """

    model_type = "o2s_scene_lm"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012 # pyright: ignore

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    language_model: str = ""
    language_model_dtype: str = "float32"
    encoder: dict[str, Any] | None = None
    lora_moe: dict[str, Any] | None = None
    scene_tokens: str = "octavius"
    focus: bool = False
    scene_token_id: int = 0
    untrained: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        super().__post_init__(**kwargs)


# So that the processor of a saved SceneLM finds its tokenizer.
AutoConfig.register(SceneLMConfig.model_type, SceneLMConfig)
