"""Meshes of furniture out of folders and zips, in metres, z up, with one colour a face."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from tarfile import TarError
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, UInt8
from PIL import Image

from o2s.errors import InputError, first_line
from o2s.io.cloud import quote


@dataclass(frozen=True)
class PieceMesh:
    """A piece's triangles in metres: z up, the width along x, the depth along y, the front to -y.

    Centred in x and y, with its lowest point at z = 0. Each face has one colour: the mean of its
    texture, or its material's, or grey where nothing is known.
    """

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int32[np.ndarray, "F 3"]
    colors: UInt8[np.ndarray, "F 3"]


@dataclass(frozen=True)
class Files:
    """The files of a folder or of a zip; `data` is a zip that came out of a package."""

    path: Path
    data: bytes | None = None

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], bytes]]:
        """Gives a function from a file's name to its content; both raise InputError."""
        if self.path.is_dir():
            yield self._read_from_folder
            return
        with self.zip() as archive:
            yield lambda name: self._read_from_zip(archive, name)

    def zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path if self.data is None else io.BytesIO(self.data))
        except (BadZipFile, OSError) as error:
            raise InputError(f"{self.path}: not a whole .sh3f, which is a zip ({error})") from None

    def _read_from_folder(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path / name}: cannot be read ({first_line(error)})") from None

    def _read_from_zip(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return archive.read(name)
        except KeyError:
            raise InputError(f"{self.path}: there is no {quote(name)} in it") from None
        except DAMAGE as error:
            raise InputError(f"{self.path}: {name}: cannot be read ({error})") from None


@dataclass(frozen=True)
class Model:
    """Where a mesh lies, and its rotation before it is scaled."""

    files: Files
    name: str
    rotation: Float64[np.ndarray, "3 3"]


def read_mesh(
    model: Model,
) -> tuple[Float64[np.ndarray, "V 3"], Int32[np.ndarray, "F 3"], UInt8[np.ndarray, "F 3"]]:
    """Vertices in the file's units but with z up and the front towards -y; faces; their colours."""
    try:
        import trimesh
    except ImportError:
        raise InputError(
            'furniture is read by trimesh, which is missing: pip install "o2s[rooms]"'
        ) from None
    where = f"{model.files.path}: {model.name}"
    with model.files.reading() as read:
        data = read(model.name)
        try:
            scene = trimesh.load_scene(
                io.BytesIO(data),
                file_type=kind_of_file(model),
                resolver=_Neighbours(read, PurePosixPath(model.name)),
                process=False,
            )
            parts = [p for p in scene.dump() if isinstance(p, trimesh.Trimesh) and len(p.faces)]
            colors = [_face_colors(part) for part in parts]
        except Exception as error:  # trimesh raises whatever numpy, json or a parser raise
            raise InputError(f"{where}: not a whole mesh ({first_line(error)})") from None
    if not parts:
        raise InputError(f"{where}: has no faces; expected a mesh")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float64)
    used, faces = np.unique(faces, return_inverse=True)  # stray vertices would count in the size
    vertices = vertices[used]
    if not np.isfinite(vertices).all():
        raise InputError(f"{where}: has vertices that are not finite")
    x, y, z = model.rotation @ vertices.T
    upright = np.stack([x, -z, y], axis=1)
    return upright, faces.reshape(-1, 3).astype(np.int32), np.concatenate(colors)


def placed(
    vertices: Float64[np.ndarray, "V 3"],
    faces: Int32[np.ndarray, "F 3"],
    colors: UInt8[np.ndarray, "F 3"],
    size: tuple[float, float, float],
) -> PieceMesh:
    """The mesh scaled to its size along each axis, centred, and set on the floor."""
    low, high = bounds(vertices)
    extent = high - low
    flat = extent <= 1e-9 * extent.max()
    scale = np.where(flat, 1.0, np.array(size) / np.where(flat, 1.0, extent))
    origin = np.array([*(low + high)[:2] / 2, low[2]])
    mesh = PieceMesh(((vertices - origin) * scale).astype(np.float32), faces, colors)
    for array in (mesh.vertices, mesh.faces, mesh.colors):
        array.flags.writeable = False
    return mesh


