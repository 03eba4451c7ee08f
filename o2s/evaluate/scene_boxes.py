"""Boxes of scenes, predicted and true, out of files.

    predictions  a folder of <scene>.json as `o2s detect --json` and `o2s caption --json` print
                 them, {scan, boxes: [{centre, size, heading, score, label, caption}]}; or one file
                 with a list of such objects, or of {scene_id, centre, size (or box), heading,
                 score, label, caption}, one for each box; JSON or JSON Lines
    truth        a folder that `o2s prepare` wrote; or a JSON file with a list of {scene_id,
                 object_id, box (or centre, size, heading), label}

Centres and sizes are in metres, in the aligned coordinates of the scene, headings in radians,
counter-clockwise seen from above. A `box` is centre and size, and a heading where there is one.
"""

import difflib
import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from o2s.datasets.preparation import INDEX, read_index
from o2s.errors import InputError
from o2s.evaluate.json_files import parse_json, read_records, read_text
from o2s.io.cloud import quote
from o2s.io.labelled import labelled_facts, read_labelled


@dataclass(frozen=True)
class PredictedBoxes:
    """The boxes of one scene in the order of their file; a label is "" where there is none."""

    scene_id: str
    boxes: Float64[np.ndarray, "R 7"]
    scores: Float64[np.ndarray, "R"]
    labels: tuple[str, ...]
    captions: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, labels: Collection[str]) -> "PredictedBoxes":
        """The boxes of other labels."""
        rows = [row for row, label in enumerate(self.labels) if label not in labels]
        return PredictedBoxes(
            self.scene_id,
            self.boxes[rows],
            self.scores[rows],
            tuple(self.labels[row] for row in rows),
            tuple(self.captions[row] for row in rows),
        )


@dataclass(frozen=True)
class TrueBoxes:
    """The objects of one scene; a label is "" where an object is of no class of the list."""

    scene_id: str
    ids: tuple[str, ...]
    boxes: Float64[np.ndarray, "R 7"]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_predicted_boxes(path: Path) -> dict[str, PredictedBoxes]:
    """Predictions by scene, in the order of the files and of their entries.

    The scene of a file in a folder is its name, of an object with `boxes` in a list its `scene_id`
    or else the name of its `scan`, both without the suffix. A missing score is 1.

    Raises:
        InputError: a file is missing, damaged or of another format; a scene comes twice.
    """
    if not path.is_dir():
        return _from_entries(path)
    files = sorted(p for p in path.glob("*.json") if not p.name.startswith("."))
    if not files:
        raise InputError(f"{path}: no .json files; expected one for each scene, {_NESTED}")
    found: dict[str, PredictedBoxes] = {}
    for file in files:
        held = parse_json(f"{file}", read_text(file, _NESTED), _NESTED)
        if not isinstance(held, dict) or "boxes" not in held:
            raise InputError(f'{file}: no "boxes"; expected {_NESTED}')
        found[file.stem] = _predicted(file.stem, _nested(held, f"{file}: "))
    return found


def read_true_boxes(
    path: Path,
    classes: str | None = None,
    split: str | None = None,
    scenes: Collection[str] | None = None,
) -> dict[str, TrueBoxes]:
    """True boxes by scene, of a prepared folder (of one split, if given) or of a JSON file.

    Args:
        path: the folder or file.
        classes: the class list of a prepared folder that names the labels, such as "scannet18";
            without it all labels are "". Files bring their own labels.
        split: only the scenes of this split of a prepared folder.
        scenes: only those of these scenes that there are.

    Raises:
        InputError: there is no such file, folder, class list or split; the file is damaged or of
            another format; an object comes twice; a prepared scan is not annotated.
    """
    if path.is_dir():
        names = _index_names(path, classes) if classes is not None else ()
        scans = prepared_scans(path, split)
        return {
            name: _prepared(file, name, classes, names)
            for name, file in scans.items()
            if scenes is None or name in scenes
        }
    if split is not None:
        raise InputError(
            f"{path}: a file has no splits, {quote(split)} was asked for; expected a "
            "folder that `o2s prepare` wrote"
        )
    held: dict[str, dict[str, tuple[list[float], str]]] = {}
    for at, values in read_records(path, _TRUTH):
        entry = _Entry(f"{at}.", values, _TRUTH)
        objects = held.setdefault(entry.text("scene_id"), {})
        identity = entry.id("object_id")
        if identity in objects:
            raise entry.wrong("object_id", identity, "each object of a scene once")
        objects[identity] = (entry.box(), entry.text("label"))
    return {
        scene: TrueBoxes(
            scene,
            tuple(objects),
            _rows([box for box, _ in objects.values()]),
            tuple(label for _, label in objects.values()),
        )
        for scene, objects in held.items()
        if scenes is None or scene in scenes
    }


