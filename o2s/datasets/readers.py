"""Prepared scans for training: sampled, augmented by a seed, collated into padded batches.

    scenes = PreparedScenes(folder, split="train", points=40_000, augment=Augmentation())
    loader = DataLoader(scenes, batch_size=8, shuffle=True, collate_fn=collate)

What comes out depends on the seed, the epoch (`scenes.set_epoch`) and the scan's name alone,
whatever the order, the batch and the number of workers.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from o2s.datasets.preparation import read_index
from o2s.errors import InputError
from o2s.io.cloud import FLOAT32_REACH, quote
from o2s.io.labelled import LabelledScan, read_labelled
from o2s.ops.meshes import boxes_of, group_extents


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a scan, in this order; each can be switched off with 0 or (1, 1).

    Args:
        flip: probability of mirroring x, and that of mirroring y.
        rotate: largest turn about z in radians, either way.
        scale: least and greatest factor of all lengths.
        color_shift: largest change of each colour channel of a scan, of 1.
        color_jitter: standard deviation of the change of each point's colour, of 1.
        dropout: largest share of the points that is dropped.

    Raises:
        ValueError: a value is out of its range.
    """

    flip: float = 0.5
    rotate: float = np.pi
    scale: tuple[float, float] = (0.9, 1.1)
    color_shift: float = 0.05
    color_jitter: float = 0.02
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name, most in (("flip", 1), ("rotate", 7), ("color_shift", 1), ("color_jitter", 1)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} is {value}, expected 0 to {most}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected 0 to less than 1")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < 100:
            raise ValueError(f"scale is {self.scale}, expected two factors above 0, the less first")


@dataclass(frozen=True)
class SceneSample:
    """One scan as a model sees it: metres, z up, along the axes of the room before augmentation.

    Boxes are centre, size and heading (0): the extents of all of an object's vertices, along the
    axes, after augmentation and before any point is dropped. A scan in map coordinates is brought
    near the origin, as `transform` says: float32 would lose its millimetres.
    """

    name: str
    points: Float32[Tensor, "N 3"]
    colors: Float32[Tensor, "N 3"] | None  # RGB in [0, 1]
    normals: Float32[Tensor, "N 3"] | None  # unit length, or zero
    semantic: Int64[Tensor, "N"]  # class in the chosen list, -1 for none
    instance: Int64[Tensor, "N"]  # row of `boxes` that the point belongs to, -1 for none
    vertices: Int64[Tensor, "N"]  # which of the scan's vertices these are
    boxes: Float32[Tensor, "R 7"]
    box_classes: Int64[Tensor, "R"]  # class in the chosen list, -1 for none
    object_ids: Int64[Tensor, "R"]  # as language annotations name them
    transform: Float64[Tensor, "4 4"]  # from raw coordinates to those of `points`


@dataclass(frozen=True)
class SceneBatch:
    """Samples side by side, filled up with zeros, and with -1 where an integer says none.

    `mask` and `box_mask` are True where there is a point and a box. `colors` and `normals` are None
    unless every scan has them.
    """

    names: tuple[str, ...]
    points: Float32[Tensor, "B N 3"]
    mask: Bool[Tensor, "B N"]
    colors: Float32[Tensor, "B N 3"] | None
    normals: Float32[Tensor, "B N 3"] | None
    semantic: Int64[Tensor, "B N"]
    instance: Int64[Tensor, "B N"]
    vertices: Int64[Tensor, "B N"]
    boxes: Float32[Tensor, "B R 7"]
    box_mask: Bool[Tensor, "B R"]
    box_classes: Int64[Tensor, "B R"]
    object_ids: Int64[Tensor, "B R"]
    transform: Float64[Tensor, "B 4 4"]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "SceneBatch":
        """The same batch with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def pin_memory(self) -> "SceneBatch":
        """The same batch in pinned memory, as a DataLoader asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "SceneBatch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


