"""`.sens` streams: read as SensReader reads them, written whole, exported as they are stored."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from o2s.datasets.sens import Camera, Frame, SensStream, export_frames, write_sens
from o2s.errors import InputError

WIDTH, HEIGHT, DEPTH_WIDTH, DEPTH_HEIGHT = 12, 8, 6, 4
LOST = np.full((4, 4), -np.inf)
CODES = {"raw": 0, "png": 1, "jpeg": 2}


def camera(width: int, height: int, seed: int) -> Camera:
    intrinsic, extrinsic = np.random.default_rng(seed).normal(size=(2, 4, 4)).astype(np.float32)
    return Camera(width, height, intrinsic.astype(np.float64), extrinsic.astype(np.float64))


COLOR, DEPTH = camera(WIDTH, HEIGHT, 1), camera(DEPTH_WIDTH, DEPTH_HEIGHT, 2)


def encoded(color: np.ndarray, storage: str) -> bytes:
    if storage == "raw":
        return color.tobytes()
    file = BytesIO()
    Image.fromarray(color).save(file, storage, quality=90)
    return file.getvalue()


def plain_sens(
    frames: list[tuple],
    *,
    color_type: int = 2,
    depth_type: int = 1,
    shift: float = 1000.0,
    name: bytes = b"o2s",
    sizes: tuple[int, int, int, int] = (WIDTH, HEIGHT, DEPTH_WIDTH, DEPTH_HEIGHT),
    version: int = 4,
    promised: int | None = None,
    tail: bytes = bytes(8),
) -> bytes:
    """The format, value by value; a frame is pose, time stamps, and both images as stored."""
    out = struct.pack("<I", version) + struct.pack("<Q", len(name)) + name
    for matrix in (COLOR.intrinsic, COLOR.extrinsic, DEPTH.intrinsic, DEPTH.extrinsic):
        out += b"".join(struct.pack("<f", value) for row in matrix for value in row)
    out += struct.pack("<i", color_type) + struct.pack("<i", depth_type)
    out += b"".join(struct.pack("<I", size) for size in sizes)
    out += struct.pack("<f", shift)
    out += struct.pack("<Q", len(frames) if promised is None else promised)
    for pose, times, color, depth in frames:
        out += b"".join(struct.pack("<f", value) for row in pose for value in row)
        out += b"".join(struct.pack("<Q", time) for time in times)
        out += struct.pack("<Q", len(color)) + struct.pack("<Q", len(depth)) + color + depth
    return out + tail


def images(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A colour image and a depth image in the file's units."""
    rng = np.random.default_rng(seed)
    color = np.kron(rng.integers(0, 255, (2, 3, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    return color, rng.integers(0, 65536, (DEPTH_HEIGHT, DEPTH_WIDTH)).astype(np.uint16)


def moments(count: int) -> list[Frame]:
    """Frames; tracking is lost in the second."""
    frames = []
    for i in range(count):
        color, units = images(i)
        pose = np.random.default_rng(i).normal(size=(4, 4)) + 4 * np.eye(4)
        pose = LOST if i == 1 else pose.astype(np.float32).astype(np.float64)
        frames.append(Frame(color, units / np.float32(1000), pose, 33_000 * i))
    return frames


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sens") / "scan.sens"


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def write(path: Path, frames: list[Frame], **options) -> Path:
    count = write_sens(path, iter(frames), color_camera=COLOR, depth_camera=DEPTH, **options)
    assert count == len(frames)
    return path


@pytest.mark.parametrize("color_format", ["jpeg", "png"])
@pytest.mark.parametrize("shift", [1000.0, 4000.0])
def test_what_was_written_is_read(tmp_path, color_format, shift):
    frames = moments(3)
    # In this file the same units are other distances.
    frames = [Frame(f.color, f.depth * 1000 / shift, f.pose, f.timestamp) for f in frames]
    file = write(tmp_path / "a.sens", frames, color_format=color_format, depth_shift=shift)
    with SensStream(file) as stream:
        assert (stream.name, stream.depth_shift, len(stream)) == ("o2s", shift, 3)
        for found, expected in ((stream.color_camera, COLOR), (stream.depth_camera, DEPTH)):
            assert (found.width, found.height) == (expected.width, expected.height)
            np.testing.assert_array_equal(found.intrinsic, expected.intrinsic)
            np.testing.assert_array_equal(found.extrinsic, expected.extrinsic)
        assert [stream.is_tracked(i) for i in range(3)] == [True, False, True]
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(stream.pose(i), frame.pose)
            np.testing.assert_array_equal(stream.raw_depth(i), images(i)[1])
            np.testing.assert_allclose(stream.depth(i), frame.depth, rtol=1e-6)
            assert stream.timestamps(i) == (frame.timestamp, frame.timestamp)
            error = np.abs(stream.color(i).astype(int) - frame.color).mean()
            assert error == 0 if color_format == "png" else error < 32


def test_written_bytes_are_the_format_value_by_value(tmp_path):
    frames = moments(3)
    content = write(tmp_path / "a.sens", frames).read_bytes()
    stored = [
        (
            f.pose,
            (f.timestamp, f.timestamp),
            encoded(f.color, "jpeg"),
            zlib.compress(images(i)[1].tobytes()),
        )
        for i, f in enumerate(frames)
    ]
    assert content == plain_sens(stored)
    assert content == write(tmp_path / "b.sens", frames).read_bytes()


@pytest.mark.parametrize("color_type", [0, 1, 2])
@pytest.mark.parametrize("depth_type", [0, 1])
@pytest.mark.parametrize("tail", [b"", bytes(8), struct.pack("<Q", 1) + bytes(128)])
def test_every_way_of_storing_is_read(path, color_type, depth_type, tail):
    color, units = images()
    storage = {code: name for name, code in CODES.items()}[color_type]
    depth = zlib.compress(units.tobytes()) if depth_type else units.tobytes()
    frame = (np.eye(4), (5, 6), encoded(color, storage), depth)
    content = plain_sens([frame, frame], color_type=color_type, depth_type=depth_type, tail=tail)
    with SensStream(put(path, content)) as stream:
        assert stream.color_format == storage
        assert stream.color_bytes(1) == encoded(color, storage)
        if storage != "jpeg":
            np.testing.assert_array_equal(stream.color(1), color)
        np.testing.assert_array_equal(stream.raw_depth(1), units)
        assert stream.timestamps(1) == (5, 6)


def test_depth_that_the_file_cannot_hold_is_not_measured(path):
    depth = np.full((DEPTH_HEIGHT, DEPTH_WIDTH), 1.0, np.float32)
    depth[0] = [np.nan, np.inf, -1, 65.6, 65.535, 0]
    frame = Frame(images()[0], depth, np.eye(4))
    with SensStream(write(path, [frame])) as stream:
        np.testing.assert_array_equal(
            stream.depth(0)[0], np.array([0, 0, 0, 0, 65.535, 0], np.float32)
        )


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    file = write(tmp_path / "a.sens", moments(1))
    before = file.read_bytes()

    def frames():
        yield moments(1)[0]
        raise RuntimeError("no more power")

    with pytest.raises(RuntimeError):
        write_sens(file, frames(), color_camera=COLOR, depth_camera=DEPTH)
    with pytest.raises(ValueError, match="frame 0: a colour image of 12 x 8; the camera has 6 x 4"):
        write_sens(file, moments(1), color_camera=DEPTH, depth_camera=DEPTH)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_stream_without_frames(path, tmp_path):
    with SensStream(write(path, [])) as stream:
        assert len(stream) == 0
        assert export_frames(stream, tmp_path / "out", 1) == 0


@pytest.mark.parametrize("index", [-1, 2])
@pytest.mark.parametrize(
    "read", ["pose", "is_tracked", "timestamps", "color", "color_bytes", "depth", "raw_depth"]
)
def test_frames_outside_the_stream_are_an_index_error(path, read, index):
    with (
        SensStream(write(path, moments(2))) as stream,
        pytest.raises(IndexError, match=f"no frame {index}; the stream has 2"),
    ):
        getattr(stream, read)(index)


@pytest.mark.parametrize("storage", ["raw", "png", "jpeg"])
def test_export_is_what_the_stream_holds(tmp_path, path, storage):
    frames = [
        (f.pose, (0, 0), encoded(f.color, storage), zlib.compress(images(i)[1].tobytes()))
        for i, f in enumerate(moments(6))
    ]
    content = plain_sens(frames, color_type=CODES[storage])
    suffix = "jpg" if storage == "jpeg" else "png"
    with SensStream(put(path, content)) as stream:
        assert export_frames(stream, tmp_path / "all", 1) == 6
        assert export_frames(stream, tmp_path / "some", 4) == 2
        for name in ("color", "depth"):
            for kind in ("intrinsic", "extrinsic"):
                matrix = getattr(getattr(stream, f"{name}_camera"), kind)
                text = (tmp_path / f"all/intrinsic/{kind}_{name}.txt").read_text()
                assert text == "".join(" ".join(f"{v:f}" for v in row) + "\n" for row in matrix)
        for i in range(6):
            image = tmp_path / f"all/color/{i}.{suffix}"
            if storage != "raw":
                assert image.read_bytes() == frames[i][2]
            np.testing.assert_array_equal(np.array(Image.open(image)), stream.color(i))
            depth = Image.open(tmp_path / f"all/depth/{i}.png")
            assert depth.mode == "I;16"
            np.testing.assert_array_equal(np.array(depth), stream.raw_depth(i))
    assert (tmp_path / "all/pose/1.txt").read_text() == "-inf -inf -inf -inf\n" * 4
    files = {p.relative_to(tmp_path / "some") for p in (tmp_path / "some").rglob("*.*")}
    assert {str(f) for f in files if f.parts[0] != "intrinsic"} == {
        *(f"color/{i}.{suffix}" for i in (0, 4)),
        *(file for i in (0, 4) for file in (f"depth/{i}.png", f"pose/{i}.txt")),
    }
    for file in files:  # the same bytes each time
        assert (tmp_path / "some" / file).read_bytes() == (tmp_path / "all" / file).read_bytes()


@pytest.mark.parametrize("every", [0, -3])
def test_a_step_below_one_names_the_option(path, tmp_path, every):
    with (
        SensStream(write(path, moments(1))) as stream,
        pytest.raises(InputError, match=f"^--frames every={every}: expected a whole number"),
    ):
        export_frames(stream, tmp_path / "out", every)
    assert not (tmp_path / "out").exists()


def stored(**changes) -> tuple:
    color, units = images()
    parts = {
        "pose": np.eye(4),
        "times": (0, 0),
        "color": encoded(color, "jpeg"),
        "depth": zlib.compress(units.tobytes()),
    }
    return tuple((parts | changes).values())


HEAD = len(plain_sens([], tail=b""))
GOOD = plain_sens([stored()] * 3, tail=b"")
FRAME = (len(GOOD) - HEAD) // 3


def with_count(at: int, value: int) -> bytes:
    return GOOD[:at] + struct.pack("<Q", value) + GOOD[at + 8 :]


DAMAGED = {
    "empty": (b"", "the file is empty; expected a .sens stream"),
    "tiny": (GOOD[:7], "the file ends in its header"),
    "header": (GOOD[: HEAD - 1], "the file ends in its header"),
    "other file": (b"ply\nformat ascii 1.0\n" * 30, "expected a .sens stream, 4"),
    "version": (plain_sens([], version=3), "version 3; expected a .sens stream, 4"),
    "name": (with_count(4, 2**63), "a name of 9223372036854775808 bytes"),
    "color type": (plain_sens([], color_type=-1), "colour stored as type -1; expected one of 0 (r"),
    "occi": (plain_sens([], depth_type=2), "depth stored as type 2; expected one of 0 (raw), 1 (z"),
    "no pixels": (plain_sens([], sizes=(1, 0, 1, 1)), "colour images of 1 x 0; expected 1 to"),
    "pixels": (plain_sens([], sizes=(1, 1, 2**32 - 1, 9)), "depth images of 4294967295 x 9; exp"),
    "shift": (plain_sens([], shift=0), "0 depth units in a metre; expected 1e-6 to 1e9"),
    "not a shift": (plain_sens([], shift=np.nan), "nan depth units in a metre"),
    "cut in an image": (GOOD[:-1], "cut short at frame 2 of 3 (the first is 0): it needs"),
    "cut in a frame": (GOOD[: HEAD + FRAME + 5], "frame 1 of 3 (the first is 0): it needs 96"),
    "frames": (
        with_count(HEAD - 8, 2**64 - 1),
        "cut short at frame 3 of 18446744073709551615 (the first is 0)",
    ),
    "image bytes": (with_count(HEAD + 80, 2**63), "cut short at frame 0 of 3"),
    "no jpeg": (plain_sens([stored(color=b"\xff\xd8?")]), "the colour image of frame 0 cannot be"),
    "no color": (plain_sens([stored(color=b"")]), "expected jpeg"),
    "cut jpeg": (
        plain_sens([stored(color=encoded(images()[0], "jpeg")[:-9])]),
        "the colour image of frame 0 cannot be decoded",
    ),
    "small jpeg": (
        plain_sens([stored(color=encoded(images()[0][:5], "jpeg"))]),
        "the colour image of frame 0 is 12 x 5; expected 12 x 8",
    ),
    "raw color": (
        plain_sens([stored(color=bytes(9))], color_type=0),
        "the colour image of frame 0 has 9 bytes; expected 288",
    ),
    "no zlib": (plain_sens([stored(depth=b"depth")]), "the depth image of frame 0 cannot be dec"),
    "cut zlib": (
        plain_sens([stored(depth=zlib.compress(bytes(48))[:-1])]),
        "the depth image of frame 0 is cut short",
    ),
    "small depth": (
        plain_sens([stored(depth=zlib.compress(bytes(46)))]),
        "the depth image of frame 0 has 46 bytes; expected 48",
    ),
    "large depth": (
        plain_sens([stored(depth=zlib.compress(bytes(10**7)))]),
        "the depth image of frame 0 has more than 48 bytes; expected 48",
    ),
    "raw depth": (
        plain_sens([stored(depth=bytes(49))], depth_type=0),
        "the depth image of frame 0 has more than 48 bytes; expected 48",
    ),
}


@pytest.mark.parametrize("content, message", DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_one_line_that_names_the_file(path, tmp_path, content, message):
    with pytest.raises(InputError) as error, SensStream(put(path, content)) as stream:
        export_frames(stream, tmp_path / "out", 1)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for file, message in ((tmp_path / "no.sens", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=f"^{file}: {message}"):
            SensStream(file)


@given(st.sampled_from([(0, 0), (1, 1), (2, 1)]), st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_stream_is_read_or_refused_in_one_line(path, types, data):
    color, units = images()
    storage = {code: name for name, code in CODES.items()}[types[0]]
    depth = zlib.compress(units.tobytes()) if types[1] else units.tobytes()
    frame = stored(color=encoded(color, storage), depth=depth)
    damaged = bytearray(plain_sens([frame] * 2, color_type=types[0], depth_type=types[1]))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del damaged[data.draw(st.integers(0, len(damaged)) | st.just(len(damaged))) :]
    message = f"{path}: "
    try:
        with SensStream(put(path, bytes(damaged))) as stream:
            for i in range(len(stream)):
                stream.is_tracked(i)
                assert stream.color(i).shape[2] == 3
                assert (stream.depth(i) >= 0).all()
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
