"""Small models with LoRA-MoE whose experts all have something to say."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from o2s.llm.lora_moe import LoraMoeConfig

IDS = torch.arange(10, 22).reshape(2, 6)
QUESTIONS = torch.tensor([[40, 41, 42, 0, 0], [50, 51, 52, 53, 54]])
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])

ASKED: dict[str, Any] = {"question_ids": QUESTIONS, "question_mask": MASK}
GATES: dict[str, dict[str, Any]] = {
    "instance": {},
    "dense": {"top_k": 4},
    "layer": {"gate": "layer"},
    "token": {"gate": "token"},
    "token dense": {"gate": "token", "top_k": 4},
    "task": {"gate": "task", "tasks": ["ask", "tell", "name", "count"]},
    "learned": {"gate": "learned", "num_experts": 2},
    "fixed": {"gate": "fixed", "num_experts": 2, "expert_weights": [0.5, -0.25]},
}
CALLS: dict[str, dict[str, Any]] = {
    "task": {"task_names": ["tell", "count"]},
    **{kind: {} for kind in ("token", "token dense", "learned", "fixed")},
}


def base_model(folder: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def adapted(folder: str, dtype: torch.dtype = torch.float32, **options: object) -> PeftModel:
    """A model whose experts all have something to say."""
    torch.manual_seed(0)
    config = LoraMoeConfig(**{"r": 2, "lora_alpha": 6.0, **options})
    model = get_peft_model(base_model(folder, dtype), config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_moe_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def as_lora(ours: PeftModel, folder: str, dtype: torch.dtype = torch.float32) -> PeftModel:
    """PEFT's LoRA with the weights of `adapted(folder, dtype, num_experts=1, top_k=1)`."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = LoraConfig(r=2, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
    theirs = get_peft_model(base_model(folder, dtype), config).eval()
    state = ours.state_dict()
    for name, parameter in theirs.named_parameters():
        for matrix in "AB":
            if f"lora_{matrix}" in name:
                key = name.replace(f"lora_{matrix}", f"lora_moe_{matrix}")
                parameter.data = state[key.removesuffix(".weight")][0]
    return theirs


def logits(model: nn.Module, ids: Tensor = IDS, **options: object) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **options).logits
