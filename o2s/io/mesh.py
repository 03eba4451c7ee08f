"""Meshes as scanning apps export them (.glb, .gltf, .obj, .stl, .off): points on their faces.

Colours come from textures, from vertices or faces, or from materials; where a mesh has none at all,
neither have the points.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from o2s.errors import InputError
from o2s.io.cloud import Cloud, read_bytes
from o2s.ops.meshes import draw_on_faces

FEWEST, MOST = 300_000, 2_000_000  # points; between them as many as there are vertices
GREY = 0.5  # of parts without a colour beside others

log = logging.getLogger(__name__)


def read_mesh(path: Path) -> Cloud:
    """Read a mesh as points spread evenly over its faces, with the normals of the faces.

    The same file always gives the same points.

    Raises:
        InputError: the file is missing, damaged, or holds no faces that have an area.
    """
    read_bytes(path, "a mesh")  # says what is wrong with a name, a folder or an empty file
    parts = _load(path)
    corners = [part.vertices[part.faces].astype(np.float64) for part in parts]
    vertices = sum(len(part.vertices) for part in parts)
    count = min(max(vertices, FEWEST), MOST)
    face, weights = draw_on_faces(np.concatenate(corners), count, np.random.default_rng(0))
    if not len(face):
        raise InputError(f"{path}: has no faces with an area; expected a mesh")
    log.info("%s: a mesh of %d vertices; %d points on its faces are taken", path, vertices, count)
    of_part = np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts])[face]
    first = np.cumsum([0, *(len(part.faces) for part in parts)])
    xyz = np.empty((count, 3))
    rgb = np.full((count, 3), GREY, np.float32)
    normals = np.empty((count, 3), np.float32)
    colored = False
    for number, part in enumerate(parts):
        here = of_part == number
        own, shares = face[here] - first[number], weights[here]
        triangles = corners[number][own]
        xyz[here] = (triangles * shares[..., None]).sum(axis=1)
        across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals[here] = across / np.linalg.norm(across, axis=1, keepdims=True)
        colors = _colors(part, own, shares)
        if colors is not None:
            rgb[here], colored = colors, True
    return Cloud(xyz, rgb if colored else None, normals)


def _load(path: Path) -> list[Any]:
    """The parts of a mesh, each a trimesh.Trimesh in the coordinates of the whole."""
    import trimesh  # takes a third of a second

    try:
        scene = trimesh.load_scene(str(path), process=False)
        parts = [p for p in scene.dump() if isinstance(p, trimesh.Trimesh) and len(p.faces)]
        finite = all(np.isfinite(part.vertices[part.faces]).all() for part in parts)
    except Exception as error:  # trimesh raises whatever numpy, json or a parser raise
        text = str(error).strip().splitlines()
        reason = text[0] if text else type(error).__name__
        raise InputError(f"{path}: not a whole mesh ({reason})") from None
    if not parts:
        raise InputError(f"{path}: has no faces; expected a mesh")
    if not finite:
        raise InputError(f"{path}: has vertices that are not finite; expected a whole mesh")
    return parts


def _colors(
    part: Any, face: Int64[np.ndarray, "P"], weights: Float64[np.ndarray, "P 3"]
) -> Float32[np.ndarray, "P 3"] | None:
    """The colours in [0, 1] of points on a part; None if it has none."""
    visual = part.visual
    if not visual.defined:
        return None
    if visual.kind != "texture":
        corners = visual.vertex_colors[part.faces[face], :3]
        return (corners * weights[..., None]).sum(axis=1).astype(np.float32) / 255
    material, uv = visual.material, visual.uv
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    if image is None or uv is None or len(uv) != len(part.vertices):
        return np.tile(np.asarray(material.main_color[:3], np.float32) / 255, (len(face), 1))
    texels = np.asarray(image.convert("RGB"))
    height, width = texels.shape[:2]
    at = np.nan_to_num((uv[part.faces[face]] * weights[..., None]).sum(axis=1)) % 1.0
    column = np.minimum((at[:, 0] * width).astype(int), width - 1)
    row = np.minimum(((1 - at[:, 1]) * height).astype(int), height - 1)
    tint = getattr(material, "baseColorFactor", None)  # glTF multiplies by it, MTL does not
    factor = 1.0 if tint is None else np.asarray(tint, np.float32)[:3] / 255
    return (texels[row, column] / np.float32(255) * factor).astype(np.float32)
