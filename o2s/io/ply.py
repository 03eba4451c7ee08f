"""PLY files: ASCII and both binary encodings, point clouds and meshes.

The format: Greg Turk, "The PLY Polygon File Format", Stanford 1994. A header lists elements
("vertex", "face", ...) with their counts and properties; the elements' rows follow in that order.
A property is a number or a list that is preceded by its length.
"""

import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Integer

from o2s.errors import InputError
from o2s.files import replacing
from o2s.io.cloud import Cloud, cloud_from_columns, quote, read_bytes
from o2s.io.ply_header import NAME_OF, Element, Header, read_header
from o2s.io.text import read_table
from o2s.ops.kernels import compiled


def read_ply(path: Path, *, faces: bool = False, extra: Sequence[str] = ()) -> Cloud:
    """Read the vertices of a PLY file and, if asked, its faces and further vertex properties.

    Colours may be named red green blue, diffuse_red ... or r g b; normals nx ny nz. Polygons
    become fans of triangles; a file without faces gives none.

    Args:
        faces: fill `Cloud.faces`.
        extra: names of vertex properties to put into `Cloud.extra`, in the file's own type.

    Raises:
        InputError: the file is missing, broken, shorter than its header says, or has no x, y, z
            or none of a property that `extra` names.
    """
    return parse_ply(path, read_bytes(path), faces=faces, extra=extra)


def parse_ply(path: Path, data: bytes, *, faces: bool = False, extra: Sequence[str] = ()) -> Cloud:
    """The same for the bytes of a PLY file; `path` stands in messages and is not read."""
    header = read_header(path, data)
    vertex = header.vertex(path)
    columns = (_text_vertices if header.order is None else _binary_vertices)(path, data, header)
    cloud = cloud_from_columns(path, columns, extra)
    if not faces:
        return cloud
    face = next((e for e in header.elements if e.name == "face"), None)
    triangles = np.zeros((0, 3), np.int32)
    if face is not None and face.rows:
        read = _text_polygons if header.order is None else _binary_polygons
        triangles = _triangles(path, *read(path, data, header, face), vertex.rows)
    return Cloud(cloud.xyz, cloud.rgb, cloud.normals, triangles, cloud.extra)


def write_ply(path: Path, cloud: Cloud) -> None:
    """Write a binary little-endian PLY: float xyz, uchar colours, normals, `extra`, faces.

    Coordinates are rounded to float32, as readers expect: centre map coordinates before.
    """
    fields: list[tuple[str, str, np.ndarray]] = []

    def add(names: str, dtype: str, values: np.ndarray) -> None:
        fields.extend((name, dtype, values[:, i]) for i, name in enumerate(names.split()))

    add("x y z", "<f4", cloud.xyz)
    if cloud.normals is not None:
        add("nx ny nz", "<f4", cloud.normals)
    if cloud.rgb is not None:
        add("red green blue", "|u1", np.round(np.clip(cloud.rgb, 0, 1) * 255))
    for name, values in cloud.extra.items():
        add(name, values.dtype.newbyteorder("<").str, values[:, None])

    vertices = np.empty(len(cloud), [(name, dtype) for name, dtype, _ in fields])
    for name, _, values in fields:
        vertices[name] = values
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    lines += [f"property {NAME_OF[dtype[1:]]} {name}" for name, dtype, _ in fields]
    triangles = None
    if cloud.faces is not None:
        lines += [f"element face {len(cloud.faces)}", "property list uchar int vertex_indices"]
        triangles = np.empty(len(cloud.faces), [("count", "|u1"), ("indices", "<i4", (3,))])
        triangles["count"], triangles["indices"] = 3, cloud.faces
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join([*lines, "end_header", ""]).encode())
        file.write(vertices.tobytes())
        if triangles is not None:
            file.write(triangles.tobytes())


def _text_vertices(path: Path, data: bytes, header: Header) -> dict[str, np.ndarray]:
    vertex = header.vertex(path)
    table = read_table(
        path,
        _text_body(data, header),
        skip=sum(e.rows for e in header.before(vertex)),
        rows=vertex.rows,
        columns=len(vertex.properties),
        first_line=header.lines + 1,
        what="vertices",
    )
    columns = {}
    for i, p in enumerate(vertex.properties):
        # Floats stay float64: writers print more digits than the type that they declare holds.
        with np.errstate(invalid="ignore"):
            columns[p.name] = table[:, i] if p.dtype.kind == "f" else table[:, i].astype(p.dtype)
    return columns


def _text_polygons(
    path: Path, data: bytes, header: Header, face: Element
) -> tuple[Integer[np.ndarray, "I"], Int64[np.ndarray, "F"]]:
    chosen = _index_property(path, face)
    skip = sum(e.rows for e in header.before(face))
    body = _text_body(data, header)
    flat: list[int] = []
    lengths: list[int] = []
    if skip + face.rows <= body.count(b"\n") + 1:
        rows = filter(bytes.strip, io.BytesIO(body))
        for line in islice(rows, skip, skip + face.rows):
            words, at = line.split(), 0
            try:
                for i, p in enumerate(face.properties):
                    length = 1 if p.length is None else int(words[at])
                    at += p.length is not None
                    if length < 0 or at + length > len(words):
                        raise ValueError
                    if i == chosen:
                        flat.extend(map(int, words[at : at + length]))
                        lengths.append(length)
                    at += length
            except (ValueError, IndexError):
                shown = quote(line.decode("latin-1").strip())
                raise InputError(f"{path}: {shown} is not a face as the header says") from None
    if len(lengths) < face.rows:
        raise _short(path, face, len(lengths))
    try:
        return np.array(flat, np.int64), np.array(lengths, np.int64)
    except OverflowError:
        raise InputError(f"{path}: a face names a vertex beyond the file's last") from None


