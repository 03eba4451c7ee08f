"""Simulated scans of furnished rooms in ScanNet's raw layout: a free stand-in for ScanNet.

Room number i of a seed is the same whatever else is made: its plan, its walk and its noise come
from the seed and i alone. Of each ten in a row the first eight are train, then one is val and one
is test, and each split has furniture of its own.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_catalogues import UNREADABLE
from o2s.datasets.furniture_classes import CLASSES
from o2s.datasets.label_table import SPLITS, TABLE
from o2s.datasets.room_descriptions import (
    NR3D_COLUMNS,
    nr3d_rows,
    write_captions,
    write_descriptions,
)
from o2s.datasets.room_facts import RoomFacts, from_json, to_json
from o2s.datasets.room_layout import lay_out
from o2s.datasets.room_questions import majority_em, write_questions
from o2s.datasets.room_scan import COLOR_CAMERA, DEPTH_CAMERA, scan_room
from o2s.datasets.scannet_raw import STREAM, read_raw_scan, write_raw_scan
from o2s.datasets.sens import write_sens
from o2s.datasets.workers import outcomes
from o2s.errors import InputError
from o2s.files import alone_in, clear_leftovers, settled, write_json, write_text
from o2s.io.labelled import align
from o2s.ops.meshes import vertex_normals
from o2s.scene import Scene

VERSION = 3  # of what a seed makes
QUESTIONS = 30  # a room, at most
SETTINGS, ATTRIBUTION = "rooms.json", "ATTRIBUTION.txt"


@dataclass
class RoomsReport:
    """What a run did: rooms made, and rooms that were there already; what is known of all; by split
    the exact match of guessing the most frequent answer to each kind of question; and which files
    of furniture cannot be read."""

    done: int = 0
    kept: int = 0
    facts: list[RoomFacts] = field(default_factory=list)
    majority: dict[str, float] = field(default_factory=dict)
    unusable: list[str] = field(default_factory=list)


def make_rooms(
    furniture: Path,
    out: Path,
    *,
    rooms: int,
    seed: int,
    sketched: Sequence[Path] = (),
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RoomsReport:
    """Make rooms 0 to `rooms` - 1 of a seed in `out`, laid out as ScanNet's download; rooms beyond
    that an earlier run made stay part of it.

    Each scan's folder also holds `<id>.room.json`, what is known of the room (see `RoomFacts`).
    Beside the scans stand the label table, the split files, ATTRIBUTION.txt, which credits the
    furniture's makers, and `language/` (see `write_language`). With `sketched`, further libraries,
    train rooms have pieces of all. Rooms that are there are left alone; results depend neither on
    `workers` nor on interruptions.

    Raises:
        InputError: the furniture cannot be read; `out` holds rooms of another seed or furniture.
        OSError: `out` cannot be written to.
    """
    for name, value, least in (
        ("--scenes", rooms, 1),
        ("--workers", workers, 1),
        ("--seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value}, expected at least {least}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder, or a new name for one")
    if rooms > 9999:
        raise InputError(f"--scenes is {rooms}, expected at most 9999: names have four digits")
    if not (out / SETTINGS).exists() and ((out / "scans").exists() or (out / TABLE).exists()):
        raise InputError(f"{out}: holds scans that `o2s rooms` did not make; choose another --out")
    library = _library(furniture, tuple(sketched))
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        clear_leftovers(out)
        _settle(out / SETTINGS, {"version": VERSION, "seed": seed, "furniture": _digest(library)})
        report = RoomsReport(
            unusable=[
                f"furniture {key} is left out: {why}"
                for key, why in library.skipped.items()
                if why.startswith(UNREADABLE)
            ]
        )
        rooms = max(rooms, _rooms_in(out))
        jobs = [(furniture, tuple(sketched), out, seed, index) for index in range(rooms)]
        for through, made in enumerate(outcomes(_make_room, jobs, workers), 1):
            report.done += made
            report.kept += not made
            progress(through, rooms)
        records = [_read_record(out / "scans" / room_name(i)) for i in range(rooms)]
        report.facts = [facts for facts, _ in records]
        _write_table(out / TABLE)
        for split in SPLITS:
            members = [room for room in report.facts if room.split == split]
            if members:
                names = "".join(f"{room.name}\n" for room in members)
                write_text(out / f"scannetv2_{split}.txt", names)
                majority = write_language(members, out / "language", split, seed)
                report.majority[split] = majority.get("all", 0.0)
        keys = {key for _, pieces in records for key in pieces}
        used = [piece for piece in library.pieces if piece.key in keys]
        write_text(out / ATTRIBUTION, library.attribution(used))
    return report


def write_language(
    rooms: Sequence[RoomFacts], folder: Path, split: str, seed: int
) -> dict[str, float]:
    """Questions and descriptions of a split's rooms in the public formats; returns how well
    guessing does by kind of question, see `majority_em`.

    `ScanQA_v1.0_<split>.json` (with the kind of each question beside ScanQA's own keys),
    `ScanRefer_filtered_<split>.json`, `captions_<split>.json` (one plain sentence an object, in
    ScanRefer's format), `nr3d_<split>.csv`, and `majority_<split>.json`, which is what is returned.
    Half of the wordings of val and test are never seen in train.
    """
    held_out = split != "train"
    questions = write_questions(rooms, seed, QUESTIONS, held_out)
    descriptions = write_descriptions(rooms, seed, held_out)
    write_json(folder / f"ScanQA_v1.0_{split}.json", questions)
    write_json(folder / f"ScanRefer_filtered_{split}.json", descriptions)
    write_json(folder / f"captions_{split}.json", write_captions(rooms, seed, held_out))
    table = StringIO(newline="")
    writer = csv.DictWriter(table, NR3D_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(nr3d_rows(descriptions, rooms))
    write_text(folder / f"nr3d_{split}.csv", table.getvalue())
    majority = {kind: round(share, 4) for kind, share in majority_em(questions).items()}
    write_json(folder / f"majority_{split}.json", majority)
    return majority


def room_name(index: int) -> str:
    """The id of a room's scan."""
    return f"scene{index:04d}_00"


def split_of(index: int) -> str:
    """The split of a room by its number."""
    return {8: "val", 9: "test"}.get(index % 10, "train")


def read_facts(folder: Path) -> RoomFacts:
    """What is known of the room whose scan lies in a folder.

    Raises:
        InputError: the file is missing or damaged.
    """
    return _read_record(folder)[0]


def _read_record(folder: Path) -> tuple[RoomFacts, list[str]]:
    """What is known of a room, and the keys of its furniture."""
    path = folder / f"{folder.name}.room.json"
    try:
        record = json.loads(path.read_bytes())
        return from_json(record["room"]), [str(key) for key in record["pieces"]]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected one that `o2s rooms` wrote") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; remove it and run `o2s rooms` again") from None


def room_scene(folder: Path) -> Scene:
    """The scan in a room's folder, aligned, with normals."""
    raw = read_raw_scan(folder)
    alignment = np.eye(4) if raw.alignment is None else raw.alignment
    normals = vertex_normals(raw.xyz, raw.faces) @ alignment[:3, :3].T
    return Scene(
        name=folder.name,
        points=torch.from_numpy(align(raw.xyz, alignment)).float(),
        colors=torch.from_numpy(raw.rgb.astype(np.float32) / 255),
        normals=torch.from_numpy(normals).float(),
        from_file=torch.from_numpy(alignment),
    )


def _make_room(
    furniture: Path, sketched: tuple[Path, ...], out: Path, seed: int, index: int
) -> bool:
    """Make one room unless it is there; its record is written last."""
    name, split = room_name(index), split_of(index)
    folder = out / "scans"
    record = folder / name / f"{name}.room.json"
    if record.exists():
        return False
    library = _library(furniture, sketched)
    rng = np.random.default_rng([seed, index])
    room = scan_room(lay_out(library, split, rng), library, rng, name=name, split=split)
    write_raw_scan(room.scan, folder)
    write_sens(
        folder / name / f"{name}{STREAM}",
        room.frames,
        color_camera=COLOR_CAMERA,
        depth_camera=DEPTH_CAMERA,
        name="simulated",
    )
    write_json(record, {"room": to_json(room.facts), "pieces": sorted(set(room.keys))})
    return True


@lru_cache(maxsize=1)
def _library(furniture: Path, sketched: tuple[Path, ...]) -> FurnitureLibrary:
    library = FurnitureLibrary.open(furniture)
    for folder in sketched:
        library = library.with_train(FurnitureLibrary.open(folder))
    return library


def _digest(library: FurnitureLibrary) -> str:
    pieces = (
        f"{p.library} {p.key} {p.label} {p.split} {p.size} {p.digest}" for p in library.pieces
    )
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()


def _settle(path: Path, settings: Mapping[str, object]) -> None:
    found = settled(path, settings)
    for key, value in settings.items():
        if found.get(key) != value:
            raise InputError(
                f"{path}: these rooms are of another {key} ({found.get(key)}, not {value}); "
                "choose another --out"
            )


def _rooms_in(out: Path) -> int:
    """One more than the highest number of the rooms that are there already."""
    made = (path.parent.name for path in (out / "scans").glob("scene*/scene*.room.json"))
    numbers = (re.fullmatch(r"scene(\d{4})_00", name) for name in made)
    return max((int(number[1]) + 1 for number in numbers if number), default=0)


def _write_table(path: Path) -> None:
    """A label table with ScanNet's columns, of the labels that rooms use."""
    labels = dict([("wall", 1), ("floor", 2), ("ceiling", 22), *CLASSES.values()])
    lines = ["id\traw_category\tcategory\tcount\tnyu40id\tnyu40class"]
    lines += [
        f"{number}\t{label}\t{label}\t1\t{nyu40}\t{NYU40[nyu40]}"
        for number, (label, nyu40) in enumerate(labels.items(), 1)
    ]
    write_text(path, "\n".join(lines) + "\n")


# The 40 classes of NYU Depth v2 (Gupta et al., CVPR 2013), by number; 0 is unlabelled.
NYU40 = (
    *("unannotated", "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door"),
    *("window", "bookshelf", "picture", "counter", "blinds", "desk", "shelves", "curtain"),
    *("dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books"),
    *("refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
    *("otherstructure", "otherfurniture", "otherprop"),
)
