"""Meshes as scanning apps export them (.glb, .gltf, .obj, .stl, .off): points on their faces.

Colours come from textures, vertices or materials; where a mesh has none, neither have the points.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from PIL import Image

from o2s.errors import InputError, first_line
from o2s.io.cloud import FARTHEST, GREY, Cloud, quote, read_bytes, require_content, unit_colors
from o2s.io.gltf import check_extensions
from o2s.ops.meshes import draw_on_faces

FEWEST, MOST = 300_000, 2_000_000  # points; between them as many as a closed mesh has vertices
WIDEST = 4096  # texels of a texture that are kept along a side

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A piece of geometry where the scene puts it; `geometry` is shared by all of its places."""

    geometry: Any
    vertices: Float64[np.ndarray, "V 3"]
    faces: Int64[np.ndarray, "F 3"]


def read_mesh(path: Path) -> Cloud:
    """Read a mesh as points spread evenly over its faces, with the normals of the faces.

    The same file always gives the same points. A file of points alone gives those.

    Raises:
        InputError: the file is missing, damaged, or holds nothing that has an area.
    """
    require_content(path, "a mesh")
    if path.suffix.lower() in (".glb", ".gltf"):
        check_extensions(path, read_bytes(path))
    with _large_images():
        loaded = _load(path)
        if isinstance(loaded, Cloud):
            return loaded
        if not loaded:
            raise InputError(f"{path}: has no faces; expected a mesh")
        return _points_on(path, loaded)


