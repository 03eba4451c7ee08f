"""A laid-out room as ScanNet would have it: triangles, a simulated scan, annotation, facts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, UInt8
from scipy.spatial import KDTree

from o2s.datasets.color_names import color_name, name_of
from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_classes import CLASSES
from o2s.datasets.fusion import FusedMesh, fuse
from o2s.datasets.oversegmentation import oversegment, split_by_owner
from o2s.datasets.room_facts import RoomFacts, RoomObject
from o2s.datasets.room_geometry import contains
from o2s.datasets.room_layout import RoomPlan, placed_vertices
from o2s.datasets.room_phrases import same_color
from o2s.datasets.scannet_raw import Group, RawScan
from o2s.datasets.sens import Frame
from o2s.datasets.simulated_camera import (
    Triangles,
    kinect_camera,
    plan_walk,
    simulate_frames,
)
from o2s.ops.meshes import group_extents, sample_faces

FRAMES, EVERY = 160, 8  # depth frames that are fused, and of how many one goes into the stream
DEPTH_CAMERA = kinect_camera()
COLOR_CAMERA = kinect_camera(320, 240)
WANTED_VERTICES = 72_000
LEAST_VERTICES = 15  # of an object that is annotated
SEEN_COLOR = 0.3  # of an object's vertices that show its colour, in shadow and noise


@dataclass(frozen=True)
class ScannedRoom:
    """A scan in raw coordinates, the frames for its stream, and what is known of the room."""

    scan: RawScan
    frames: Sequence[Frame]
    facts: RoomFacts
    keys: tuple[str, ...]  # of the pieces of furniture in it


def scan_room(
    plan: RoomPlan,
    library: FurnitureLibrary,
    rng: np.random.Generator,
    *,
    name: str,
    split: str,
) -> ScannedRoom:
    """Walk through a room with a simulated camera and fuse what it sees.

    The room is turned by a random angle, which the scan's alignment undoes; aligned coordinates
    have the middle of the floor's extent at their origin, and the floor at z = 0.
    """
    shell, labels, surfaces = _shell(plan, rng)
    triangles, owners = _furnished(plan, library, shell, len(labels))
    labels += [CLASSES[p.piece.label][0] for p in plan.placements]
    on_floor = [i for i, p in enumerate(plan.placements) if p.position[2] < 1.0]
    blocked = np.array([_footprint(plan, library, i) for i in on_floor]).reshape(-1, 4)
    poses = plan_walk(rng, plan.floor, blocked, plan.height, FRAMES)
    low, high = triangles.vertices.min(axis=0) - 0.15, triangles.vertices.max(axis=0) + 0.15
    voxel = float(np.clip(np.sqrt(surfaces / WANTED_VERTICES), 0.02, 0.04))
    fused = fuse(
        simulate_frames(triangles, poses, DEPTH_CAMERA, rng),
        depth_camera=DEPTH_CAMERA,
        bounds=np.stack([low, high]).astype(np.float64),
        voxel=voxel,
    )
    middle = (plan.floor.min(axis=0) + plan.floor.max(axis=0)) / 2
    to_raw = np.linalg.inv(_alignment(rng)) @ _shift(-middle)
    kept, segments, groups = _annotate(fused, labels)
    scan = RawScan(
        name=name,
        xyz=_moved(fused.xyz, to_raw).astype(np.float32),
        rgb=fused.rgb,
        faces=fused.faces,
        alignment=_shift(-middle) @ np.linalg.inv(to_raw),
        segments=segments,
        groups=groups,
    )
    facts = RoomFacts(
        name=name,
        split=split,
        kind=plan.kind,
        objects=tuple(_facts(plan, library, fused, triangles, owners, kept, middle)),
        floor=tuple((float(x), float(y)) for x, y in plan.floor - middle),
        unseen=tuple(
            sorted(
                {
                    placement.piece.label
                    for placement, owner in zip(plan.placements, owners.tolist(), strict=True)
                    if owner not in kept
                }
            )
        ),
    )
    frames = [
        Frame(f.color, f.depth, to_raw @ f.measured_pose, timestamp=i * EVERY * 33_333)
        for i, f in enumerate(
            simulate_frames(triangles, poses[::EVERY], DEPTH_CAMERA, rng, color_camera=COLOR_CAMERA)
        )
    ]
    return ScannedRoom(scan, frames, facts, tuple(p.piece.key for p in plan.placements))


def _shell(plan: RoomPlan, rng: np.random.Generator) -> tuple[Triangles, list[str], float]:
    """Floor, walls and ceiling with their labels and area; the floor is laid out in planks."""
    wall = _pastel(rng, 150, 245)
    wood = np.array(
        [[150, 105, 65], [190, 150, 105], [120, 120, 125], [210, 200, 185], [95, 70, 50]]
    )
    planks = wood[rng.integers(len(wood))] + rng.integers(-12, 13, 3)
    low, high = plan.floor.min(axis=0), plan.floor.max(axis=0)
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    steps = [np.arange(a, b, size) for a, b, size in zip(low, high, (0.9, 0.15), strict=True)]
    for x in steps[0]:
        for y in steps[1]:
            end = np.minimum([x + 0.9, y + 0.15], high)
            if not contains(plan.floor, (np.array([x, y]) + end) / 2):
                continue
            quad = np.array([[x, y, 0], [end[0], y, 0], [*end, 0], [x, end[1], 0]])
            color = np.clip(planks + rng.normal(0, 7), 0, 255)
            pieces.append((quad, _QUAD, color, 0))
    labels = ["floor"]
    corners = len(plan.floor)
    for i in range(corners):
        (x0, y0), (x1, y1) = plan.floor[i], plan.floor[(i + 1) % corners]
        top = plan.height
        quad = np.array([[x0, y0, 0], [x1, y1, 0], [x1, y1, top], [x0, y0, top]])
        accent = _pastel(rng, 120, 235) if rng.random() < 0.15 else wall
        pieces.append((quad, _QUAD, accent, len(labels)))
        labels.append("wall")
    x, y = np.array([low, [low[0], high[1]], high, [high[0], low[1]]]).T
    ceiling = np.stack([x, y, np.full(4, plan.height)], axis=1)
    pieces.append((ceiling, _QUAD, np.array([240, 240, 235]), len(labels)))
    labels.append("ceiling")
    sides = np.linalg.norm(np.roll(plan.floor, -1, axis=0) - plan.floor, axis=1)
    x, y = plan.floor.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return _joined(pieces), labels, float(sides.sum() * plan.height * 0.8 + area * 1.6)


def _furnished(
    plan: RoomPlan, library: FurnitureLibrary, shell: Triangles, first: int
) -> tuple[Triangles, Int32[np.ndarray, "R"]]:
    """The shell and all pieces as one set of triangles, and the owner of each piece."""
    pieces = [(shell.vertices, shell.faces, shell.colors, shell.owner)]
    for i, placement in enumerate(plan.placements):
        mesh = library.load(placement.piece)
        owner = np.full(len(mesh.faces), first + i)
        pieces.append((placed_vertices(mesh, placement), mesh.faces, mesh.colors, owner))
    return _joined(pieces), np.arange(first, first + len(plan.placements), dtype=np.int32)


def _joined(pieces: Sequence[tuple[Any, Any, Any, Any]]) -> Triangles:
    starts = np.cumsum([0, *(len(vertices) for vertices, *_ in pieces)])
    faces = [f + start for (_, f, _, _), start in zip(pieces, starts, strict=False)]
    return Triangles(
        np.concatenate([v for v, *_ in pieces]).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
        np.concatenate([np.broadcast_to(c, (len(f), 3)) for _, f, c, _ in pieces]).astype(np.uint8),
        np.concatenate([np.broadcast_to(o, len(f)) for _, f, _, o in pieces]).astype(np.int32),
    )


def _footprint(plan: RoomPlan, library: FurnitureLibrary, index: int) -> Float64[np.ndarray, "4"]:
    placement = plan.placements[index]
    xy = placed_vertices(library.load(placement.piece), placement)[:, :2]
    return np.array([*xy.min(axis=0), *xy.max(axis=0)])


def _annotate(
    fused: FusedMesh, labels: Sequence[str]
) -> tuple[dict[int, int], Int32[np.ndarray, "N"], tuple[Group, ...]]:
    """Object ids of the owners that the scan shows, segments, and ScanNet's groups of them."""
    segments = split_by_owner(oversegment(fused.xyz, fused.faces), fused.owner)
    counts = np.bincount(fused.owner[fused.owner >= 0], minlength=len(labels))
    kept = {int(owner): i for i, owner in enumerate(np.flatnonzero(counts >= LEAST_VERTICES))}
    groups = tuple(
        Group(number, number, labels[owner], np.unique(segments[fused.owner == owner]).tolist())
        for owner, number in kept.items()
    )
    return kept, segments, groups


