"""The arrays that other projects' ScanNet scripts write, derived from prepared scans.

Names of files, types, coordinates and columns are those of votenet `scannet/`, ScanRefer
`data/scannet/` (also LL3DA's and Vote2Cap-DETR's), mmdetection3d `data/scannet/` and Pointcept
`datasets/preprocessing/scannet/`. What those scripts draw without a seed, a subset of 50,000
points, is drawn only if a seed is given.
"""

import contextlib
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, UInt32

from o2s.datasets.label_table import DETECTION, REFERRED
from o2s.datasets.preparation import Entry, Parsed, is_newer
from o2s.files import replacing
from o2s.io.labelled import LabelledScan
from o2s.ops.meshes import boxes_of, group_extents

Project = Literal["votenet", "scanrefer", "mmdet3d", "pointcept"]
Arrays = Mapping[str, np.ndarray]  # by path below the project's folder; .npy or .bin


@dataclass(frozen=True)
class Export:
    """The arrays of one project, written beside the prepared scans into a folder of its name."""

    project: Project
    subsample_seed: int | None = None

    @property
    def folder(self) -> str:
        return self.project

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"subsample_seed": self.subsample_seed} if self.project in _SUBSAMPLED else {}

    def is_current(self, entry: Entry, prepared: Path) -> bool:
        root = prepared.parent / self.folder
        return is_newer((root / name for name in files_of(self.project, entry)), prepared)

    def write(self, entry: Entry, parsed: Parsed, prepared: Path) -> None:
        self._clear(entry, prepared.parent / self.folder)
        arrays = arrays_of(self.project, entry, parsed, self.subsample_seed)
        for name, array in arrays.items():
            _write_array(prepared.parent / self.folder / name, array)

    def _clear(self, entry: Entry, root: Path) -> None:
        """Remove what an earlier run wrote, when the scan had another split or annotation."""
        for split in ("train", "val", "test"):
            for pattern in sum(_FILES[self.project], ()):
                (root / pattern.format(name=entry.name, split=split)).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another project's, or not there
                (root / split / entry.name).rmdir()


def files_of(project: Project, entry: Entry) -> list[str]:
    """The files that a project's script writes for one scan, below its folder of data."""
    always, labelled = _FILES[project]
    patterns = always + (labelled if _has_labels(project, entry) else ())
    split = entry.split if entry.split in _ANNOTATED else "test"
    return [pattern.format(name=entry.name, split=split) for pattern in patterns]


