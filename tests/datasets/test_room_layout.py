"""Laid-out rooms: nothing overlaps, everything is inside, and things stand where they belong."""

from pathlib import Path

import numpy as np
import pytest
from rooms_library import write_rooms_library
from scipy.spatial import ConvexHull

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.room_geometry import contains
from o2s.datasets.room_layout import (
    Placement,
    RoomPlan,
    _surface_height,  # pyright: ignore[reportPrivateUsage]
    lay_out,
    placed_vertices,
)
from o2s.datasets.room_recipes import RECIPES, SURFACES

pytest.importorskip("trimesh")

SEEDS = range(60)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FurnitureLibrary:
    return FurnitureLibrary.open(write_rooms_library(tmp_path_factory.mktemp("furniture")))


@pytest.fixture(scope="module")
def plans(library: FurnitureLibrary) -> list[RoomPlan]:
    return [lay_out(library, "train", np.random.default_rng(seed)) for seed in SEEDS]


def area(floor: np.ndarray) -> float:
    x, y = floor.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def vertices(library: FurnitureLibrary, placement: Placement) -> np.ndarray:
    return placed_vertices(library.load(placement.piece), placement)


def test_floors_are_of_the_recipes_size_and_counter_clockwise(plans: list[RoomPlan]) -> None:
    for plan in plans:
        least, most = RECIPES[plan.kind].area
        assert least - 1e-6 <= area(plan.floor) <= most + 1e-6
        assert 8 <= area(plan.floor) <= 40
        assert 2.4 <= plan.height <= 3.0
    assert {len(plan.floor) for plan in plans} == {4, 6}, "rectangles and L-shapes"
    assert {plan.kind for plan in plans} == set(RECIPES)


def test_furniture_stays_within_the_walls(library: FurnitureLibrary, plans: list[RoomPlan]) -> None:
    for plan in plans:
        middle = plan.floor.mean(axis=0)
        for placement in plan.placements:
            xyz = vertices(library, placement)
            assert xyz[:, 2].min() > -1e-6
            assert xyz[:, 2].max() < plan.height + 1e-6
            for x, y in xyz[:, :2]:
                inward = (middle - [x, y]) / np.linalg.norm(middle - [x, y])
                assert contains(plan.floor, np.array([x, y]) + 0.03 * inward), placement


def test_boxes_do_not_overlap(library: FurnitureLibrary, plans: list[RoomPlan]) -> None:
    """By sampling: no point well within one piece lies in the convex hull of another."""
    for plan in plans:
        pieces = [p for p in plan.placements if p.piece.label != "rug"]
        hulls = [ConvexHull(vertices(library, p)).equations for p in pieces]
        for i, piece in enumerate(pieces):
            xyz = vertices(library, piece)
            inner = xyz.mean(axis=0) + 0.97 * (xyz - xyz.mean(axis=0))
            for j, hull in enumerate(hulls):
                inside = (inner @ hull[:, :3].T + hull[:, 3] < -0.006).all(axis=1)
                assert i == j or not inside.any(), (piece.piece.key, pieces[j].piece.key)


def test_what_stands_on_something_touches_it(
    library: FurnitureLibrary, plans: list[RoomPlan]
) -> None:
    found = 0
    for plan in plans:
        for placement in plan.placements:
            if placement.on is None:
                continue
            below = plan.placements[placement.on]
            found += 1
            assert below.piece.label in SURFACES
            top = vertices(library, below)[:, 2].max()
            assert vertices(library, placement)[:, 2].min() == pytest.approx(top, abs=0.01)
            assert ConvexHull(vertices(library, below)[:, :2]).volume > 0
            low, high = (f(vertices(library, below)[:, :2], axis=0) for f in (np.min, np.max))
            assert (np.array(placement.position[:2]) > low).all()
            assert (np.array(placement.position[:2]) < high).all()
    assert found > 30


def test_relations_are_those_of_the_recipes(plans: list[RoomPlan]) -> None:
    facing = 0
    for plan in plans:
        beds = [p for p in plan.placements if p.piece.label == "bed"]
        for stand in (p for p in plan.placements if p.piece.label == "nightstand"):
            distance = np.linalg.norm(np.subtract(stand.position, beds[0].position))
            assert distance < (beds[0].piece.size[0] + beds[0].piece.size[1]) / 2 + 0.6
            assert stand.heading == beds[0].heading
        sofas = [p for p in plan.placements if p.piece.label == "sofa"]
        for screen in (p for p in plan.placements if p.piece.label == "television"):
            if plan.kind == "living room" and sofas:
                facing += any(np.cos(screen.heading - s.heading) < -0.9 for s in sofas)
        for door in (p for p in plan.placements if p.piece.label in ("door", "window")):
            ahead = np.array([np.cos(door.heading), np.sin(door.heading)])
            assert contains(plan.floor, door.position[:2] + 0.3 * ahead)
            assert not contains(plan.floor, door.position[:2] - 0.3 * ahead)
    assert facing


