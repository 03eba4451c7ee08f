"""ScanNet's raw layout: one folder a scan, read and written.

    <id>_vh_clean_2.ply                   the mesh: vertices with colours, faces
    <id>_vh_clean_2.0.010000.segs.json    {"segIndices": one segment a vertex}
    <id>.aggregation.json                 {"segGroups": [{id, objectId, segments, label}]}
    <id>.txt                              "axisAlignment = " 16 numbers row by row, if aligned

Test scans have neither segments nor aggregation. See the data organisation in the README of
github.com/ScanNet/ScanNet.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from o2s.errors import InputError
from o2s.files import write_text
from o2s.io.cloud import Cloud, quote, read_bytes
from o2s.io.ply import parse_ply, write_ply

MESH = "_vh_clean_2.ply"
SEGMENTS = "_vh_clean_2.0.010000.segs.json"
GROUPS = ".aggregation.json"
FACTS = ".txt"
STREAM = ".sens"


@dataclass(frozen=True)
class Group:
    """One annotated object: its number in the file, its object id, its label, its segments."""

    id: int
    object_id: int
    label: str
    segments: Sequence[int]


@dataclass(frozen=True)
class RawScan:
    """One scan as ScanNet ships it, in raw coordinates: metres, z up, not aligned to the walls.

    `segments` and `groups` are both None in a test scan. `alignment` maps raw coordinates to those
    of the room's axes; None where the scan has no such line.
    """

    name: str
    xyz: Float32[np.ndarray, "N 3"]
    rgb: UInt8[np.ndarray, "N 3"]
    faces: Int32[np.ndarray, "F 3"]
    alignment: Float64[np.ndarray, "4 4"] | None
    segments: Int32[np.ndarray, "N"] | None
    groups: tuple[Group, ...] | None


def raw_files(folder: Path, *, labelled: bool) -> dict[str, Path]:
    """The files of a scan's folder by their suffix; a test scan's facts may be missing."""
    name = folder.name
    files = {MESH: folder / f"{name}{MESH}", FACTS: folder / f"{name}{FACTS}"}
    if labelled:
        return files | {s: folder / f"{name}{s}" for s in (SEGMENTS, GROUPS)}
    return {suffix: path for suffix, path in files.items() if suffix == MESH or path.exists()}


def read_raw_scan(folder: Path, *, labelled: bool = True) -> RawScan:
    """Read one scan's folder, named after the scan.

    Raises:
        InputError: a file is missing or broken, or files do not fit together; see `parse_raw_scan`.
    """
    files = raw_files(folder, labelled=labelled)
    return parse_raw_scan(folder, {suffix: read_bytes(path) for suffix, path in files.items()})


def parse_raw_scan(folder: Path, content: Mapping[str, bytes]) -> RawScan:
    """A scan out of the bytes of its files, by their suffix; `folder` stands in messages.

    Raises:
        InputError: a file is broken; vertices that are not finite or without colours; a number of
            segment ids other than that of vertices; a group whose segments do not exist, which has
            none, or whose id another group has.
    """
    name = folder.name
    mesh = _parse_mesh(folder / f"{name}{MESH}", content[MESH])
    alignment = None
    if FACTS in content:
        alignment = _parse_alignment(folder / f"{name}{FACTS}", content[FACTS])
    segments = groups = None
    if SEGMENTS in content:
        segments = _parse_segments(folder / f"{name}{SEGMENTS}", content[SEGMENTS], len(mesh))
        groups = _parse_groups(folder / f"{name}{GROUPS}", content[GROUPS], segments)
    assert mesh.faces is not None
    return RawScan(
        name=name,
        xyz=mesh.xyz.astype(np.float32),
        rgb=np.stack([mesh.extra[channel] for channel in _CHANNELS], axis=1),
        faces=mesh.faces,
        alignment=alignment,
        segments=segments,
        groups=groups,
    )


def write_raw_scan(scan: RawScan, folder: Path) -> None:
    """Write a scan into `folder`/<its name>, the mesh with ScanNet's four colour channels."""
    files = {suffix: folder / scan.name / f"{scan.name}{suffix}" for suffix in _SUFFIXES}
    alpha = np.full(len(scan.xyz), 255, np.uint8)
    channels = dict(zip((*_CHANNELS, "alpha"), (*scan.rgb.T, alpha), strict=True))
    write_ply(files[MESH], Cloud(scan.xyz.astype(np.float64), faces=scan.faces, extra=channels))
    facts = ["colorToDepthExtrinsics = " + " ".join(map(str, np.eye(4).ravel()))]
    if scan.alignment is not None:
        facts.insert(0, "axisAlignment = " + " ".join(map(repr, scan.alignment.ravel().tolist())))
    write_text(files[FACTS], "\n".join([*facts, f"sceneId = {scan.name}", ""]))
    if scan.segments is not None and scan.groups is not None:
        segments = {"sceneId": scan.name, "segIndices": scan.segments.tolist()}
        write_text(files[SEGMENTS], json.dumps(segments))
        groups = [
            {"id": g.id, "objectId": g.object_id, "segments": list(g.segments), "label": g.label}
            for g in scan.groups
        ]
        write_text(files[GROUPS], json.dumps({"sceneId": scan.name, "segGroups": groups}))


