"""Files of what instruction tuning trains: gate, experts, aggregator, projector, object tokens.

The language model, the detector and the region encoder stay as they are, and are not in the file.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from o2s import weights
from o2s.encoder import part_digests
from o2s.errors import InputError
from o2s.own_weights import read_facts, write_own_weights

# The weights that come with o2s.
PRETRAINED = Path(str(files("o2s") / "pretrained" / "o2s_tiny.safetensors"))


# What the parts were tuned with, and what to set if a model has another.
_READ = {"detector": "encoder.detector_weights", "region encoder": "encoder.point_bert_weights"}

logger = logging.getLogger(__name__)


def write_trained_parts(
    path: Path,
    model: nn.Module,
    facts: Mapping[str, Any],
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """The parameters of a model that learn, in half precision, whole or not at all.

    Args:
        path: a .safetensors file.
        model: a SceneLM.
        facts: plain values about it and its training.
        state: its whole weights, where those of the model are sharded.
    """
    own = {
        name: p.detach() if state is None else state[name]
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    read = digests(model.state_dict() if state is None else state)
    write_own_weights(path, own, {**facts, "scene_lm": True, "read": read})


def digests(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """A short digest of the weights of each part of a SceneLM that tuning leaves as it is."""
    whose = "encoder."
    return part_digests({n.removeprefix(whose): v for n, v in state.items() if n.startswith(whose)})


@torch.no_grad()
def load_trained_parts(model: nn.Module, source: str, new: str | None = None) -> dict[str, Any]:
    """Fill in the parameters of a model that learn, and say what is known of them.

    A warning tells where the model's detector or region encoder is another than they were tuned
    with: it reads what these say in its own way.

    Args:
        model: a SceneLM of the same recipe.
        source: "pretrained" for the weights that come with o2s; or a file.
        new: what the names of weights begin with that the file may lack; they stay as they are.

    Raises:
        InputError: the file is missing or damaged, or was made for a model of another recipe.
    """
    path = PRETRAINED if source == "pretrained" else Path(source)
    state = dict(weights.load_checkpoint(path))
    facts = read_facts(path, "scene_lm")
    if facts is None:
        raise InputError(f"{path}: expected the weights that `o2s train scene-lm` wrote")
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if new is not None and not any(name.startswith(new) for name in state):
        own = {name: p for name, p in own.items() if not name.startswith(new)}
    differing = [n for n in own.keys() | state.keys() if _shape(own, n) != _shape(state, n)]
    if differing:
        raise InputError(
            f"{path}: made for a model of another recipe, {len(differing)} weights differ, such as "
            f"{min(differing)}; with `weights` null the model begins without them, untrained"
        )
    for name, parameter in own.items():
        parameter.copy_(state[name])
    here = digests(model.state_dict())
    for part, digest in facts.get("read", {}).items():
        if digest != here[part]:
            logger.warning(
                "%s: tuned with another %s than this model has; expect worse answers, or give the "
                "one that it was tuned with (%s)",
                *(path, part, _READ[part]),
            )
    return facts


def still_untrained(parts: Sequence[str]) -> list[str]:
    """Of the parts that held random numbers, those that instruction tuning leaves as they are."""
    return [part for part in parts if part in ("detector", "region encoder")]


def _shape(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