def read_regions(path: Path, scenes: Collection[str], *, shell: bool) -> dict[str, TrueBoxes]:
    """True boxes of prepared scenes, of NYU40's classes where these are annotated; with `shell`
    those of walls, floor and ceiling, too, which no detector gives.

    Raises:
        InputError: as `read_true_boxes`, or a scene is not there.
    """
    classes = _NYU40 if _NYU40 in read_index(path)["class_names"] else None
    found = read_true_boxes(path, classes, scenes=scenes)
    missing = sorted(set(scenes) - found.keys())
    if missing:
        raise InputError(f"{path}: no scan {quote(missing[0])}{_more(missing)}")
    return found if shell else {n: _without(boxes, _SHELL) for n, boxes in found.items()}


def scored_classes(path: Path, classes: str, truth: Mapping[str, TrueBoxes]) -> tuple[str, ...]:
    """The classes that are scored: a list of a prepared folder, or the labels of a file.

    Raises:
        InputError: the folder has no such class list.
    """
    if not path.is_dir():
        return tuple(sorted({label for boxes in truth.values() for label in boxes.labels}))
    names = _index_names(path, classes)
    return names[1:] if classes == _NYU40 else names


def prepared_scans(folder: Path, split: str | None = None) -> dict[str, Path]:
    """The prepared scans of a folder by name, of one split if given.

    Raises:
        InputError: the folder has no index, a damaged one, or no scan of the split.
    """
    index = read_index(folder)
    try:
        entries = [(str(s["name"]), folder / s["file"], s["split"]) for s in index["scans"]]
    except (TypeError, KeyError):
        raise InputError(f"{folder / INDEX}: damaged; run `o2s prepare` again") from None
    found = {name: file for name, file, held in entries if split is None or held == split}
    if not found:
        known = ", ".join(sorted({str(held) for _, _, held in entries})) or "none"
        asked = "" if split is None else f" of split {quote(split)}"
        raise InputError(f"{folder}: no scans{asked}; found splits: {known}")
    return found


def made_from(scans: Mapping[str, Path]) -> str:
    """A digest of what scans, by name, were prepared from: answers about others are not theirs."""
    digest = hashlib.sha256()
    for name in sorted(scans):
        digest.update(f"{name}\0{(labelled_facts(scans[name]) or {}).get('made_from')}\0".encode())
    return digest.hexdigest()


def require_same_scenes(
    predictions: Mapping[str, PredictedBoxes],
    truth: Mapping[str, TrueBoxes],
    *,
    found_in: Path,
    reference: Path,
) -> None:
    """Raise InputError unless there are predictions for exactly the scenes of the reference."""
    unknown = [scene for scene in predictions if scene not in truth]
    if unknown:
        raise InputError(
            f"{found_in}: scene {quote(unknown[0])}{_more(unknown)} is not in {reference}; "
            f"expected boxes for its {len(truth)} scenes alone"
        )
    missing = [scene for scene in truth if scene not in predictions]
    if missing:
        raise InputError(
            f"{found_in}: no boxes for scene {quote(missing[0])}{_more(missing)} of {reference}; "
            'expected an entry for each scene, "boxes": [] where nothing was found'
        )


