"""A folder of PLY files as a data set without annotation: scans of one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from o2s.datasets.preparation import Entry, Parsed
from o2s.errors import InputError
from o2s.io import Axis, Unit, upright_scene, usable_points
from o2s.io.cloud import FLOAT32_REACH
from o2s.io.labelled import LabelledScan
from o2s.io.ply import parse_ply
from o2s.ops.meshes import vertex_normals


@dataclass(frozen=True)
class PlyFolder:
    """All `.ply` files of a folder, each a scan named after its file, as a source for `prepare`.

    Which way is up and the unit are found out for each file unless they are given; the alignment of
    a prepared scan turns it upright and into metres. Meshes without normals get those of their
    faces. Vertices in map coordinates are stored less a whole number, which the alignment adds.
    What `read_scene` drops (strays, coordinates that are not finite) is left out; notes say so, and
    what was found out.

    Raises:
        InputError: the folder is missing.
    """

    raw: Path
    up: Axis = "auto"
    unit: Unit = "auto"

    dataset = "ply"
    split = None

    def __post_init__(self) -> None:
        if not self.raw.is_dir():
            raise InputError(f"{self.raw}: no such folder; expected one with .ply files")

    @property
    def checksum(self) -> str:
        return f"{self.up} {self.unit}"

    def entries(self) -> list[Entry]:
        paths = sorted(
            path
            for path in self.raw.glob("[!.]*")
            if path.suffix.lower() == ".ply" and not path.is_dir()
        )
        if not paths:
            raise InputError(f"{self.raw}: no .ply files in it")
        names = [path.stem for path in paths]
        if twins := {name for name in names if names.count(name) > 1}:
            raise InputError(f"{self.raw}: several files are named {sorted(twins)[0]}; rename them")
        return [Entry(path.stem, path, labelled=False) for path in paths]

    def missing(self) -> dict[str, str]:
        return {}

    def files(self, entry: Entry) -> Mapping[str, Path]:
        return {"ply": entry.path}

    def parse(self, entry: Entry, content: Mapping[str, bytes]) -> Parsed:
        cloud = parse_ply(entry.path, content["ply"], faces=True)
        notes: list[str] = []
        usable, unit = usable_points(cloud, entry.path, self.unit, notes.append)
        cloud = cloud.select(usable)
        scene = upright_scene(cloud, entry.path, up=self.up, unit=unit, say=notes.append)
        alignment, shift = scene.from_file.numpy().copy(), np.zeros(3)
        if np.abs(alignment[:3, :3] @ cloud.xyz.T).max() > FLOAT32_REACH:
            shift = np.floor(cloud.xyz.mean(axis=0))
            notes.append(f"map coordinates: vertices are stored less {shift.tolist()}")
        alignment[:3, 3] = alignment[:3, :3] @ shift
        xyz = (cloud.xyz - shift).astype(np.float32)
        normals, faces = cloud.normals, cloud.faces
        if normals is not None:
            lengths = np.linalg.norm(normals, axis=1, keepdims=True)
            normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
        if normals is None and faces is not None and len(faces):
            normals = vertex_normals(xyz, faces)
        scan = LabelledScan(
            name=entry.name,
            dataset=self.dataset,
            split=None,
            xyz=xyz,
            rgb=None if cloud.rgb is None else np.rint(cloud.rgb * 255).astype(np.uint8),
            normals=normals,
            alignment=alignment,
        )
        return Parsed(scan, faces, tuple(notes))
