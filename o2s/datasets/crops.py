"""Image crops of the objects of a scan, for training triplets of points, image and text.

ULIP (https://arxiv.org/abs/2212.05171) aligns an object's points with an image and a text. A scan
that was recorded as an RGB-D stream has the images: here the frames that show an object best are
found with its points, the camera poses and the measured depth, and the object is cut out of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32
from PIL import Image

from o2s.datasets.sens import Camera, SensStream
from o2s.errors import InputError
from o2s.files import replacing, write_json


@dataclass(frozen=True)
class Crop:
    """Where a frame of a stream shows an object.

    `box` is left, top, right, bottom in pixels of the colour image, right and bottom exclusive.
    `visible` is the share of the object's points that the frame sees.
    """

    object_id: int
    frame: int
    box: tuple[int, int, int, int]
    visible: float


def visible_pixels(
    points: Float32[np.ndarray, "N 3"],
    stream: SensStream,
    frame: int,
    *,
    tolerance: float = 0.05,
    tolerance_of_depth: float = 0.02,
    nearest: float = 0.1,
) -> tuple[Bool[np.ndarray, "N"], Float64[np.ndarray, "N 2"]]:
    """Which points a frame sees, and where in its colour image.

    A point is seen if it lies in front of both cameras and inside both images, and if the depth
    at the nearest pixel is the point's own. Where no depth was measured nothing is seen; a frame
    whose tracking was lost sees nothing.

    Args:
        points: metres, in the world of the stream's poses.
        tolerance: metres that the measured depth may differ,
        tolerance_of_depth: and the share of the point's depth that is allowed on top.
        nearest: metres in front of a camera at which its sight begins.

    Returns:
        Whether each point is seen; its column and row in the colour image, where pixels have
        their centres at whole numbers, NaN where the point is not in front of that camera.

    Raises:
        InputError: the depth image is damaged, or a camera's matrices cannot be used.
    """
    seen = np.zeros(len(points), bool)
    if not stream.is_tracked(frame):
        return seen, np.full((len(points), 2), np.nan)
    columns = np.ascontiguousarray(points.T, np.float64)
    pose = stream.pose(frame)
    color = _project(columns, stream, "colour", stream.color_camera, pose, nearest)
    depth = _project(columns, stream, "depth", stream.depth_camera, pose, nearest)
    inside = _inside(color, stream.color_camera) & _inside(depth, stream.depth_camera)
    candidates = np.flatnonzero(inside)
    u, v, z = depth[:, candidates]
    measured = stream.depth(frame)[(v + 0.5).astype(np.int64), (u + 0.5).astype(np.int64)]
    close = np.abs(z - measured) <= tolerance + tolerance_of_depth * z
    seen[candidates] = (measured > 0) & close
    return seen, color[:2].T


def find_crops(
    xyz: Float32[np.ndarray, "N 3"],
    instance: Int32[np.ndarray, "N"],
    stream: SensStream,
    *,
    every: int,
    per_object: int,
    least_points: int = 20,
    margin: float = 0.1,
    least_pixels: int = 32,
) -> list[Crop]:
    """The frames that show each object best, with its box in them.

    Better is the frame that sees more of the object's points, in steps of a twentieth, so that
    within such a step the larger box wins; then the earlier frame. Of frames that look at the
    object from within 15 degrees of each other only the best is taken, unless there are too few
    others.

    Args:
        xyz: metres, in the world of the stream's poses.
        instance: the object of each point, -1 for none.
        every: frames 0, `every`, 2 `every` ... are looked at, where tracking was not lost.
        per_object: crops of an object, at most.
        least_points: points of an object that a frame must see.
        margin: share of the visible points' extent that is added to the box on each side.
        least_pixels: sides that a box must have, once clipped to the image.

    Returns:
        Crops by object, the best of each object first.

    Raises:
        InputError: `every` is less than 1, a depth image is damaged, or a camera's matrices
            cannot be used.
    """
    frames = [frame for frame in stream.every(every) if stream.is_tracked(frame)]
    # Points in the order of their objects, so that each object is one slice.
    order = np.argsort(instance, kind="stable")
    order = order[instance[order] >= 0]
    objects, starts, sizes = np.unique(instance[order], return_index=True, return_counts=True)
    if not frames or not len(objects):
        return []
    points = xyz[order]
    counts, boxes, rays = [], [], []
    centres = np.add.reduceat(points.astype(np.float64), starts) / sizes[:, None]
    for frame in frames:
        seen, pixels = visible_pixels(points, stream, frame)
        counts.append(np.add.reduceat(seen, starts, dtype=np.int64))
        boxes.append(_boxes(seen, pixels, starts, stream.color_camera, margin))
        camera = (stream.pose(frame) @ stream.color_camera.extrinsic)[:3, 3]
        rays.append(_unit(camera - centres))
    seen_points, box, ray = np.stack(counts), np.stack(boxes), np.stack(rays)
    sides = box[..., 2:] - box[..., :2]
    usable = (seen_points >= max(least_points, 1)) & (sides >= least_pixels).all(-1)
    crops = []
    for i, (object_id, size) in enumerate(zip(objects.tolist(), sizes.tolist(), strict=True)):
        choices = np.flatnonzero(usable[:, i])
        step, area = seen_points[choices, i] * 20 // size, sides[choices, i].prod(-1)
        ranked = choices[np.lexsort((choices, -area, -step))]
        for row in ranked[_distinct(ray[ranked, i], per_object)].tolist():
            left, top, right, bottom = box[row, i].tolist()
            visible = int(seen_points[row, i]) / size
            crops.append(Crop(object_id, frames[row], (left, top, right, bottom), visible))
    return crops


def write_crops(
    crops: Iterable[Crop], names: Mapping[int, str], stream: SensStream, folder: Path
) -> None:
    """Cut the crops out of their frames: folder/<object>_<frame>.jpg and folder/crops.json.

    The JSON file is a list of {object_id, name, frame, box, visible, file}, by object and frame;
    it is written last. Each file appears whole or not at all, with the same bytes for the same
    crops.

    Args:
        names: the name of each object.

    Raises:
        InputError: a colour image is damaged.
        KeyError: an object has no name.
    """
    ordered = sorted(crops, key=lambda crop: (crop.object_id, crop.frame))
    records = [
        {
            "object_id": crop.object_id,
            "name": names[crop.object_id],
            "frame": crop.frame,
            "box": crop.box,
            "visible": crop.visible,
            "file": _file_name(crop),
        }
        for crop in ordered
    ]
    by_frame = sorted(ordered, key=lambda crop: crop.frame)
    for frame, group in groupby(by_frame, key=lambda crop: crop.frame):
        color = stream.color(frame)
        for crop in group:
            left, top, right, bottom = crop.box
            # To memory first: a write that a full disk cuts short passes unseen in Pillow.
            encoded = BytesIO()
            Image.fromarray(color[top:bottom, left:right]).save(encoded, "jpeg", quality=95)
            with replacing(folder / _file_name(crop)) as temporary:
                temporary.write_bytes(encoded.getvalue())
    write_json(folder / "crops.json", records)


def _project(
    columns: Float64[np.ndarray, "3 N"],
    stream: SensStream,
    what: str,
    camera: Camera,
    pose: Float64[np.ndarray, "4 4"],
    nearest: float,
) -> Float64[np.ndarray, "3 N"]:
    """Pixel column, pixel row and depth of points; NaN for those nearer than `nearest`."""
    intrinsic = camera.intrinsic[:3, :3]
    for kind, matrix in (("intrinsic", intrinsic), ("extrinsic", camera.extrinsic)):
        if not (np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-6):
            raise InputError(
                f"{stream.path}: the {kind} matrix of the {what} camera has no inverse; "
                "expected a calibration"
            )
    with np.errstate(over="ignore", invalid="ignore"):
        to_camera = np.linalg.inv(pose @ camera.extrinsic)[:3]
        to_image = np.concatenate([intrinsic[:2] @ to_camera, to_camera[2:]])
        projected = to_image[:, :3] @ columns + to_image[:, 3:]
        depth = np.where(projected[2] > nearest, projected[2], np.nan)
        return np.stack([projected[0] / depth, projected[1] / depth, depth])


def _inside(projected: Float64[np.ndarray, "3 N"], camera: Camera) -> Bool[np.ndarray, "N"]:
    """Whether the nearest pixel is one of the image's; not so for NaN."""
    u, v = projected[:2] + 0.5
    return (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)


