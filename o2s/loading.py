"""What commands load: models, encoders, configs, the device and the threads to compute with."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from o2s.errors import InputError

if TYPE_CHECKING:
    import torch

    from o2s.encoder import EncoderConfig, SceneEncoder
    from o2s.llm.answering import SceneAnswerer


def load_answerer(
    model: Path | None,
    config: str,
    override: list[str] | None,
    language_model: str | None,
    device: str | None,
) -> "SceneAnswerer":
    """The saved model in the folder `model`, or a new one as a config wants it."""
    if model is not None and override:
        raise InputError("--set changes a config, and --model brings its own; give one of them")
    from transformers.utils import logging as transformers_logging

    from o2s import config as configs
    from o2s.llm.answering import SceneAnswerer
    from o2s.llm.modeling import SceneLMRecipe

    transformers_logging.disable_progress_bar()
    if model is not None:
        answerer = SceneAnswerer.load(model, language_model)
    else:
        recipe = configs.load(config, SceneLMRecipe, override or [])
        recipe.language_model = language_model or recipe.language_model
        answerer = SceneAnswerer.build(recipe)
    return answerer.to(find_device(device))


def load_encoder(
    model: Path | None, config: str, override: list[str] | None
) -> tuple["SceneEncoder", list[str]]:
    """The encoder alone, and which parts of it are untrained."""
    from o2s.encoder import SceneEncoder, untrained_parts

    if model is not None:
        from o2s.llm.modeling import load_encoder as load_saved_encoder

        return load_saved_encoder(model)
    encoder_config = load_encoder_config(config, override or [])
    encoder = SceneEncoder.build(encoder_config)
    return encoder, untrained_parts(encoder_config, encoder.detector)


def load_encoder_config(config: str, overrides: list[str]) -> "EncoderConfig":
    """The encoder's part of a config."""
    from o2s import config as configs
    from o2s.llm.modeling import SceneLMRecipe

    return configs.load(config, SceneLMRecipe, overrides).encoder


def find_device(name: str | None) -> "torch.device":
    """The named device; if none is named, a GPU if there is one."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name}: cannot be used here ({reason})") from error


def set_threads(threads: int | None) -> None:
    """Half of the processors by default: torch's threads wait for each other by spinning, and on
    a processor that something else keeps busy that slows small operations a hundredfold."""
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}, expected at least 1")
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
