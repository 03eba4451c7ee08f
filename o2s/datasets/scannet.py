"""ScanNet, from the raw download to labelled scans.

RAW is the folder that ScanNet's download script fills: `scans/` and `scans_test/` with a folder a
scan, and the label table. A folder that holds the scans' folders directly will do as well.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Int32

from o2s.datasets.label_table import (
    BENCHMARK,
    DETECTION,
    REFERRED,
    SPLITS,
    TABLE,
    LabelTable,
    find_file,
    find_splits,
    read_label_table,
    read_split,
)
from o2s.datasets.preparation import Entry, Parsed
from o2s.datasets.scannet_raw import (
    GROUPS,
    MESH,
    SEGMENTS,
    Group,
    RawScan,
    parse_raw_scan,
    raw_files,
)
from o2s.errors import InputError
from o2s.io.cloud import quote
from o2s.io.labelled import LabelledScan, Objects
from o2s.ops.meshes import boxes_of, group_extents, vertex_normals


@dataclass(frozen=True)
class ScanNet:
    """The raw scans of ScanNet as a source for `prepare`.

    `split` is train, val, test, or a file that names scans; None takes all scans that are there.
    Split files and label table are looked for in RAW, RAW/meta_data and RAW/Tasks/Benchmark, the
    split files also beside the label table.

    Raises:
        InputError: RAW, the label table or a split file that is needed is missing or broken.
    """

    raw: Path
    split: str | None = None
    label_table: Path | None = None

    dataset = "scannet"

    def __post_init__(self) -> None:
        if not self.raw.is_dir():
            raise InputError(f"{self.raw}: no such folder; expected ScanNet's raw scans")
        _ = self.table, self.members

    @cached_property
    def table(self) -> LabelTable:
        """The label table, read once a process."""
        path = self.label_table or find_file([self.raw], TABLE)
        if path is None:
            raise InputError(f"{self.raw}: no {TABLE} in it; give its place with --labels")
        return read_label_table(path)

    @property
    def checksum(self) -> str:
        return self.table.checksum

    @cached_property
    def splits(self) -> dict[str, str]:
        """The split of each scan that a split file names; of several, the first."""
        beside = [] if self.label_table is None else [self.label_table.parent]
        splits: dict[str, str] = {}
        for split, path in find_splits([self.raw, *beside]).items():
            for name in read_split(path):
                splits.setdefault(name, split)
        return splits

    def require_splits(self) -> None:
        """Raise InputError unless the splits of train and val are known."""
        for split in ("train", "val"):
            if split not in self.splits.values():
                raise InputError(
                    f"{self.raw}: no scannetv2_{split}.txt in it, by which Pointcept sorts scans; "
                    "copy it from Tasks/Benchmark of ScanNet's repository"
                )

    @cached_property
    def members(self) -> list[str] | None:
        """The scans that `split` names; None for all."""
        if self.split is None:
            return None
        if self.split not in SPLITS:
            if not Path(self.split).exists():
                choices = f"{', '.join(SPLITS)} or a file of scan ids"
                raise InputError(f"--split is {quote(self.split)}; expected {choices}")
            return read_split(Path(self.split))
        members = [name for name, split in self.splits.items() if split == self.split]
        if not members:
            raise InputError(f"{self.raw}: no scannetv2_{self.split}.txt in it; --split wants it")
        return members

    def entries(self) -> list[Entry]:
        folders = self._folders()
        names = sorted(folders) if self.members is None else self.members
        entries = [self._entry(folders[name]) for name in names if name in folders]
        if not entries:
            wanted = "" if self.split is None else f" of split {self.split}"
            raise InputError(
                f"{self.raw}: no scans{wanted} in it; expected folders such as scans/scene0000_00"
            )
        return entries

    def missing(self) -> dict[str, str]:
        folders = self._folders()
        return {
            name: f"{self.raw}: no folder of scan {name}, which split {self.split} names"
            for name in self.members or ()
            if name not in folders
        }

    def files(self, entry: Entry) -> Mapping[str, Path]:
        return raw_files(entry.path, labelled=entry.labelled)

    def parse(self, entry: Entry, content: Mapping[str, bytes]) -> Parsed:
        raw = parse_raw_scan(entry.path, content)
        for group in raw.groups or ():
            if group.label not in self.table.nyu40:
                raise InputError(
                    f"{entry.path / entry.name}{GROUPS}: group {group.id} has the label "
                    f"{quote(group.label)}, which is not in {self.table.path}"
                )
        scan, notes = label_scan(raw, self.table, split=entry.split)
        return Parsed(scan, raw.faces, notes, groups=len(raw.groups or ()))

    def _folders(self) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        for parent in (self.raw, self.raw / "scans", self.raw / "scans_test"):
            if not parent.is_dir():
                continue
            for folder in sorted(parent.iterdir()):
                if not _is_scan(folder):
                    continue
                if folder.name in folders:
                    raise InputError(f"{folder}: {folders[folder.name]} is the same scan; keep one")
                folders[folder.name] = folder
        return folders

    def _entry(self, folder: Path) -> Entry:
        in_test = folder.parent.name == "scans_test"
        split = self.splits.get(folder.name) or ("test" if in_test else None)
        annotated = _has_any(folder, (SEGMENTS, GROUPS)) or split in ("train", "val")
        return Entry(folder.name, folder, split, annotated)


def label_scan(
    raw: RawScan, table: LabelTable, *, split: str | None = None
) -> tuple[LabelledScan, tuple[str, ...]]:
    """A raw scan with normals, classes, instances and boxes; and notes on what is odd about it.

    Where groups share a segment the later group has it. Class `nyu40` of such a segment is that of
    the label which comes last in the order of the labels' first groups, and the class of an object
    is that of its first segment, as VoteNet's and mmdet3d's scripts have it; classes 20 and 200
    are the later group's, as in Pointcept. Everywhere else these are one and the same.

    Raises:
        InputError: a group's label is not in the table.
    """
    alignment = np.eye(4) if raw.alignment is None else raw.alignment
    scan = LabelledScan(
        name=raw.name,
        dataset=ScanNet.dataset,
        split=split,
        xyz=raw.xyz,
        rgb=raw.rgb,
        normals=vertex_normals(raw.xyz, raw.faces),
        alignment=alignment,
    )
    if raw.segments is None or raw.groups is None:
        return scan, ()
    segments = _Segments(raw.segments, raw.groups)
    group_of = segments.owner[segments.of_vertex]  # [N], -1 for none
    nyu40_of_segment = segments.label_in_order(table.nyu40)
    nyu40 = nyu40_of_segment[segments.of_vertex]
    in_20 = _ranks([table.first_nyu40[g.label] for g in raw.groups], BENCHMARK)
    in_200 = _ranks([table.ids[g.label] for g in raw.groups], table.scannet200)
    object_nyu40 = nyu40_of_segment[segments.first_of_group]
    aligned = scan.aligned_xyz
    kept = np.flatnonzero(np.bincount(group_of[group_of >= 0], minlength=len(raw.groups)))
    objects = Objects(
        ids=np.array([raw.groups[g].object_id for g in kept], np.int32),
        group_ids=np.array([raw.groups[g].id for g in kept], np.int32),
        names=tuple(raw.groups[g].label for g in kept),
        boxes=boxes_of(*group_extents(aligned, group_of, len(raw.groups)))[kept],
        raw_boxes=boxes_of(*group_extents(raw.xyz, group_of, len(raw.groups)))[kept],
        classes={
            "nyu40": object_nyu40[kept],
            "scannet18": _ranks(object_nyu40[kept], DETECTION),
            "scannet20": in_20[kept],
            "scannet37": _ranks(object_nyu40[kept], REFERRED),
            "scannet200": in_200[kept],
        },
    )
    labelled = replace(
        scan,
        segments=raw.segments,
        instance=_pick([g.object_id for g in raw.groups], group_of, np.int32),
        classes={
            "nyu40": nyu40,
            "scannet18": _ranks(nyu40, DETECTION),
            "scannet20": _pick(in_20, group_of, np.int16),
            "scannet200": _pick(in_200, group_of, np.int16),
        },
        objects=objects,
        class_names=table.class_names,
    )
    lost = [str(g.object_id) for i, g in enumerate(raw.groups) if i not in set(kept.tolist())]
    if not lost:
        return labelled, ()
    plural = "objects" if len(lost) > 1 else "object"
    note = f"later groups claim all segments of {plural} {', '.join(lost)}, left out"
    return labelled, (note,)


class _Segments:
    """Which groups claim which segments; segments are numbered in the order of their ids."""

    def __init__(self, segments: Int32[np.ndarray, "N"], groups: Sequence[Group]) -> None:
        ids = np.unique(segments)
        self.of_vertex = np.searchsorted(ids, segments)
        self.groups = groups
        self.of_group = [np.searchsorted(ids, group.segments) for group in groups]
        self.first_of_group = np.array([s[0] for s in self.of_group], np.int64)
        self.owner = np.full(len(ids), -1, np.int32)
        for number, claimed in enumerate(self.of_group):
            self.owner[claimed] = number

    def label_in_order(self, class_of: Mapping[str, int]) -> Int16[np.ndarray, "S"]:
        """The class of each segment, 0 for none, written label by label."""
        classes = np.zeros(len(self.owner), np.int16)
        by_label: dict[str, list[np.ndarray]] = {}
        for group, claimed in zip(self.groups, self.of_group, strict=True):
            by_label.setdefault(group.label, []).append(claimed)
        for label, claims in by_label.items():
            classes[np.concatenate(claims)] = class_of[label]
        return classes


def _ranks(
    ids: Sequence[int] | Int16[np.ndarray, "N"], chosen: Sequence[int]
) -> Int16[np.ndarray, "N"]:
    """The place of each id in a class list, -1 where it has none."""
    place = {number: rank for rank, number in enumerate(chosen)}
    distinct, which = np.unique(np.asarray(ids, np.int64), return_inverse=True)
    return np.array([place.get(i, -1) for i in distinct.tolist()], np.int16)[which]


def _pick(
    values: Sequence[int] | Int16[np.ndarray, "G"], group_of: Int32[np.ndarray, "N"], dtype: type
) -> np.ndarray:
    """The value of each vertex's group, -1 for none."""
    return np.append(np.asarray(values, dtype), dtype(-1))[group_of]


def _is_scan(folder: Path) -> bool:
    if re.fullmatch(r"scene\d{4}_\d{2}", folder.name):
        return folder.is_dir() or folder.is_symlink()  # a link to nowhere is a missing scan
    return folder.is_dir() and _has_any(folder, (MESH, SEGMENTS, GROUPS))


def _has_any(folder: Path, suffixes: Sequence[str]) -> bool:
    """Whether a scan's folder holds one of these files; True where it may not be looked into."""
    try:
        return any((folder / f"{folder.name}{suffix}").exists() for suffix in suffixes)
    except OSError:
        return True
