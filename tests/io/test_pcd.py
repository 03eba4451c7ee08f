"""PCD: three encodings hold the same points, and no damaged file reads outside its bounds."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.errors import InputError
from o2s.io import read_pcd
from o2s.io.pcd import lzf_decompress

DTYPES = ["I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8", "F4", "F8"]
ENCODINGS = ["ascii", "binary", "binary_compressed"]


def lzf_compress(data: bytes) -> bytes:
    """Plain greedy LZF: the longest earlier match of 3 to 264 bytes, else literals."""
    out, literals, at = b"", b"", 0

    def flush() -> bytes:
        runs = [literals[i : i + 32] for i in range(0, len(literals), 32)]
        return b"".join(bytes([len(run) - 1]) + run for run in runs)

    while at < len(data):
        best, source = 0, 0
        for start in range(max(0, at - 8192), at):
            length = 0
            while (
                length < 264
                and at + length < len(data)
                and data[start + length] == data[at + length]
            ):
                length += 1
            if length > best:
                best, source = length, start
        if best < 3:
            literals += data[at : at + 1]
            at += 1
            continue
        out, literals, back = out + flush(), b"", at - source - 1
        if best < 9:
            out += bytes([(best - 2) << 5 | back >> 8, back & 255])
        else:
            out += bytes([7 << 5 | back >> 8, best - 9, back & 255])
        at += best
    return out + flush()


def encode(encoding: str, fields: list[tuple[str, str, np.ndarray]], height: int = 1) -> bytes:
    """A plain writer: fields are (name, type and size, values [N] or [N, count])."""
    columns = [(name, code, values.reshape(len(values), -1)) for name, code, values in fields]
    points = len(columns[0][2])
    header = ["# .PCD v0.7 - Point Cloud Data file format", "VERSION 0.7"]
    header.append("FIELDS " + " ".join(name for name, _, _ in columns))
    header.append("SIZE " + " ".join(code[1:] for _, code, _ in columns))
    header.append("TYPE " + " ".join(code[0] for _, code, _ in columns))
    header.append("COUNT " + " ".join(str(values.shape[1]) for _, _, values in columns))
    header += [f"WIDTH {points // height}", f"HEIGHT {height}", "VIEWPOINT 0 0 0 1 0 0 0"]
    header += [f"POINTS {points}", f"DATA {encoding}", ""]
    typed = [values.astype("<" + code.lower()) for _, code, values in columns]
    if encoding == "ascii":
        rows = ((repr(v) for values in typed for v in values[i].tolist()) for i in range(points))
        body = "".join(" ".join(row) + "\n" for row in rows).encode()
    elif encoding == "binary":
        body = b"".join(values[i].tobytes() for i in range(points) for values in typed)
    else:
        raw = b"".join(values.tobytes() for values in typed)
        packed = lzf_compress(raw)
        body = struct.pack("<2I", len(packed), len(raw)) + packed
    return "\n".join(header).encode() + body


@st.composite
def files(draw):
    """Bytes of a PCD file and the coordinates in it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    points = draw(st.integers(1, 12))
    fields = []
    for name in draw(st.permutations(["x", "y", "z", "intensity", "_", "fpfh"])):
        code = draw(st.sampled_from(DTYPES))
        columns = draw(st.integers(1, 4)) if name in ("_", "fpfh") else 1
        values = rng.integers(0, 100, (points, columns)) + (rng.random() if code[0] == "F" else 0)
        fields.append((name, code, values.astype("<" + code.lower())))
    data = encode(draw(st.sampled_from(ENCODINGS)), fields)
    values = {name: column[:, 0].astype(np.float64) for name, _, column in fields}
    return data, np.stack([values[axis] for axis in "xyz"], axis=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pcd") / "scan.pcd"


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@given(files())
@settings(deadline=None, max_examples=100)
def test_every_encoding_and_type_is_read(path, file):
    data, xyz = file
    np.testing.assert_array_equal(read_pcd(write(path, data)).xyz, xyz)


@given(files(), st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_file_is_read_or_refused_in_one_line(path, file, data):
    damaged = bytearray(file[0])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        read_pcd(write(path, bytes(damaged)))
        message = f"{path}: "
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1


@given(st.binary(max_size=60) | st.text("ab", max_size=600).map(str.encode))
@settings(deadline=None, max_examples=80)
def test_lzf_gives_back_what_was_compressed(raw):
    packed = np.frombuffer(lzf_compress(raw), np.uint8)
    unpacked = lzf_decompress(packed, len(raw))
    assert unpacked is not None
    assert unpacked.tobytes() == raw
    assert lzf_decompress(packed, len(raw) + 1) is None
    assert not raw or lzf_decompress(packed, len(raw) - 1) is None


@given(st.binary(max_size=80), st.integers(0, 200))
@settings(deadline=None, max_examples=200)
def test_lzf_stays_inside_its_bounds_on_any_bytes(packed, size):
    # The same function uncompiled: there NumPy itself raises IndexError on a step outside.
    from o2s.io.pcd import _lzf

    body = np.frombuffer(packed, np.uint8)
    fast, slow = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    assert _lzf(body, fast) == _lzf.py_func(body, slow)
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("code", ["F4", "U4", "I4"])
@pytest.mark.parametrize("name", ["rgb", "rgba"])
def test_packed_colors_and_normals(path, encoding, code, name):
    rgb = np.array([[255, 0, 0], [1, 2, 3], [0, 128, 255]])
    packed = (rgb @ [1 << 16, 1 << 8, 1]).astype("<u4").view("<" + code.lower())
    normals = np.eye(3)
    fields = [(axis, "F4", np.arange(3) + i) for i, axis in enumerate("xyz")]
    fields += [(f"normal_{axis}", "F4", normals[:, i]) for i, axis in enumerate("xyz")]
    cloud = read_pcd(write(path, encode(encoding, [*fields, (name, code, packed)])))
    assert cloud.rgb is not None
    np.testing.assert_array_equal((cloud.rgb * 255).round(), rgb)
    np.testing.assert_array_equal(cloud.normals, normals)


def test_opaque_colors_survive_although_their_bits_are_a_float_nan(path):
    packed = np.array([0xFF102030, 0xFFC0FFEE], "<u4").view("<f4")
    fields = [(axis, "F4", np.arange(2)) for axis in "xyz"]
    cloud = read_pcd(write(path, encode("binary", [*fields, ("rgba", "F4", packed)])))
    assert cloud.rgb is not None
    assert (cloud.rgb * 255).round().tolist() == [[0x10, 0x20, 0x30], [0xC0, 0xFF, 0xEE]]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_organised_clouds_keep_their_invalid_points_as_nan(path, encoding):
    x = np.array([0, np.nan, 2, 3, np.nan, 5])
    data = encode(encoding, [(axis, "F4", x) for axis in "xyz"], height=2)
    if encoding == "ascii":
        assert b"WIDTH 3\nHEIGHT 2" in data
    np.testing.assert_array_equal(read_pcd(write(path, data)).xyz, np.stack([x] * 3, axis=1))


XYZ = [(axis, "F4", np.arange(4)) for axis in "xyz"]
TEXT = encode("ascii", XYZ).decode()
BINARY = encode("binary", XYZ)
PACKED = encode("binary_compressed", XYZ)


def broken_lzf() -> bytes:
    at = PACKED.index(b"compressed\n") + len(b"compressed\n") + 8
    return PACKED[:at] + b"\xff" + PACKED[at + 1 :]


@pytest.mark.parametrize(
    "content, message",
    {
        "not a PCD": ("ply\n", "line 1 is 'ply'; expected a PCD file"),
        "no data": ("VERSION 0.7\nFIELDS x y z\n", "the header has no 'DATA'"),
        "encoding": (TEXT.replace("ascii", "zip"), "DATA is 'zip'; expected one of ascii, binary"),
        "size": (
            TEXT.replace("SIZE 4", "SIZE 3"),
            "'x' has TYPE and SIZE 'F3'; expected one of I1",
        ),
        "type": (TEXT.replace("TYPE F F", "TYPE F Q"), "'y' has TYPE and SIZE 'Q4'"),
        "fewer sizes": (TEXT.replace("SIZE 4", "SIZE"), "3 FIELDS, 2 TYPEs with SIZE and 3 COUNTs"),
        "count": (TEXT.replace("COUNT 1", "COUNT -1"), "the COUNT of 'x' is '-1'"),
        "no z": (TEXT.replace("x y z", "x y w"), "no property 'z'; found 'x', 'y', 'w'"),
        "points": (
            TEXT.replace("POINTS 4", "POINTS 5"),
            "5 POINTS; expected WIDTH times HEIGHT, 4",
        ),
        "empty": (
            TEXT.replace("WIDTH 4", "WIDTH 0").replace("POINTS 4", "POINTS 0"),
            "holds no points",
        ),
        "short text": (TEXT[:-12], "promises 4 points, the file holds 3"),
        "word": (
            TEXT.replace("2.0 2.0 2.0", "2.0 two 2.0"),
            "line 14 holds 'two'; expected a number",
        ),
        "short binary": (BINARY[:-1], "promises 4 points, the file holds 3"),
        "huge": (
            BINARY.replace(b"4\nHEIGHT", b"1000000000000\nHEIGHT").replace(
                b"POINTS 4", b"POINTS 1000000000000"
            ),
            "promises 1000000000000 points, the file holds 4",
        ),
        "short packed": (PACKED[:-1], "bytes of compressed points promised, the file holds"),
        "no packed": (
            PACKED[: PACKED.index(b"compressed\n") + 13],
            "ends before its compressed points",
        ),
        "broken LZF": (broken_lzf(), "the compressed points are damaged; expected LZF data"),
        "wide color": (
            encode("binary", [*XYZ, ("rgb", "F8", np.zeros(4))]),
            "packed colours of SIZE 8",
        ),
    }.values(),
)
def test_a_broken_file_is_refused_in_one_line(path, content, message):
    with pytest.raises(InputError) as error:
        read_pcd(write(path, content))
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1
