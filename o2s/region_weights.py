"""Files of region encoders: those that `o2s train regions` writes, ours by name, public ones."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from o2s import weights
from o2s.errors import InputError
from o2s.own_weights import fill, read_facts, read_tensors, write_own_weights
from o2s.point_bert import PointBert, PointBertConfig

# The weights that come with o2s: by the size of the encoder, and those that the tuned model of the
# config `o2s_tiny` was tuned with, which it stays with until it is tuned anew.
PRETRAINED = {
    "tiny": Path(str(files("o2s") / "pretrained" / "regions_tiny.safetensors")),
    "o2s_tiny": Path(str(files("o2s") / "pretrained" / "o2s_tiny_regions.safetensors")),
}


def load_region_encoder(name: str, trust_pickle: bool = False) -> PointBert:
    """One of `PRETRAINED` by name, or the region encoder in a file, ours or a public ULIP one.

    Raises:
        InputError: the file is missing, damaged or holds something else.
    """
    path = PRETRAINED.get(name, Path(name))
    if read_facts(path, "point_bert") is not None:
        return read_region_encoder(path)[0]
    state = read_tensors(path, ["state_dict"], trust_pickle)
    try:
        return PointBert.from_ulip(state, up="y")
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def points_learned_from(name: str) -> int | None:
    """How many points a region had when the encoder in a file of ours learned, if it says so."""
    facts = read_facts(PRETRAINED.get(name, Path(name)), "point_bert")
    points = None if facts is None else facts.get("points")
    return points if isinstance(points, int) else None


def write_region_encoder(path: Path, point_bert: PointBert, facts: Mapping[str, Any]) -> None:
    """A region encoder in half precision with what is known of it, whole or not at all.

    Args:
        path: a .safetensors file.
        point_bert: the encoder.
        facts: plain values about its training; `classes` are the names that it learned.
    """
    write_own_weights(path, point_bert, {**facts, "point_bert": asdict(point_bert.config)})


def read_region_encoder(path: Path) -> tuple[PointBert, dict[str, Any]]:
    """A region encoder that `write_region_encoder` wrote, in float32, and what is known of it.

    Raises:
        InputError: the file is missing, damaged or another kind of checkpoint.
    """
    facts = read_facts(path, "point_bert")
    if facts is None:
        weights.load_checkpoint(path)  # says what is wrong with a file that cannot be read
        raise InputError(f"{path}: expected a region encoder that `o2s train regions` wrote")
    point_bert = PointBert(PointBertConfig(**facts["point_bert"]))
    fill(point_bert, path)
    return point_bert, facts
