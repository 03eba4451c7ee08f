"""Points in text files (.xyz, .txt, .csv, .asc, .pts) and in NumPy's .npy.

One row a point. Columns are named by a first line of names, such as `x,y,z,red,green,blue`, or go
by their number:

    3, 4, 5        x y z, the others are passed over (intensity, label)
    6              x y z and RGB, or x y z and normals where these are unit vectors
    7              x y z, intensity and RGB, as in Leica's .pts, which begins with a count
    9, 10          x y z, RGB and normals

Numbers of text are parted by blanks, tabs, commas or semicolons; lines that begin with # or // are
passed over.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Num

from o2s.errors import InputError
from o2s.io.cloud import Cloud, cloud_from_columns, quote, read_bytes
from o2s.io.text import is_number, read_table

_NORMALS = ("nx", "ny", "nz")
_RGB = ("red", "green", "blue")
_BY_NUMBER: dict[int, tuple[str, ...]] = {
    **{6: _RGB, 7: ("intensity", *_RGB)},
    **dict.fromkeys((9, 10), (*_RGB, *_NORMALS)),
}


def read_text(path: Path) -> Cloud:
    """Read the points of a text file, see above.

    Raises:
        InputError: the file is missing or empty, a line holds another number of values than the
            first or something that is no number, or there is no x, y, z.
    """
    body = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    lines = body.translate(bytes.maketrans(b",;\t\r", b"    ")).split(b"\n")
    lines = [b"" if line.lstrip()[:1] == b"#" or b"//" in line[:3] else line for line in lines]
    at = next((i for i, line in enumerate(lines) if line.strip()), None)
    if at is None:
        raise InputError(f"{path}: holds no points; expected one in each line")
    names = lines[at].decode("utf-8", "replace").split()
    if all(is_number(name) for name in names):
        counted = len(names) == 1  # Leica's .pts begins with the number of points
        names = []
    else:
        counted = True
    start = at + counted
    held = [line for line in lines[start:] if line.strip()]
    if not held:
        raise InputError(f"{path}: holds no points; expected one in each line")
    columns = len(held[0].split())
    table = read_table(
        path,
        b"\n".join(lines[start:]),
        skip=0,
        rows=len(held),
        columns=columns,
        first_line=start + 1,
        what="points",
    )
    if not names:
        return cloud_of_rows(path, table)
    if len(names) != columns:
        raise InputError(
            f"{path}: line {at + 1} names {len(names)} columns, and the next line holds {columns}"
        )
    return cloud_from_columns(path, dict(zip(names, table.T, strict=True)))


def read_npy(path: Path) -> Cloud:
    """Read points [N, 3 or more] from a NumPy array; pickled objects are never loaded.

    Raises:
        InputError: the file is missing, damaged, or no array of numbers of that shape.
    """
    try:
        array = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # numpy raises several kinds on damaged files
        line = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: not an .npy array of numbers ({line})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim != 2:
        shape = getattr(array, "shape", None)
        raise InputError(f"{path}: holds {quote(shape)}; expected numbers of shape [N, 3]")
    return cloud_of_rows(path, array)


def cloud_of_rows(path: Path, rows: Num[np.ndarray, "N C"]) -> Cloud:
    """A Cloud of rows whose columns have no names.

    Raises:
        InputError: fewer than three columns, or one column a point.
    """
    count, columns = rows.shape
    if columns < 3 or count <= 16 < columns:
        why = ": transpose it" if count <= 16 < columns else ", with x, y and z"
        raise InputError(f"{path}: of shape [{count}, {columns}], expected one row a point{why}")
    names: tuple[str, ...] = _BY_NUMBER.get(columns, ())
    if columns == 6 and are_unit_vectors(rows[:, 3:6]):
        names = _NORMALS
    named = zip(("x", "y", "z", *names), rows.T, strict=False)
    return cloud_from_columns(path, dict[str, np.ndarray](named))


def are_unit_vectors(columns: Num[np.ndarray, "N 3"]) -> bool:
    """Whether these are normals and no colours: of length 1, and some of them below 0."""
    if columns.dtype.kind != "f" or not len(columns):
        return False
    few = columns[:: 1 + len(columns) // 10_000].astype(np.float64)
    few = few[np.isfinite(few).all(axis=1)]
    lengths = np.linalg.norm(few, axis=1)
    return bool((few < 0).any()) and bool((np.abs(lengths - 1) < 0.01).mean() > 0.9)
