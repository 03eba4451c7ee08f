"""Encoded scans: scene tokens, region features and boxes of one scan in a .safetensors file.

Tensors: tokens [Q, F], region_features [R, F], boxes [R, 7] (centre, size, heading; metres, world
coordinates), scores [R]. Metadata: scan, labels (JSON list), from_file (JSON 4x4: the scan file's
coordinates to scene coordinates), untrained (JSON list: the parts of the model that hold random
numbers), made_from (a checksum of scan, encoder and options).
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from o2s import __version__
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.files import replacing
from o2s.scene import Scene, SceneTokens


def check_names(scans: Sequence[Path]) -> None:
    """Refuse scans that would be written to the same file.

    Raises:
        InputError: two scans share their name without the suffix.
    """
    for name, count in Counter(scan.stem for scan in scans).items():
        if count > 1:
            twins = ", ".join(str(scan) for scan in scans if scan.stem == name)
            raise InputError(f"{twins}: all would be written to {name}.safetensors; rename them")


def fingerprint(scan: Path, encoder: SceneEncoder, *, up: str, unit: str) -> str:
    """A checksum of all that an encoded scan depends on.

    Raises:
        InputError: the scan cannot be read.
    """
    digest = hashlib.sha256(
        json.dumps([__version__, dataclasses.asdict(encoder.config), up, unit]).encode()
    )
    for value in encoder.state_dict().values():
        digest.update(value.contiguous().numpy(force=True).tobytes())
    try:
        with scan.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise InputError(f"{scan}: {error.strerror}, expected a scan file") from error
    return digest.hexdigest()


def is_current(path: Path, made_from: str) -> bool:
    """True if the file is whole and was made from the same scan by the same encoder."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("made_from") == made_from
    except SafetensorError:
        return False


def write(
    path: Path, scene: Scene, tokens: SceneTokens, *, untrained: Sequence[str], made_from: str
) -> None:
    """Write one encoded scan, whole or not at all."""
    boxes = tokens.boxes.tensor.clone()
    boxes[:, :3] = (boxes[:, :3].double() + scene.offset).float()
    metadata = {
        "scan": scene.name,
        "labels": json.dumps(tokens.boxes.labels),
        "from_file": json.dumps(scene.from_file.tolist()),
        "untrained": json.dumps(list(untrained)),
        "made_from": made_from,
    }
    tensors: dict[str, torch.Tensor] = {
        "tokens": tokens.tokens,
        "region_features": tokens.region_features,
        "boxes": boxes,
        "scores": tokens.boxes.scores,
    }
    with replacing(path) as temporary:
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, temporary, metadata)
