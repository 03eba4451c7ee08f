"""Furniture out of Infinigen's factories, as a folder like that of `o2s furniture`.

    python scripts/infinigen_furniture.py OUT --count 16

Infinigen (Raistrick et al., CVPR 2024, arXiv 2406.11824; BSD-3-Clause) draws indoor objects with
Blender's geometry nodes. It wants packages of its own, among them an older numpy, so this script
stands alone and runs in an environment that has no o2s:

    python3.11 -m venv infinigen
    infinigen/bin/pip install --no-deps bpy==4.2.0 infinigen==1.15.5
    infinigen/bin/pip install --only-binary :all: 'numpy<2' requests zstandard cython scipy \
        'shapely<=2.0.5' tqdm 'trimesh<3.23' 'gin_config>=0.5' networkx pandas psutil matplotlib \
        'imageio<2.32' 'opencv-python-headless<4.9' scikit-image scikit-learn geomdl python-fcl \
        rtree submitit coacd OpenEXR

What a factory does not make within a minute is left out. Pieces that are there already are left
alone; several runs with `--part 0/2` and `--part 1/2` share the work. Colours are chosen by the
names of materials: the materials themselves are programs that only a renderer runs. Appliances
come about a metre wide and deep: they are brought to the sizes that are sold.
"""

import argparse
import csv
import importlib
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import bpy
import infinigen.core.init
import numpy as np
import trimesh
from infinigen.core.util.math import FixedSeed
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

SECONDS = 60  # that a factory has
HANGING = 2.0  # metres above the floor, of lamps that hang from the ceiling
FACES = 20_000  # of a piece; finer meshes are reduced
FACTORIES = {  # class: (name, module below infinigen.assets.objects, factory), in turns
    "lamp": (
        ("floor lamp", "lamp", "FloorLampFactory"),
        ("table lamp", "lamp", "DeskLampFactory"),
        ("ceiling lamp", "lamp", "CeilingClassicLampFactory"),
        ("ceiling light", "lamp", "CeilingLightFactory"),
    ),
    "chair": (
        ("chair", "seating", "ChairFactory"),
        ("office chair", "seating", "OfficeChairFactory"),
        ("armchair", "seating", "ArmChairFactory"),
    ),
    "stool": (("bar stool", "seating", "BarChairFactory"),),
    "sofa": (("sofa", "seating", "SofaFactory"),),
    "pillow": (("pillow", "seating", "PillowFactory"),),
    "sink": (
        ("bathroom sink", "bathroom", "BathroomSinkFactory"),
        ("pedestal sink", "bathroom", "StandingSinkFactory"),
        ("kitchen sink", "table_decorations", "SinkFactory"),
    ),
    "bathtub": (("bathtub", "bathroom", "BathtubFactory"),),
    "toilet": (("toilet", "bathroom", "ToiletFactory"),),
    "refrigerator": (("beverage refrigerator", "appliances", "BeverageFridgeFactory"),),
    "dishwasher": (("dishwasher", "appliances", "DishwasherFactory"),),
    "microwave": (("microwave", "appliances", "MicrowaveFactory"),),
    "stove": (("stove", "appliances", "OvenFactory"),),
    "monitor": (("monitor", "appliances", "MonitorFactory"),),
    "television": (("television", "appliances", "TVFactory"),),
    "bookshelf": (
        ("bookcase", "shelves", "SimpleBookcaseFactory"),
        ("bookshelf", "shelves", "LargeShelfFactory"),
        ("cell shelf", "shelves", "CellShelfFactory"),
    ),
    "tv stand": (("tv stand", "shelves", "TVStandFactory"),),
    "cabinet": (
        ("cabinet", "shelves", "SingleCabinetFactory"),
        ("kitchen cabinet", "shelves", "KitchenCabinetFactory"),
    ),
    "counter": (("kitchen island", "shelves", "KitchenIslandFactory"),),
    "desk": (("desk", "shelves", "SimpleDeskFactory"),),
    "table": (
        ("dining table", "tables", "TableDiningFactory"),
        ("coffee table", "tables", "CoffeeTableFactory"),
        ("side table", "tables", "SideTableFactory"),
        ("cocktail table", "tables", "TableCocktailFactory"),
    ),
    "rug": (("rug", "elements", "RugFactory"),),
    "door": (
        ("door", "elements", "PanelDoorFactory"),
        ("door", "elements", "LiteDoorFactory"),
        ("louvre door", "elements", "LouverDoorFactory"),
    ),
    "window": (("window", "windows", "WindowFactory"),),
    "book": (
        ("book", "table_decorations", "BookStackFactory"),
        ("book", "table_decorations", "BookColumnFactory"),
    ),
    "vase": (("vase", "table_decorations", "VaseFactory"),),
    "range hood": (("range hood", "wall_decorations", "RangeHoodFactory"),),
    "mirror": (("mirror", "wall_decorations", "MirrorFactory"),),
    "picture": (("picture", "wall_decorations", "WallArtFactory"),),
    "towel": (("towel", "clothes", "TowelFactory"),),
}
SIZES = {  # of appliances in metres, at least and at most: depth, width and height
    "BeverageFridgeFactory": ((0.5, 0.7), (0.5, 0.75), (0.8, 1.9)),
    "DishwasherFactory": ((0.52, 0.66), (0.45, 0.62), (0.8, 0.9)),
    "MicrowaveFactory": ((0.32, 0.48), (0.42, 0.6), (0.24, 0.36)),
    "OvenFactory": ((0.55, 0.7), (0.5, 0.92), (0.88, 1.2)),
}
WHITES = ((245, 245, 242), (230, 226, 218), (215, 218, 220))
COLORS = (  # words in a material's name, and what it may look like
    (("wood", "tile"), ((120, 80, 45), (165, 120, 75), (205, 170, 125), (70, 48, 35))),
    (("ceramic", "porcelain", "marble"), WHITES),
    (("black", "screen", "display"), ((22, 24, 28),)),
    (("mirror", "glass", "lamp"), ((190, 205, 212), (210, 220, 222), (40, 42, 46))),
    (("metal", "steel", "chrome", "brass"), ((170, 172, 175), (120, 122, 125), (60, 60, 62))),
    (
        ("fabric", "leather", "velvet", "knit", "sofa", "rug", "linen", "towel", "art", "text"),
        (
            *((150, 40, 40), (50, 75, 130), (70, 110, 70), (190, 170, 140), (110, 110, 115)),
            *((60, 60, 65), (215, 205, 190), (140, 100, 70), (205, 140, 60), (35, 60, 75)),
        ),
    ),
)
OTHERS = ((240, 240, 238), (225, 220, 210), (45, 45, 48), (150, 165, 175), (165, 120, 75))