def _facts(
    plan: RoomPlan,
    library: FurnitureLibrary,
    fused: FusedMesh,
    triangles: Triangles,
    owners: Int32[np.ndarray, "R"],
    kept: dict[int, int],
    middle: Float64[np.ndarray, "2"],
) -> Iterator[RoomObject]:
    """What is known of each annotated piece; boxes are those of its annotated vertices."""
    low, high = group_extents(
        fused.xyz - np.array([*middle, 0], np.float32), fused.owner, int(triangles.owner.max()) + 1
    )
    for placement, owner in zip(plan.placements, owners.tolist(), strict=True):
        if owner not in kept:
            continue
        mine = triangles.owner == owner
        box = np.concatenate([(low[owner] + high[owner]) / 2, high[owner] - low[owner]])
        mesh = library.load(placement.piece)
        below = None if placement.on is None else kept.get(int(owners[placement.on]))
        yield RoomObject(
            id=kept[owner],
            label=placement.piece.label,
            fine=placement.piece.fine,
            color=seen_color(
                color_name(mesh.vertices, mesh.faces, mesh.colors), fused.rgb[fused.owner == owner]
            ),
            material=None,
            box=tuple(round(float(value), 4) for value in box),
            heading=round(float((placement.heading + np.pi) % (2 * np.pi) - np.pi), 4),
            on=below,
            seen=_share_seen(triangles, mine, fused.xyz[fused.owner == owner]),
            size=tuple(float(side) for side in placement.piece.size),
        )


