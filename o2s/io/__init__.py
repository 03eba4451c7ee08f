"""Scan files in, scenes out: PLY, PCD, NPZ and our own prepared .safetensors."""

import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64

from o2s.errors import InputError
from o2s.io.arrays import read_npz, read_prepared, write_prepared
from o2s.io.cloud import Cloud, Reader, require_file
from o2s.io.labelled import is_labelled, labelled_scene
from o2s.io.pcd import read_pcd
from o2s.io.ply import read_ply, write_ply
from o2s.io.upright import find_up, guess_unit, rotation_to_z
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
    "usable_points",
    "write_ply",
    "write_scene",
]

Axis = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]
Unit = Literal["auto", "m", "cm", "mm"]
Say = Callable[[str], None]

log = logging.getLogger(__name__)


def read_scene(path: Path | str, *, up: Axis = "auto", unit: Unit = "auto") -> Scene:
    """Read a scan file as an upright scene in metres, centred on the mean of its points.

    Points without finite coordinates, and strays over 1 km from the rest, are dropped. A prepared
    .safetensors is upright and in metres already: it is loaded as it is, whatever `up` and `unit`
    say.

    Args:
        path: a .ply, .pcd, .npz or prepared .safetensors file.
        up: the axis of the file that points up; "auto" finds it from the points.
        unit: the file's unit of length; "auto" guesses it from the extent.

    Raises:
        InputError: the file is missing, damaged, of another kind, or holds no points.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == _PREPARED:
        return labelled_scene(path) if is_labelled(path) else read_prepared(path)
    if suffix not in _READERS:
        require_file(path)
        raise InputError(f"{path}: {_MESH_ADVICE if suffix in _MESHES else _advice(suffix)}")
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
) -> tuple[Bool[np.ndarray, "N"], Unit]:
    """The points with finite coordinates that are no strays, and the unit of length.

    Args:
        cloud: the points of a file.
        path: stands in messages.
        unit: the unit, if it is known.
        say: is told what was dropped or guessed; the log if not given.

    Raises:
        InputError: no point has finite coordinates.
    """
    valid = (np.abs(cloud.xyz) <= _FARTHEST).all(axis=1)
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
    far = (np.abs(cloud.xyz - middle) * _METRES[unit] > _INDOORS).any(axis=1)
    stray = np.logical_and(valid, far)
    if stray.any():
        text = f"dropped {int(stray.sum())} points over 1 km from the rest"
        _say(text, path, say, logging.WARNING)
    return np.logical_and(valid, np.logical_not(stray)), unit


def scene_from_cloud(
    cloud: Cloud, path: Path, *, up: Axis = "auto", unit: Unit = "auto", say: Say | None = None
) -> Scene:
    """Scale, turn upright and centre the points of one file; see `read_scene`.

    `path` names the scene and stands in messages; it is not read. `say` as in `usable_points`.

    Raises:
        InputError: no point has finite coordinates.
    """
    valid, unit = usable_points(cloud, path, unit, say)
    scale = _METRES[unit]
    xyz = cloud.xyz[valid]
    mean = xyz.mean(axis=0)
    centred = xyz - mean
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
    normals = None
    if cloud.normals is not None:
        # A normal that could not be estimated is NaN in PCD files and zero here.
        normals = np.nan_to_num(cloud.normals[valid], nan=0, posinf=0, neginf=0) @ rotation.T
    return Scene(
        name=path.stem,
        points=torch.from_numpy(centred @ from_file[:3, :3].T).float(),
        colors=None if cloud.rgb is None else torch.from_numpy(cloud.rgb[valid]),
        normals=None if normals is None else torch.from_numpy(normals).float(),
        from_file=torch.from_numpy(from_file),
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


def _advice(suffix: str) -> str:
    supported = ", ".join([*_READERS, _PREPARED])
    return f"files of type {suffix or 'unknown'} cannot be read; expected one of {supported}"


_PREPARED = ".safetensors"
_READERS: dict[str, Reader] = {".ply": read_ply, ".pcd": read_pcd, ".npz": read_npz}
SUFFIXES = (*_READERS, _PREPARED)
_MESHES = {
    ".obj",
    ".glb",
    ".gltf",
    ".stl",
    ".off",
    ".fbx",
    ".dae",
    ".3ds",
    ".usd",
    ".usdz",
    ".blend",
}
_MESH_ADVICE = (
    "a mesh, not a scan; sample points on its surface and save them as .ply, for example with "
    "trimesh.sample.sample_surface, MeshLab or CloudCompare"
)
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_INDOORS = 1000.0  # metres from the middle of a scan; what lies farther off is a stray point
_FARTHEST = 1e10  # the Earth's radius is 6.4e9 millimetres: beyond lie markers of invalid points
_SAMPLE = 50_000
_UPRIGHT = 0.9999  # cosine; a smaller tilt is corrected without a word


def bundled_scan(name: str = "kinect_office") -> Path:
    """A scan that comes with o2s: kinect_office, a real frame of an office bookshelf, or
    simulated_bedroom, a whole room of `o2s rooms`."""
    return Path(str(files("o2s") / "scans" / f"{name}.ply"))