def _parse_mesh(path: Path, data: bytes) -> Cloud:
    mesh = parse_ply(path, data, faces=True, extra=_CHANNELS)
    if not len(mesh):
        raise InputError(f"{path}: no vertices; expected the mesh of a scan")
    for channel in _CHANNELS:
        if mesh.extra[channel].dtype != np.uint8:
            raise InputError(f"{path}: {channel} is {mesh.extra[channel].dtype}; expected uchar")
    lost = int((~(np.abs(mesh.xyz) <= _FARTHEST)).any(axis=1).sum())
    if lost:
        raise InputError(
            f"{path}: {lost} of {len(mesh)} vertices are not finite or over 1,000 km away"
        )
    return mesh


def _parse_alignment(path: Path, data: bytes) -> Float64[np.ndarray, "4 4"] | None:
    for line in data.decode("latin-1").splitlines():
        key, equals, words = line.partition("=")
        if line.strip() and not equals:
            raise InputError(f"{path}: {quote(line)} is not 'key = value'; is the file cut short?")
        if key.strip() != "axisAlignment":
            continue
        try:
            matrix = np.array([float(word) for word in words.split()]).reshape(4, 4)
        except ValueError:
            matrix = np.full((4, 4), np.nan)
        if not (np.abs(matrix) <= _FARTHEST).all():
            raise InputError(
                f"{path}: axisAlignment is {quote(words.strip())}; expected 16 numbers"
            )
        if abs(np.linalg.det(matrix)) < 1e-6 or not np.allclose(matrix[3], [0, 0, 0, 1]):
            raise InputError(
                f"{path}: axisAlignment {quote(words.strip())} is not a rotation and a shift"
            )
        return matrix
    return None


def _parse_segments(path: Path, data: bytes, vertices: int) -> Int32[np.ndarray, "N"]:
    ids = _entry(path, data, "segIndices")
    if len(ids) != vertices:
        raise InputError(f"{path}: {len(ids)} segment ids for {vertices} vertices")
    try:
        array = np.array(ids)
    except ValueError:  # lists of several lengths
        array = np.array(None)
    if array.dtype != np.int64 or array.ndim != 1 or not 0 <= array.min() <= array.max() < 2**31:
        raise InputError(f"{path}: segIndices are not whole numbers from 0 to {2**31 - 1}")
    return array.astype(np.int32)


def _parse_groups(path: Path, data: bytes, segments: Int32[np.ndarray, "N"]) -> tuple[Group, ...]:
    known = set(np.unique(segments).tolist())
    groups: list[Group] = []
    taken: dict[str, set[int]] = {"id": set(), "objectId": set()}
    for at, entry in enumerate(_entry(path, data, "segGroups")):
        group = _parse_group(path, at, entry)
        for key, value in (("id", group.id), ("objectId", group.object_id)):
            if value in taken[key]:
                raise InputError(f"{path}: two groups have the {key} {value}")
            taken[key].add(value)
        which = f"group {group.id} ({quote(group.label)})"
        if not group.segments:
            raise InputError(f"{path}: {which} has no segments, so the object has no vertices")
        unknown = [s for s in group.segments if s not in known]
        if unknown:
            raise InputError(
                f"{path}: {which} names segment {unknown[0]}"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                + f" that no vertex in <id>{SEGMENTS} has"
            )
        groups.append(group)
    return tuple(groups)


def _parse_group(path: Path, at: int, entry: Any) -> Group:
    match entry:
        case {
            "id": int(number),
            "objectId": int(object_id),
            "label": str(label),
            "segments": list(segments),
        } if all(type(n) is int and 0 <= n < _MOST_OBJECTS for n in (number, object_id)):
            pass
        case _:
            raise InputError(
                f"{path}: entry {at} of segGroups is {quote(entry)}; expected id and objectId "
                f"from 0 to {_MOST_OBJECTS - 1}, a label and a list of segments"
            )
    if not all(type(s) is int for s in segments):
        raise InputError(f"{path}: entry {at} of segGroups: segments are not whole numbers")
    return Group(number, object_id, label, segments)


def _entry(path: Path, data: bytes, key: str) -> list[Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not whole JSON ({error}); is the file cut short?") from None
    entry = values.get(key) if isinstance(values, dict) else None
    if not isinstance(entry, list):
        raise InputError(f"{path}: no list {quote(key)}; expected ScanNet's annotation")
    return entry


_CHANNELS: tuple[str, ...] = ("red", "green", "blue")
_SUFFIXES = (MESH, FACTS, SEGMENTS, GROUPS)
_FARTHEST = 1e6  # metres
_MOST_OBJECTS = 2**15  # Pointcept stores them in 16 bits