def bounds(
    vertices: Float64[np.ndarray, "V 3"],
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    return vertices.min(axis=0), vertices.max(axis=0)


def _face_colors(part: Any) -> UInt8[np.ndarray, "F 3"]:
    """One colour a face of a trimesh.Trimesh."""
    material = getattr(part.visual, "material", None)
    if material is None:  # colours of faces or vertices, or trimesh's grey
        return np.array(part.visual.face_colors[:, :3], np.uint8)
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    uv = part.visual.uv
    if image is not None and uv is not None and len(uv) == len(part.vertices):
        try:
            colors = texture_colors(image, uv[part.faces])
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for a damaged image
            pass
        else:
            tint = getattr(material, "baseColorFactor", None)  # glTF multiplies by it, MTL does not
            factor = 1.0 if tint is None else np.asarray(tint)[:3] / 255
            return (colors * factor).astype(np.uint8)
    return np.tile(np.array(material.main_color[:3], np.uint8), (len(part.faces), 1))


def texture_colors(
    image: Image.Image, uv: Float[np.ndarray, "F 3 2"]
) -> Float32[np.ndarray, "F 3"]:
    """The mean colour, in [0, 255], of a repeating texture over each face.

    It is taken at ten points of the face from the texture reduced to about half their distance.
    Texels count by their opacity; a face on transparent ones alone, like a leaf's margin, has the
    mean colour of the whole texture.
    """
    points = np.nan_to_num(_WEIGHTS @ uv) % 1.0
    spacing = np.nan_to_num(np.ptp(uv, axis=1).max(axis=1)) / 4
    level = np.clip(np.floor(-np.log2(np.maximum(spacing, 1e-9))) + 1, 0, _LEVELS).astype(int)
    whole = image.convert("RGBA")
    colors = np.empty((len(uv), 3), np.float32)
    for number in np.unique(level):
        side = (min(image.width, 2**number), min(image.height, 2**number))
        texels = np.asarray(whole.resize(side, Image.Resampling.BOX), np.float32)
        opacity = texels[..., 3:] if texels[..., 3].any() else np.ones_like(texels[..., 3:])
        mean = (texels[..., :3] * opacity).sum(axis=(0, 1)) / opacity.sum()
        here = level == number
        column = np.minimum((points[here, :, 0] * side[0]).astype(int), side[0] - 1)
        row = np.minimum(((1 - points[here, :, 1]) * side[1]).astype(int), side[1] - 1)
        weight = opacity[row, column]
        total = weight.sum(axis=1)
        own = (texels[row, column, :3] * weight).sum(axis=1) / np.maximum(total, 1e-3)
        colors[here] = np.where(total > 0, own, mean)
    return colors


class _Neighbours(Mapping[str, bytes]):
    """The files beside a model by the names it uses.

    Of a path on somebody's disk the last part counts; where the materials have another name than
    the model says, those of the model's name are taken.
    """

    def __init__(self, read: Callable[[str], bytes], model: PurePosixPath) -> None:
        self._read = read
        self._model = model

    def __getitem__(self, name: str) -> bytes:
        path = PurePosixPath(name.replace("\\", "/"))
        places = [self._model.parent / path.name]
        if not path.is_absolute() and ".." not in path.parts:
            places.insert(0, self._model.parent / path)
        if path.suffix == ".mtl":
            places.append(self._model.with_suffix(".mtl"))
        for place in places:
            try:
                return self._read(str(place))
            except InputError:
                continue
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def kind_of_file(model: Model) -> str:
    return PurePosixPath(model.name).suffix.lower().removeprefix(".")


DAMAGE = (BadZipFile, TarError, LZMAError, zlib.error, EOFError, OSError, RuntimeError)
_LEVELS = 7  # a texture is reduced to at most 2**7 texels a side before its colours are taken
_WEIGHTS = np.array([(i, j, 3 - i - j) for i in range(4) for j in range(4 - i)]) / 4 + 1 / 12
