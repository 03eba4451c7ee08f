"""OpenShape's objects: points with colours, texts, and features of images and texts.

OpenShape: Liu et al., NeurIPS 2023 (arXiv 2305.10764); github.com/Colin97/OpenShape_code, README.md
and src/data.py. ULIP-2 is compared on the same files.

    meta_data/split/train_all.json    a list of {dataset, group, id, data_path}
    meta_data/split/lvis.json         a list of {uid, group, category, data_path}
    meta_data/gpt4_filtering.json     {id: {"flag": "Y" or "N"}}: whether an Objaverse title tells
    <dataset>/<...>/<id>.npy          a mapping with
        xyz, rgb                      [10000, 3], rgb from 0 to 1
        text                          texts out of the source's metadata; of Objaverse, title first
        blip_caption, msft_caption    a text each
        retrieval_text                texts of similar images
        <each of these>_feat          {"original": [D], "prompt_avg": [D]}, of a list one a text
        image_feat, thumbnail_feat    [V, D], [D]
    meta_data/scanobjectnn/xyz_label.npy   a mapping with xyz [S, N, 3] and label [S]

Features are those of OpenCLIP's ViT-bigG-14. Up is y in all files (`y_up` in
src/configs/train.yaml, for ScanObjectNN also hkust-vgd/scanobjectnn, issue 33); triplets have z up.
Nothing is in metres. The files are pickles; they are read without running any code in them.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float32, UInt8

from o2s.datasets.object_files import (
    distinct,
    first_repeated,
    object_colors,
    object_points,
    one_text,
    read_entries,
    read_mapping,
    z_up,
)
from o2s.datasets.plain_arrays import read_npy
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.errors import InputError
from o2s.io.cloud import quote

# github.com/Colin97/OpenShape_code, src/data.py: the classes in the order of their numbers.
SCANOBJECTNN = (
    "bag",
    "bin",
    "box",
    "cabinet",
    "chair",
    "desk",
    "display",
    "door",
    "shelf",
    "table",
    "bed",
    "pillow",
    "sink",
    "sofa",
    "toilet",
)

_NO_TEXT = "an object"
_KINDS = ("text", "blip_caption", "msft_caption", "retrieval_text")
_HELD = "OpenShape's object, a mapping with xyz and rgb"


@dataclass(frozen=True)
class StoredFeatures:
    """Features of an object's V images, and of M of its texts, as they stand in its file."""

    images: Float32[np.ndarray, "V D"]
    texts: tuple[str, ...]
    text_features: Float32[np.ndarray, "M D"]


class OpenShape(TripletSource):
    """The objects of one of OpenShape's splits.

    An object's class is its `category`, which only `lvis.json` gives; without it the object is a
    class of its own, named by its id. Texts are the class, if known, and all that the file says;
    of Objaverse's own texts the title alone, as OpenShape takes it. There are no image files.

    Args:
        root: the folder with the folders of objects. A `data_path`, which is of the authors'
            machine, is looked up by its last parts below it.
        split: the JSON file.
        filtering: `gpt4_filtering.json`: titles that it flags "N" are left out.

    Raises:
        InputError: a file is missing or of another format, or an id comes twice. Reading an object:
            its file is missing or damaged, or holds more than plain data.
    """

    def __init__(self, root: Path, split: Path, *, filtering: Path | None = None) -> None:
        self._root = root
        flags = {} if filtering is None else read_mapping(filtering, "a mapping of ids to flags")
        self._empty = {i for i, f in flags.items() if isinstance(f, dict) and f.get("flag") == "N"}
        self._objects: list[tuple[str, PurePosixPath, str, bool]] = []
        for i, entry in enumerate(read_entries(split, "a list of objects with their data_path")):
            at = f"{split}: [{i}]"
            identity = one_text(entry.get("id", entry.get("uid")), f"{at}.id")
            path = PurePosixPath(one_text(entry.get("data_path"), f"{at}.data_path", "a file"))
            label = identity
            if "category" in entry:
                label = one_text(entry["category"], f"{at}.category").replace("_", " ")
            # lvis.json does not say that its objects are Objaverse's.
            objaverse = entry.get("dataset", "Objaverse") == "Objaverse"
            self._objects.append((identity, path, label, objaverse))
        twice = first_repeated(identity for identity, *_ in self._objects)
        if twice is not None:
            raise InputError(f"{split}: the id {quote(twice)} comes twice; expected each once")
        self.classes = tuple(sorted({label for _, _, label, _ in self._objects}))

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Triplet:
        identity, _, label, objaverse = self._objects[index]
        path, held = self._read(index)
        points = object_points(held.get("xyz"), f"{path}: xyz")
        colors = object_colors(held.get("rgb"), len(points), f"{path}: rgb")
        texts = [text for text, _, _ in _texts(held, path, self._own_texts(identity, objaverse))]
        known = [] if label == identity else [label]
        return Triplet(z_up(points), colors, label, distinct([*known, *texts]) or (_NO_TEXT,))

    def label(self, index: int) -> str:
        return self._objects[index][2]

    def features(self, index: int) -> StoredFeatures:
        """What OpenCLIP's ViT-bigG-14 made of an object's images and texts.

        The texts are those of the object without its class, each once; a thumbnail is the last of
        the images. Features are not normalised.

        Raises:
            InputError: the file is missing or damaged, or texts and features do not fit.
        """
        identity, _, _, objaverse = self._objects[index]
        path, held = self._read(index)
        images = [*_rows(held.get("image_feat"), f"{path}: image_feat")]
        if held.get("thumbnail_feat") is not None:
            images += [*_rows(held["thumbnail_feat"], f"{path}: thumbnail_feat")]
        found: dict[str, np.ndarray] = {}
        for text, kind, place in _texts(held, path, self._own_texts(identity, objaverse)):
            features = held.get(f"{kind}_feat")
            if place is not None:
                listed = features if isinstance(features, list) else []
                features = listed[place] if place < len(listed) else None
            original = features.get("original") if isinstance(features, dict) else None
            found.setdefault(text, _rows(original, f"{path}: {kind}_feat")[0])
        rows = [*images, *found.values()]
        width = len(rows[0])
        if any(len(row) != width for row in rows):
            raise InputError(f"{path}: features of several widths; expected {width} numbers each")
        stacked = np.stack(rows)
        return StoredFeatures(stacked[: len(images)], tuple(found), stacked[len(images) :])

    def _own_texts(self, identity: str, objaverse: bool) -> int | None:
        """How many of an object's own texts are taken; None is all."""
        if not objaverse:
            return None
        return 0 if identity in self._empty else 1

    def _read(self, index: int) -> tuple[Path, dict[str, object]]:
        _, stated, _, _ = self._objects[index]
        parts = [part for part in stated.parts if part not in ("/", ".", "..")]
        choices = [self._root.joinpath(*parts[i:]) for i in range(len(parts))]
        path = next((choice for choice in choices if choice.is_file()), None)
        if path is None:
            raise InputError(f"{self._root / stated.name}: no such file, nor one of {stated}")
        held = read_npy(path, _HELD)
        if not isinstance(held, dict):
            raise InputError(f"{path}: holds no mapping; expected {_HELD}")
        return path, held