def test_chairs_around_a_table_face_it(library: FurnitureLibrary, plans: list[RoomPlan]) -> None:
    angles = []
    for plan in (p for p in plans if p.kind == "dining room"):
        tables = [p for p in plan.placements if p.piece.label == "table"]
        for chair in (p for p in plan.placements if p.piece.label == "chair" and tables):
            xy = vertices(library, tables[0])[:, :2]
            nearest = np.clip(chair.position[:2], xy.min(axis=0), xy.max(axis=0))
            toward = nearest - chair.position[:2]
            if 0 < np.linalg.norm(toward) < 0.6:
                ahead = [np.cos(chair.heading), np.sin(chair.heading)]
                angles.append(float(np.dot(ahead, toward / np.linalg.norm(toward))))
    assert len(angles) > 10
    assert np.median(angles) > 0.8


def test_doors_can_be_reached(library: FurnitureLibrary, plans: list[RoomPlan]) -> None:
    for plan in plans:
        for door in (p for p in plan.placements if p.piece.label == "door"):
            ahead = np.array([np.cos(door.heading), np.sin(door.heading)])
            before = door.position[:2] + 0.45 * ahead
            for other in plan.placements:
                if other is door or other.position[2] > 0.5 or other.piece.label == "rug":
                    continue
                xy = vertices(library, other)[:, :2]
                hull = ConvexHull(xy).equations
                assert not (hull[:, :2] @ before + hull[:, 2] < -0.05).all()


def test_a_seed_makes_one_room_and_splits_have_their_own_furniture(
    library: FurnitureLibrary,
) -> None:
    for split in ("train", "test"):
        a, b = (lay_out(library, split, np.random.default_rng(5)) for _ in range(2))
        assert a.placements == b.placements
        assert np.array_equal(a.floor, b.floor)
        assert {p.piece.split for p in a.placements} == {split}
    other = lay_out(library, "train", np.random.default_rng(6))
    assert other.placements != lay_out(library, "train", np.random.default_rng(5)).placements


def test_joined_libraries_share_the_rooms_however_large_they_are(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    few, many = (
        FurnitureLibrary.open(write_rooms_library(tmp_path_factory.mktemp(name), each=each))
        for name, each in (("few", 3), ("many", 20))
    )
    both = few.with_train(many)
    keys = [
        placement.piece.key
        for seed in range(40)
        for placement in lay_out(both, "train", np.random.default_rng(seed)).placements
    ]
    from_few = sum(key.startswith("few") for key in keys) / len(keys)
    assert len(both.of_class("chair", "train")) == 21  # but that which few holds out
    assert 0.4 < from_few < 0.6


def test_what_hangs_from_the_ceiling_stands_nowhere(tmp_path: Path) -> None:
    folder = write_rooms_library(tmp_path / "furniture")
    table = folder / "furniture.csv"
    head, *rows = table.read_text().splitlines()
    hung = [f"{row},{1.5 if row.startswith('lamp') else ''}" for row in rows]
    table.write_text("\n".join([f"{head},elevation", *hung]))
    library = FurnitureLibrary.open(folder)
    assert {piece.elevation for piece in library.of_class("lamp", "train")} == {1.5}
    plans = [lay_out(library, "train", np.random.default_rng(seed)) for seed in range(20)]
    assert not [p for plan in plans for p in plan.placements if p.piece.label == "lamp"]


def test_heights_are_found_where_a_surface_is_flat(library: FurnitureLibrary) -> None:
    table = next(p for p in library.pieces if p.label == "table")
    mesh = library.load(table)
    assert _surface_height(mesh, 0.1, 0.1, 0.05, 0.05) == pytest.approx(table.size[2])
    edge = table.size[0] / 2
    assert _surface_height(mesh, edge - 0.02, 0.0, 0.05, 0.05) is None
    assert _surface_height(mesh, edge + 1, 0.0, 0.05, 0.05) is None


def test_contains_counts_crossings() -> None:
    corner = np.array([[0, 0], [4, 0], [4, 2], [2, 2], [2, 4], [0, 4]], float)
    assert contains(corner, np.array([1.0, 3.0]))
    assert contains(corner, np.array([3.0, 1.0]))
    assert not contains(corner, np.array([3.0, 3.0]))
    assert not contains(corner, np.array([-1.0, 1.0]))