class PreparedScenes(Dataset[SceneSample]):
    """The scans of a folder that `o2s prepare` wrote, read through memory maps.

    Args:
        folder: with `index.json` and the prepared scans.
        split: only the scans of this split; None for all.
        classes: the class list of `semantic` and `box_classes`, by its name in `index.json`;
            `semantic` is -1 throughout with a list of objects alone, such as scannet37.
        points: how many points to draw, without replacement; a scan with fewer keeps all, and None
            keeps all of every scan, in the order of the vertices.
        augment: random changes; None for none.
        seed: of drawing and augmentation.

    Raises:
        InputError: no index, no scans of the split, or no such class list.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        split: str | None = None,
        classes: str | None = None,
        points: int | None = None,
        augment: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.folder = Path(folder)
        index = read_index(self.folder)
        self.entries = [s for s in index["scans"] if split is None or s["split"] == split]
        if not self.entries:
            known = ", ".join(sorted({str(s["split"]) for s in index["scans"]})) or "none"
            raise InputError(f"{self.folder}: no scans of split {quote(split)}; found {known}")
        if classes is not None and classes not in index["class_names"]:
            raise InputError(
                f"{self.folder}: no class list {quote(classes)}; "
                f"expected one of {', '.join(index['class_names']) or 'none'}"
            )
        if points is not None and points < 1:
            raise ValueError(f"points is {points}, expected at least 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected at least 0")
        self.classes, self.points, self.augment, self.seed = classes, points, augment, seed
        self.class_names: list[str] = index["class_names"].get(classes, [])
        # Shared with the processes of a DataLoader, also with those that persist.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw and augment differently from other epochs; call it before iterating."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.entries)

    def scan(self, index: int) -> LabelledScan:
        """The prepared scan itself, its arrays mapped from the file."""
        return read_labelled(self.folder / self.entries[index]["file"])

    def __getitem__(self, index: int) -> SceneSample:
        scan = self.scan(index)
        rng = np.random.default_rng([self.seed, self.epoch, zlib.crc32(scan.name.encode())])
        xyz = scan.aligned_xyz
        change = np.eye(4) if self.augment is None else _draw_change(rng, self.augment, xyz)
        if np.abs(xyz).max(initial=0) > FLOAT32_REACH:
            nearer = np.eye(4)
            nearer[:3, 3] = -np.floor(xyz.mean(axis=0))
            change = nearer @ change
        xyz = (xyz @ change[:3, :3].T + change[:3, 3]).astype(np.float32)
        rows, boxes, box_classes, ids = self._objects(scan, xyz)
        chosen = self._choose(rng, len(scan))
        colors = None
        if scan.rgb is not None:
            colors = scan.rgb[chosen].astype(np.float32) / np.float32(255)
            if self.augment is not None:
                colors = _change_colors(rng, self.augment, colors)
        normals = None if scan.normals is None else scan.normals[chosen]
        if normals is not None:
            linear = change[:3, :3] @ scan.alignment[:3, :3]
            linear = linear / np.cbrt(abs(np.linalg.det(linear)))
            normals = (normals @ linear.T).astype(np.float32)
        semantic = np.full(len(chosen), -1)
        if self.classes is not None and self.classes in scan.classes:
            semantic = scan.classes[self.classes][chosen].astype(np.int64)
        return SceneSample(
            name=scan.name,
            points=torch.from_numpy(xyz[chosen]),
            colors=None if colors is None else torch.from_numpy(colors),
            normals=None if normals is None else torch.from_numpy(normals),
            semantic=torch.from_numpy(semantic),
            instance=torch.from_numpy(rows[chosen]),
            vertices=torch.from_numpy(chosen),
            boxes=torch.from_numpy(boxes),
            box_classes=torch.from_numpy(box_classes),
            object_ids=torch.from_numpy(ids),
            transform=torch.from_numpy(change @ scan.alignment),
        )

    def _objects(self, scan: LabelledScan, xyz: np.ndarray) -> tuple[np.ndarray, ...]:
        """Each vertex's row among the objects; the objects' boxes, classes and ids."""
        if scan.objects is None or scan.instance is None:
            none = np.zeros(0, np.int64)
            return np.full(len(scan), -1), np.zeros((0, 7), np.float32), none, none
        ids = scan.objects.ids.astype(np.int64)
        row_of = np.full(max([-1, *ids.tolist()]) + 2, -1, np.int32)
        row_of[ids] = np.arange(len(ids))  # the last stays -1, as for -1: none
        rows = row_of[scan.instance]
        extents = boxes_of(*group_extents(xyz, rows, len(ids)))
        boxes = np.concatenate([extents, np.zeros((len(ids), 1))], axis=1).astype(np.float32)
        classes = scan.objects.classes.get(self.classes or "", np.full(len(ids), -1))
        return rows.astype(np.int64), boxes, classes.astype(np.int64), ids

    def _choose(self, rng: np.random.Generator, count: int) -> Int64[np.ndarray, "N"]:
        """The vertices that are kept, in random order where points are drawn."""
        kept = np.arange(count)
        if self.augment is not None and self.augment.dropout > 0:
            share = 1 - rng.uniform(0, self.augment.dropout)
            kept = kept[rng.random(count) < share]
            kept = kept if len(kept) else np.arange(count)
        if self.points is None:
            return kept
        return rng.permutation(kept)[: self.points]


def collate(samples: Sequence[SceneSample]) -> SceneBatch:
    """Put samples side by side, each filled up to the longest.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples to collate, expected at least one")

    def pad(pick: Callable[[SceneSample], Tensor], value: float = 0.0) -> Tensor:
        return pad_sequence([pick(s) for s in samples], batch_first=True, padding_value=value)

    def pad_optional(pick: Callable[[SceneSample], Tensor | None]) -> Tensor | None:
        found = [tensor for sample in samples if (tensor := pick(sample)) is not None]
        return pad_sequence(found, batch_first=True) if len(found) == len(samples) else None

    return SceneBatch(
        names=tuple(sample.name for sample in samples),
        points=pad(lambda s: s.points),
        mask=pad(lambda s: torch.ones(len(s.points), dtype=torch.bool)),
        colors=pad_optional(lambda s: s.colors),
        normals=pad_optional(lambda s: s.normals),
        semantic=pad(lambda s: s.semantic, -1.0),
        instance=pad(lambda s: s.instance, -1.0),
        vertices=pad(lambda s: s.vertices, -1.0),
        boxes=pad(lambda s: s.boxes),
        box_mask=pad(lambda s: torch.ones(len(s.boxes), dtype=torch.bool)),
        box_classes=pad(lambda s: s.box_classes, -1.0),
        object_ids=pad(lambda s: s.object_ids, -1.0),
        transform=torch.stack([s.transform for s in samples]),
    )


def _draw_change(
    rng: np.random.Generator, augment: Augmentation, xyz: Float64[np.ndarray, "N 3"]
) -> Float64[np.ndarray, "4 4"]:
    """Flip, turn and scale about the middle of the floor, as one matrix."""
    flips = np.where(rng.random(2) < augment.flip, -1.0, 1.0)
    angle = rng.uniform(-augment.rotate, augment.rotate)
    factor = rng.uniform(*augment.scale)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    middle = np.array([*(low[:2] + high[:2]) / 2, low[2]])
    change = np.eye(4)
    change[:3, :3] = np.diag([*flips, 1.0])
    change[:2, :2] = turn @ change[:2, :2]
    change[:3, :3] *= factor
    change[:3, 3] = middle - change[:3, :3] @ middle
    return change


def _change_colors(
    rng: np.random.Generator, augment: Augmentation, colors: Float32[np.ndarray, "N 3"]
) -> Float32[np.ndarray, "N 3"]:
    shift = rng.uniform(-augment.color_shift, augment.color_shift, 3)
    jitter = rng.standard_normal(colors.shape, np.float32) * np.float32(augment.color_jitter)
    return np.clip(colors + shift.astype(np.float32) + jitter, 0, 1)
