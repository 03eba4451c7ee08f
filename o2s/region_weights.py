"""Files of region encoders: those that `o2s train regions` writes, ours by name, public ones."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from o2s import weights
from o2s.errors import InputError
from o2s.files import replacing
from o2s.point_bert import PointBert, PointBertConfig

METADATA = "o2s"  # the key of the metadata, one JSON object
# The weights that come with o2s, by the size of the encoder.
PRETRAINED = {
    "tiny": Path(str(files("o2s") / "pretrained" / "regions_tiny.safetensors")),
}


def load_region_encoder(name: str, trust_pickle: bool = False) -> PointBert:
    """One of `PRETRAINED` by name, or the region encoder in a file, ours or a public ULIP one.

    Raises:
        InputError: the file is missing, damaged or holds something else.
    """
    path = PRETRAINED.get(name, Path(name))
    if path.is_file() and _region_encoder_facts(path) is not None:
        return read_region_encoder(path)[0]
    checkpoint = weights.load_checkpoint(path, trust_pickle=trust_pickle)
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: expected a state_dict, tensors by name, and found other things")
    try:
        return PointBert.from_ulip(state)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def write_region_encoder(path: Path, point_bert: PointBert, facts: Mapping[str, Any]) -> None:
    """A region encoder in half precision with what is known of it, whole or not at all.

    Args:
        path: a .safetensors file.
        point_bert: the encoder.
        facts: plain values about its training; `classes` are the names that it learned.
    """
    state = {name: t.half() if t.is_floating_point() else t for name, t in _state_of(point_bert)}
    known = {**facts, "point_bert": asdict(point_bert.config)}
    with replacing(path) as temporary:
        save_file(state, temporary, {METADATA: json.dumps(known, ensure_ascii=False)})


def read_region_encoder(path: Path) -> tuple[PointBert, dict[str, Any]]:
    """A region encoder that `write_region_encoder` wrote, in float32, and what is known of it.

    Raises:
        InputError: the file is missing, damaged or another kind of checkpoint.
    """
    state = dict(weights.load_checkpoint(path))
    facts = _region_encoder_facts(path)
    if facts is None:
        raise InputError(f"{path}: expected a region encoder that `o2s train regions` wrote")
    point_bert = PointBert(PointBertConfig(**facts["point_bert"]))
    expected = point_bert.state_dict()
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in expected.items()}:
        raise InputError(f"{path}: its tensors do not fit its size; the file is damaged")
    point_bert.load_state_dict(state)
    return point_bert, facts


def _state_of(point_bert: PointBert) -> list[tuple[str, Tensor]]:
    return [(name, t.detach().cpu().contiguous()) for name, t in point_bert.state_dict().items()]


def _region_encoder_facts(path: Path) -> dict[str, Any] | None:
    """The metadata of a file that `write_region_encoder` wrote; None for other checkpoints."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and "point_bert" in facts else None