def _points_on(path: Path, parts: list[Part]) -> Cloud:
    corners = np.concatenate([part.vertices[part.faces] for part in parts])
    count = min(max(len(corners) // 2, FEWEST), MOST)
    face, weights = draw_on_faces(corners, count, np.random.default_rng(0))
    if not len(face):
        raise InputError(f"{path}: has no faces with an area; expected a mesh")
    log.info("%s: a mesh of %d faces; %d points on them are taken", path, len(corners), count)
    order = np.argsort(face, kind="stable")  # so that each part's points stand side by side
    face, weights = face[order], weights[order]
    triangles = corners[face]
    across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals = across / np.linalg.norm(across, axis=1, keepdims=True)
    first = np.cumsum([0, *(len(part.faces) for part in parts)])
    begins = np.searchsorted(face, first)
    rgb = np.full((count, 3), GREY, np.float32)
    palette = _Palette(path)
    colored = False
    for part, start, begin, end in zip(parts, first[:-1], begins[:-1], begins[1:], strict=True):
        if end > begin:
            found = palette.colors(part, face[begin:end] - start, weights[begin:end])
            if found is not None:
                rgb[begin:end], colored = found, True
    return Cloud(
        (triangles * weights[..., None]).sum(axis=1),
        rgb if colored else None,
        normals.astype(np.float32),
        step=_step(path, corners),
    )


def _load(path: Path) -> list[Part] | Cloud:
    """The parts of a mesh that have faces, or the points of a file that holds nothing else."""
    import trimesh  # takes a third of a second
    from trimesh.resolvers import FilePathResolver

    class Beside(FilePathResolver):
        """Files by the names that others write: as in a URI, or with backslashes."""

        def get(self, name: str) -> bytes:
            for spelt in (name, unquote(name), name.replace("\\", "/")):
                try:
                    return super().get(spelt)
                except (OSError, ValueError):
                    continue
            raise FileNotFoundError(name)

    try:
        scene: Any = trimesh.load_scene(str(path), process=False, resolver=Beside(str(path)))
        parts: list[Part] = []
        points: list[tuple[Float64[np.ndarray, "N 3"], Any]] = []
        for node in scene.graph.nodes_geometry:
            matrix, name = scene.graph[node]
            geometry = scene.geometry[name]
            vertices = trimesh.transform_points(np.asarray(geometry.vertices, np.float64), matrix)
            if isinstance(geometry, trimesh.PointCloud):
                points.append((vertices, geometry))
            elif isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
                usable = np.all(np.abs(vertices) <= FARTHEST, axis=1)
                faces = np.asarray(geometry.faces, np.int64)
                parts.append(Part(geometry, vertices, faces[usable[faces].all(axis=1)]))
        if points and not parts:
            colors = [np.asarray(getattr(geometry, "colors", ())) for _, geometry in points]
            known = all(len(c) == len(v) for c, (v, _) in zip(colors, points, strict=True))
            rgb = unit_colors(np.concatenate(colors)[:, :3]) if known else None
            return Cloud(np.concatenate([vertices for vertices, _ in points]), rgb)
    except Exception as error:  # trimesh raises whatever numpy, json or a parser raise
        raise InputError(
            f"{path}: not a whole mesh, or a file beside it is missing ({quote(first_line(error))})"
        ) from None
    return [part for part in parts if len(part.faces)]


class _Palette:
    """The colours of a mesh, each texture decoded once, and a word on each that is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texels: dict[int, UInt8[np.ndarray, "H W 3"] | None] = {}
        self._warned = False

    def colors(
        self, part: Part, face: Int64[np.ndarray, "P"], weights: Float64[np.ndarray, "P 3"]
    ) -> Float32[np.ndarray, "P 3"] | None:
        """The colours in [0, 1] of points on a part; None if it has none."""
        geometry, visual = part.geometry, part.geometry.visual
        corners = part.faces[face]

        def at(values: Any) -> Float[np.ndarray, "P C"]:
            return (np.asarray(values)[corners] * weights[..., None]).sum(axis=1)

        if visual.kind == "vertex":
            return (at(visual.vertex_colors[:, :3]) / 255).astype(np.float32)
        of_vertices = geometry.vertex_attributes.get("color")
        if visual.kind != "texture":
            return None if of_vertices is None else at(unit_colors(of_vertices[:, :3]))
        if of_vertices is None:
            of_vertices = getattr(visual, "vertex_attributes", {}).get("color")
        material, uv = visual.material, visual.uv
        found = np.ones((len(face), 3), np.float32)
        texels = self._of(
            getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
        )
        textured = False
        if texels is not None and uv is not None and len(uv) == len(part.vertices):
            height, width = texels.shape[:2]
            place = np.nan_to_num(at(uv)) % 1.0
            column = np.minimum((place[:, 0] * width).astype(int), width - 1)
            row = np.minimum(((1 - place[:, 1]) * height).astype(int), height - 1)
            found, textured = texels[row, column] / np.float32(255), True
        if of_vertices is not None and len(of_vertices) == len(part.vertices):
            found = found * at(unit_colors(np.asarray(of_vertices)[:, :3]))
            textured = True
        tint = _tint(material, textured)
        if tint is not None and (textured or uv is None or tint.min() < 0.99):
            return (found * tint).astype(np.float32)
        if not textured and uv is not None and not self._warned:
            log.warning("%s: a texture is missing or cannot be read", self._path)
            self._warned = True
        return found.astype(np.float32) if textured else None

    def _of(self, image: Image.Image | None) -> UInt8[np.ndarray, "H W 3"] | None:
        if image is None:
            return None
        if id(image) not in self._texels:
            try:
                if image.mode.startswith("I"):  # 16 bits of grey
                    image_8 = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
                else:
                    image_8 = image
                shrink = max(1, math.ceil(max(image.size) / WIDEST))
                texels = np.asarray(image_8.reduce(shrink).convert("RGB"))
            except (OSError, ValueError, SyntaxError):  # what Pillow raises for a damaged image
                texels = None
            self._texels[id(image)] = texels
        return self._texels[id(image)]


def _tint(material: Any, textured: bool) -> Float32[np.ndarray, "3"] | None:
    """A material's own colour, in sRGB; None where the file gives none. glTF multiplies a texture
    by it, MTL does not."""
    if hasattr(material, "baseColorFactor"):
        factor = material.baseColorFactor
        if factor is None:
            return None
        linear = np.asarray(factor[:3], np.float32) / 255
        return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    color = np.asarray(material.main_color[:3])
    if textured or (color == _UNSET).all():
        return None
    return color.astype(np.float32) / 255


_UNSET = 102  # trimesh's grey for materials without a colour


def _step(path: Path, corners: Float64[np.ndarray, "F 3 3"]) -> float:
    """How far apart neighbouring coordinates are; text has the digits that it has."""
    if path.suffix.lower() not in (".glb", ".gltf", ".stl"):
        return 0.0
    return float(np.spacing(np.float32(np.abs(corners).max())))


@contextmanager
def _large_images() -> Iterator[None]:
    """Textures of scans are larger than what Pillow takes for an attack."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 2**30
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