class ScanObjectNN(TripletSource):
    """ScanObjectNN's test objects as OpenShape prepared them, without colours.

    These are real scans, cut out of rooms. The text of an object is its class.

    Raises:
        InputError: the file is missing or damaged, or holds more than plain data. Reading an
            object: its points are damaged.
    """

    def __init__(self, path: Path) -> None:
        expected = "a mapping with xyz [S, N, 3] and label [S]"
        held = read_npy(path, expected)
        points = held.get("xyz") if isinstance(held, dict) else None
        numbers = held.get("label") if isinstance(held, dict) else None
        if isinstance(points, list) and _all_alike(points):
            points = np.stack(points)
        if not isinstance(points, np.ndarray) or points.ndim != 3 or not len(points):
            raise InputError(f"{path}: xyz is no array of [S, N, 3]; expected {expected}")
        numbers = np.asarray(numbers if isinstance(numbers, list | np.ndarray) else [])
        if numbers.size != len(points) or numbers.dtype.kind not in "iu":
            raise InputError(f"{path}: label is no whole number an object; expected {expected}")
        numbers = numbers.reshape(-1)
        if (numbers < 0).any() or (numbers >= len(SCANOBJECTNN)).any():
            raise InputError(f"{path}: label: expected numbers below {len(SCANOBJECTNN)}")
        self._path, self._points = path, points
        self._labels = [SCANOBJECTNN[int(number)] for number in numbers]
        self.classes = tuple(sorted(set(self._labels)))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Triplet:
        points = object_points(self._points[index], f"{self._path}: object {index}")
        label = self.label(index)
        colors: UInt8[np.ndarray, "N 3"] | None = None
        return Triplet(z_up(points), colors, label, (label,))

    def label(self, index: int) -> str:
        return self._labels[index]


def _texts(
    held: dict[str, object], path: Path, own: int | None
) -> list[tuple[str, str, int | None]]:
    """Texts that are not blank, with their key and, in a list, their place."""
    found: list[tuple[str, str, int | None]] = []
    for kind in _KINDS:
        value = held.get(kind)
        if value is None:
            continue
        listed = isinstance(value, list)
        texts = value if isinstance(value, list) else [value]
        if kind == "text" and own is not None:
            texts = texts[:own]
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"{path}: {kind}: {quote(text)}; expected texts")
            if text.strip():
                found.append((" ".join(text.split()), kind, place if listed else None))
    return found


def _rows(values: object, at: str) -> Float32[np.ndarray, "V D"]:
    array = values if isinstance(values, np.ndarray) else np.zeros(0)
    if not array.size or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise InputError(f"{at}: missing or no finite numbers; expected a feature for each")
    return array.reshape(-1, array.shape[-1]).astype(np.float32)


def _all_alike(points: list[object]) -> bool:
    """Whether these are arrays of one shape."""
    shapes = {p.shape if isinstance(p, np.ndarray) else None for p in points}
    return len(shapes) == 1 and None not in shapes
