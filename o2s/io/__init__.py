"""Scan files in, scenes out: points of many kinds of files, meshes, and our own prepared
.safetensors."""

import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float64

from o2s.errors import InputError
from o2s.io.arrays import read_npz, read_prepared, write_prepared
from o2s.io.cloud import FARTHEST, Cloud, Reader, read_bytes, require_file
from o2s.io.labelled import is_labelled, labelled_scene
from o2s.io.mesh import read_mesh
from o2s.io.pcd import read_pcd
from o2s.io.plain import read_npy, read_text
from o2s.io.ply import parse_ply, read_ply, write_ply
from o2s.io.ply_header import read_header
from o2s.io.survey import read_e57, read_las
from o2s.io.upright import find_up, guess_unit, rotation_to_z
from o2s.ops.meshes import sample_faces
from o2s.scene import Scene

__all__ = [
    "SUFFIXES",
    "Axis",
    "Cloud",
    "Unit",
    "bundled_scan",
    "read_npz",
    "read_pcd",
    "read_ply",
    "read_scene",
    "scene_from_cloud",
    "upright_scene",
    "usable_points",
    "write_ply",
    "write_scene",
]

Axis = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]
Metric = Literal["m", "cm", "mm", "ft", "in"]
Unit = Literal["auto", Metric]
Say = Callable[[str], None]

log = logging.getLogger(__name__)