@dataclass(frozen=True)
class Piece:
    """One piece of a class; those of a class come from its factories in turns."""

    label: str
    number: int

    @property
    def source(self) -> tuple[str, str, str]:
        """What it is called, the module and the factory."""
        factories = FACTORIES[self.label]
        return factories[self.number % len(factories)]

    @property
    def file(self) -> str:
        return f"{self.label.replace(' ', '_')}_{self.number:03}.glb"


def main() -> None:
    parser = argparse.ArgumentParser(description="Furniture out of Infinigen's factories")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=16, help="pieces of each class")
    parser.add_argument("--part", default="0/1", help="which share of the pieces, such as 0/2")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    infinigen.core.init.require_blender_addon = lambda *_, **__: False  # it would be downloaded
    signal.signal(signal.SIGALRM, _too_long)
    options.out.mkdir(parents=True, exist_ok=True)
    pieces = [Piece(label, n) for n in range(options.count) for label in FACTORIES]
    for piece in pieces[part::parts]:
        file, (_, module, factory) = options.out / piece.file, piece.source
        if not file.exists():
            make(file, module, factory, piece.number)
    made = [(p.file, p.source[0], p.label) for p in pieces if (options.out / p.file).exists()]
    with (options.out / "furniture.csv").open("w", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("file", "name", "class", "creator", "licence", "elevation"))
        for file, name, label in made:
            hangs = HANGING if name.startswith("ceiling") else ""
            writer.writerow((file, name, label, "Infinigen", "BSD-3-Clause", hangs))
    print(f"{len(made)} of {len(pieces)} pieces in {options.out}")


