"""Files of detectors: those that `o2s train detector` writes, ours by name, public ones."""

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
from o2s.detect import Detr3d, Detr3dConfig, LearnedDetector, Tr3d, Tr3dConfig
from o2s.errors import InputError
from o2s.files import replacing

METADATA = "o2s"  # the key of the metadata, one JSON object
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
    if path.is_file() and (facts := _facts(path)) is not None:
        if facts["detector"] != kind:
            raise InputError(f"{path}: holds a {facts['detector']}, expected a {kind}")
        return read_detector(path)[0]
    checkpoint = weights.load_checkpoint(path, trust_pickle=trust_pickle)
    state = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: expected a state_dict, tensors by name, and found other things")
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
    state = {
        name: (t.half() if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in detector.state_dict().items()
    }
    kind = next(kind for kind, (module, _) in KINDS.items() if isinstance(detector, module))
    known = {**facts, "detector": kind, "config": asdict(detector.config)}
    with replacing(path) as temporary:
        save_file(state, temporary, {METADATA: json.dumps(known, ensure_ascii=False)})


def read_detector(path: Path) -> tuple[LearnedDetector, dict[str, Any]]:
    """A detector that `write_detector` wrote, in float32, and what is known of it.

    Raises:
        InputError: the file is missing, damaged or another kind of checkpoint.
    """
    state = dict(weights.load_checkpoint(path))
    facts = _facts(path)
    if facts is None:
        raise InputError(f"{path}: expected a detector that `o2s train detector` wrote")
    module, config = KINDS[facts["detector"]]
    detector = module(config(**facts["config"]))
    expected = detector.state_dict()
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in expected.items()}:
        raise InputError(f"{path}: its tensors do not fit its size; the file is damaged")
    detector.load_state_dict(state)
    detector.needs_training = False
    return detector.eval(), facts


def _facts(path: Path) -> dict[str, Any] | None:
    """The metadata of a file that `write_detector` wrote; None for other checkpoints."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("detector") in KINDS else None
