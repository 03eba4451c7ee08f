"""ModelNet40 as ULIP reads it for its zero-shot test (data/dataset_3d.py, `ModelNet`).

    modelnet40_normal_resampled/
        modelnet40_shape_names.txt      the classes, one a line
        modelnet40_test.txt             one `<class>_<number>` a line
        <class>/<class>_<number>.txt    10,000 lines `x,y,z,nx,ny,nz`
        modelnet40_test_8192pts_fps.dat   a pickle: [arrays [N, 6], arrays [1] of class numbers]

    test_pc.npy, test_split.json        OpenShape's points of 10,000, which ULIP-2 reads as
        (or modelnet40_colored_10k_pc.npy, modelnet40_test_split_10k_colored.json): a list of
        {xyz, rgb}, and one of {name, category} in the same order

The meshes of ModelNet40 have z up, but these points, which PointNet++ sampled, have y up:
PointNet++ turns them about y, ULIP measures heights along it (`gravity_dim`), and OpenShape's
config says `y_up`. Triplets have z up. The set is not in metres: every shape was scaled into a
ball. All points are returned.
"""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from o2s.datasets.object_files import (
    object_colors,
    object_points,
    one_text,
    read_entries,
    read_list,
    z_up,
)
from o2s.datasets.plain_arrays import read_npy, read_pickle
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.errors import InputError
from o2s.io.cloud import quote, read_bytes


class ModelNet40(TripletSource):
    """The shapes of `modelnet40_normal_resampled`; the text of a shape is its class.

    Args:
        root: the folder.
        split: which list of shapes.
        source: the folder's .dat file, which is wholly read into memory, its .txt files, or, with
            "auto", the .dat file if there is one.
        categories: 10 for ModelNet10, which lies in the same folder.

    Raises:
        InputError: a file is missing or of another format, a shape is of an unknown class, or the
            .dat file asks for code. Reading a shape: its points are damaged.
    """

    def __init__(
        self,
        root: Path,
        split: Literal["train", "test"] = "test",
        *,
        source: Literal["auto", "dat", "txt"] = "auto",
        categories: Literal[10, 40] = 40,
    ) -> None:
        listing = root / f"modelnet{categories}_shape_names.txt"
        names = read_list(listing, f"the {categories} classes, one a line")
        name = f"modelnet{categories}_{split}"
        packed = sorted(root.glob(f"{name}_*pts_fps.dat"), key=lambda path: (len(path.name), path))
        self._arrays: list[object] = []
        self._files: list[Path] = []
        if source == "dat" or (source == "auto" and packed):
            # The one with the most points, if several were made.
            path = packed[-1] if packed else root / f"{name}_8192pts_fps.dat"
            self._packed = path
            self._arrays, labels = _read_packed(path, names)
        else:
            self._files, labels = _read_shapes(root, f"{name}.txt", names)
        self._labels = [label.replace("_", " ") for label in labels]
        self.classes = tuple(sorted(set(self._labels)))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Triplet:
        if self._files:
            points = _read_points(self._files[index])
        else:
            points = object_points(self._arrays[index], f"{self._packed}: shape {index}")
        label = self.label(index)
        return Triplet(z_up(points), None, label, (label,))

    def label(self, index: int) -> str:
        return self._labels[index]


