"""PCD files of the Point Cloud Library: ASCII, binary and LZF-compressed.

The format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html. Compressed bodies
store field after field, packed with LZF (http://oldhome.schmorp.de/marc/liblzf.html).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from o2s.errors import InputError
from o2s.io.cloud import Cloud, cloud_from_columns, parse_count, quote, read_bytes
from o2s.io.text import read_table
from o2s.ops.kernels import compiled


def read_pcd(path: Path) -> Cloud:
    """Read the points of a PCD file, organised or not.

    Colours are packed into one `rgb` or `rgba` field or named r g b; normals normal_x ... or nx ny
    nz. VIEWPOINT, the pose of the sensor, is not applied, as in PCL. Invalid points stay NaN.

    Raises:
        InputError: the file is missing, broken, shorter than its header says, or has no x, y, z.
    """
    data = read_bytes(path)
    header = _read_header(path, data)
    if not header.points:
        raise InputError(f"{path}: holds no points; expected a scan")
    columns = _READERS[header.encoding](path, data, header)
    for name in ("rgba", "rgb"):
        if name in columns:
            columns |= _unpack_colors(path, columns.pop(name))
    return cloud_from_columns(path, columns)


def lzf_decompress(packed: UInt8[np.ndarray, "I"], size: int) -> UInt8[np.ndarray, "O"] | None:
    """Unpack `size` bytes of LZF; None if `packed` is broken or holds another number of bytes."""
    out = np.empty(size, np.uint8)
    return out if _lzf(packed, out) == size else None


# A back reference of 3 bytes unpacks to at most 264.
_LZF_RATIO = 88


@dataclass(frozen=True)
class _Field:
    name: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Header:
    fields: list[_Field]
    points: int
    encoding: str
    size: int  # in bytes
    lines: int

    @property
    def point_bytes(self) -> int:
        return sum(f.dtype.itemsize * f.count for f in self.fields)


def _read_header(path: Path, data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    at = number = 0
    while "DATA" not in entries:
        end = data.find(b"\n", at)
        line = data[at : len(data) if end < 0 else end].decode("latin-1").strip()
        at, number = (len(data) if end < 0 else end + 1), number + 1
        key, *words = line.split() or ["#"]
        if not (key in _KEYS or key.startswith("#")):
            expected = "expected a line of a PCD header" if entries else "expected a PCD file"
            raise InputError(f"{path}: line {number} is {quote(line)}; {expected}")
        if end < 0 and key != "DATA":
            raise InputError(f"{path}: the header has no 'DATA'; is the file cut short?")
        entries["FIELDS" if key == "COLUMNS" else key] = words

    names = entries.get("FIELDS", [])
    codes = zip(entries.get("TYPE", []), entries.get("SIZE", []), strict=False)
    types = [kind + size for kind, size in codes]
    counts = entries.get("COUNT", ["1"] * len(names))
    if not (names and len(names) == len(types) == len(counts)):
        raise InputError(
            f"{path}: {len(names)} FIELDS, {len(types)} TYPEs with SIZE and {len(counts)} COUNTs; "
            "expected as many of each"
        )
    fields = []
    for name, code, count in zip(names, types, counts, strict=True):
        if code not in _TYPES:
            raise InputError(
                f"{path}: the field {quote(name)} has TYPE and SIZE {quote(code)}; "
                f"expected one of {', '.join(_TYPES)}"
            )
        dtype = np.dtype("<" + code.lower())
        fields.append(_Field(name, dtype, parse_count(path, count, f"the COUNT of {quote(name)}")))

    def number_of(key: str) -> int | None:
        words = entries.get(key)
        return None if words is None else parse_count(path, " ".join(words), key)

    width, height, points = map(number_of, ("WIDTH", "HEIGHT", "POINTS"))
    area = points if width is None else width * (1 if height is None else height)
    if area is None or points not in (None, area):
        raise InputError(f"{path}: {points} POINTS; expected WIDTH times HEIGHT, {area}")
    encoding = " ".join(entries["DATA"])
    if encoding not in _READERS:
        raise InputError(
            f"{path}: DATA is {quote(encoding)}; expected one of {', '.join(_READERS)}"
        )
    return _Header(fields, area, encoding, at, number)


def _text(path: Path, data: bytes, header: _Header) -> dict[str, np.ndarray]:
    table = read_table(
        path,
        data[header.size :],
        skip=0,
        rows=header.points,
        columns=sum(f.count for f in header.fields),
        first_line=header.lines + 1,
        what="points",
    )
    columns, at = {}, 0
    for field in header.fields:
        if field.count == 1:
            values = table[:, at]
            if field.dtype.kind != "f" or field.name in ("rgb", "rgba"):
                with np.errstate(invalid="ignore", over="ignore"):
                    values = values.astype(field.dtype)
            columns.setdefault(field.name, values)
        at += field.count
    return columns


def _binary(path: Path, data: bytes, header: _Header) -> dict[str, np.ndarray]:
    held = (len(data) - header.size) // max(header.point_bytes, 1)
    if held < header.points:
        raise _short(path, header.points, held)
    if not header.point_bytes:
        return {}
    row = np.dtype([(str(i), f.dtype, (f.count,)) for i, f in enumerate(header.fields)])
    table = np.frombuffer(data, row, header.points, header.size)
    columns = {}
    for i, field in enumerate(header.fields):
        if field.count == 1:
            columns.setdefault(field.name, table[str(i)][:, 0])
    return columns


def _compressed(path: Path, data: bytes, header: _Header) -> dict[str, np.ndarray]:
    start = header.size + 8
    if len(data) < start:
        raise InputError(f"{path}: the file ends before its compressed points")
    packed_size, size = map(int, np.frombuffer(data, "<u4", 2, header.size))
    if len(data) - start < packed_size:
        raise InputError(
            f"{path}: {packed_size} bytes of compressed points promised, "
            f"the file holds {len(data) - start}"
        )
    expected = header.points * header.point_bytes
    if size != expected or size > _LZF_RATIO * packed_size:
        held = min(size, _LZF_RATIO * packed_size) // max(header.point_bytes, 1)
        raise _short(path, header.points, held)
    body = lzf_decompress(np.frombuffer(data, np.uint8, packed_size, start), size)
    if body is None:
        raise InputError(f"{path}: the compressed points are damaged; expected LZF data")
    columns, at = {}, 0
    for field in header.fields:
        length = header.points * field.count * field.dtype.itemsize
        if field.count == 1:
            columns.setdefault(field.name, body[at : at + length].view(field.dtype))
        at += length
    return columns


def _short(path: Path, promised: int, held: int) -> InputError:
    return InputError(f"{path}: the header promises {promised} points, the file holds {held}")


def _unpack_colors(path: Path, packed: Shaped[np.ndarray, "N"]) -> dict[str, np.ndarray]:
    """The bytes 0xAARRGGBB of each number; a float's bits count, not its value."""
    if packed.dtype.itemsize != 4:
        raise InputError(f"{path}: packed colours of SIZE {packed.dtype.itemsize}; expected 4")
    bits = np.ascontiguousarray(packed).view("<u4")
    shifts = {"red": 16, "green": 8, "blue": 0}
    return {name: (bits >> shift & 255).astype(np.uint8) for name, shift in shifts.items()}


@compiled
def _lzf(packed, out):
    """Unpack into `out` and return the bytes written, or -1 where the data would overrun."""
    read = written = 0
    while read < len(packed):
        control = np.int64(packed[read])
        read += 1
        if control < 32:  # a run of literal bytes
            length = control + 1
            if read + length > len(packed) or written + length > len(out):
                return -1
            for i in range(length):
                out[written + i] = packed[read + i]
            read += length
        else:  # a copy of earlier output, which may overlap what it writes
            length = control >> 5
            if read + (2 if length == 7 else 1) > len(packed):
                return -1
            if length == 7:
                length += np.int64(packed[read])
                read += 1
            length += 2
            source = written - ((control & 31) << 8) - np.int64(packed[read]) - 1
            read += 1
            if source < 0 or written + length > len(out):
                return -1
            for i in range(length):
                out[written + i] = out[source + i]
        written += length
    return written


_KEYS = {"VERSION", "FIELDS", "COLUMNS", "SIZE", "TYPE", "COUNT"} | {
    *("WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
}
_TYPES = ("I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8", "F4", "F8")
_READERS = {"ascii": _text, "binary": _binary, "binary_compressed": _compressed}