def make(file: Path, module: str, factory: str, seed: int) -> None:
    """One piece as binary glTF, y up, its front towards +z; none where a factory fails or takes too
    long."""
    try:
        signal.alarm(SECONDS)
        parts = triangles(module, factory, seed)
    except Exception as error:  # whatever a factory does, the others go on
        print(f"{factory} {seed}: {type(error).__name__} {error}", file=sys.stderr)
        return
    finally:
        signal.alarm(0)
    rng = random.Random(f"{factory} {seed}")
    if factory in SIZES:
        corners = np.concatenate([vertices for vertices, _ in parts.values()])
        wanted = np.array([rng.uniform(low, high) for low, high in SIZES[factory]])
        scale = wanted / (corners.max(0) - corners.min(0))
        parts = {name: (vertices * scale, faces) for name, (vertices, faces) in parts.items()}
    scene = trimesh.Scene()
    for material, (vertices, faces) in parts.items():
        palette = next((c for words, c in COLORS if _has(material, words)), OTHERS)
        color = rng.choice(WHITES if module == "bathroom" and rng.random() < 0.8 else palette)
        x, y, z = vertices.T  # the front is towards +x, but doors and windows run along x
        turned = (x, z, -y) if module in ("elements", "windows") else (y, z, x)
        scene.add_geometry(
            trimesh.Trimesh(
                np.stack(turned, axis=1),
                faces,
                visual=TextureVisuals(material=PBRMaterial(baseColorFactor=[*color, 255])),
                process=False,
            )
        )
    temporary = file.with_suffix(".part")
    temporary.write_bytes(scene.export(file_type="glb"))
    temporary.replace(file)


def triangles(module: str, factory: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Vertices in metres, z up, and triangles of each material of what a factory makes."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    kind = getattr(importlib.import_module(f"infinigen.assets.objects.{module}"), factory)
    with FixedSeed(seed):
        maker = kind(seed)
        try:
            made = maker.spawn_asset(seed)
        except (TypeError, KeyError, AssertionError):  # some want the room that is kept for them
            bpy.ops.wm.read_factory_settings(use_empty=True)
            kept = maker.spawn_placeholder(seed, (0, 0, 0), (0, 0, 0))
            made = maker.spawn_asset(seed, placeholder=kept)
    objects = [o for o in (made, *made.children_recursive) if o.type in ("MESH", "CURVE")]
    total = sum(len(mesh.loop_triangles) for _, mesh in _evaluated(objects))
    if total > FACES:
        for item in objects:
            if item.type == "MESH":
                item.modifiers.new("reduced", "DECIMATE").ratio = FACES / total
    found: dict[str, list[np.ndarray]] = {}
    for item, mesh in _evaluated(objects):
        vertices = np.empty(3 * len(mesh.vertices))
        mesh.vertices.foreach_get("co", vertices)
        to_world = np.array(item.matrix_world)
        vertices = vertices.reshape(-1, 3) @ to_world[:3, :3].T + to_world[:3, 3]
        corners = np.empty(3 * len(mesh.loop_triangles), int)
        mesh.loop_triangles.foreach_get("vertices", corners)
        of = np.empty(len(mesh.loop_triangles), int)
        mesh.loop_triangles.foreach_get("material_index", of)
        names = [material.name if material else "" for material in mesh.materials] or [""]
        for number, name in enumerate(names):
            chosen = corners.reshape(-1, 3)[of == number]
            if len(chosen):
                found.setdefault(name, []).append(vertices[chosen])
    if not found:
        raise ValueError("no triangles")
    return {
        name: (np.concatenate(c).reshape(-1, 3), np.arange(3 * sum(map(len, c))).reshape(-1, 3))
        for name, c in found.items()
    }


def _evaluated(objects: list) -> list:
    graph = bpy.context.evaluated_depsgraph_get()
    found = []
    for item in objects:
        mesh = item.evaluated_get(graph).to_mesh()
        mesh.calc_loop_triangles()
        found.append((item, mesh))
    return found


def _has(material: str, words: tuple[str, ...]) -> bool:
    return any(word in material.lower() for word in words)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")


if __name__ == "__main__":
    main()
