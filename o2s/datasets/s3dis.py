"""S3DIS (Armeni et al., CVPR 2016), from the text files of its aligned version to labelled scans.

RAW holds `Area_1` to `Area_6`; each room in an area is a folder with `Annotations/<class>_<n>.txt`,
one file an object, of lines "x y z red green blue" in metres. The vertices of a prepared room are
those of its objects, file after file in the order of their names, as in Pointcept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from o2s.datasets.preparation import Entry, Parsed
from o2s.errors import InputError
from o2s.io.cloud import quote
from o2s.io.labelled import LabelledScan, Objects, align
from o2s.io.text import read_table
from o2s.ops.meshes import boxes_of, group_extents

CLASSES = (
    *("ceiling", "floor", "wall", "beam", "column", "window", "door"),
    *("table", "chair", "sofa", "bookcase", "board", "clutter"),
)


@dataclass(frozen=True)
class S3DIS:
    """The rooms of S3DIS as a source for `prepare`; each is named Area_<n>_<room>.

    `split` is the name of an area, such as Area_5, or None for all. Areas with a file
    `<area>_alignmentAngle.txt` are turned by the angles that it gives, about the rooms' middles.

    Raises:
        InputError: RAW or the area is missing.
    """

    raw: Path
    split: str | None = None

    dataset = "s3dis"

    def __post_init__(self) -> None:
        if not self.raw.is_dir():
            raise InputError(f"{self.raw}: no such folder; expected Area_1 to Area_6")
        if self.split is not None and not (self.raw / self.split).is_dir():
            raise InputError(f"{self.raw}: no folder {quote(self.split)}; --split takes an area")

    checksum = ""  # nothing but the files of a room

    def entries(self) -> list[Entry]:
        areas = sorted(self.raw.glob("Area_*")) if self.split is None else [self.raw / self.split]
        entries = [
            Entry(f"{area.name}_{room.name}", room, area.name)
            for area in areas
            for room in sorted(area.iterdir() if area.is_dir() else ())
            if (room / "Annotations").is_dir()
        ]
        if not entries:
            raise InputError(
                f"{self.raw}: no rooms in it; expected folders such as Area_1/office_1/Annotations"
            )
        return entries

    def missing(self) -> dict[str, str]:
        return {}

    def files(self, entry: Entry) -> Mapping[str, Path]:
        files = {path.stem: path for path in sorted((entry.path / "Annotations").glob("*.txt"))}
        if not files:
            raise InputError(f"{entry.path / 'Annotations'}: no .txt files; expected one an object")
        angles = _angles(entry)
        return {**files, _ANGLES: angles} if angles.exists() else files

    def parse(self, entry: Entry, content: Mapping[str, bytes]) -> Parsed:
        folder = entry.path / "Annotations"
        objects = {name: data for name, data in content.items() if name != _ANGLES}
        tables, notes = [], []
        for name, data in objects.items():
            table, note = _read_object(folder / f"{name}.txt", data)
            tables.append(table)
            notes += note
        rows = np.concatenate(tables)
        names = [name.split("_")[0] for name in objects]
        classes = [CLASSES.index(n) if n in CLASSES else len(CLASSES) - 1 for n in names]
        sizes = [len(table) for table in tables]
        instance = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        # Files hold more digits than float32 does; a building's coordinates lose 4 micrometres.
        xyz = rows[:, :3].astype(np.float32)
        degrees = _angle(_angles(entry), content.get(_ANGLES, b""), entry.path.name)
        alignment = _turn(degrees, rows[:, :3])
        low, high = group_extents(xyz, instance, len(sizes))
        aligned_low, aligned_high = group_extents(align(xyz, alignment), instance, len(sizes))
        numbers = np.arange(len(sizes), dtype=np.int32)
        object_classes = np.array(classes, np.int16)
        scan = LabelledScan(
            name=entry.name,
            dataset=self.dataset,
            split=entry.split,
            xyz=xyz,
            rgb=np.clip(rows[:, 3:], 0, 255).astype(np.uint8),
            normals=None,
            alignment=alignment,
            instance=instance,
            classes={"s3dis13": np.repeat(object_classes, sizes)},
            objects=Objects(
                ids=numbers,
                group_ids=numbers,
                names=tuple(names),
                boxes=boxes_of(aligned_low, aligned_high),
                raw_boxes=boxes_of(low, high),
                classes={"s3dis13": object_classes},
            ),
            class_names={"s3dis13": CLASSES},
        )
        return Parsed(scan, notes=tuple(notes))


def _angles(entry: Entry) -> Path:
    area = entry.path.parent
    return area / f"{area.name}_alignmentAngle.txt"


def _angle(path: Path, data: bytes, room: str) -> float:
    """Degrees by which a room is turned from the axes; 0 where nothing is said."""
    for line in data.decode("latin-1").splitlines():
        match line.partition("#")[0].split():
            case [name, angle] if name == room:
                try:
                    degrees = float(angle)
                except ValueError:
                    degrees = np.nan
                if not np.isfinite(degrees):
                    raise InputError(
                        f"{path}: the angle of {room} is {quote(angle)}; expected degrees"
                    )
                return degrees
    return 0.0


def _read_object(path: Path, data: bytes) -> tuple[Float64[np.ndarray, "N 6"], Sequence[str]]:
    """The rows of one file; stray control characters, which one published file has, part words."""
    notes = []
    cleaned = data.translate(_SPACES)
    if cleaned != data:
        notes.append(f"{path.name}: stray control characters read as spaces")
    rows = sum(1 for line in cleaned.splitlines() if line.strip())
    if not rows:
        raise InputError(f"{path}: no points; expected lines of x y z red green blue")
    table = read_table(path, cleaned, skip=0, rows=rows, columns=6, first_line=1, what="points")
    if not (np.abs(table) <= _FARTHEST).all():
        raise InputError(f"{path}: holds numbers that are not finite or beyond {_FARTHEST:,.0f}")
    return table, notes


def _turn(degrees: float, xyz: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "4 4"]:
    """Undo a room's turn about z, around the middle of its extent."""
    turn, middle = np.eye(4), np.eye(4)
    cos, sin = np.cos(np.radians(-degrees)), np.sin(np.radians(-degrees))
    turn[:2, :2] = [[cos, -sin], [sin, cos]]
    middle[:3, 3] = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    return middle @ turn @ np.linalg.inv(middle) if degrees else np.eye(4)


_ANGLES = "alignment angles"  # among the files of a room, beside its objects
_FARTHEST = 1e6
_SPACES = bytes(32 if byte < 32 and byte not in b"\t\n\r" else byte for byte in range(256))
