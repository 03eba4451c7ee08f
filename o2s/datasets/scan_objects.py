"""The annotated objects of prepared scans as triplets: points with what surrounds them, names and
descriptions, and the image crops that `o2s prepare --crops` wrote."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from o2s.datasets.language_files import read_scanrefer
from o2s.datasets.preparation import read_index
from o2s.datasets.room_facts import RoomObject
from o2s.datasets.rooms import read_facts
from o2s.datasets.triplets import Triplet, TripletSource, names_with_color
from o2s.errors import InputError
from o2s.io.cloud import quote
from o2s.io.labelled import LabelledScan, read_labelled
from o2s.ops.boxes import points_in_boxes

STRUCTURE = ("wall", "floor", "ceiling")  # annotated, but no objects of a room


@dataclass(frozen=True)
class _Object:
    """One object: its points about the centre of its box, those around it among them."""

    label: str
    texts: tuple[str, ...]
    images: tuple[Path, ...]
    size: Float32[np.ndarray, "3"]
    points: Float32[np.ndarray, "N 3"]
    colors: UInt8[np.ndarray, "N 3"] | None


class ScanObjects(TripletSource):
    """The objects of the scans that `o2s prepare` wrote, all read into memory.

    Each object's texts are its name in the annotation, what `rooms` knows of it (a finer name,
    and that with its colour) and the descriptions of it; its images are those of its crops in
    `folder/crops` that see most of it, if there are any. Walls, floors and ceilings are left out.

    Args:
        folder: prepared scans with `index.json`.
        split: only scans of this split; None for all.
        descriptions: files in ScanRefer's format.
        rooms: the folder that `o2s rooms` wrote, if the scans were prepared from one.
        margin: metres around the box within which points are kept.
        most_points: of an object, drawn by a seed.
        least_points: of the object itself; objects with fewer are left out.
        most_images: of an object.
        progress: called with the number of scans read and of all.

    Raises:
        InputError: no annotated scans of the split, or a file that cannot be read.
    """

    metric = True

    def __init__(
        self,
        folder: Path,
        *,
        split: str | None,
        descriptions: Sequence[Path] = (),
        rooms: Path | None = None,
        margin: float = 0.3,
        most_points: int = 6000,
        least_points: int = 15,
        most_images: int = 2,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.folder = folder
        scans = [s for s in read_index(folder)["scans"] if split in (None, s["split"])]
        scans = [s for s in scans if s["objects"]]
        if not scans:
            where = "" if split is None else f" of the split {quote(split)}"
            raise InputError(f"{folder}: no scans{where} with annotated objects")
        said: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for description in read_scanrefer(descriptions):
            said[description.scene_id, description.object_id].append(description.text)
        self._objects: list[_Object] = []
        for done, entry in enumerate(scans):
            progress(done, len(scans))
            scan = read_labelled(folder / entry["file"])
            known: dict[int, RoomObject] = {}
            if rooms is not None:
                known = {o.id: o for o in read_facts(rooms / "scans" / scan.name).objects}
            crops = _crops(folder / "crops" / scan.name)
            for row, points, colors in _cut(scan, margin, most_points, least_points):
                assert scan.objects is not None
                number, name = int(scan.objects.ids[row]), scan.objects.names[row]
                texts = [name]
                if number in known:
                    facts = known[number]
                    texts += names_with_color([facts.label, facts.fine], facts.color)
                texts += said[scan.name, str(number)]
                size = scan.objects.boxes[row, 3:].astype(np.float32)
                images = tuple(crops[number][:most_images])
                self._objects.append(
                    _Object(name, tuple(dict.fromkeys(texts)), images, size, points, colors)
                )
        self.classes = tuple(sorted({found.label for found in self._objects}))

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Triplet:
        found = self._objects[index]
        box = np.concatenate([np.zeros(3, np.float32), found.size])
        return Triplet(found.points, found.colors, found.label, found.texts, found.images, box)

    def label(self, index: int) -> str:
        """The name of an object in the annotation."""
        return self._objects[index].label

    def texts(self, index: int) -> tuple[str, ...]:
        return self._objects[index].texts

    def images(self, index: int) -> tuple[Path, ...]:
        return self._objects[index].images


def _cut(
    scan: LabelledScan, margin: float, most: int, least: int
) -> list[tuple[int, Float32[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"] | None]]:
    """Row, points and colours of each object, about the centre of its box."""
    objects, xyz = scan.objects, scan.aligned_xyz
    if objects is None or scan.instance is None or not len(objects):
        return []
    origin = xyz.mean(axis=0)
    points = torch.from_numpy((xyz - origin).astype(np.float32))
    boxes = np.concatenate([objects.boxes, np.zeros((len(objects), 1))], axis=1)
    boxes[:, :3] -= origin
    inside = points_in_boxes(points, torch.from_numpy(boxes).float(), margin)
    counts = {int(i): int((scan.instance == i).sum()) for i in objects.ids}
    cut = []
    for row, (number, name) in enumerate(zip(objects.ids.tolist(), objects.names, strict=True)):
        if name in STRUCTURE or counts[number] < least:
            continue
        chosen = inside[row].nonzero().squeeze(1).numpy()
        if len(chosen) > most:
            chosen = np.random.default_rng(row).choice(chosen, most, replace=False)
        local = (xyz[chosen] - objects.boxes[row, :3]).astype(np.float32)
        cut.append((row, local, None if scan.rgb is None else scan.rgb[chosen]))
    return cut


def _crops(folder: Path) -> defaultdict[int, list[Path]]:
    """The image files of each object, those that see most of it first."""
    crops: defaultdict[int, list[Path]] = defaultdict(list)
    path = folder / "crops.json"
    if not path.is_file():
        return crops
    try:
        records = json.loads(path.read_text("utf-8"))
        for record in sorted(records, key=lambda r: -float(r["visible"])):
            crops[int(record["object_id"])].append(folder / str(record["file"]))
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; run `o2s prepare` with --crops again") from None
    return crops