@dataclass(frozen=True)
class _Entry:
    """The values of one entry; `at` says where it stands. Methods raise InputErrors."""

    at: str
    values: Mapping[str, Any]
    expected: str

    def wrong(self, key: str, found: object, expected: str) -> InputError:
        shown = "missing" if found is None else quote(found)
        return InputError(f"{self.at}{key} is {shown}, expected {expected}; {self.expected}")

    def text(self, key: str) -> str:
        text = self.text_or_none(key)
        if not text:
            raise self.wrong(key, text, "a text")
        return text

    def text_or_none(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a pair, which JSON may name and no file can hold
            raise self.wrong(key, value.encode("utf-8", "replace"), "a text") from None
        return value

    def id(self, key: str) -> str:
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(key)

    def number(self, key: str, default: float, limit: float = math.inf) -> float:
        value = self.values.get(key)
        return default if value is None else self._number(key, value, limit)

    def box(self) -> list[float]:
        """Centre, size and heading out of `box`, or out of `centre`, `size` and `heading`."""
        if "box" in self.values:
            double = [key for key in ("centre", "size", "heading") if key in self.values]
            if double:
                raise self.wrong(double[0], self.values[double[0]], "box alone, or centre and size")
            row = self._numbers("box", (6, 7))
            row += [0.0] * (7 - len(row))
        else:
            row = [*self._numbers("centre", (3,)), *self._numbers("size", (3,))]
            row.append(self.number("heading", 0.0, _LIMIT))
        if min(row[3:6]) < 0:
            raise self.wrong("box" if "box" in self.values else "size", row[3:6], "no size below 0")
        return row

    def _numbers(self, key: str, counts: Sequence[int]) -> list[float]:
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) not in counts:
            raise self.wrong(key, value, f"a list of {' or '.join(map(str, counts))} numbers")
        return [self._number(f"{key}[{i}]", v, _LIMIT) for i, v in enumerate(value)]

    def _number(self, key: str, value: object, limit: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "null" if value is None else value, "a number")
        if not abs(value) <= min(limit, _LARGEST) or math.isnan(value):
            shown = "a number" if limit == math.inf else f"a number within {limit:g}"
            raise self.wrong(key, value, f"{shown}, finite")
        return float(value)


_NESTED = 'as `o2s detect --json` prints it, {"scan", "boxes": [{"centre", "size", ...}]}'
_FLAT = (
    'a list of {"scene_id", "centre", "size", "heading", "score", "label", "caption"}, or of '
    '{"scan", "boxes": [...]}'
)
_TRUTH = 'a list of {"scene_id", "object_id", "box", "label"}'
_BOX_KEYS = ("centre", "size", "heading", "box", "score", "label", "caption")
_SHELL = ("wall", "floor", "ceiling")
_NYU40 = "nyu40"  # whose class 0 means not annotated
_LIMIT = 1e9  # metres: volumes of such boxes still fit in float64
_LARGEST = 1.7e308
_Row = tuple[list[float], float, str, str | None]


def _from_entries(path: Path) -> dict[str, PredictedBoxes]:
    """Predictions of one file, whose entries are boxes or whole scenes."""
    rows: dict[str, list[_Row]] = {}
    whole: set[str] = set()
    for where, values in read_records(path, _FLAT):
        at = f"{where}."
        entry = _Entry(at, values, _FLAT)
        nested = "boxes" in values
        if nested and values.get("scene_id") is None:
            scene = Path(entry.text("scan")).stem
        else:
            scene = entry.text("scene_id")
        if scene in whole or (nested and scene in rows):
            raise InputError(f"{at}scene {quote(scene)} comes twice; expected all its boxes once")
        if nested:
            whole.add(scene)
            rows[scene] = list(_nested(values, at))
        else:
            rows.setdefault(scene, []).append(_row(entry, ("scene_id", "scan", *_BOX_KEYS)))
    return {scene: _predicted(scene, held) for scene, held in rows.items()}


