"""Encoded scans: scene tokens, region features and boxes of one scan in a .safetensors file.

Tensors: tokens [Q, F], region_features [R, F], boxes [R, 7] (centre, size, heading; metres, world
coordinates), scores [R], and where they were looked at region_colors [R, 9]. Metadata `o2s`, a JSON
object: scan, labels, from_file (4x4: from the file's coordinates to the scene's), offset (3, from
the scene's coordinates to the world's), untrained (the parts of the model that hold random
numbers), made_from (a checksum of scan, encoder and options), parts (digests of the weights of
detector and region encoder).
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from o2s import __version__
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.files import replacing
from o2s.scene import Boxes, RegionFeatures, Scene, SceneTokens

METADATA = "o2s"  # the key of the metadata, one JSON object


def check_names(scans: Sequence[Path], folder: Path) -> None:
    """Refuse scans that would be written to the same file, or over a file that we did not write.

    Raises:
        InputError: two scans share their name without the suffix, or a file is in the way.
    """
    for scan in scans:
        target = folder / f"{scan.stem}.safetensors"
        if target.is_file() and not _is_encoded(target):
            raise InputError(f"{target}: is no encoded scan and would be overwritten by {scan}")
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


def _is_encoded(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return METADATA in (file.metadata() or {}) or "tokens" in file.keys()  # noqa: SIM118
    except SafetensorError:  # what an interrupted disk left may be written again
        return True


def is_current(path: Path, made_from: str) -> bool:
    """True if the file is whole and was made from the same scan by the same encoder."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return _facts(file).get("made_from") == made_from
    except (SafetensorError, ValueError):
        return False


def write(
    path: Path,
    scene: Scene,
    tokens: SceneTokens,
    *,
    untrained: Sequence[str],
    made_from: str,
    parts: Mapping[str, str],
) -> None:
    """Write one encoded scan, whole or not at all; `parts` as of `encoder.part_digests`."""
    boxes = tokens.boxes.tensor.double()  # float32 would lose decimetres of map coordinates
    boxes[:, :3] += scene.offset
    metadata = {
        "scan": scene.name,
        "labels": tokens.boxes.labels,
        "from_file": scene.from_file.tolist(),
        "offset": scene.offset.tolist(),
        "untrained": list(untrained),
        "made_from": made_from,
        "parts": dict(parts),
    }
    tensors: dict[str, torch.Tensor] = {
        "tokens": tokens.tokens,
        "region_features": tokens.region_features,
        "boxes": boxes,
        "scores": tokens.boxes.scores,
    }
    if tokens.region_colors is not None:
        tensors["region_colors"] = tokens.region_colors
    # One entry: safetensors writes several in an order that changes from run to run.
    entry = {METADATA: json.dumps(metadata)}
    with replacing(path) as temporary:
        try:
            save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, temporary, entry)
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error})") from error


@dataclass(frozen=True)
class EncodedScan:
    """One encoded scan; its boxes are in scene coordinates, `offset` leads to the world's."""

    name: str
    look: RegionFeatures
    offset: Float64[torch.Tensor, "3"]
    made_from: str
    parts: Mapping[str, str]  # digests of detector and region encoder; none in older files


def read(path: Path) -> EncodedScan:
    """One encoded scan.

    Raises:
        InputError: the file is missing, damaged, something else or of an earlier version.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = _facts(file)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        offset = torch.tensor(facts["offset"], dtype=torch.float64)
        rows, labels = tensors["boxes"].double(), tuple(facts["labels"])
        centres, sides = (rows[:, :3] - offset).float(), rows[:, 3:].float()
        boxes = Boxes(centres, sides[:, :3], sides[:, 3], tensors["scores"], labels)
        colors = tensors.get("region_colors")
        look = RegionFeatures(boxes, tensors["region_features"], colors)
        return EncodedScan(facts["scan"], look, offset, facts["made_from"], facts.get("parts", {}))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not an encoded scan ({reason}); expected a file that `o2s encode` wrote"
        ) from None


def _facts(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get(METADATA, "{}"))