def read_scene(path: Path | str, *, up: Axis = "auto", unit: Unit = "auto") -> Scene:
    """Read a scan file as an upright scene in metres, centred on the mean of its points.

    Points without finite coordinates, and strays over 1 km from the rest, are dropped. A prepared
    .safetensors is upright and in metres already: it is loaded as it is, whatever `up` and `unit`
    say.

    Args:
        path: a .ply, .pcd, .npz, .npy, text (see `o2s.io.plain`), .las, .laz or .e57 file, a mesh
            (see `o2s.io.mesh`) or a prepared .safetensors.
        up: the axis of the file that points up; "auto" finds it from the points.
        unit: the file's unit of length; "auto" guesses it from the extent.

    Raises:
        InputError: the file is missing, damaged, of another kind, or holds no points.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    for name, value, kind in (("up", up, Axis), ("unit", unit, Unit)):
        if value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}, expected {', '.join(get_args(kind))}")
    if suffix == _PREPARED:
        return labelled_scene(path) if is_labelled(path) else read_prepared(path)
    if suffix not in _READERS:
        require_file(path)
        raise InputError(f"{path}: {_advice(suffix)}")
    return scene_from_cloud(_READERS[suffix](path), path, up=up, unit=unit)


def write_scene(scene: Scene, path: Path | str) -> Path:
    """Write a prepared .safetensors that `read_scene` loads as exactly the same scene.

    The file appears whole or not at all.

    Raises:
        InputError: `path` does not end in .safetensors.
    """
    path = Path(path)
    if path.suffix.lower() != _PREPARED:
        raise InputError(f"{path}: a prepared scene is written to a name ending in {_PREPARED}")
    write_prepared(scene, path)
    return path


def usable_points(
    cloud: Cloud, path: Path, unit: Unit = "auto", say: Say | None = None
) -> tuple[Bool[np.ndarray, "N"], Metric]:
    """The points with finite coordinates that are no strays, and the unit of length.

    Args:
        cloud: the points of a file.
        path: stands in messages.
        unit: the unit, if it is known; feet and inches are never guessed.
        say: is told what was dropped or guessed; the log if not given.

    Raises:
        InputError: no point has finite coordinates.
    """
    valid = (np.abs(cloud.xyz) <= FARTHEST).all(axis=1)
    dropped = len(cloud) - int(valid.sum())
    if dropped == len(cloud):
        found = f"{dropped} points, none with finite coordinates" if dropped else "no points"
        raise InputError(f"{path}: holds {found}; expected a scan")
    if dropped:
        text = f"dropped {dropped} of {len(cloud)} points without finite coordinates"
        _say(text, path, say, logging.WARNING)
    middle = np.median(cloud.xyz[valid], axis=0)
    if unit == "auto":
        unit = guess_unit(_sample(cloud.xyz[valid] - middle))
        if unit != "m":
            _say(f"lengths look like {unit}; scaled to metres", path, say, logging.INFO)
    if cloud.step * _METRES[unit] > _COARSE:
        text = (
            f"coordinates are stored in steps of {cloud.step * _METRES[unit]:.2g} m, the scan is "
            "damaged; export them in double precision, or less an offset"
        )
        _say(text, path, say, logging.WARNING)
    far = (np.abs(cloud.xyz - middle) * _METRES[unit] > _INDOORS).any(axis=1)
    stray = np.logical_and(valid, far)
    if stray.any():
        text = f"dropped {int(stray.sum())} points over 1 km from the rest"
        _say(text, path, say, logging.WARNING)
    return np.logical_and(valid, np.logical_not(stray)), unit


def scene_from_cloud(
    cloud: Cloud, path: Path, *, up: Axis = "auto", unit: Unit = "auto", say: Say | None = None
) -> Scene:
    """Drop what is not usable, scale, turn upright and centre the rest; see `read_scene`.

    Of a mesh (`Cloud.faces`) whose vertices are too few to show its surface, points on its faces
    are taken, with the colours of the faces' corners.

    `path` names the scene and stands in messages; it is not read. `say` as in `usable_points`.

    Raises:
        InputError: no point has finite coordinates.
    """
    usable, known = usable_points(cloud, path, unit, say)
    cloud = _on_faces(cloud.select(usable), _METRES[known], path, say)
    return upright_scene(cloud, path, up=up, unit=known, say=say)


def upright_scene(
    cloud: Cloud, path: Path, *, up: Axis = "auto", unit: Metric = "m", say: Say | None = None
) -> Scene:
    """Scale, turn upright and centre points that are all usable; else as `scene_from_cloud`."""
    scale = _METRES[unit]
    mean = cloud.xyz.mean(axis=0)
    centred = cloud.xyz - mean
    if up == "auto":
        direction = find_up(_sample(centred) * scale)
        if direction[2] < _UPRIGHT:
            text = f"{_describe(direction)} points up in the file; turned upright"
            _say(text, path, say, logging.INFO)
    else:
        direction = torch.zeros(3, dtype=torch.float64)
        direction["xyz".index(up[-1])] = -1 if up.startswith("-") else 1
    rotation = rotation_to_z(direction).numpy()

    from_file = np.eye(4)
    from_file[:3, :3] = scale * rotation
    from_file[:3, 3] = -from_file[:3, :3] @ mean
    normals = None if cloud.normals is None else cloud.normals @ rotation.T
    return Scene(
        name=path.stem,
        points=torch.from_numpy(centred @ from_file[:3, :3].T).float(),
        colors=None if cloud.rgb is None else torch.from_numpy(cloud.rgb),
        normals=None if normals is None else torch.from_numpy(normals).float(),
        from_file=torch.from_numpy(from_file),
    )


def _on_faces(cloud: Cloud, scale: float, path: Path, say: Say | None) -> Cloud:
    """The vertices, or points on the faces where vertices are more than `_APART` metres apart."""
    if cloud.faces is None or not len(cloud.faces):
        return cloud
    corners = cloud.xyz[cloud.faces]
    sides = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2 * scale**2
    if area < len(cloud) * _APART**2:
        return cloud
    count = int(min(_SAMPLED, area / _SAMPLING**2))
    face, xyz = sample_faces(corners, count, np.random.default_rng(0))
    owners = cloud.faces[face]
    text = f"a mesh of {len(cloud)} vertices; {len(xyz)} points on its faces are taken"
    _say(text, path, say, logging.INFO)
    return Cloud(
        xyz,
        None if cloud.rgb is None else cloud.rgb[owners].mean(axis=1),
        None if cloud.normals is None else cloud.normals[owners].mean(axis=1),
    )


def _say(text: str, path: Path, say: Say | None, level: int) -> None:
    if say is None:
        log.log(level, "%s: %s", path, text)
    else:
        say(text)


def _sample(centred: Float64[np.ndarray, "N 3"]) -> torch.Tensor:
    """A bounded number of points, the same for the same file."""
    if len(centred) > _SAMPLE:
        rng = np.random.default_rng(0)
        centred = centred[np.sort(rng.choice(len(centred), _SAMPLE, replace=False))]
    return torch.from_numpy(centred).float()


def _describe(direction: Float64[torch.Tensor, "3"]) -> str:
    axis = int(direction.abs().argmax())
    if abs(direction[axis]) > _UPRIGHT:
        return ("-" if direction[axis] < 0 else "") + "xyz"[axis]
    return "(" + ", ".join(f"{d:.2f}" for d in direction.tolist()) + ")"


def _read_ply(path: Path) -> Cloud:
    """With the faces if there are few vertices: a model of large faces has no more."""
    data = read_bytes(path)
    header = read_header(path, data)
    cloud = parse_ply(path, data, faces=header.vertex(path).rows < _FEW_VERTICES)
    if cloud.rgb is None and b"TextureFile" in data[: header.size]:
        log.warning("%s: its texture is not read; export it as .glb or .obj for colours", path)
    return cloud


def _advice(suffix: str) -> str:
    supported = ", ".join([*_READERS, _PREPARED])
    if suffix == ".zip":
        return "is an archive; unpack it and give the scan inside"
    if suffix in _OTHER_MESHES:
        return f"meshes of type {suffix} cannot be read; export it as .glb, .obj or .ply"
    return f"files of type {suffix or 'unknown'} cannot be read; expected one of {supported}"


_PREPARED = ".safetensors"
_TEXTS = (".xyz", ".txt", ".csv", ".asc", ".pts")
_MESHES = (".glb", ".gltf", ".obj", ".stl", ".off")
_OTHER_MESHES = (".fbx", ".dae", ".3ds", ".usd", ".usdc", ".usdz", ".blend")
_READERS: dict[str, Reader] = {
    **{".ply": _read_ply, ".pcd": read_pcd, ".npz": read_npz, ".npy": read_npy},
    **dict.fromkeys(_TEXTS, read_text),
    **{".las": read_las, ".laz": read_las, ".e57": read_e57},
    **dict.fromkeys(_MESHES, read_mesh),
}
SUFFIXES = (*_READERS, _PREPARED)
_METRES: dict[Metric, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}
_COARSE = 0.005  # metres between neighbouring coordinates, from which on a warning tells of it
_INDOORS = 1000.0  # metres from the middle of a scan; what lies farther off is a stray point
_SAMPLE = 50_000
_FEW_VERTICES = 100_000  # of a PLY file, below which its faces are looked at
_APART, _SAMPLING, _SAMPLED = 0.05, 0.02, 300_000  # metres, metres, points at most
_UPRIGHT = 0.9999  # cosine; a smaller tilt is corrected without a word


def bundled_scan(name: str = "kinect_office") -> Path:
    """A scan that comes with o2s: kinect_office, a real frame of an office bookshelf, or
    simulated_bedroom, a whole room of `o2s rooms`."""
    return Path(str(files("o2s") / "scans" / f"{name}.ply"))