def _nested(values: Mapping[str, Any], at: str) -> Iterator[_Row]:
    boxes = values["boxes"]
    if not isinstance(boxes, list):
        raise InputError(f"{at}boxes is {quote(boxes)}, expected a list; {_NESTED}")
    for number, box in enumerate(boxes):
        where = f"{at}boxes[{number}]"
        if not isinstance(box, dict):
            raise InputError(f"{where} is {quote(box)}, expected a box; {_NESTED}")
        yield _row(_Entry(f"{where}.", box, _NESTED), _BOX_KEYS)


def _row(entry: _Entry, keys: Sequence[str]) -> _Row:
    # A misspelt key would silently give all boxes one score, or no label.
    for strange in entry.values.keys() - set(keys):
        meant = difflib.get_close_matches(strange, keys, n=1, cutoff=0.75)
        if meant:
            at = entry.at.rstrip(".: ")
            raise InputError(f"{at}: key {quote(strange)}; expected {quote(meant[0])}")
    label = (entry.text_or_none("label") or "").strip()
    return entry.box(), entry.number("score", 1.0), label, entry.text_or_none("caption")


def _predicted(scene: str, rows: Iterator[_Row] | list[_Row]) -> PredictedBoxes:
    rows = list(rows)
    return PredictedBoxes(
        scene_id=scene,
        boxes=_rows([box for box, *_ in rows]),
        scores=np.array([score for _, score, *_ in rows], np.float64),
        labels=tuple(label for *_, label, _ in rows),
        captions=tuple(caption for *_, caption in rows),
    )


def _rows(boxes: list[list[float]]) -> Float64[np.ndarray, "R 7"]:
    return np.array(boxes, np.float64).reshape(-1, 7)


def _prepared(file: Path, name: str, classes: str | None, names: tuple[str, ...]) -> TrueBoxes:
    """The objects of one prepared scan, whose vertices stay unread."""
    scan = read_labelled(file)
    objects = scan.objects
    if objects is None:
        raise InputError(
            f"{file}: not annotated; expected scans with labels (--split chooses among them)"
        )
    labels = [""] * len(objects)
    if classes is not None:
        if classes not in objects.classes:
            raise InputError(f"{file}: no class list {quote(classes)}; run `o2s prepare` again")
        values = objects.classes[classes].tolist()
        if values and max(values) >= len(names):
            raise InputError(f"{file}: class {max(values)} of {len(names)}; the file is damaged")
        none = 0 if classes == _NYU40 else -1
        labels = ["" if value <= none else names[value] for value in values]
    boxes = np.zeros((len(objects), 7))
    boxes[:, :6] = objects.boxes
    if not (np.isfinite(boxes).all() and (boxes[:, 3:6] >= 0).all()):
        raise InputError(f"{file}: boxes that are not finite or below 0 in size; it is damaged")
    return TrueBoxes(name, tuple(map(str, objects.ids.tolist())), boxes, tuple(labels))


def _index_names(folder: Path, classes: str) -> tuple[str, ...]:
    lists = read_index(folder)["class_names"]
    if not isinstance(lists, dict) or classes not in lists:
        known = ", ".join(lists) if isinstance(lists, dict) and lists else "none"
        raise InputError(f"{folder}: no class list {quote(classes)}; expected one of: {known}")
    return tuple(map(str, lists[classes]))


def _without(boxes: TrueBoxes, labels: Collection[str]) -> TrueBoxes:
    kept = [i for i, label in enumerate(boxes.labels) if label not in labels]
    ids, names = (tuple(held[i] for i in kept) for held in (boxes.ids, boxes.labels))
    return TrueBoxes(boxes.scene_id, ids, boxes.boxes[kept], names)


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
