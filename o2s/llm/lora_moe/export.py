"""One route as a plain LoRA: sum over e of w_e B_e A_e is a LoRA of rank k r."""

import re
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from o2s.files import replacing
from o2s.llm.lora_moe.config import LoraMoeConfig

WEIGHTS = "adapter_model.safetensors"


def write_lora(
    folder: Path,
    config: LoraMoeConfig,
    layers: Mapping[str, tuple[Float[Tensor, "kr in"], Float[Tensor, "kr out"]]],
) -> None:
    """Write an adapter folder that `PeftModel.from_pretrained` loads as LoRA.

    Args:
        folder: where to.
        config: of the experts, for what is said of the base model.
        layers: `LoraMoeLinear.folded` of each target module, by its name in the base model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {name: len(down) for name, (down, _) in layers.items()}
    r = max(ranks.values())
    others = {re.escape(name): rank for name, rank in ranks.items() if rank != r}
    lora = LoraConfig(
        r=r,
        lora_alpha=r,  # so that it is scaled by 1: the scaling is in the weights
        target_modules=sorted(layers),
        rank_pattern=others,
        alpha_pattern=dict(others),
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        inference_mode=True,
    )
    state: dict[str, Tensor] = {}
    for name, (down, up) in layers.items():
        state[f"base_model.model.{name}.lora_A.weight"] = down.contiguous()
        state[f"base_model.model.{name}.lora_B.weight"] = up.T.contiguous()
    with replacing(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    lora.save_pretrained(str(folder))
