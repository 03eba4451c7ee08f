"""Prepared scans: one scan of a data set with its annotation in a .safetensors file.

Tensors, of which those marked with a star may be missing:

    xyz               float32 [N, 3]  vertices in the coordinates of the raw scan
    rgb *             uint8   [N, 3]
    normals *         float32 [N, 3]  in the coordinates of the raw scan
    alignment         float64 [4, 4]  from raw coordinates to upright, axis-aligned metres
    segments *        int32   [N]     over-segmentation of the scan
    instance *        int32   [N]     id of the object that a vertex belongs to, -1 for none
    class.NAME *      int16   [N]     class of each vertex in the class list NAME
    object.ids *      int32   [R]     and, for each object: its id,
    object.group_ids  int32   [R]     the number of its group in the annotation,
    object.boxes      float64 [R, 6]  centre and size of its vertices' extent, aligned,
    object.raw_boxes  float64 [R, 6]  the same in raw coordinates,
    object.NAME       int16   [R]     and its class in the class list NAME

Metadata `o2s.scan`, one JSON object: version, name, dataset, split, vertices, object_names (null
where the scan is not annotated), class_names, notes (what is odd about the scan), made_from (a
checksum of what it was made from).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int16, Int32, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from o2s.errors import InputError
from o2s.files import replacing
from o2s.io.cloud import quote, require_file
from o2s.scene import Scene

METADATA = "o2s.scan"  # the key of the metadata
VERSION = 1  # of the layout above


@dataclass(frozen=True)
class Objects:
    """The annotated objects of a scan, in the order of its annotation.

    `boxes` hold centre and size, in metres, of the extent of all of an object's vertices, along the
    axes of the aligned scan; `raw_boxes` the same along the axes of the raw scan.
    """

    ids: Int32[np.ndarray, "R"]
    group_ids: Int32[np.ndarray, "R"]
    names: tuple[str, ...]
    boxes: Float64[np.ndarray, "R 6"]
    raw_boxes: Float64[np.ndarray, "R 6"]
    classes: Mapping[str, Int16[np.ndarray, "R"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class LabelledScan:
    """One scan of a data set; vertices and normals are in raw coordinates, see `aligned_xyz`.

    `instance`, `classes` and `objects` are None, empty and None where the scan is not annotated.
    `class_names` names the values of each class list: value i is `class_names[list][i]`.
    """

    name: str
    dataset: str
    split: str | None
    xyz: Float32[np.ndarray, "N 3"]
    rgb: UInt8[np.ndarray, "N 3"] | None
    normals: Float32[np.ndarray, "N 3"] | None
    alignment: Float64[np.ndarray, "4 4"]
    segments: Int32[np.ndarray, "N"] | None = None
    instance: Int32[np.ndarray, "N"] | None = None
    classes: Mapping[str, Int16[np.ndarray, "N"]] = field(default_factory=dict)
    objects: Objects | None = None
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def aligned_xyz(self) -> Float64[np.ndarray, "N 3"]:
        """Vertices along the axes of the room, in metres, z up."""
        return align(self.xyz, self.alignment)


def align(
    xyz: Float32[np.ndarray, "N 3"], alignment: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "N 3"]:
    """Apply a 4x4 matrix to points.

    One product of homogeneous coordinates in float64, as VoteNet's and mmdet3d's scripts do it, so
    that the results are the same to the last bit.
    """
    homogeneous = np.ones((len(xyz), 4))
    homogeneous[:, :3] = xyz
    return np.dot(homogeneous, alignment.T)[:, :3]


def write_labelled(
    scan: LabelledScan, path: Path, *, made_from: str, notes: Sequence[str] = ()
) -> None:
    """Write a prepared scan, whole or not at all; the same scan gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = {
        "xyz": scan.xyz,
        "rgb": scan.rgb,
        "normals": scan.normals,
        "alignment": scan.alignment,
        "segments": scan.segments,
        "instance": scan.instance,
        **{f"class.{name}": values for name, values in scan.classes.items()},
    }
    facts = {
        "version": VERSION,
        "name": scan.name,
        "dataset": scan.dataset,
        "split": scan.split,
        "vertices": len(scan),
        "object_names": None if scan.objects is None else list(scan.objects.names),
        "notes": list(notes),
        "class_names": {name: list(names) for name, names in scan.class_names.items()},
        "made_from": made_from,
    }
    if scan.objects is not None:
        arrays |= {f"object.{name}": getattr(scan.objects, name) for name in _OBJECT_FIELDS}
        arrays |= {f"object.{name}": values for name, values in scan.objects.classes.items()}
    content = save(
        {name: np.ascontiguousarray(a) for name, a in arrays.items() if a is not None},
        {METADATA: json.dumps(facts, ensure_ascii=False)},
    )
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_labelled(path: Path) -> LabelledScan:
    """Read a prepared scan; its arrays are mapped from the file and load as they are used.

    Raises:
        InputError: the file is missing, damaged, of another kind or version.
    """
    facts, arrays = _open(path)
    rows = len(arrays.get("xyz", ()))
    problem = next((f"no {quote(n)}" for n in ("xyz", "alignment") if n not in arrays), None)
    for name, array in arrays.items():
        kind = name.partition(".")[0]
        if kind not in _LAYOUT:  # of objects, whose numbers are compared below
            continue
        dtype, shape = _LAYOUT[kind]
        expected = shape if name == "alignment" else (rows, *shape)
        if array.dtype != dtype or array.shape != expected:
            problem = problem or f"{quote(name)} is {array.dtype} of shape {list(array.shape)}"
    if problem or not rows:
        raise InputError(f"{path}: {problem or 'no vertices'}; expected a prepared scan")
    objects = None
    if "object.ids" in arrays:
        held = {n.removeprefix("object."): a for n, a in arrays.items() if n.startswith("object.")}
        fields = {name: held.pop(name) for name in _OBJECT_FIELDS if name in held}
        counts = {len(a) for a in (*fields.values(), *held.values(), facts["object_names"])}
        if len(fields) < len(_OBJECT_FIELDS) or len(counts) > 1:
            raise InputError(f"{path}: objects that do not fit together; the file is damaged")
        objects = Objects(names=tuple(facts["object_names"]), classes=held, **fields)
    return LabelledScan(
        name=facts["name"],
        dataset=facts["dataset"],
        split=facts["split"],
        xyz=arrays["xyz"],
        rgb=arrays.get("rgb"),
        normals=arrays.get("normals"),
        alignment=arrays["alignment"],
        segments=arrays.get("segments"),
        instance=arrays.get("instance"),
        classes={n.removeprefix("class."): a for n, a in arrays.items() if n.startswith("class.")},
        objects=objects,
        class_names=facts["class_names"],
    )


