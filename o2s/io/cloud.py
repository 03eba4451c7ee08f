"""What a scan file holds, before it becomes a Scene, and what its readers share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Num, Shaped

from o2s.errors import InputError


@dataclass(frozen=True)
class Cloud:
    """The points of one file, in the file's own coordinates.

    `xyz` is float64 so that map coordinates keep their millimetres. `faces` (F triangles, indices
    into the points) and `extra` (further columns by name) are there only when asked for. `step` is
    how far apart neighbouring numbers of the file's type are at its farthest coordinate.
    """

    xyz: Float64[np.ndarray, "N 3"]
    rgb: Float32[np.ndarray, "N 3"] | None = None  # in [0, 1]
    normals: Float32[np.ndarray, "N 3"] | None = None
    faces: Int32[np.ndarray, "F 3"] | None = None
    extra: Mapping[str, Shaped[np.ndarray, "N"]] = field(default_factory=dict)
    step: float = 0.0

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, mask: Bool[np.ndarray, "N"]) -> "Cloud":
        """Only the points that `mask` picks, and the triangles all of whose corners it picks."""
        if mask.all():
            return self
        faces = None
        if self.faces is not None:
            place = np.cumsum(mask, dtype=np.int32) - 1
            faces = place[self.faces[mask[self.faces].all(axis=1)]].astype(np.int32)
        return Cloud(
            self.xyz[mask],
            None if self.rgb is None else self.rgb[mask],
            None if self.normals is None else self.normals[mask],
            faces,
            {name: values[mask] for name, values in self.extra.items()},
            self.step,
        )


def cloud_from_columns(
    path: Path, columns: Mapping[str, Num[np.ndarray, "N"]], extra: Sequence[str] = ()
) -> Cloud:
    """Build a Cloud from a table's columns by their usual names.

    Raises:
        InputError: there is no x, y, z, or no column that `extra` names.
    """
    found = ", ".join(map(quote, columns)) or "none"
    plain = {name: name.lower().removeprefix("scalar_") for name in columns}
    if len(set(plain.values())) == len(plain):  # Red, scalar_Red and red are all the same
        columns = {plain[name]: values for name, values in columns.items()} | dict(columns)
    missing = [name for name in ("x", "y", "z", *extra) if name not in columns]
    if missing:
        raise InputError(f"{path}: no property {', '.join(map(quote, missing))}; found {found}")

    def stack(choices: Sequence[tuple[str, str, str]]) -> np.ndarray | None:
        for names in choices:
            if all(name in columns for name in names):
                return np.stack([columns[name] for name in names], axis=1)
        return None

    xyz, rgb, normals = stack(_XYZ), stack(_RGB), stack(_NORMALS)
    assert xyz is not None
    step = step_of(xyz)
    with np.errstate(invalid="ignore"):  # signalling NaNs, dropped later like any other
        xyz = xyz.astype(np.float64)
    return Cloud(
        xyz=xyz,
        rgb=None if rgb is None else unit_colors(rgb),
        normals=None if normals is None else finite_normals(normals),
        extra={name: columns[name].copy() for name in extra},
        step=step,
    )


def step_of(xyz: Num[np.ndarray, "N 3"]) -> float:
    """How far apart neighbouring numbers of the array's type are at its farthest coordinate; 0 for
    whole numbers. Map coordinates in float32 lie half a metre apart."""
    if xyz.dtype.kind != "f" or not len(xyz):
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        finite = xyz[(np.abs(xyz.astype(np.float64)) < FARTHEST).all(axis=1)]
    return float(np.spacing(np.abs(finite).max())) if len(finite) else 0.0


def unit_colors(values: Num[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    """Colours as float32 in [0, 1], whatever range the file uses.

    Bytes run to 255. Wider integers run to 65535, unless none of them passes 255. Floats run to 1
    or, where more than one in a hundred passes 1 by more than rounding, to 255. NaN becomes black.
    """
    if not len(values):
        return np.zeros((0, 3), np.float32)
    if values.dtype.kind == "f":
        few = values[:: 1 + len(values) // 100_000]
        beyond = np.isfinite(few) & (few > 1.01)
        full = 255 if beyond.any(axis=1).mean() > 0.01 else 1
    else:
        full = 255 if values.dtype.itemsize == 1 or values.max() <= 255 else 65535
    scaled = to_float32(values) / np.float32(full)
    return np.clip(np.nan_to_num(scaled, copy=False, nan=0.0), 0, 1)


def finite_normals(values: Num[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    """Normals as float32; one that could not be estimated is NaN in files and zero here."""
    return np.nan_to_num(to_float32(values), nan=0, posinf=0, neginf=0)


def to_float32(values: Num[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """The same values as float32; what is too large for it becomes infinite, without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def read_bytes(path: Path, expected: str = "a scan file") -> bytes:
    """All bytes of a file; `expected` says in messages what it should be.

    Raises:
        InputError: there is no such file, it is a folder, empty, or cannot be read.
    """
    require_content(path, expected)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def require_content(path: Path, expected: str = "a scan file") -> None:
    """Raise InputError unless `path` is a regular file that holds something."""
    require_file(path, expected)
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty; expected {expected}")


def require_file(path: Path, expected: str = "a scan file") -> None:
    """Raise InputError unless `path` is a regular file."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; expected {expected}")
        if not path.exists():
            raise InputError(f"{path}: no such file; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path}: not a regular file; expected {expected}")
    except OSError as error:  # a folder on the way that may not be entered
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def parse_count(path: Path, word: str, what: str) -> int:
    """A whole number, zero or more, out of a header."""
    if not (word.isascii() and word.isdigit() and len(word) <= 18):
        raise InputError(f"{path}: {what} is {quote(word)}; expected a whole number, zero or more")
    return int(word)


def quote(text: object) -> str:
    """Something out of a file, made fit to stand in a one-line message."""
    shown = repr(str(text))
    return shown if len(shown) <= 60 else shown[:57] + "..."


Reader = Callable[[Path], Cloud]
FARTHEST = 1e10  # the Earth's radius is 6.4e9 millimetres: beyond lie markers of invalid points
GREY = 0.5  # of points without a colour beside others
FLOAT32_REACH = 10_000  # metres, beyond which float32 loses a millimetre

_XYZ = [("x", "y", "z")]
_RGB = [
    ("red", "green", "blue"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("r", "g", "b"),
]
_NORMALS = [("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")]
