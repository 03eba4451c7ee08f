"""Annotated scans as a detector learns from them: points, colours, boxes and classes.

What comes out depends on the seed, the scan's number and that of the draw alone, whatever the order
and the number of processes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from o2s.datasets.preparation import read_index
from o2s.errors import InputError
from o2s.evaluate.scene_boxes import prepared_scans
from o2s.io.labelled import LabelledScan, read_labelled
from o2s.scene import Scene
from o2s.train.detector_augmentation import DetectorAugmentation, change_scan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScanExample:
    """One scan: points in metres, RGB in [0, 1] (None without), boxes of centre, size and heading,
    and the number of each box's class."""

    name: str
    points: Float32[Tensor, "N 3"]
    colors: Float32[Tensor, "N 3"] | None
    boxes: Float32[Tensor, "R 7"]
    labels: Int64[Tensor, "R"]

    @property
    def scene(self) -> Scene:
        """The scan alone."""
        return unnamed_scene(self.points, self.colors)


class DetectorScans(Dataset[ScanExample]):
    """The scans of one split, each `repeats` times.

    Args:
        folder: that `o2s prepare` wrote.
        split: of the scans.
        class_list: which of the prepared class lists names the objects.
        classes: those that are learned; other objects are not looked for.
        augment: random changes; None for scans as they are.
        repeats: how often each scan comes in an epoch.
        yaw: whether boxes turn along with the scan.
        seed: of all that is random.

    Raises:
        InputError: the folder has no such split or class list, or a scan is not annotated.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        class_list: str,
        classes: Sequence[str],
        *,
        augment: DetectorAugmentation | None = None,
        repeats: int = 1,
        yaw: bool = False,
        seed: int = 0,
    ) -> None:
        self.files = list(prepared_scans(folder, split).items())
        self.class_list, self.number = class_list, {name: i for i, name in enumerate(classes)}
        self.augment, self.repeats, self.yaw, self.seed = augment, repeats, yaw, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.files) * self.repeats

    def set_epoch(self, epoch: int) -> None:
        """Later epochs draw other changes."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> ScanExample:
        name, file = self.files[index % len(self.files)]
        scan = read_labelled(file)
        xyz = scan.aligned_xyz
        middle = xyz.mean(axis=0)
        points = (xyz - middle).astype(np.float32)
        colors = None if scan.rgb is None else scan.rgb.astype(np.float32) / 255
        named = objects_of(scan, file, self.class_list)
        kept = [(self.number[name], box) for name, box in named if name in self.number]
        labels, boxes = [i for i, _ in kept], np.array([box for _, box in kept]).reshape(-1, 6)
        boxes = np.concatenate([boxes, np.zeros((len(boxes), 1))], axis=1)
        boxes[:, :3] -= middle
        boxes = boxes.astype(np.float32)
        if self.augment is not None:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            points, colors, boxes, kept = change_scan(
                rng, points, colors, boxes, self.augment, yaw=self.yaw
            )
            labels = [labels[i] for i in kept]
        return ScanExample(
            name,
            torch.from_numpy(points),
            None if colors is None else torch.from_numpy(colors),
            torch.from_numpy(boxes),
            torch.tensor(labels, dtype=torch.long),
        )


def unnamed_scene(points: Float32[Tensor, "N 3"], colors: Float32[Tensor, "N 3"] | None) -> Scene:
    """Points alone as a scan."""
    return Scene("", points, colors, None, torch.eye(4, dtype=torch.float64))


def objects_of(scan: LabelledScan, file: Path, class_list: str) -> list[tuple[str, np.ndarray]]:
    """Class and box (centre and size in metres) of the annotated objects of a prepared scan, which
    was read from a file; those that are of no class of the list are left out.

    Raises:
        InputError: the scan has no objects, or they have no such classes.
    """
    if scan.objects is None:
        raise InputError(f"{file}: a scan without annotation; expected one with objects")
    if class_list not in scan.objects.classes:
        known = ", ".join(scan.objects.classes)
        raise InputError(f"{file}: no class list {class_list}, expected one of {known}")
    names = list(scan.class_names[class_list])
    numbers = scan.objects.classes[class_list].tolist()
    return [
        (names[number], box)
        for number, box in zip(numbers, scan.objects.boxes, strict=True)
        if number >= 0 and names[number] not in _NOTHING
    ]


_NOTHING = ("unannotated",)


def sizes_of_classes(
    folder: Path,
    split: str,
    class_list: str,
    leave_out: Sequence[str],
    update: Callable[[int, int], None],
) -> Mapping[str, Float32[np.ndarray, "_"]]:
    """The longest sides, in metres, of the objects of each class that the split has. A warning
    tells of names to leave out that are not in the list."""
    scans = list(prepared_scans(folder, split).values())
    listed = read_index(folder)["class_names"].get(class_list, leave_out)
    for name in leave_out:
        if name not in listed:
            logger.warning("leave_out: %s is no class of %s", name, class_list)
    found: dict[str, list[float]] = {}
    for done, file in enumerate(scans):
        update(done, len(scans))
        for name, box in objects_of(read_labelled(file), file, class_list):
            if name not in leave_out:
                found.setdefault(name, []).append(float(box[3:].max()))
    return {name: np.array(sides, np.float32) for name, sides in found.items()}
