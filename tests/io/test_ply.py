"""PLY: what is written is read back, in every encoding, and broken files are refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.errors import InputError
from o2s.io import Cloud, read_ply, write_ply

FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    **{"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I"},
    **{"float": "f", "double": "d", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H"},
    **{"int32": "i", "uint32": "I", "float32": "f", "float64": "d"},
}
HEADER = (
    "ply\nformat {} 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
)


def encode(fmt: str, elements: list, newline: str = "\n") -> bytes:
    """A plain writer: elements are (name, [(type, name) or (length, type, name)], rows)."""
    header = ["ply", f"format {fmt} 1.0", "comment scanned on a Monday", "obj_info any words 1 2"]
    body = b""
    for element, properties, rows in elements:
        header.append(f"element {element} {len(rows)}")
        header += [f"property {'list ' * (len(p) == 3)}{' '.join(p)}" for p in properties]
        for row in rows:
            words = []
            for p, value in zip(properties, row, strict=True):
                if len(p) == 3:
                    words += [(p[0], len(value)), *((p[1], item) for item in value)]
                else:
                    words.append((p[0], value))
            if fmt == "ascii":
                body += (" ".join(repr(value) for _, value in words) + newline).encode()
            else:
                body += b"".join(struct.pack(FORMATS[fmt] + TYPES[t], v) for t, v in words)
    return (newline.join([*header, "end_header"]) + newline).encode() + body


def value_of(type_name: str) -> st.SearchStrategy:
    code = TYPES[type_name]
    if code in "fd":
        return st.floats(-1e6, 1e6, width=32 if code == "f" else 64)
    bits = 8 * struct.calcsize(code)
    return st.integers(
        *((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if code.islower() else (0, 2**bits - 1))
    )


@st.composite
def files(draw):
    """Bytes of a PLY file with other elements around the vertices, and what it holds."""
    types = st.sampled_from(sorted(TYPES))
    names = draw(st.permutations(["x", "y", "z", "label", "quality"]))
    properties = [(draw(types), name) for name in names]
    rows = draw(st.lists(st.tuples(*(value_of(t) for t, _ in properties)), min_size=1, max_size=5))
    whole = st.sampled_from(["uchar", "ushort", "int", "uint8", "uint32"])
    item = draw(types)
    other = [(draw(types), "weight"), (draw(whole), item, "things")]
    other_rows = draw(
        st.lists(st.tuples(value_of(other[0][0]), st.lists(value_of(item), max_size=4)), max_size=3)
    )
    faces = st.lists(st.integers(0, len(rows) - 1), max_size=6)
    index_type = draw(st.sampled_from(["int", "uint", "uchar", "short"]))
    face = [(draw(whole), index_type, "vertex_indices"), ("uchar", "red")]
    face_rows = draw(st.lists(st.tuples(faces, st.integers(0, 255)), max_size=4))
    elements = draw(
        st.permutations(
            [("vertex", properties, rows), ("other", other, other_rows), ("face", face, face_rows)]
        )
    )
    fmt = draw(st.sampled_from(sorted(FORMATS)))
    data = encode(fmt, elements, draw(st.sampled_from(["\n", "\r\n"])))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return data, columns, [polygon for polygon, _ in face_rows]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans with spaces") / "größe 点"
    folder.mkdir()
    return folder / "my scan.ply"


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@given(files())
@settings(deadline=None, max_examples=150)
def test_every_encoding_type_and_order_of_elements_is_read(path, file):
    data, columns, polygons = file
    cloud = read_ply(write(path, data), faces=True, extra=("label", "quality"))
    assert np.array_equal(cloud.xyz, np.stack([columns[axis] for axis in "xyz"], axis=1))
    for name in ("label", "quality"):
        assert cloud.extra[name].tolist() == columns[name]
    fans = [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]
    assert cloud.faces is not None
    assert cloud.faces.tolist() == fans


@given(files(), st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_is_read_or_refused_in_one_line(path, file, data):
    damaged = bytearray(file[0])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        read_ply(write(path, bytes(damaged)), faces=True)
        message = f"{path}: "
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1


@given(st.integers(0, 40), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_what_is_written_is_read_back(path, count, has_rgb, has_normals, has_faces, seed):
    rng = np.random.default_rng(seed)

    def floats() -> np.ndarray:
        return rng.normal(size=(count, 3)).astype(np.float32)

    cloud = Cloud(
        xyz=floats().astype(np.float64),
        rgb=rng.integers(0, 256, (count, 3)).astype(np.float32) / np.float32(255)
        if has_rgb
        else None,
        normals=floats() if has_normals else None,
        faces=rng.integers(0, count, (7, 3)).astype(np.int32) if has_faces and count else None,
        extra={"label": rng.integers(0, 40, count).astype(np.uint16)},
    )
    write_ply(path, cloud)
    loaded = read_ply(path, faces=cloud.faces is not None, extra=("label",))
    for name in ("xyz", "rgb", "normals", "faces"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(cloud, name))
    np.testing.assert_array_equal(loaded.extra["label"], cloud.extra["label"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    write(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_ply(path, Cloud(np.zeros((2, 3))))
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "names", ["red green blue", "diffuse_red diffuse_green diffuse_blue", "r g b"]
)
@pytest.mark.parametrize(
    "kind, half",
    [("uchar", 128), ("ushort", 32896), ("float", 128 / 255), ("float", 128.0), ("int", 128)],
)
def test_colors_come_out_between_0_and_1(path, names, kind, half):
    full = {0: 1.0, 128: 255, 32896: 65535}[int(half)]
    full = float(full) if kind == "float" else int(full)
    properties = [("float", axis) for axis in "xyz"] + [(kind, name) for name in names.split()]
    for fmt in FORMATS:
        data = encode(fmt, [("vertex", properties, [(0.0, 1.0, 2.0, 0, half, full)])])
        rgb = read_ply(write(path, data)).rgb
        assert rgb is not None
        np.testing.assert_allclose(rgb, [[0, 128 / 255, 1]], atol=1e-6)


def test_lines_that_end_in_a_carriage_return_alone(path):
    text = HEADER.format("ascii", 2) + "end_header\n1 2 3\n4 5 6\n"
    cloud = read_ply(write(path, text.replace("\n", "\r")))
    assert cloud.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_blank_lines_in_text_do_not_count(path):
    cloud = read_ply(write(path, HEADER.format("ascii", 2) + "end_header\n\n1 2 3\n \n4 5 6"))
    assert cloud.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


XYZ_ROW = struct.pack("<3f", 1, 2, 3)
BINARY = HEADER.format("binary_little_endian", 5) + "end_header\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\nend_header\n1 2 3\n"


@pytest.mark.parametrize(
    "content, message",
    {
        "empty": ("", "the file is empty"),
        "not a PLY": ("solid cube\n", "not a PLY file; expected 'ply' as its first line"),
        "no end": (HEADER.format("ascii", 1), "no 'end_header'"),
        "no end, data": (HEADER.format("ascii", 1) + "1 2 3\n", "line 7 is '1 2 3'; expected"),
        "no format": ("ply\nelement vertex 1\nend_header\n", "names no format"),
        "format": ("ply\nformat utf8 1.0\nend_header\n", "line 2 is 'format utf8 1.0'; expected"),
        "type": (
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty half x\n",
            "line 4: unknown type 'half'",
        ),
        "no xyz": (
            HEADER.format("ascii", 1).replace("float z", "float w") + "end_header\n1 2 3",
            "no property 'z'; found 'x', 'y', 'w'",
        ),
        "no vertex": ("ply\nformat ascii 1.0\nend_header\n", "no element 'vertex'"),
        "repeated": (
            HEADER.format("ascii", 1) + "property int x\n",
            "line 7 repeats the property 'x'",
        ),
        "vertex list": (
            HEADER.format("ascii", 1) + "property list int int near\nend_header\n",
            "a vertex holds a list",
        ),
        "float length": (
            HEADER.format("ascii", 1) + "property list float int i\n",
            "is of type float",
        ),
        "short binary": (
            BINARY.encode() + 3 * XYZ_ROW + b"12345",
            "promises 5 vertices, the file holds 3",
        ),
        "short text": (
            HEADER.format("ascii", 5) + "end_header\n1 2 3\n4 5 6\n",
            "promises 5 vertices, the file holds 2",
        ),
        "no text": (
            HEADER.format("ascii", 1) + "end_header\n",
            "promises 1 vertices, the file holds 0",
        ),
        "cut row": (
            HEADER.format("ascii", 2) + "end_header\n1 2 3\n4 5",
            "line 9 holds 2 numbers; expected 3",
        ),
        "word": (
            HEADER.format("ascii", 2) + "end_header\n1 2 3\n4 five 6\n",
            "line 9 holds 'five'; expected a number",
        ),
        "huge text": (
            HEADER.format("ascii", 10**12) + "end_header\n1 2 3\n",
            "promises 1000000000000 vertices, the file holds 1",
        ),
        "huge binary": (
            HEADER.format("binary_big_endian", 10**12) + "end_header\n",
            "promises 1000000000000 vertices, the file holds 0",
        ),
        "negative": (
            HEADER.format("ascii", -4),
            "the number of 'vertex' on line 3 is '-4'; expected a whole number",
        ),
        "bad index": (
            HEADER.format("ascii", 1) + FACE + "3 0 0 1\n",
            "a face names a vertex that is not one of the 1",
        ),
        "bad face": (HEADER.format("ascii", 1) + FACE + "3 0 0\n", "'3 0 0' is not a face"),
        "no faces": (HEADER.format("ascii", 1) + FACE, "promises 1 faces, the file holds 0"),
    }.values(),
)
def test_a_broken_file_is_refused_in_one_line(path, content, message):
    with pytest.raises(InputError) as error:
        read_ply(write(path, content), faces=True)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_lists_that_run_past_the_end_are_counted(path):
    header = BINARY.replace("vertex 5", "vertex 1").replace(
        "end_header", FACE.partition("end")[0] + "end_header"
    )
    header = header.replace("face 1", "face 3")
    triangle = struct.pack("<B3i", 3, 0, 0, 0)
    with pytest.raises(InputError, match="promises 3 faces, the file holds 2"):
        read_ply(write(path, header.encode() + XYZ_ROW + 2 * triangle + b"\xff123"), faces=True)


def test_a_property_that_is_not_there_is_named(path):
    write_ply(path, Cloud(np.zeros((1, 3))))
    with pytest.raises(InputError, match="no property 'label'; found 'x', 'y', 'z'"):
        read_ply(path, extra=("label",))


def test_signalling_nan_is_a_nan_like_any_other(tmp_path: Path) -> None:
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex 2\n"
    header += b"property float x\nproperty float y\nproperty float z\nend_header\n"
    body = bytes.fromhex("0100807f") + bytes(8) + np.ones(3, np.float32).tobytes()
    path = tmp_path / "nan.ply"
    path.write_bytes(header + body)
    assert np.isnan(read_ply(path).xyz).tolist() == [[True, False, False], [False] * 3]
