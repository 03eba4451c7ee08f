"""The object sets that ULIP and ULIP-2 learn from and are tested on, in the layouts they published.

    shapenet-55/                    read by data/dataset_3d.py, `ShapeNet`, of salesforce/ULIP
        train.txt, test.txt         one `<synset>-<model>.npy` a line
        taxonomy.json               a list of {synsetId, name}; name holds synonyms with commas
        shapenet_pc/<line>          points [N, 3]
        rendered_images/<synset>-<model>/<synset>-<model>_r_<degrees>[_depth0001].png

    ULIP-Objaverse_triplets/        as those who train on it read it, such as GPT4Point
        merged_data.json            {".../<uid>/<view>.png": captions, the best first}
        objaverse_pc_parallel/<uid>/<uid>_8192.npz   points [N, 3] as `arr_0`, or with RGB [N, 6]
        render_images_split_100/<uid>/<view>.png

    objaverse-lvis/                 read by `Objaverse_Lvis_Colored`
        lvis.json                   {uid: file below the folder}, each a mapping with xyz and rgb
        objaverse_lvis_metadata.json   {"value_to_key_mapping": {uid: class}, ...}

Up is y in all of them. ShapeNetCore's notes say so, and so does ULIP, which turns its shapes about
y and measures heights along it (`rotate_point_cloud`, `gravity_dim`); Objaverse's files are glTF,
whose up is y by definition. Triplets have z up. None of the sets is in metres. All points of a file
are returned as they are: neither centred, nor scaled, nor sampled.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from o2s.datasets.object_files import (
    distinct,
    first_repeated,
    object_colors,
    object_points,
    one_text,
    read_entries,
    read_list,
    read_mapping,
    z_up,
)
from o2s.datasets.plain_arrays import read_npy, read_npz
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.errors import InputError
from o2s.io.cloud import quote

_NO_TEXT = "an object"


class ShapeNet55(TripletSource):
    """The shapes of `shapenet-55`.

    A class is the first synonym of a synset; the texts are those of `shapenet_texts`. Images are
    the rendered views, of which ULIP draws colour and depth alike.

    Args:
        root: the folder `shapenet-55`.
        split: "all" is test and train together, which is what ULIP's published code trains on
            (`whole` in data/dataset_3d.py). Whoever wants to test on ShapeNet takes "train".
        templates: sentences with `{}` for the name, added to the bare names.
        depth_images: whether rendered depth counts as an image.

    Raises:
        InputError: a file is missing or of another format; a listed shape has no points or is of
            a synset that the taxonomy does not know. Reading a shape: its points are damaged.
    """

    def __init__(
        self,
        root: Path,
        split: Literal["train", "test", "all"] = "train",
        *,
        templates: Sequence[str] = (),
        depth_images: bool = True,
    ) -> None:
        self._root = root
        self._depth = depth_images
        synonyms = _read_taxonomy(root / "taxonomy.json")
        parts = ("test", "train") if split == "all" else (split,)
        self._names: list[str] = []
        for part in parts:
            listing = root / f"{part}.txt"
            self._names += _read_shapes(listing, synonyms, root / "shapenet_pc")
        both = first_repeated(self._names)
        if both is not None:
            raise InputError(f"{root / 'train.txt'}: {quote(both)} is in test.txt too")
        used = {name[:8] for name in self._names}
        self._texts = {synset: shapenet_texts(synonyms[synset], templates) for synset in used}
        self.classes = tuple(sorted({texts[0] for texts in self._texts.values()}))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Triplet:
        name = self._names[index]
        path = self._root / "shapenet_pc" / name
        points = z_up(object_points(read_npy(path, "the points of a shape"), f"{path}"))
        return Triplet(points, None, self.label(index), self.texts(index), self.images(index))

    def label(self, index: int) -> str:
        return self.texts(index)[0]

    def texts(self, index: int) -> tuple[str, ...]:
        return self._texts[self._names[index][:8]]

    def images(self, index: int) -> tuple[Path, ...]:
        shape = self._names[index].removesuffix(".npy")
        depth = "(_depth0001)?" if self._depth else ""
        pattern = rf"{re.escape(shape)}_r_\d{{3}}{depth}\.png"
        return _files(self._root / "rendered_images" / shape, pattern)


def shapenet_texts(synonyms: str, templates: Sequence[str] = ()) -> tuple[str, ...]:
    """What is said of a shape: its synset's synonyms, then each of them in each template.

    ULIP's paper puts a synonym into one of 64 templates; its published code draws a bare synonym
    (`use_caption_templates = False` in data/dataset_3d.py), as is done here without templates.
    Templates can be read from ULIP's file or ours with `o2s.evaluate.text_embeddings`.

    Args:
        synonyms: names with commas between them, as in ShapeNet's taxonomy.json.
        templates: sentences with `{}` for the name.

    Raises:
        ValueError: there is no name among the synonyms.
    """
    names = distinct([" ".join(name.split()) for name in synonyms.split(",") if name.strip()])
    if not names:
        raise ValueError(f"{synonyms!r} names nothing, expected names with commas between them")
    filled = [template.replace("{}", name) for name in names for template in templates]
    return distinct([*names, *filled])


class UlipObjaverse(TripletSource):
    """The objects of `ULIP-Objaverse_triplets`: captioned views and points of Objaverse.

    An object's class is known for those of Objaverse-LVIS, if `classes` is given; the other objects
    are each a class of its own, named by its uid. The texts are the class, then the captions.

    Args:
        root: the folder; the captions are all read into memory.
        classes: `objaverse_lvis_metadata.json`, if there.
        uids: a text file with the objects to take, one a line; all that have captions if not given.
        images: the folder of the views; if not given, one beside the captions whose name begins
            with `render`, if there is one.

    Raises:
        InputError: a file is missing or of another format, or a uid has no captions. Reading an
            object: its points are missing or damaged.
    """

    def __init__(
        self,
        root: Path,
        *,
        classes: Path | None = None,
        uids: Path | None = None,
        images: Path | None = None,
    ) -> None:
        self._points = root / "objaverse_pc_parallel"
        captions = root / "merged_data.json"
        self._captions, self._views = _read_captions(captions)
        self._uids = tuple(self._captions)
        if uids is not None:
            self._uids = read_list(uids, "uids of Objaverse, one a line")
            lacking = next((uid for uid in self._uids if uid not in self._captions), None)
            if lacking is not None:
                raise InputError(f"{uids}: {quote(lacking)} has no captions in {captions}")
        self._classes = {} if classes is None else _read_lvis_classes(classes)
        found = sorted(path for path in root.glob("render*") if path.is_dir())
        self._images = images if images is not None else next(iter(found), None)
        self.classes = tuple(sorted({self._classes.get(uid, uid) for uid in self._uids}))

    def __len__(self) -> int:
        return len(self._uids)

    def __getitem__(self, index: int) -> Triplet:
        uid = self._uids[index]
        folder = self._points / uid
        files = _files(folder, rf"{re.escape(uid)}_\d+\.npz")
        # The most points, if several were sampled.
        path = max(files, key=_count_in_name, default=folder / f"{uid}_8192.npz")
        array = read_npz(path, "arr_0", "an object's points")
        points = object_points(array, f"{path}")
        colors: UInt8[np.ndarray, "N 3"] | None = None
        if array.shape[1] >= 6:
            colors = object_colors(array[:, 3:6], len(points), f"{path}: colours")
        texts, images = self.texts(index), self.images(index)
        return Triplet(z_up(points), colors, self.label(index), texts, images)

    def label(self, index: int) -> str:
        return self._classes.get(self._uids[index], self._uids[index])

    def texts(self, index: int) -> tuple[str, ...]:
        uid = self._uids[index]
        known = [self._classes[uid]] if uid in self._classes else []
        return distinct([*known, *self._captions[uid]]) or (_NO_TEXT,)

    def images(self, index: int) -> tuple[Path, ...]:
        uid = self._uids[index]
        if self._images is None:
            return ()
        there = _files(self._images / uid, r".+\.png")
        named = self._views[uid]
        return tuple(path for path in there if path.name in named) if named else there


class ObjaverseLvis(TripletSource):
    """The coloured objects of `objaverse-lvis`, on which ULIP-2 is tested.

    Raises:
        InputError: a file is missing or of another format, or an object has no class. Reading an
            object: its file is missing or damaged, or holds more than plain data.
    """

    def __init__(self, root: Path) -> None:
        listing, metadata = root / "lvis.json", root / "objaverse_lvis_metadata.json"
        classes = _read_lvis_classes(metadata)
        self._objects: list[tuple[Path, str]] = []
        for uid, name in read_mapping(listing, "a mapping of uids to files").items():
            at = f"{listing}: {quote(uid)}"
            if uid not in classes:
                raise InputError(f"{at}: has no class in {metadata}; expected one for each object")
            self._objects.append((root / one_text(name, at, "a file"), classes[uid]))
        self.classes = tuple(sorted({label for _, label in self._objects}))

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Triplet:
        path, label = self._objects[index]
        expected = "a mapping with xyz and rgb"
        held = read_npy(path, expected)
        if not isinstance(held, dict):
            raise InputError(f"{path}: holds no mapping; expected {expected}")
        points = object_points(held.get("xyz"), f"{path}: xyz")
        colors = object_colors(held.get("rgb"), len(points), f"{path}: rgb")
        return Triplet(z_up(points), colors, label, (label,))

    def label(self, index: int) -> str:
        return self._objects[index][1]


def _read_taxonomy(path: Path) -> dict[str, str]:
    """Synonyms of each synset."""
    found: dict[str, str] = {}
    for i, entry in enumerate(read_entries(path, "ShapeNet's taxonomy, a list of synsets")):
        synset = one_text(entry.get("synsetId"), f"{path}: [{i}].synsetId")
        at = f"{path}: [{i}].name"
        name = one_text(entry.get("name"), at, "names with commas between them")
        if not name.replace(",", " ").strip():
            raise InputError(f"{at}: {quote(name)}; expected names with commas between them")
        if found.setdefault(synset, name) != name:
            raise InputError(f"{path}: [{i}].synsetId: {quote(synset)} comes twice")
    return found


def _read_shapes(listing: Path, synonyms: dict[str, str], folder: Path) -> list[str]:
    """The file names of a list; each is there, and of a known synset."""
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; expected the points of shapes") from None
    names = read_list(listing, "ShapeNet's shapes, one <synset>-<model>.npy a line")
    for name in names:
        if not re.fullmatch(r"\d{8}-[^/\\]+\.npy", name):
            raise InputError(f"{listing}: {quote(name)}; expected <synset>-<model>.npy")
        if name[:8] not in synonyms:
            raise InputError(
                f"{listing}: {quote(name)} is of a synset that is not in taxonomy.json"
            )
        if name not in there:
            raise InputError(f"{folder / name}: no such file; {listing} names it")
    return list(names)


def _read_captions(path: Path) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Captions and names of views by uid. Keys are paths of views, or uids alone."""
    expected = "ULIP-2's captions, a mapping of views to texts"
    captions: dict[str, list[str]] = {}
    views: dict[str, set[str]] = {}
    for key, value in read_mapping(path, expected).items():
        at = f"{path}: {quote(key)}"
        view = PurePosixPath(key)
        uid = view.parent.name if "/" in key else key
        if not re.fullmatch(r"\w[\w.-]*", uid):
            raise InputError(f"{at}: names no object; expected {expected}")
        texts = value if isinstance(value, list) else [value]
        held = captions.setdefault(uid, [])
        held += [one_text(text, f"{at}[{i}]") for i, text in enumerate(texts)]
        views.setdefault(uid, set())
        if "/" in key:
            views[uid].add(view.name)
    return captions, views


def _read_lvis_classes(path: Path) -> dict[str, str]:
    """Class names by uid; LVIS writes underscores for spaces."""
    key = "value_to_key_mapping"
    held = read_mapping(path, f"Objaverse-LVIS' metadata, with {key}").get(key)
    if not isinstance(held, dict) or not held:
        raise InputError(f"{path}: {key}: {_short(held)}; expected a mapping of uids to classes")
    named = {uid: one_text(name, f"{path}: {key}.{uid}") for uid, name in held.items()}
    return {uid: name.replace("_", " ") for uid, name in named.items()}


def _files(folder: Path, pattern: str) -> tuple[Path, ...]:
    """The files of a folder whose whole names match, sorted; none if there is no folder."""
    try:
        names: Iterable[str] = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(folder / name for name in sorted(names) if re.fullmatch(pattern, name))


def _count_in_name(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _short(held: Any) -> str:
    return "missing" if held is None else quote(held)