def arrays_of(
    project: Project, entry: Entry, parsed: Parsed, subsample_seed: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays of one scan by the file that holds them.

    Without a seed every vertex is kept. With one, VoteNet's and ScanRefer's 50,000 are drawn by the
    seed and the scan's name alone.
    """
    arrays = _DERIVE[project](parsed, _has_labels(project, entry))
    if subsample_seed is not None and project in _SUBSAMPLED and len(parsed.scan) > _MOST_POINTS:
        generator = np.random.default_rng([subsample_seed, zlib.crc32(entry.name.encode())])
        chosen = generator.choice(len(parsed.scan), _MOST_POINTS, replace=False)
        arrays = [a[chosen] if len(a) == len(parsed.scan) else a for a in arrays]
    return dict(zip(files_of(project, entry), arrays, strict=True))


def _votenet(parsed: Parsed, labelled: bool) -> list[np.ndarray]:
    """float32 [N, 6] aligned xyz, rgb; uint32 [N] nyu40; uint32 [N] object id + 1; float64 [R, 7]
    aligned centre, size, nyu40 of the 18 classes. Nothing for test scans, which it cannot read."""
    if not labelled:
        return []
    scan = parsed.scan
    aligned = scan.aligned_xyz.astype(np.float32)
    boxes = _boxes(aligned, scan, DETECTION)
    return [_vertices(aligned, scan), _nyu40(scan), _instances(scan), boxes]


def _scanrefer(parsed: Parsed, labelled: bool) -> list[np.ndarray]:
    """float32 [N, 9] raw xyz, rgb, normals; the same aligned, but for the normals; labels as in
    VoteNet; float64 [R, 8] raw centre, size, nyu40 of the 37 classes, object id; the same aligned.

    Zeros as placeholders for test scans. The only object of a scan stays whatever its class.
    """
    scan = parsed.scan
    assert parsed.faces is not None
    aligned = scan.aligned_xyz.astype(np.float32)
    normals = _scanrefer_normals(scan.xyz, parsed.faces)
    vertices = [np.hstack([_vertices(xyz, scan), normals]) for xyz in (scan.xyz, aligned)]
    if not labelled:
        none = np.zeros(len(scan), np.uint32)
        return [*vertices, none, none, np.zeros((1, 8)), np.zeros((1, 8))]
    assert scan.objects is not None
    ids = np.sort(scan.objects.ids)[:, None]
    both = [np.insert(_boxes(xyz, scan), [7], ids, axis=1) for xyz in (scan.xyz, aligned)]
    if parsed.groups > 1:
        both = [boxes[np.isin(boxes[:, 6], REFERRED)] for boxes in both]
    return [*vertices, _nyu40(scan), _instances(scan), *both]


def _mmdet3d(parsed: Parsed, labelled: bool) -> list[np.ndarray]:
    """float32 [N, 6] raw xyz, rgb; labels as in VoteNet; float64 [R, 7] boxes of the 18 classes,
    unaligned and aligned; float64 [4, 4] alignment; points, and labels as int64, once more."""
    scan = parsed.scan
    vertices = _vertices(scan.xyz, scan)
    if not labelled:
        return [vertices, vertices]
    nyu40, instances = _nyu40(scan), _instances(scan)
    boxes = [_boxes(xyz, scan, DETECTION) for xyz in (scan.xyz, scan.aligned_xyz)]
    masks = [nyu40.astype(np.int64), instances.astype(np.int64)]
    return [vertices, vertices, nyu40, instances, *boxes, scan.alignment, *masks]


def _pointcept(parsed: Parsed, labelled: bool) -> list[np.ndarray]:
    """float32 [N, 3] raw xyz; uint8 [N, 3] rgb; float32 [N, 3] normals; int64 [N] classes of the
    lists of 20 and 200 and number of the group, each -1 for none. The first three lie column by
    column in their files, as pandas leaves them."""
    scan = parsed.scan
    assert scan.rgb is not None
    assert scan.normals is not None
    arrays = [np.asfortranarray(a) for a in (scan.xyz, scan.rgb, scan.normals)]
    if labelled:
        assert scan.objects is not None
        group_ids = np.full(max([-1, *scan.objects.ids.tolist()]) + 2, -1)
        group_ids[scan.objects.ids] = scan.objects.group_ids  # the last stays -1, as for -1: none
        arrays += [scan.classes[name].astype(np.int64) for name in ("scannet20", "scannet200")]
        arrays.append(group_ids[scan.instance])
    return arrays


def _vertices(xyz: Float32[np.ndarray, "N 3"], scan: LabelledScan) -> Float32[np.ndarray, "N 6"]:
    assert scan.rgb is not None
    return np.hstack([xyz, scan.rgb.astype(np.float32)])


def _nyu40(scan: LabelledScan) -> UInt32[np.ndarray, "N"]:
    return scan.classes["nyu40"].astype(np.uint32)


def _instances(scan: LabelledScan) -> UInt32[np.ndarray, "N"]:
    assert scan.instance is not None
    return (scan.instance + 1).astype(np.uint32)


def _boxes(
    points: Float[np.ndarray, "N 3"], scan: LabelledScan, classes: tuple[int, ...] | None = None
) -> Float64[np.ndarray, "R 7"]:
    """Centre, size and nyu40 class of the objects by their ids, of the given classes only.

    Centre and size are computed in the type of the points: float32 in VoteNet and ScanRefer, and
    for mmdet3d's unaligned boxes, float64 for its aligned ones.
    """
    assert scan.objects is not None
    assert scan.instance is not None
    ids, nyu40 = scan.objects.ids, scan.objects.classes["nyu40"]
    order = np.argsort(ids)
    boxes = boxes_of(*group_extents(points, scan.instance, int(max([0, *(ids + 1)]))))
    nyu40 = nyu40[order]
    boxes = np.hstack([boxes[ids[order]], nyu40[:, None]])
    return boxes if classes is None else boxes[np.isin(nyu40, classes)]


def _scanrefer_normals(
    xyz: Float32[np.ndarray, "N 3"], faces: Int32[np.ndarray, "F 3"]
) -> Float32[np.ndarray, "N 3"]:
    """ScanRefer's vertex normals: of each corner's faces only the last one counts.

    Their script adds to an indexed array, which NumPy does once for each vertex however often it
    is named, so the result is a sum of at most three face normals.
    """
    corners = xyz[faces]
    face = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    normals = np.zeros_like(xyz)
    for corner in range(3):
        normals[faces[:, corner]] += face
    return _unit(normals)


def _unit(vectors: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    x, y, z = vectors.T
    return vectors / (np.sqrt(x**2 + y**2 + z**2) + 1e-8)[:, None]


def _has_labels(project: Project, entry: Entry) -> bool:
    """mmdet3d reads no labels of the scans of the test split, Pointcept of those of no split."""
    if project == "pointcept":
        return entry.labelled and entry.split in _ANNOTATED
    return entry.labelled and (project != "mmdet3d" or entry.split != "test")


def _write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".bin":
            temporary.write_bytes(array.tobytes())
        else:
            buffer = io.BytesIO()
            np.save(buffer, array)
            temporary.write_bytes(buffer.getbuffer())


_ANNOTATED = ("train", "val")
_MOST_POINTS = 50_000
_SUBSAMPLED: tuple[Project, ...] = ("votenet", "scanrefer")
_DERIVE: dict[Project, Callable[[Parsed, bool], list[np.ndarray]]] = {
    "votenet": _votenet,
    "scanrefer": _scanrefer,
    "mmdet3d": _mmdet3d,
    "pointcept": _pointcept,
}


def _names(pattern: str, keys: str) -> tuple[str, ...]:
    return tuple(pattern.replace("*", key) for key in keys.split())


# The files of every scan, and those of annotated scans, in the order in which arrays are derived.
_FILES: dict[Project, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "votenet": (
        (),
        _names("scannet_train_detection_data/{name}_*.npy", "vert sem_label ins_label bbox"),
    ),
    "scanrefer": (
        _names(
            "scannet_data/{name}_*.npy",
            "vert aligned_vert sem_label ins_label bbox aligned_bbox",
        ),
        (),
    ),
    "mmdet3d": (
        ("scannet_instance_data/{name}_vert.npy", "points/{name}.bin"),
        (
            *_names(
                "scannet_instance_data/{name}_*.npy",
                "sem_label ins_label unaligned_bbox aligned_bbox axis_align_matrix",
            ),
            *_names("*_mask/{name}.bin", "semantic instance"),
        ),
    ),
    "pointcept": (
        _names("{split}/{name}/*.npy", "coord color normal"),
        _names("{split}/{name}/*.npy", "segment20 segment200 instance"),
    ),
}