def _text_body(data: bytes, header: Header) -> bytes:
    body = data[header.size :]
    return body.replace(b"\r", b"\n") if header.newline == b"\r" else body


def _binary_vertices(path: Path, data: bytes, header: Header) -> dict[str, np.ndarray]:
    vertex = header.vertex(path)
    start = _start(path, data, header, vertex)
    held = (len(data) - start) // max(vertex.least_bytes, 1)
    if held < vertex.rows:
        raise _short(path, vertex, held)
    if not vertex.properties:
        return {}
    dtype = np.dtype([(str(i), p.dtype) for i, p in enumerate(vertex.properties)])
    table = np.frombuffer(data, dtype, vertex.rows, start)
    return {p.name: table[str(i)] for i, p in enumerate(vertex.properties)}


def _binary_polygons(
    path: Path, data: bytes, header: Header, face: Element
) -> tuple[Integer[np.ndarray, "I"], Int64[np.ndarray, "F"]]:
    chosen = _index_property(path, face)
    start = _start(path, data, header, face)
    held = (len(data) - start) // face.least_bytes
    if held < face.rows:
        raise _short(path, face, held)
    starts, lengths = np.empty((2, face.rows), np.int64)
    _skip_lists(path, data, header, face, start, chosen, starts, lengths)
    dtype = face.properties[chosen].dtype
    gathered = np.empty(int(lengths.sum()) * dtype.itemsize, np.uint8)
    _gather(np.frombuffer(data, np.uint8), starts, lengths * dtype.itemsize, gathered)
    return gathered.view(dtype), lengths


def _start(path: Path, data: bytes, header: Header, element: Element) -> int:
    """Where the rows of `element` begin; the elements before it may hold lists."""
    none = np.empty(0, np.int64)
    at = header.size
    for before in header.before(element):
        if before.rows * before.least_bytes > len(data) - at:
            raise _short(path, before, (len(data) - at) // before.least_bytes)
        if before.has_lists:
            at = _skip_lists(path, data, header, before, at, -1, none, none)
        else:
            at += before.rows * before.least_bytes
    return at


def _skip_lists(
    path: Path,
    data: bytes,
    header: Header,
    element: Element,
    start: int,
    chosen: int,
    starts: Int64[np.ndarray, "F"],
    lengths: Int64[np.ndarray, "F"],
) -> int:
    """The end of an element with lists; notes where the lists of the chosen property are."""
    length_bytes = [p.length.itemsize if p.length else 0 for p in element.properties]
    item_bytes = [p.dtype.itemsize for p in element.properties]
    rows, end = _walk(
        np.frombuffer(data, np.uint8),
        start,
        element.rows,
        np.array(length_bytes),
        np.array(item_bytes),
        header.order == ">",
        chosen,
        starts,
        lengths,
    )
    if rows < element.rows:
        raise _short(path, element, rows)
    return end


def _index_property(path: Path, face: Element) -> int:
    for i, p in enumerate(face.properties):
        if p.name in ("vertex_indices", "vertex_index") and p.length and p.dtype.kind != "f":
            return i
    raise InputError(f"{path}: faces without the list 'vertex_indices' of integers")


def _triangles(
    path: Path, flat: Integer[np.ndarray, "I"], lengths: Int64[np.ndarray, "F"], vertices: int
) -> Int32[np.ndarray, "T 3"]:
    """Cut each polygon into the fan of triangles around its first corner."""
    if len(flat) and not (flat.min() >= 0 and flat.max() < vertices):
        raise InputError(f"{path}: a face names a vertex that is not one of the {vertices}")
    fans = np.maximum(lengths - 2, 0)
    first = np.repeat(np.cumsum(lengths) - lengths, fans)
    step = np.arange(len(first)) - np.repeat(np.cumsum(fans) - fans, fans)
    corners = [first, first + step + 1, first + step + 2]
    return np.stack([flat[corner] for corner in corners], axis=1).astype(np.int32)


def _short(path: Path, element: Element, held: int) -> InputError:
    plural = {"vertex": "vertices", "face": "faces"}.get(element.name, f"of {quote(element.name)}")
    return InputError(f"{path}: the header promises {element.rows} {plural}, the file holds {held}")


@compiled
def _walk(body, start, rows, length_bytes, item_bytes, big_endian, chosen, starts, lengths):
    """Rows read and where they end; fewer rows than asked where the body ends too early."""
    at = start
    for row in range(rows):
        for i in range(len(item_bytes)):
            length = 1
            size = length_bytes[i]
            if size > 0:
                if at + size > len(body):
                    return row, at
                length = 0
                for byte in range(size):
                    place = size - 1 - byte if big_endian else byte
                    length += np.int64(body[at + byte]) << (8 * place)
                at += size
            if at + length * item_bytes[i] > len(body):
                return row, at
            if i == chosen:
                starts[row], lengths[row] = at, length
            at += length * item_bytes[i]
    return rows, at


@compiled
def _gather(body, starts, sizes, out):
    """Copy the pieces that begin at `starts` one after the other; `_walk` has checked them."""
    at = 0
    for row in range(len(starts)):
        for byte in range(sizes[row]):
            out[at + byte] = body[starts[row] + byte]
        at += sizes[row]
