"""What a saved SceneLM is read from: its config, and the weights that are not the language model's.

The folder holds `config.json` and `model.safetensors`; `SceneLM.from_pretrained` puts them together
again, `load_encoder` makes the encoder alone.
"""

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from o2s import config as o2s_config
from o2s.encoder import EncoderConfig, SceneEncoder
from o2s.errors import InputError
from o2s.llm.configuration import SceneLMConfig

WEIGHTS_FILE = "model.safetensors"


def load_encoder(folder: Path) -> tuple[SceneEncoder, list[str]]:
    """The encoder of a saved SceneLM without its language model, and the untrained parts.

    Raises:
        InputError: the folder or a file in it is missing or does not fit.
    """
    config, stored = read_saved(folder)
    encoder = build_encoder(config)
    prefix = "encoder."
    state = {key.removeprefix(prefix): v for key, v in stored.items() if key.startswith(prefix)}
    load_state(encoder, state, folder, strict=True)
    return encoder, untrained_for_tokens(config)


def untrained_for_tokens(config: SceneLMConfig) -> list[str]:
    """The parts that hold random numbers of those that make the encoder's scene tokens: also the
    queries, where the language model does not read them."""
    parts = list(config.untrained or [])
    unread = config.scene_tokens == "objects" and "aggregator" not in parts
    return [*parts, "aggregator"] if unread else parts


def read_saved(folder: Path) -> tuple[SceneLMConfig, dict[str, Tensor]]:
    """Config and weights.

    Raises:
        InputError: the folder or a file in it is missing or cannot be read.
    """
    for name in ("config.json", WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: holds no {name}, expected a folder of a saved SceneLM")
    try:
        return SceneLMConfig.from_pretrained(folder), load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{folder}: not a readable SceneLM ({error})") from error


def build_encoder(config: SceneLMConfig) -> SceneEncoder:
    """The encoder of a saved model; its weights lie in the model's folder and nowhere else."""
    encoder_config = o2s_config.from_dict(config.encoder or {}, EncoderConfig)
    return SceneEncoder.build(replace(encoder_config, point_bert_weights=None))


def load_state(model: nn.Module, state: dict[str, Tensor], folder: Path, *, strict: bool) -> None:
    """Weights into a model; raises InputError where they do not fit."""
    try:
        model.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder / WEIGHTS_FILE}: does not fit the model ({reason})") from error
