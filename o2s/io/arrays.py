"""Array files: NumPy's .npz from other tools, and our own prepared .safetensors."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from o2s.errors import InputError
from o2s.files import replacing
from o2s.io.cloud import (
    Cloud,
    finite_normals,
    quote,
    read_bytes,
    require_file,
    step_of,
    unit_colors,
)
from o2s.io.plain import are_unit_vectors
from o2s.scene import Scene


def read_npz(path: Path) -> Cloud:
    """Read points, colours and normals from a NumPy archive; pickled objects are never loaded.

    Points [N, 3] are found under points, xyz, coord or pos; further columns 3 to 5 are RGB, or
    normals if they are unit vectors, unless colors, color or rgb [N, 3] is there. Normals [N, 3]
    are found under normals or normal.

    Raises:
        InputError: the file is missing, no zip, damaged, or lacks points of that shape.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(read_bytes(path)))
    except InputError:
        raise
    except Exception as error:  # zipfile raises half a dozen kinds on damaged files
        raise InputError(f"{path}: not an .npz archive ({_line(error)})") from None
    members = {name.removesuffix(".npy"): name for name in archive.namelist()}

    def find(
        names: tuple[str, ...], least_columns: int = 3, rows: bool = False
    ) -> np.ndarray | None:
        name = next((name for name in names if name in members), None)
        if name is None:
            return None
        array = _read_member(path, archive, members[name])
        if array.ndim != 2 or array.shape[1] < least_columns or array.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: {quote(name)} is {array.dtype} of shape {list(array.shape)}; "
                f"expected numbers of shape [N, {least_columns}]"
            )
        if rows and len(array) <= 16 < array.shape[1]:
            raise InputError(
                f"{path}: {quote(name)} is of shape {list(array.shape)}, expected one row a point: "
                "transpose it"
            )
        return array

    points, rgb, normals = find(_POINTS, rows=True), find(_COLORS), find(_NORMALS)
    if points is None:
        raise InputError(
            f"{path}: holds {', '.join(map(quote, members)) or 'nothing'}; "
            f"expected points under one of {', '.join(_POINTS)}"
        )
    if rgb is None and points.shape[1] >= 6:
        rgb = points[:, 3:6]
        if normals is None and are_unit_vectors(rgb):
            rgb, normals = None, rgb
    for name, array in (("colours", rgb), ("normals", normals)):
        if array is not None and len(array) != len(points):
            raise InputError(f"{path}: {len(array)} {name} for {len(points)} points")
    return Cloud(
        xyz=points[:, :3].astype(np.float64),
        step=step_of(points[:, :3]),
        rgb=None if rgb is None else unit_colors(rgb[:, :3]),
        normals=None if normals is None else finite_normals(normals[:, :3]),
    )


def read_prepared(path: Path) -> Scene:
    """Load a scene that `write_prepared` wrote: upright, in metres, exactly as it was.

    Raises:
        InputError: the file is missing, damaged, or not a prepared scene.
    """
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or "name" not in metadata:
                what = "an encoded scan, of `o2s encode`" if "o2s" in metadata else "something else"
                raise InputError(f"{path}: {what}; expected the scan, or a prepared one")
            if metadata.get("version") != _VERSION:
                raise InputError(
                    f"{path}: version {quote(metadata.get('version'))} of a prepared scene; "
                    f"expected {_VERSION}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file ({_line(error)})") from None
    points = tensors.get("points")
    shapes = {name: [len(points) if points is not None and points.ndim else 0, 3] for name in _ROWS}
    for name, tensor in tensors.items():
        dtype = torch.float64 if name == "from_file" else torch.float32
        if list(tensor.shape) != shapes.get(name, [4, 4]) or tensor.dtype != dtype:
            raise InputError(
                f"{path}: {quote(name)} is {tensor.dtype} of shape {list(tensor.shape)}; "
                "expected float32 [N, 3], or float64 [4, 4] for 'from_file'"
            )
    if points is None or not len(points) or "from_file" not in tensors:
        raise InputError(f"{path}: no points, or no 'from_file'; expected a prepared scene")
    if not (points.isfinite().all() and tensors["from_file"].isfinite().all()):
        raise InputError(f"{path}: coordinates that are not finite; the file is damaged")
    return Scene(
        name=metadata["name"],
        points=points,
        colors=tensors.get("colors"),
        normals=tensors.get("normals"),
        from_file=tensors["from_file"],
    )


def write_prepared(scene: Scene, path: Path) -> None:
    """Write a scene as one .safetensors file, which appears whole or not at all."""
    tensors = {name: getattr(scene, name) for name in (*_ROWS, "from_file")}
    with replacing(path) as temporary:
        save_file(
            {
                # safetensors wants contiguous tensors that share no memory
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
                if tensor is not None
            },
            temporary,
            metadata={"format": _FORMAT, "version": _VERSION, "name": scene.name},
        )


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> Num[np.ndarray, "..."]:
    """One array, read whole (which checks its CRC) before its own header is believed."""
    try:
        data = archive.read(name)
        file = io.BytesIO(data)
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape, by_columns, dtype = (read if major == 1 else np.lib.format.read_array_header_2_0)(
            file
        )
        if dtype.kind not in "fiu":
            raise ValueError(f"holds {dtype}, expected numbers")
        values = np.frombuffer(data, dtype, offset=file.tell())
        return values.reshape(shape, order="F" if by_columns else "C")
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged files
        raise InputError(
            f"{path}: {quote(name)} is not a readable array ({_line(error)})"
        ) from None


def _line(error: Exception) -> str:
    return quote(" ".join(str(error).split()) or type(error).__name__)


_POINTS = ("points", "xyz", "coord", "pos")
_COLORS = ("colors", "color", "rgb")
_NORMALS = ("normals", "normal")
_ROWS = ("points", "colors", "normals")
_FORMAT, _VERSION = "o2s.scene", "1"
