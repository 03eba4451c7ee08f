"""The language model under a SceneLM, by name or folder."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from o2s.errors import InputError
from o2s.ops.linear import widen
from o2s.weights import resolve_language_model


def load_language_model(name: str, dtype: str) -> tuple[nn.Module, Any]:
    """A decoder-only model of transformers and its tokenizer.

    Raises:
        InputError: it is not there, damaged or something else.
    """
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise InputError(f"{name}: no such folder, expected that of a language model")
    source = resolve_language_model(name)
    try:
        AutoConfig.from_pretrained(source)  # a hub that cannot be reached fails once, not twice
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except Exception as error:  # damaged files make the libraries below raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{name}: not a language model that can be loaded ({reason}); expected a folder, a "
            "hub name or smollm2-135m"
        ) from error
    widen(model)
    return model, tokenizer
