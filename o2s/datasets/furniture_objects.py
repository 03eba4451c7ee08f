"""The meshes of a furniture library as triplets: whole surfaces and scans from a few sides, names,
and rendered views."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from o2s.datasets.color_names import color_name
from o2s.datasets.furniture import FurnitureLibrary, Piece
from o2s.datasets.furniture_classes import CLASSES
from o2s.datasets.furniture_meshes import PieceMesh
from o2s.datasets.sens import Camera
from o2s.datasets.simulated_camera import ScannedFrame, Triangles, kinect_camera, simulate_frames
from o2s.datasets.triplets import Triplet, TripletSource, names_with_color
from o2s.errors import InputError
from o2s.files import replacing
from o2s.ops.meshes import sample_faces

_SURFACE = 8192  # points of a whole surface, as ULIP samples meshes
_VIEWS = 8  # images of a mesh, all around it
_CAMERA = kinect_camera(224, 168)


@dataclass(frozen=True)
class _Cloud:
    piece: int
    points: Float32[np.ndarray, "N 3"]
    colors: UInt8[np.ndarray, "N 3"]


class FurnitureObjects(TripletSource):
    """Each piece of a split once as points of its whole surface and `scans` times as what a depth
    camera measures of it from two or three neighbouring sides.

    Texts are the class as scans name it, the finer name, and these with the colour. Images are
    eight views that the simulated camera takes, kept in `images` as <piece>_<mesh>_<view>.jpg.

    Args:
        library: the meshes.
        split: train, val or test.
        images: a folder for the views; None for no images.
        scans: partial scans of each piece.
        progress: called with the number of pieces done and of all.

    Raises:
        InputError: the library has no piece of the split, or a mesh cannot be read.
    """

    metric = True

    def __init__(
        self,
        library: FurnitureLibrary,
        *,
        split: str,
        images: Path | None,
        scans: int = 3,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.pieces = [piece for piece in library.pieces if piece.split == split]
        if not self.pieces:
            raise InputError(f"the furniture has no piece of the split {split}")
        self._images: list[tuple[Path, ...]] = []
        self._texts: list[tuple[str, ...]] = []
        self._clouds: list[_Cloud] = []
        for number, piece in enumerate(self.pieces):
            progress(number, len(self.pieces))
            mesh = library.load(piece)
            color = color_name(mesh.vertices, mesh.faces, mesh.colors)
            self._texts.append(names_with_color([_label(piece), piece.label, piece.fine], color))
            self._clouds.append(_Cloud(number, *sample_surface(mesh, _SURFACE, seed=number)))
            if not scans and images is None:
                self._images.append(())
                continue
            rng = np.random.default_rng(number)
            frames = list(simulate_frames(_triangles(mesh), _around(mesh, rng), _CAMERA, rng))
            for _ in range(scans):
                first, count = int(rng.integers(_VIEWS)), int(rng.integers(2, 4))
                seen = [frames[(first + i) % _VIEWS] for i in range(count)]
                points, colors = _fuse(seen)
                if len(points) >= 100:
                    self._clouds.append(_Cloud(number, points, colors))
            self._images.append(tuple(_save(frames, images, piece, mesh)) if images else ())
        self.classes = tuple(sorted({_label(piece) for piece in self.pieces}))

    def __len__(self) -> int:
        return len(self._clouds)

    def __getitem__(self, index: int) -> Triplet:
        cloud = self._clouds[index]
        return Triplet(
            cloud.points, cloud.colors, self.label(index), self.texts(index), self.images(index)
        )

    def label(self, index: int) -> str:
        """The piece's class as scans name it."""
        return _label(self.pieces[self._clouds[index].piece])

    def texts(self, index: int) -> tuple[str, ...]:
        return self._texts[self._clouds[index].piece]

    def images(self, index: int) -> tuple[Path, ...]:
        return self._images[self._clouds[index].piece]


def sample_surface(
    mesh: PieceMesh, count: int, *, seed: int
) -> tuple[Float32[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"]]:
    """Points spread evenly over a mesh's faces by area, with the faces' colours; seeded."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    face, points = sample_faces(corners, count, np.random.default_rng(seed))
    return points.astype(np.float32), mesh.colors[face]


def _label(piece: Piece) -> str:
    return CLASSES[piece.label][0]


def _triangles(mesh: PieceMesh) -> Triangles:
    return Triangles(mesh.vertices, mesh.faces, mesh.colors, np.zeros(len(mesh.faces), np.int32))


def _around(mesh: PieceMesh, rng: np.random.Generator) -> Float64[np.ndarray, "T 4 4"]:
    """Cameras on a ring around the mesh, at the height of a person's eyes or above the object."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    middle = ((low + high) / 2).astype(np.float64)
    reach = max(float(np.linalg.norm(high - low)) * 1.25, 0.6)
    start = rng.uniform(0, 2 * np.pi)
    poses = np.tile(np.eye(4), (_VIEWS, 1, 1))
    for i in range(_VIEWS):
        angle = start + 2 * np.pi * i / _VIEWS
        down = np.radians(rng.uniform(12, 40))
        away = [np.cos(angle) * np.cos(down), np.sin(angle) * np.cos(down), np.sin(down)]
        ahead = -np.array(away)
        right = np.cross(ahead, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        poses[i, :3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
        poses[i, :3, 3] = middle - reach * ahead
    return poses


def _fuse(
    frames: list[ScannedFrame],
) -> tuple[Float32[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"]]:
    """The measured points of several frames in the mesh's coordinates."""
    points, colors = zip(*(_unproject(frame, _CAMERA) for frame in frames), strict=True)
    return np.concatenate(points), np.concatenate(colors)


def _unproject(
    frame: ScannedFrame, camera: Camera
) -> tuple[Float32[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"]]:
    rows, columns = np.nonzero(frame.depth)
    z = frame.depth[rows, columns].astype(np.float64)
    rays = np.stack([columns, rows, np.ones(len(rows))]) * z
    local = np.linalg.inv(camera.intrinsic[:3, :3]) @ rays
    world = (frame.measured_pose[:3, :3] @ local).T + frame.measured_pose[:3, 3]
    return world.astype(np.float32), frame.color[rows, columns]


def _save(
    frames: list[ScannedFrame], folder: Path, piece: Piece, mesh: PieceMesh
) -> Iterator[Path]:
    digest = hashlib.sha256()
    for array in (mesh.vertices, mesh.faces, mesh.colors):
        digest.update(array.tobytes())
    for number, frame in enumerate(frames):
        path = folder / f"{piece.key.replace('/', '_')}_{digest.hexdigest()[:12]}_{number}.jpg"
        if not path.is_file():
            with replacing(path) as temporary:
                Image.fromarray(_cropped(frame)).save(temporary, quality=92)
        yield path


def _cropped(frame: ScannedFrame) -> UInt8[np.ndarray, "H W 3"]:
    """The part of the image that shows the object, with a margin of a tenth."""
    rows, columns = np.nonzero(frame.owner >= 0)
    if not len(rows):
        return frame.color
    border_y, border_x = (np.ptp(rows) // 10 + 2, np.ptp(columns) // 10 + 2)
    top, left = max(rows.min() - border_y, 0), max(columns.min() - border_x, 0)
    return frame.color[top : rows.max() + border_y, left : columns.max() + border_x]
