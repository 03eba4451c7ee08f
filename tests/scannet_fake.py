"""Scans in ScanNet's raw layout, made of boxes and cylinders on a floor between walls.

The label table here is a small made-up one with the real table's columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from o2s.datasets.scannet_raw import Group, RawScan, write_raw_scan
from o2s.datasets.sens import Camera, Frame, write_sens

COLUMNS = ("id", "raw_category", "category", "count", "nyu40id", "nyuClass", "nyu40class")
LABELS = (
    (1, "wall", "wall", 90, 1, "wall", "wall"),
    (3, "floor", "floor", 80, 2, "floor", "floor"),
    (2, "chair", "chair", 70, 5, "chair", "chair"),
    (5, "office chair", "office chair", 60, 5, "chair", "chair"),
    (4, "table", "table", 50, 7, "table", "table"),
    (7, "cabinet", "cabinet", 40, 3, "cabinet", "cabinet"),
    (13, "pillow", "pillow", 30, 18, "pillow", "pillow"),
    (56, "trash can", "trash can", 20, 39, "garbage bin", "otherfurniture"),
    (1163, "object", "object", 10, 40, "", "otherprop"),
)
FURNITURE = tuple(label[1] for label in LABELS[2:])


def write_table(path: Path, labels: Sequence[Sequence[object]] = LABELS) -> Path:
    lines = ["\t".join(COLUMNS), *("\t".join(map(str, label)) for label in labels)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_download(raw: Path, splits: dict[str, Sequence[str]], **options: int) -> Path:
    """A folder as ScanNet's download leaves it; test scans have no labels and no alignment."""
    write_table(raw / "scannetv2-labels.combined.tsv")
    seed = 0
    for split, names in splits.items():
        (raw / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            folder = raw / ("scans_test" if split == "test" else "scans")
            write_raw_scan(make_scan(name, seed, labelled=split != "test", **options), folder)
            seed += 1
    return raw


def write_stream(scan: RawScan, folder: Path, frames: int = 6) -> Path:
    """A `.sens` stream beside a scan: the camera turns around at the middle of its vertices.

    Depth images are the vertices themselves, the nearest one in each pixel.
    """
    width, height = 64, 48
    intrinsic = np.array([[40.0, 0, 31.5, 0], [0, 40, 23.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    camera = Camera(width, height, intrinsic, np.eye(4))
    middle = scan.xyz.mean(axis=0) + np.array([0, 0, 1.0])
    path = folder / scan.name / f"{scan.name}.sens"

    def look(angle: float) -> Frame:
        ahead = np.array([np.cos(angle), np.sin(angle), -0.5])
        ahead /= np.linalg.norm(ahead)
        right = np.cross(ahead, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
        pose[:3, 3] = middle
        x, y, z = ((scan.xyz - middle) @ pose[:3, :3]).T
        ahead_of_us = z > 0.2
        column = np.rint(40 * x[ahead_of_us] / z[ahead_of_us] + 31.5).astype(int)
        row = np.rint(40 * y[ahead_of_us] / z[ahead_of_us] + 23.5).astype(int)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        depth = np.full((height, width), np.inf, np.float32)
        np.minimum.at(depth, (row[inside], column[inside]), z[ahead_of_us][inside])
        color = np.full((height, width, 3), 90, np.uint8)
        return Frame(color, depth, pose)

    angles = np.arange(frames) * 2 * np.pi / frames
    write_sens(path, map(look, angles), color_camera=camera, depth_camera=camera)
    return path


def make_scan(
    name: str, seed: int, *, objects: int = 6, detail: int = 4, labelled: bool = True
) -> RawScan:
    """A room of floor, two walls and `objects` pieces; `detail` is the grid of each surface."""
    rng = np.random.default_rng(seed)
    pieces = [
        ("floor", _grid([0, 0, 0], [5, 0, 0], [0, 4, 0], detail * 4)),
        ("wall", _grid([0, 0, 0], [5, 0, 0], [0, 0, 2.5], detail * 4)),
        ("wall", _grid([0, 0, 0], [0, 4, 0], [0, 0, 2.5], detail * 4)),
    ]
    for _ in range(objects):
        label = str(rng.choice(FURNITURE))
        corner = np.array([*rng.uniform(0.2, [4, 3]), 0])
        size = rng.uniform(0.2, 0.9, 3)
        make = _cylinder if rng.random() < 0.5 else _box
        pieces.append((label, make(corner, size, detail)))
    vertices, faces, owner = [], [], []
    for number, (_, (xyz, triangles)) in enumerate(pieces):
        faces.append(triangles + sum(map(len, vertices)))
        vertices.append(xyz)
        owner.append(np.full(len(xyz), number))
    xyz = np.concatenate(vertices) + rng.normal(0, 0.004, (sum(map(len, vertices)), 3))
    alignment = None
    if labelled:
        angle = rng.uniform(-np.pi, np.pi)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn[:3, 3] = rng.uniform(-3, 3, 3)
        alignment = np.round(turn, 6)
        xyz = (xyz - turn[:3, 3]) @ turn[:3, :3]
    # Segments are named by one of their vertices, as ScanNet's segmentator does.
    owner = np.concatenate(owner)
    cell = owner * 4 + (np.arange(len(owner)) // max(1, len(owner) // 200)) % 4
    _, first, number_of = np.unique(cell, return_index=True, return_inverse=True)
    segments = first[number_of].astype(np.int32)
    groups = tuple(
        Group(i, i, label, np.unique(segments[owner == i]).tolist())
        for i, (label, _) in enumerate(pieces)
    )
    return RawScan(
        name=name,
        xyz=xyz.astype(np.float32),
        rgb=rng.integers(0, 256, (len(xyz), 3), dtype=np.uint8),
        faces=np.concatenate(faces).astype(np.int32),
        alignment=alignment,
        segments=segments if labelled else None,
        groups=groups if labelled else None,
    )


def _grid(corner, along, across, cells: int) -> tuple[np.ndarray, np.ndarray]:
    steps = np.linspace(0, 1, cells + 1)
    u, v = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    xyz = np.array(corner) + u[:, None] * np.array(along) + v[:, None] * np.array(across)
    return xyz, _quads(cells + 1, cells + 1)


def _quads(rows: int, columns: int) -> np.ndarray:
    at = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack([at, at + 1, at + columns], axis=1)
    upper = np.stack([at + 1, at + columns + 1, at + columns], axis=1)
    return np.concatenate([lower, upper])


def _box(corner: np.ndarray, size: np.ndarray, detail: int) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = np.diag(size)
    sides = [(corner, x, z), (corner, y, z), (corner + z, x, y), (corner + x, y, z)]
    sides.append((corner + y, x, z))
    vertices, faces = [], []
    for side in sides:
        xyz, triangles = _grid(*side, detail)
        faces.append(triangles + sum(map(len, vertices)))
        vertices.append(xyz)
    return np.concatenate(vertices), np.concatenate(faces)


def _cylinder(corner: np.ndarray, size: np.ndarray, detail: int) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 4 * detail + 1)
    height = np.linspace(0, size[2], detail + 1)
    a, h = (m.ravel() for m in np.meshgrid(angle, height, indexing="ij"))
    radius = min(size[:2]) / 2
    round_it = np.stack([radius * np.cos(a), radius * np.sin(a), h], axis=1)
    return corner + np.array([radius, radius, 0]) + round_it, _quads(4 * detail + 1, detail + 1)