def _boxes(
    seen: Bool[np.ndarray, "N"],
    pixels: Float64[np.ndarray, "N 2"],
    starts: np.ndarray,
    camera: Camera,
    margin: float,
) -> np.ndarray:
    """Left, top, right, bottom [objects, 4] of the pixels seen, zeros where there are none."""
    # Half a pixel on: the pixel of whole coordinate k then reaches from k to k + 1.
    low = np.minimum.reduceat(np.where(seen[:, None], pixels, np.inf), starts) + 0.5
    high = np.maximum.reduceat(np.where(seen[:, None], pixels, -np.inf), starts) + 0.5
    none = ~np.isfinite(low)
    low[none], high[none] = 0, 0
    border = margin * (high - low)
    size = [camera.width, camera.height]
    first = np.clip(np.floor(low - border), 0, size)
    end = np.clip(np.floor(high + border) + 1, 0, size)
    return np.where(np.tile(none, 2), 0, np.concatenate([first, end], 1)).astype(np.int64)


def _distinct(rays: Float64[np.ndarray, "M 3"], wanted: int) -> list[int]:
    """The first `wanted` rows that are unlike all before them, filled up with others."""
    chosen: list[int] = []
    for row in range(len(rays)):
        if len(chosen) == wanted:
            break
        if not chosen or (rays[chosen] @ rays[row]).max() < _SAME_VIEW:
            chosen.append(row)
    others = [row for row in range(len(rays)) if row not in chosen]
    return sorted(chosen + others[: wanted - len(chosen)])


def _unit(vectors: Float64[np.ndarray, "M 3"]) -> Float64[np.ndarray, "M 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _file_name(crop: Crop) -> str:
    return f"{crop.object_id}_{crop.frame}.jpg"


_SAME_VIEW = float(np.cos(np.radians(15)))
