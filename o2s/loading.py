"""What commands load: models, encoders, configs, the device and the threads to compute with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from o2s.errors import InputError

if TYPE_CHECKING:
    import torch

    from o2s.encoder import EncoderConfig, SceneEncoder
    from o2s.llm.answering import SceneAnswerer
    from o2s.llm.configuration import SceneLMRecipe


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: the folder of a saved one, or a config with overrides."""

    folder: Path | None
    config: str
    overrides: Sequence[str] = ()
    language_model: str | None = None
    trust_pickle: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None and self.overrides:
            raise InputError("--set changes a config, and --model brings its own: give one of them")


def load_answerer(source: ModelSource, device: str | None) -> "SceneAnswerer":
    """A saved model, or a new one as a config wants it."""
    from transformers.utils import logging as transformers_logging

    from o2s.llm.answering import SceneAnswerer

    transformers_logging.disable_progress_bar()
    if source.folder is not None:
        answerer = SceneAnswerer.load(source.folder, source.language_model)
    else:
        recipe = _load_recipe(source)
        recipe.language_model = source.language_model or recipe.language_model
        answerer = SceneAnswerer.build(recipe, trust_pickle=source.trust_pickle)
    return answerer.to(find_device(device))


def load_encoder(source: ModelSource) -> tuple["SceneEncoder", list[str]]:
    """The encoder alone, and which parts of it are untrained."""
    from o2s.encoder import SceneEncoder, untrained_parts

    if source.folder is not None:
        from o2s.llm.saved import load_encoder as load_saved_encoder

        return load_saved_encoder(source.folder)
    config = load_encoder_config(source)
    encoder = SceneEncoder.build(config, trust_pickle=source.trust_pickle)
    return encoder, untrained_parts(config, encoder.detector)


def load_encoder_config(source: ModelSource) -> "EncoderConfig":
    """The encoder's part of a config."""
    return _load_recipe(source).encoder


def _load_recipe(source: ModelSource) -> "SceneLMRecipe":
    from o2s import config
    from o2s.llm.configuration import SceneLMRecipe

    return config.load(source.config, SceneLMRecipe, source.overrides)


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


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is allocated next.

    Training frees and takes the same hundreds of megabytes at every step; giving their pages back
    to the system and clearing them anew each time took a sixth of a step. Nothing happens where the
    C library is another one.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def set_threads(threads: int | None) -> None:
    """Half of the processors by default: torch's threads wait for each other by spinning, and on
    a processor that something else keeps busy that slows small operations a hundredfold."""
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}, expected at least 1")
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
