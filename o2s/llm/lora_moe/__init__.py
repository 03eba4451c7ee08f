"""LoRA-MoE: LoRA experts chosen once a question (or otherwise), as a PEFT tuner.

Importing this package makes the method known to PEFT: `get_peft_model(model, LoraMoeConfig())`,
`save_pretrained` and `PeftModel.from_pretrained` then work as for any other adapter.
"""

from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)

from o2s.llm.lora_moe.config import LORA_MOE, LoraMoeConfig
from o2s.llm.lora_moe.gate import ConstantGate, Gate, Route
from o2s.llm.lora_moe.layer import LoraMoeLinear
from o2s.llm.lora_moe.model import LoraMoeModel

__all__ = ["ConstantGate", "Gate", "LoraMoeConfig", "LoraMoeLinear", "LoraMoeModel", "Route"]

# `register_peft_method` only takes names that PEFT itself lists.
PEFT_TYPE_TO_CONFIG_MAPPING[LORA_MOE] = LoraMoeConfig  # pyright: ignore[reportArgumentType]
PEFT_TYPE_TO_TUNER_MAPPING[LORA_MOE] = LoraMoeModel  # pyright: ignore[reportArgumentType]
PEFT_TYPE_TO_PREFIX_MAPPING[LORA_MOE] = LoraMoeModel.prefix  # pyright: ignore[reportArgumentType]