def is_labelled(path: Path) -> bool:
    """True if the file is a prepared scan of any version, as `write_labelled` writes it."""
    try:
        with safe_open(path, "pt") as file:
            return METADATA in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def labelled_facts(path: Path) -> dict[str, Any] | None:
    """The metadata of a prepared scan; None where the file is anything else or is damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("version") == VERSION else None


def labelled_scene(path: Path) -> Scene:
    """A prepared scan as a Scene: aligned, in metres, centred on the mean of its points.

    Its world coordinates are the aligned ones, those of `Objects.boxes`.

    Raises:
        InputError: as `read_labelled`; or coordinates that are not finite.
    """
    scan = read_labelled(path)
    xyz = scan.aligned_xyz
    if not np.isfinite(xyz).all():
        raise InputError(f"{path}: coordinates that are not finite; the file is damaged")
    from_file = scan.alignment.copy()
    mean = xyz.mean(axis=0)
    from_file[:3, 3] -= mean
    rotation = scan.alignment[:3, :3]
    scale = np.cbrt(abs(np.linalg.det(rotation))) or 1.0
    normals = None if scan.normals is None else scan.normals @ (rotation / scale).T
    return Scene(
        name=scan.name,
        points=torch.from_numpy(xyz - mean).float(),
        colors=None if scan.rgb is None else torch.from_numpy(scan.rgb.astype(np.float32) / 255),
        normals=None if normals is None else torch.from_numpy(normals).float(),
        from_file=torch.from_numpy(from_file),
        centre=torch.from_numpy(mean),
    )


def _open(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and mapped arrays; torch maps a file where safetensors' NumPy reader copies it."""
    require_file(path)
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        line = quote(" ".join(str(error).split()))
        raise InputError(f"{path}: not a whole .safetensors file ({line})") from None
    if not isinstance(facts, dict):
        raise InputError(f"{path}: not a prepared scan; expected one that `o2s prepare` wrote")
    if facts.get("version") != VERSION:
        raise InputError(
            f"{path}: version {quote(facts.get('version'))} of a prepared scan; expected {VERSION}"
        )
    return facts, arrays


_OBJECT_FIELDS = ("ids", "group_ids", "boxes", "raw_boxes")
_LAYOUT: dict[str, tuple[type, tuple[int, ...]]] = {
    "xyz": (np.float32, (3,)),
    "rgb": (np.uint8, (3,)),
    "normals": (np.float32, (3,)),
    "alignment": (np.float64, (4, 4)),
    "segments": (np.int32, ()),
    "instance": (np.int32, ()),
    "class": (np.int16, ()),
}
