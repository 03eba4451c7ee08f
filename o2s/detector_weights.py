"""Files of detectors: those that `o2s train detector` writes, ours by name, public ones."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from o2s import weights
from o2s.detect import Detr3d, Detr3dConfig, LearnedDetector, Tr3d, Tr3dConfig
from o2s.errors import InputError
from o2s.own_weights import fill, read_facts, read_tensors, write_own_weights

KINDS: Mapping[str, tuple[type[LearnedDetector], type]] = {
    "tr3d": (Tr3d, Tr3dConfig),
    "detr3d": (Detr3d, Detr3dConfig),
}
# The weights that come with o2s.
PRETRAINED = {"tr3d": Path(str(files("o2s") / "pretrained" / "tr3d_tiny.safetensors"))}


def load_detector(kind: str, source: str, trust_pickle: bool = False) -> LearnedDetector:
    """A trained detector.

    Args:
        kind: one of `KINDS`.
        source: "pretrained" for the weights that come with o2s; or a file, ours or a public one.
        trust_pickle: let the file run code (`weights.load_checkpoint`).

    Raises:
        InputError: there are no such weights; the file is missing, damaged or holds something else.
    """
    path = Path(source)
    if source == "pretrained":
        if kind not in PRETRAINED:
            raise InputError(f"{kind}: no weights come with o2s; give a file as detector_weights")
        path = PRETRAINED[kind]
    if (facts := read_facts(path, "detector")) is not None:
        if facts["detector"] != kind:
            raise InputError(f"{path}: holds a {facts['detector']}, expected a {kind}")
        return read_detector(path)[0]
    state = read_tensors(path, ["state_dict", "model"], trust_pickle)
    try:
        return KINDS[kind][0].from_state(state)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def write_detector(path: Path, detector: LearnedDetector, facts: Mapping[str, Any]) -> None:
    """A detector in half precision with what is known of it, whole or not at all.

    Args:
        path: a .safetensors file.
        detector: the detector.
        facts: plain values about its training.
    """
    kind = next(kind for kind, (module, _) in KINDS.items() if isinstance(detector, module))
    known = {**facts, "detector": kind, "config": asdict(detector.config)}
    write_own_weights(path, detector, known)


def read_detector(path: Path) -> tuple[LearnedDetector, dict[str, Any]]:
    """A detector that `write_detector` wrote, in float32, and what is known of it.

    Raises:
        InputError: the file is missing, damaged or another kind of checkpoint.
    """
    facts = read_facts(path, "detector")
    if facts is None:
        weights.load_checkpoint(path)  # says what is wrong with a file that cannot be read
        raise InputError(f"{path}: expected a detector that `o2s train detector` wrote")
    module, config = KINDS[facts["detector"]]
    detector = module(config(**facts["config"]))
    fill(detector, path)
    detector.needs_training = False
    return detector.eval(), facts
