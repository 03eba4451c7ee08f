"""Instruction records and encoded scans to what SceneLM learns from.

records of `o2s instruct`, mixed by task   -> questions, answers, task
scans of `o2s encode`                      -> regions, changed a little at each draw
                                           -> SceneLMProcessor -> a batch
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets import Dataset as Records
from o2s import encoded
from o2s.datasets.scan2inst import load_records, mix
from o2s.encoded import EncodedScan
from o2s.errors import InputError
from o2s.llm.processing import SceneLMProcessor
from o2s.llm.prompts import Task
from o2s.ops.boxes import same_box
from o2s.scene import Boxes, RegionFeatures
from o2s.train.language_bridge import SeenObject, color_of

# How each task of Scan2Inst is put to the model.
PROMPTED: Mapping[str, Task] = {
    "VQA3D": "answer",
    "conversation": "answer",
    "object_counting": "answer",
    "classification3d": "classify",
    "description3d": "describe",
}
REFERRING = ("classification3d", "description3d")


@dataclass(frozen=True)
class LookAugmentation:
    """How what a detector gave is changed at each draw, so that a model does not trust it blindly.

    Args:
        jitter: standard deviation of the centre in sizes of the box, and of the size's logarithm.
        drop: share of the regions that are left out.
        intruders: share of the regions of another scene that are put in.
        rename: share of the regions whose label becomes that of another.
        color: standard deviation of a shift of all colours.
    """

    jitter: float = 0.05
    drop: float = 0.05
    intruders: float = 0.03
    rename: float = 0.03
    color: float = 0.02

    def __post_init__(self) -> None:
        for name in ("jitter", "drop", "intruders", "rename", "color"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to below 1")

    def __call__(
        self,
        look: RegionFeatures,
        other: RegionFeatures,
        spared: int | None,
        generator: torch.Generator,
    ) -> tuple[RegionFeatures, list[int]]:
        """A changed look, and where each region is in it, -1 where it was dropped.

        Args:
            look: the regions of a scene.
            other: those of another, whose regions may intrude.
            spared: a region that is never dropped.
            generator: of the changes.
        """
        if not len(look.boxes):
            return look, []

        def rand(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        keep = rand(len(look.boxes)) >= self.drop
        if spared is not None:
            keep[spared] = True
        places = torch.where(keep, keep.cumsum(0) - 1, -1).tolist()
        look = look.select(keep)
        added = other.select(rand(len(other.boxes)) < self.intruders)
        boxes, count = _join(look.boxes, added.boxes), len(look.boxes) + len(added.boxes)
        labels = list(boxes.labels)
        for place in (rand(count) < self.rename).nonzero().flatten().tolist():
            labels[place] = boxes.labels[int(rand(1) * count)]
        boxes = Boxes(
            boxes.centres + self.jitter * boxes.sizes * randn(count, 3),
            boxes.sizes * (self.jitter * randn(count, 3)).exp(),
            boxes.headings,
            boxes.scores,
            tuple(labels),
        )
        colors = None
        if look.colors is not None and added.colors is not None:
            shift = (self.color * randn(3)).repeat_interleave(3)
            colors = (torch.cat([look.colors, added.colors]) + shift).clamp(0, 1)
        return RegionFeatures(boxes, torch.cat([look.features, added.features]), colors), places


@dataclass(frozen=True)
class Example:
    """One record with the scan that it is about."""

    kind: str
    questions: list[str]
    answers: list[str]
    look: RegionFeatures
    marked: int | None


@dataclass(frozen=True)
class DescribedObject:
    """An object that records refer to: its name, its box (centre and size, in world coordinates),
    and what is said of it."""

    name: str
    box: list[float]
    texts: list[str]


class Instructions(Dataset[Example]):
    """Records with their scans."""

    def __init__(
        self,
        records: Records,
        scans: Mapping[str, EncodedScan],
        *,
        augment: LookAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.records, self.scans, self.augment, self.seed = records, scans, augment, seed
        self._names = sorted(scans)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record: Any = self.records[index]
        scan = self.scans[record["scene_id"]]
        look, kind = scan.look, record["task_type"]
        marked = match(scan, record["box"]) if kind in REFERRING else None
        if self.augment is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            name = self._names[int(torch.randint(len(self._names), (1,), generator=generator))]
            look, places = self.augment(look, self.scans[name].look, marked, generator)
            marked = None if marked is None else places[marked]
        turns = [turn["value"] for turn in record["conversations"]]
        return Example(kind, turns[::2], turns[1::2], look, marked)


def collate(examples: Sequence[Example], processor: SceneLMProcessor) -> dict[str, Any]:
    """A batch for training, with the task of each row under `kinds`."""
    batch = processor(
        [example.questions for example in examples],
        [example.look for example in examples],
        [example.answers for example in examples],
        task=[PROMPTED[example.kind] for example in examples],
        marked=[example.marked for example in examples],
    )
    return {**batch, "kinds": [example.kind for example in examples]}


def read_scans(folder: Path, names: Sequence[str]) -> dict[str, EncodedScan]:
    """Encoded scans by name.

    Raises:
        InputError: one is missing or no encoded scan.
    """
    missing = [name for name in names if not (folder / f"{name}.safetensors").is_file()]
    if missing:
        raise InputError(
            f"{folder}: no encoded scan {missing[0]}, one of {len(missing)} that the records are "
            "about; run `o2s encode` on the prepared scans"
        )
    return {name: encoded.read(folder / f"{name}.safetensors") for name in names}


def require_encoder(
    folder: Path, scans: Mapping[str, EncodedScan], width: int, parts: Mapping[str, str]
) -> None:
    """Raise InputError unless scans were encoded as a model does it that reads F numbers a region,
    with detector and region encoder of these digests (`encoder.part_digests`)."""
    for name, scan in scans.items():
        found = scan.look.features.shape[1]
        other = [part for part, digest in scan.parts.items() if parts[part] != digest]
        if found != width or other:
            raise InputError(
                f"{folder / name}.safetensors: encoded with another "
                f"{' and '.join(other) or 'region encoder'} than the model has; run `o2s encode` "
                "with the model's config (--config, --set encoder.…) into another folder"
            )


def usable(records: Records, scans: Mapping[str, EncodedScan]) -> Records:
    """The records of tasks that are learned; of those about one object, where it was detected."""
    kept = [
        i
        for i, (kind, scene, box) in enumerate(
            zip(records["task_type"], records["scene_id"], records["box"], strict=True)
        )
        if kind in PROMPTED and (kind not in REFERRING or match(scans[scene], box) is not None)
    ]
    return records.select(kept)


def seen_objects(records: Records, scans: Mapping[str, EncodedScan]) -> list[SeenObject]:
    """The objects that records refer to, where they were detected, with what is said of them."""
    found: list[SeenObject] = []
    for scene, objects in described_objects(records).items():
        look = scans[scene].look
        for o in objects.values():
            place = match(scans[scene], o.box)
            if place is not None:
                colors = None if look.colors is None else look.colors[place]
                color = color_of(o.name, o.texts)
                label = look.boxes.labels[place]
                found.append(SeenObject(look.features[place], colors, label, o.name, color))
    return found


def described_objects(records: Records) -> dict[str, dict[str, DescribedObject]]:
    """The objects that records refer to, by scene and id."""
    found: dict[str, dict[str, DescribedObject]] = defaultdict(dict)
    columns = ("task_type", "scene_id", "object_id", "object_name", "box", "answers")
    for kind, scene, identity, name, box, answers in zip(
        *(records[column] for column in columns), strict=True
    ):
        if kind in REFERRING:
            known = DescribedObject(" ".join(name.split("_")), box, [])
            found[scene].setdefault(identity, known).texts.extend(answers)
    return found


def open_records(folder: Path) -> Records:
    """The records of one split. Raises InputError if there are none."""
    return load_records(folder)[0]


def mix_tasks(records: Records, weights: Mapping[str, float], length: int, seed: int) -> Records:
    """`length` records, each of a task drawn by the weights, those of a task in shuffled order.

    Raises:
        InputError: a task has a weight, and no records.
    """
    kinds = records["task_type"]
    sets: dict[str, Records] = {}
    for kind in weights:
        rows = [i for i, found in enumerate(kinds) if found == kind]
        if not rows:
            raise InputError(f"tasks: no records of {kind}; leave it out of the weights")
        sets[kind] = records.select(rows).shuffle(seed=seed)
    mixed = mix(sets, weights, seed)
    return mixed.select([i % len(mixed) for i in range(length)])


def match(scan: EncodedScan, box: Sequence[float]) -> int | None:
    """The region that is the object in a box (centre and size, in world coordinates), if one is."""
    wanted = torch.tensor([*box, 0.0], dtype=torch.float64)
    wanted[:3] -= scan.offset
    return same_box(wanted.float(), scan.look.boxes.tensor)


def _join(a: Boxes, b: Boxes) -> Boxes:
    return Boxes(
        torch.cat([a.centres, b.centres]),
        torch.cat([a.sizes, b.sizes]),
        torch.cat([a.headings, b.headings]),
        torch.cat([a.scores, b.scores]),
        (*a.labels, *b.labels),
    )
