"""A library of furniture meshes for simulated scans.

See furniture_catalogues for the files that it reads.
"""

import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from o2s.datasets.furniture_catalogues import (
    TABLE,
    Entry,
    Piece,
    catalogues,
    read_catalogue,
    read_table,
)
from o2s.datasets.furniture_classes import CLASSES
from o2s.datasets.furniture_meshes import Model, PieceMesh, placed, read_mesh
from o2s.errors import InputError
from o2s.io.cloud import quote

SPLITS = ("train", "val", "test")


class FurnitureLibrary:
    """Pieces of furniture by class and split, whose meshes are read when they are asked for.

    `pieces` are those of a class; `skipped` says of every other one, by its key, why.

    The split goes by the content of the model files: the distinct ones of a class are ranked by
    their SHA-256; the lowest 70 % are train, and val and test share the rest, test getting the odd
    one. So every class of two or more models has train and test, a model under two names is in one
    split (of two classes the first by name decides), and the split is the same wherever the library
    lies and in whatever order it is read; but adding models can move others.
    """

    def __init__(
        self, pieces: Iterable[Piece], skipped: Mapping[str, str], models: Mapping[str, "Model"]
    ) -> None:
        self.pieces = tuple(pieces)
        self.skipped = dict(skipped)
        self._models = dict(models)
        self._loaded: OrderedDict[str, PieceMesh] = OrderedDict()

    @classmethod
    def open(cls, path: Path) -> "FurnitureLibrary":
        """The library in a `.deb`, a `.sh3f`, a folder of these, or one with `furniture.csv`.

        The table's columns are file, name, class, creator and licence and, if known, width, depth
        and height in metres (without them the mesh is in metres) and elevation, how far above the
        floor a piece hangs. Its meshes have y up and the front
        towards +z, as in glTF. A `.deb` is unpacked into memory, 120 MB, each time; opening the
        folder that `dpkg-deb -x` makes of it is faster.

        Raises:
            InputError: the file is damaged, or there is no piece of a known class in it.
        """
        if (path / TABLE).is_file():
            entries = read_table(path / TABLE)
        else:
            entries = [entry for files in catalogues(path) for entry in read_catalogue(files)]
        entries = _with_own_keys(entries)
        splits = _splits([e for e in entries if not e.why])
        pieces = [
            replace(e.piece, split=splits[e.digest], digest=e.digest) for e in entries if not e.why
        ]
        if not pieces:
            first = next((f"; {e.piece.key}: {e.why}" for e in entries), "")
            raise InputError(f"{path}: none of its {len(entries)} models can be used{first}")
        skipped = {e.piece.key: e.why for e in entries if e.why}
        return cls(pieces, skipped, {e.piece.key: e.model for e in entries})

    def all_for_train(self, beside: "FurnitureLibrary | None" = None) -> "FurnitureLibrary":
        """This library without a split: all of its pieces are for train, less those whose model is
        one of val or test in the library that it stands beside."""
        held_out = {p.digest: p.key for p in beside.pieces if p.split != "train"} if beside else {}
        pieces = [replace(p, split="train") for p in self.pieces if p.digest not in held_out]
        skipped = {
            p.key: f"the model of {held_out[p.digest]}, which is held out"
            for p in self.pieces
            if p.digest in held_out
        }
        return FurnitureLibrary(pieces, self.skipped | skipped, self._models)

    def with_train(self, other: "FurnitureLibrary") -> "FurnitureLibrary":
        """This library and another, whose pieces are for train as `all_for_train` says; val and
        test stay as they are.

        Raises:
            InputError: both have a piece of the same key.
        """
        twice = sorted({piece.key for piece in other.pieces} & self._models.keys())
        if twice:
            raise InputError(f"two libraries have {twice[0]}; expected folders of different names")
        number = 1 + max((piece.library for piece in self.pieces), default=0)
        joined = other.all_for_train(beside=self)
        more = [replace(piece, library=number) for piece in joined.pieces]
        return FurnitureLibrary(
            (*self.pieces, *more), self.skipped | joined.skipped, self._models | other._models
        )

    def load(self, piece: Piece) -> PieceMesh:
        """The mesh of one of the pieces at its catalogue size. Its arrays cannot be written to.

        Raises:
            InputError: the mesh is damaged, or trimesh is not installed.
        """
        mesh = self._loaded.pop(piece.key, None)
        if mesh is None:
            mesh = placed(*read_mesh(self._models[piece.key]), piece.size)
        self._loaded[piece.key] = mesh
        if len(self._loaded) > _MOST_LOADED:
            self._loaded.popitem(last=False)
        return mesh

    def of_class(self, label: str, split: str) -> list[Piece]:
        """The pieces of a class in a split, in the library's order.

        Raises:
            InputError: there is no such class or split.
        """
        for value, choices in ((label, CLASSES), (split, SPLITS)):
            if value not in choices:
                raise InputError(f"{quote(value)} is none of {', '.join(choices)}")
        return [p for p in self.pieces if p.label == label and p.split == split]

    def attribution(self, pieces: Iterable[Piece] | None = None) -> str:
        """The text of a file that credits each model (all, or those given), as CC-BY asks for."""
        used = sorted(set(self.pieces if pieces is None else pieces), key=lambda p: p.key)
        lines = ["3D models of furniture. They were turned, scaled and given one colour a face."]
        for source in dict.fromkeys(p.source for p in used):
            lines += ["", f"From {source}:"]
            lines += [
                f"- {p.name} ({p.key}) by {p.creator or 'an unnamed author'}; {p.licence}"
                for p in used
                if p.source == source
            ]
        known = {words for words in _TERMS for p in used if words in p.licence}
        lines += ["", *(f"{words}: {link}" for words, link in _TERMS.items() if words in known)]
        return "\n".join(lines).rstrip() + "\n"


def _with_own_keys(entries: Iterable[Entry]) -> list[Entry]:
    """The entries with keys that differ: the second of a name gets "-2" and so on."""
    taken: set[str] = set()
    unique = []
    for entry in entries:
        numbered = (f"{entry.piece.key}-{count}" for count in itertools.count(2))
        key = next(k for k in itertools.chain([entry.piece.key], numbered) if k not in taken)
        taken.add(key)
        unique.append(replace(entry, piece=replace(entry.piece, key=key)))
    return unique


def _splits(entries: Iterable[Entry]) -> dict[str, str]:
    """The split of each model by the hash of its content; see FurnitureLibrary."""
    class_of: dict[str, str] = {}
    for entry in entries:
        label = entry.piece.label
        class_of[entry.digest] = min(label, class_of.get(entry.digest, label))
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    for digest in sorted(class_of):
        by_class[class_of[digest]].append(digest)
    splits: dict[str, str] = {}
    for digests in by_class.values():
        train = (7 * len(digests) + 5) // 10
        val = (len(digests) - train) // 2
        for rank, digest in enumerate(digests):
            splits[digest] = SPLITS[(rank >= train) + (rank >= train + val)]
    return splits


_TERMS = {
    "Attribution 3.0 United States": "https://creativecommons.org/licenses/by/3.0/us/",
    "Attribution 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "Zero": "https://creativecommons.org/publicdomain/zero/1.0/",
    "Public domain": "https://creativecommons.org/publicdomain/zero/1.0/",
}
_MOST_LOADED = 512  # meshes, of a quarter of a megabyte each as a rule