class ColoredModelNet40(TripletSource):
    """OpenShape's points of ModelNet40's test shapes, all of one grey.

    ULIP-2 passes the colours over and takes 0.4 for every point.

    Raises:
        InputError: a file is missing or of another format, or holds more than plain data, or the
            two do not fit. Reading a shape: its points are damaged.
    """

    def __init__(self, points: Path, split: Path) -> None:
        entries = read_entries(split, "a list of shapes with their category")
        self._labels = [
            one_text(entry.get("category"), f"{split}: [{i}].category").replace("_", " ")
            for i, entry in enumerate(entries)
        ]
        self._path = points
        held = read_npy(points, "a list of shapes with xyz and rgb")
        if not isinstance(held, list) or not all(isinstance(shape, dict) for shape in held):
            raise InputError(f"{points}: no list of mappings; expected shapes with xyz and rgb")
        if len(held) != len(self._labels):
            raise InputError(
                f"{points}: {len(held)} shapes, {len(self._labels)} in {split}; expected as many"
            )
        self._shapes: list[dict[str, object]] = held
        self.classes = tuple(sorted(set(self._labels)))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Triplet:
        shape = self._shapes[index]
        at = f"{self._path}: shape {index}: "
        points = object_points(shape.get("xyz"), f"{at}xyz")
        colors: UInt8[np.ndarray, "N 3"] | None = None
        if shape.get("rgb") is not None:
            colors = object_colors(shape["rgb"], len(points), f"{at}rgb")
        label = self.label(index)
        return Triplet(z_up(points), colors, label, (label,))

    def label(self, index: int) -> str:
        return self._labels[index]


def _read_packed(path: Path, names: tuple[str, ...]) -> tuple[list[object], list[str]]:
    """Points and class names out of the pickle."""
    expected = "a pickle of [points of the shapes, numbers of their classes]"
    instead = "use the .txt files of modelnet40_normal_resampled instead"
    held = read_pickle(path, expected, instead)
    two = isinstance(held, list | tuple) and len(held) == 2
    if not two or not all(isinstance(part, list | np.ndarray) for part in held):
        raise InputError(f"{path}: holds {_kind(held)}; expected {expected}")
    arrays, numbers = list(held[0]), list(held[1])
    if len(arrays) != len(numbers) or not arrays:
        raise InputError(
            f"{path}: {len(arrays)} shapes and {len(numbers)} classes; expected as many"
        )
    labels: list[str] = []
    for i, number in enumerate(numbers):
        is_number = isinstance(number, int | np.integer | np.ndarray)
        flat = np.asarray(number).reshape(-1) if is_number else np.zeros(0)
        if flat.size != 1 or flat.dtype.kind not in "iu" or not 0 <= flat[0] < len(names):
            shown = quote(number)
            raise InputError(
                f"{path}: class {i}: {shown}; expected a whole number below {len(names)}"
            )
        labels.append(names[int(flat[0])])
    return arrays, labels


def _read_shapes(root: Path, name: str, names: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Files and class names of the shapes of a list."""
    listing = root / name
    shapes = read_list(listing, "shapes, one <class>_<number> a line")
    labels = [shape.rpartition("_")[0] for shape in shapes]
    unknown = next((i for i, label in enumerate(labels) if label not in names), None)
    if unknown is not None:
        raise InputError(
            f"{listing}: {quote(shapes[unknown])} is of none of the {len(names)} classes; expected "
            "<class>_<number>"
        )
    files = [root / label / f"{shape}.txt" for label, shape in zip(labels, shapes, strict=True)]
    there = {path for label in set(labels) for path in (root / label).glob("*.txt")}
    missing = next((path for path in files if path not in there), None)
    if missing is not None:
        raise InputError(f"{missing}: no such file; {listing} names it")
    return files, labels


def _read_points(path: Path) -> Float32[np.ndarray, "N 3"]:
    expected = "lines of x,y,z,nx,ny,nz"
    try:
        lines = read_bytes(path, expected).decode("ascii").splitlines()
        with warnings.catch_warnings():  # numpy only warns of a file without a line
            warnings.simplefilter("error")
            rows = np.loadtxt(lines, np.float32, delimiter=",", comments=None, ndmin=2)
    except InputError:
        raise
    except (ValueError, UserWarning) as error:
        raise InputError(f"{path}: {quote(error)}; expected {expected}") from None
    return object_points(rows, f"{path}")


def _kind(held: object) -> str:
    return f"a {type(held).__name__}" if not isinstance(held, list) else f"a list of {len(held)}"
