"""ScanNet's `.sens` files: a walk through a room as colour images, depth images and camera poses.

The format, version 4, is the one that ScanNet's SensReader reads and writes
(https://github.com/ScanNet/ScanNet, folder SensReader; MIT). All of it is little endian:

    uint32 version; uint64 length of a name, the name
    float32 [4, 4] each: colour intrinsic, colour extrinsic, depth intrinsic, depth extrinsic
    int32 colour storage (0 raw, 1 png, 2 jpeg); int32 depth storage (0 raw, 1 zlib, 2 occi)
    uint32 each: colour width, colour height, depth width, depth height
    float32 depth units in a metre; uint64 number of frames
    a frame: float32 [4, 4] camera to world; uint64 each: time stamps of colour and depth,
        bytes of colour and depth; the colour image, the depth image
    uint64 number of readings of a motion sensor, the readings: neither is read here
"""

import mmap
import struct
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16
from PIL import Image

from o2s.errors import InputError
from o2s.files import replacing
from o2s.io.cloud import quote, require_file, to_float32


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of a stream.

    `intrinsic` takes camera coordinates (x right, y down, z ahead, in metres) to pixels, whose
    centres have whole coordinates. `extrinsic` takes this camera's coordinates to those of the
    base camera, whose pose the frames give: world = pose @ extrinsic @ camera coordinates.
    """

    width: int
    height: int
    intrinsic: Float64[np.ndarray, "4 4"]
    extrinsic: Float64[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Frame:
    """One moment of a stream that is to be written; h and w are the depth image's size.

    `depth` is in metres; what is not finite, not positive or too far for the file's 16 bits is
    stored as not measured. `pose` takes the base camera's coordinates to the world's; tracking
    that was lost is a pose of -inf. `timestamp` counts microseconds.
    """

    color: UInt8[np.ndarray, "H W 3"]
    depth: Float32[np.ndarray, "h w"]
    pose: Float64[np.ndarray, "4 4"]
    timestamp: int = 0


class SensStream:
    """A `.sens` file, open for reading its frames in any order; a context manager.

    Opening maps the file and walks over the frames' headers; images are decoded when asked for.
    Frame indices run from 0; any other raises IndexError.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing, empty, of another version, cut short, stores its images
            in a way that is not supported, or its header makes no sense.
    """

    path: Path
    name: str
    color_camera: Camera
    depth_camera: Camera
    color_format: Literal["raw", "png", "jpeg"]
    depth_shift: float  # units of the stored depth in a metre

    def __init__(self, path: Path) -> None:
        self.path = path
        require_file(path)
        try:
            with path.open("rb") as file:
                if not path.stat().st_size:
                    raise InputError(f"{path}: the file is empty; expected a .sens stream")
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        try:
            header = _read_header(path, self._data)
            self._places = _find_frames(path, self._data, header)
        except InputError:
            self.close()
            raise
        self.name = header.name
        self.color_camera, self.depth_camera = header.color_camera, header.depth_camera
        self.color_format, self._depth_format = header.color_format, header.depth_format
        self.depth_shift = header.depth_shift

    def __enter__(self) -> "SensStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing can be read afterwards."""
        self._data.close()

    def __len__(self) -> int:
        return len(self._places)

    def every(self, step: int) -> range:
        """The indices of the frames 0, `step`, 2 `step` ...

        Raises:
            InputError: `step` is less than 1.
        """
        if step < 1:
            raise InputError(f"--frames every={step}: expected a whole number, 1 or more")
        return range(0, len(self), step)

    def pose(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """Base camera to world; not finite where tracking was lost."""
        values = _FRAME.unpack_from(self._data, self._place(index).header)[:16]
        return np.array(values).reshape(4, 4)

    def is_tracked(self, index: int) -> bool:
        """Whether the pose says where the camera was: it is finite and can be inverted."""
        pose = self.pose(index)
        return bool(np.isfinite(pose).all() and abs(np.linalg.det(pose)) > 1e-6)

    def timestamps(self, index: int) -> tuple[int, int]:
        """When the colour and the depth image were taken, usually in microseconds."""
        color, depth = _FRAME.unpack_from(self._data, self._place(index).header)[16:18]
        return color, depth

    def color(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The colour image.

        Raises:
            InputError: it cannot be decoded, or its size is not the camera's.
        """
        payload, camera = self.color_bytes(index), self.color_camera
        where = f"{self.path}: the colour image of frame {index}"
        shape = camera.height, camera.width, 3
        if self.color_format == "raw":
            if len(payload) != np.prod(shape):
                raise InputError(f"{where} has {len(payload)} bytes; expected {np.prod(shape)}")
            return np.frombuffer(payload, np.uint8).reshape(shape).copy()
        try:
            with warnings.catch_warnings(action="ignore"):  # of sizes, which are compared below
                image = Image.open(BytesIO(payload), formats=[self.color_format])
            if image.size == (camera.width, camera.height):
                return np.array(image.convert("RGB"))
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            expected = f"({quote(error)}); expected {self.color_format}"
            raise InputError(f"{where} cannot be decoded {expected}") from None
        expected = f"expected {camera.width} x {camera.height}"
        raise InputError(f"{where} is {image.width} x {image.height}; {expected}")

    def color_bytes(self, index: int) -> bytes:
        """The colour image as it is stored, in `color_format`."""
        place = self._place(index)
        return self._data[place.color : place.depth]

    def depth(self, index: int) -> Float32[np.ndarray, "h w"]:
        """Metres along the depth camera's axis, 0 where nothing was measured.

        Raises:
            InputError: as `raw_depth` does.
        """
        return self.raw_depth(index) / np.float32(self.depth_shift)

    def raw_depth(self, index: int) -> UInt16[np.ndarray, "h w"]:
        """The depth image in the file's units, `depth_shift` of them in a metre.

        Raises:
            InputError: the image cannot be decoded, or its size is not the camera's.
        """
        place, camera = self._place(index), self.depth_camera
        where = f"{self.path}: the depth image of frame {index}"
        values = self._data[place.depth : place.end]
        expected = 2 * camera.width * camera.height
        if self._depth_format == "zlib":
            decoder = zlib.decompressobj()
            try:
                # Never more than an image's worth, whatever the payload would unpack to.
                values = decoder.decompress(values, expected + 1)
            except zlib.error as error:
                shown = quote(error)
                raise InputError(f"{where} cannot be decoded ({shown}); expected zlib") from None
            if len(values) == expected and not decoder.eof:
                raise InputError(f"{where} is cut short; expected a whole zlib stream")
        if len(values) != expected:
            found = f"more than {expected}" if len(values) > expected else str(len(values))
            raise InputError(f"{where} has {found} bytes; expected {expected}")
        units = np.frombuffer(values, "<u2").astype(np.uint16)
        return units.reshape(camera.height, camera.width)

    def _place(self, index: int) -> "_Place":
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no frame {index}; the stream has {len(self)}")
        return self._places[index]


def write_sens(
    path: Path,
    frames: Iterable[Frame],
    *,
    color_camera: Camera,
    depth_camera: Camera,
    depth_shift: float = 1000.0,
    name: str = "o2s",
    color_format: Literal["png", "jpeg"] = "jpeg",
) -> int:
    """Write a `.sens` file, whole or not at all, one frame in memory at a time.

    Matrices are rounded to float32, depths to the nearest unit; JPEG images have quality 90.
    The same frames give the same bytes.

    Args:
        depth_shift: units of the stored depth in a metre.

    Returns:
        The number of frames.

    Raises:
        ValueError: a frame's image has not its camera's size.
    """
    label = name.encode()
    cameras = color_camera, depth_camera
    matrices = np.stack([m for c in cameras for m in (c.intrinsic, c.extrinsic)])
    sizes = [side for c in cameras for side in (c.width, c.height)]
    storage = {"png": 1, "jpeg": 2}[color_format], 1  # zlib
    count = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_START.pack(_VERSION, len(label)) + label)
        file.write(_HEADER.pack(*to_float32(matrices).ravel(), *storage, *sizes, depth_shift, 0))
        after_header = file.tell()
        for frame in frames:
            _require_size(count, "colour", frame.color, color_camera)
            _require_size(count, "depth", frame.depth, depth_camera)
            color = BytesIO()
            Image.fromarray(frame.color).save(color, color_format, quality=90)
            depth = zlib.compress(_to_units(frame.depth, depth_shift).astype("<u2").tobytes())
            values = [*to_float32(frame.pose).ravel(), frame.timestamp, frame.timestamp]
            file.write(_FRAME.pack(*values, len(color.getvalue()), len(depth)))
            file.write(color.getvalue())
            file.write(depth)
            count += 1
        file.write(_COUNT.pack(0))
        file.seek(after_header - _COUNT.size)
        file.write(_COUNT.pack(count))
    return count


def export_frames(stream: SensStream, folder: Path, every: int) -> int:
    """Write frames 0, `every`, 2 `every` ... as single files, laid out as SensReader does.

    For frame i: color/i.jpg or, where the stream does not store JPEG, color/i.png; depth/i.png
    with 16 bits in the stream's units; pose/i.txt, camera to world, also where tracking was lost.
    Beside them intrinsic/{intrinsic,extrinsic}_{color,depth}.txt. JPEG and PNG images are copied
    as they are stored. Each file appears whole or not at all and replaces an older one.

    Returns:
        The number of frames.

    Raises:
        InputError: `every` is less than 1, or an image is damaged.
    """
    frames = stream.every(every)
    for name, camera in (("color", stream.color_camera), ("depth", stream.depth_camera)):
        _write_matrix(folder / "intrinsic" / f"intrinsic_{name}.txt", camera.intrinsic)
        _write_matrix(folder / "intrinsic" / f"extrinsic_{name}.txt", camera.extrinsic)
    suffix = "jpg" if stream.color_format == "jpeg" else "png"
    for index in frames:
        color = stream.color(index)  # decoded even to be copied, so that no damage spreads
        stored = stream.color_bytes(index) if stream.color_format != "raw" else _png(color)
        with replacing(folder / "color" / f"{index}.{suffix}") as temporary:
            temporary.write_bytes(stored)
        with replacing(folder / "depth" / f"{index}.png") as temporary:
            temporary.write_bytes(_png(stream.raw_depth(index)))
        _write_matrix(folder / "pose" / f"{index}.txt", stream.pose(index))
    return len(frames)


class _Header(NamedTuple):
    name: str
    color_camera: Camera
    depth_camera: Camera
    color_format: Literal["raw", "png", "jpeg"]
    depth_format: Literal["raw", "zlib"]
    depth_shift: float
    frames: int
    size: int  # bytes


class _Place(NamedTuple):
    """Where the parts of a frame begin in the file, and where the last ends."""

    header: int
    color: int
    depth: int
    end: int


def _read_header(path: Path, data: mmap.mmap) -> _Header:
    short = InputError(f"{path}: the file ends in its header; expected a .sens stream")
    if len(data) < _START.size:
        raise short
    version, length = _START.unpack_from(data)
    if version != _VERSION:
        raise InputError(f"{path}: version {version}; expected a .sens stream, {_VERSION}")
    if length > _LONGEST_NAME:
        raise InputError(f"{path}: a name of {length} bytes; expected at most {_LONGEST_NAME}")
    start = _START.size + length
    if len(data) < start + _HEADER.size:
        raise short
    name = data[_START.size : start].decode("utf-8", "replace")
    values = _HEADER.unpack_from(data, start)
    matrices = np.array(values[:64]).reshape(4, 4, 4)
    color, depth, *sizes, shift, frames = values[64:]
    for what, code, known, width, height in (
        ("colour", color, _COLOR_FORMATS, *sizes[:2]),
        ("depth", depth, _DEPTH_FORMATS, *sizes[2:]),
    ):
        if code not in known:
            expected = ", ".join(f"{code} ({text})" for code, text in known.items())
            raise InputError(f"{path}: {what} stored as type {code}; expected one of {expected}")
        if not (0 < width <= _LARGEST_IMAGE and 0 < height <= _LARGEST_IMAGE):
            raise InputError(
                f"{path}: {what} images of {width} x {height}; expected 1 to {_LARGEST_IMAGE}"
            )
    if not 1e-6 <= shift <= 1e9:
        raise InputError(f"{path}: {shift:g} depth units in a metre; expected 1e-6 to 1e9")
    color_camera = Camera(sizes[0], sizes[1], matrices[0], matrices[1])
    depth_camera = Camera(sizes[2], sizes[3], matrices[2], matrices[3])
    formats = _COLOR_FORMATS[color], _DEPTH_FORMATS[depth]
    return _Header(name, color_camera, depth_camera, *formats, shift, frames, start + _HEADER.size)


def _find_frames(path: Path, data: mmap.mmap, header: _Header) -> list[_Place]:
    """The places of all frames; grows with what the file holds, not with what it promises."""
    places: list[_Place] = []
    at = header.size
    for index in range(header.frames):
        color = depth = at + _FRAME.size
        end = color
        if color <= len(data):
            color_bytes, depth_bytes = _FRAME.unpack_from(data, at)[18:]
            depth, end = color + color_bytes, color + color_bytes + depth_bytes
        if end > len(data):
            raise InputError(
                f"{path}: cut short at frame {index} of {header.frames} (the first is 0): "
                f"it needs {end - at} bytes, the file holds {len(data) - at}"
            )
        places.append(_Place(at, color, depth, end))
        at = end
    return places


def _require_size(index: int, what: str, image: np.ndarray, camera: Camera) -> None:
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ValueError(
            f"frame {index}: a {what} image of {width} x {height}; "
            f"the camera has {camera.width} x {camera.height}"
        )


def _to_units(depth: Float32[np.ndarray, "h w"], shift: float) -> UInt16[np.ndarray, "h w"]:
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.rint(depth * np.float32(shift))
        return np.where((units > 0) & (units <= 65535), units, 0).astype(np.uint16)


def _png(image: np.ndarray) -> bytes:
    """In memory first: a write that a full disk cuts short passes unseen in Pillow."""
    encoded = BytesIO()
    Image.fromarray(image).save(encoded, "png")
    return encoded.getvalue()


def _write_matrix(path: Path, matrix: Float64[np.ndarray, "4 4"]) -> None:
    with replacing(path) as temporary:
        np.savetxt(temporary, matrix, fmt="%f")


_VERSION = 4
_LONGEST_NAME = 65536  # bytes
_LARGEST_IMAGE = 16384  # pixels on a side
_COLOR_FORMATS: dict[int, Literal["raw", "png", "jpeg"]] = {0: "raw", 1: "png", 2: "jpeg"}
_DEPTH_FORMATS: dict[int, Literal["raw", "zlib"]] = {0: "raw", 1: "zlib"}
_START = struct.Struct("<IQ")
_HEADER = struct.Struct("<64f 2i 4I f Q")
_FRAME = struct.Struct("<16f 4Q")
_COUNT = struct.Struct("<Q")