def seen_color(color: str | None, scanned: UInt8[np.ndarray, "N 3"]) -> str | None:
    """The colour of most of a piece's surface, unless what was scanned of it is of another: a
    picture's back may be larger than what is to be seen of it."""
    if color is None:
        return None
    names = Counter(name_of(rgb) for rgb in scanned[:: 1 + len(scanned) // 500])
    (commonest, _), *_ = names.most_common(1)
    told = names[color] >= SEEN_COLOR * names.total()
    return color if told or same_color(color, commonest) is not False else None


def _share_seen(triangles: Triangles, mine: np.ndarray, scanned: np.ndarray) -> float:
    """The share of a piece's surface that has a vertex of the scan within 5 centimetres."""
    corners = triangles.vertices[triangles.faces[mine]].astype(np.float64)
    _, points = sample_faces(corners, 400, np.random.default_rng(0))
    if not len(points):
        return 0.0
    near, _ = KDTree(scanned).query(points, distance_upper_bound=0.05)
    return round(float(np.isfinite(near).mean()), 3)


def _alignment(rng: np.random.Generator) -> Float64[np.ndarray, "4 4"]:
    """A turn about z and a shift, as between a scan's start and the axes of its room."""
    angle = rng.uniform(-np.pi, np.pi)
    matrix = _shift(rng.uniform(-4, 4, 2))
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def _shift(xy: Float64[np.ndarray, "2"]) -> Float64[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    matrix[:2, 3] = xy
    return matrix


def _moved(xyz: np.ndarray, matrix: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "N 3"]:
    return xyz.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def _pastel(rng: np.random.Generator, low: int, high: int) -> UInt8[np.ndarray, "3"]:
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 14, 3), 0, 255).astype(np.uint8)


_QUAD = np.array([[0, 1, 2], [0, 2, 3]])
