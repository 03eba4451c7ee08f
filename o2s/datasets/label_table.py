"""ScanNet's label table, and the class lists and split lists that go with it.

Everything is read from the user's own copy of ScanNet: `scannetv2-labels.combined.tsv` from the
download, and the split files from Tasks/Benchmark of github.com/ScanNet/ScanNet. The table is read
by the names of its columns, since several versions are in circulation.
"""

import ast
import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from o2s.errors import InputError
from o2s.io.cloud import quote, read_bytes

TABLE = "scannetv2-labels.combined.tsv"
CONSTANTS = "scannet200_constants.py"  # beside the table: the official list of 200 classes
SPLITS = ("train", "val", "test")

# nyu40 ids: the 18 classes of detection (VoteNet), the 20 of the segmentation benchmark, and the
# 37 of ScanRefer, which are all but wall, floor and ceiling.
DETECTION = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
BENCHMARK = (1, 2, *DETECTION)
REFERRED = tuple(i for i in range(1, 41) if i not in (1, 2, 22))


@dataclass(frozen=True)
class LabelTable:
    """What a free-form label means in each class list.

    `nyu40` and `first_nyu40` differ only where a table lists a label twice: the former is the last
    such row's, as VoteNet, ScanRefer and mmdet3d read it, the latter, like `ids`, the first row's,
    as Pointcept reads it. `scannet200` holds the ids of the 200 classes in order.
    """

    path: Path
    nyu40: Mapping[str, int]
    first_nyu40: Mapping[str, int]
    ids: Mapping[str, int]
    scannet200: tuple[int, ...]
    nyu40_names: tuple[str, ...]  # by nyu40 id; 0 is unannotated
    scannet200_names: tuple[str, ...]
    checksum: str

    @property
    def class_names(self) -> dict[str, Sequence[str]]:
        """The names of the classes of each list, in order."""
        lists = {"scannet18": DETECTION, "scannet20": BENCHMARK, "scannet37": REFERRED}
        return {
            "nyu40": self.nyu40_names,
            **{name: [self.nyu40_names[i] for i in ids] for name, ids in lists.items()},
            "scannet200": self.scannet200_names,
        }


def read_label_table(path: Path) -> LabelTable:
    """Read a label table by its columns raw_category, id and nyu40id; nyu40class, category and
    count are used if there.

    The 200 classes are those of a `scannet200_constants.py` (from BenchmarkScripts/ScanNet200 of
    ScanNet's repository) that lies beside the table. Without it they are taken from the table: the
    200 ids with the highest counts, lower ids first among equals, but "wardrobe" (id 1177), which
    the official list leaves out. On the published tables both give the same list.

    Raises:
        InputError: the file is missing, or lacks columns, or has rows without numbers in them.
    """
    data = read_bytes(path, "ScanNet's label table")
    # splitlines, since one published table ends its lines with two carriage returns
    lines = data.decode("utf-8-sig", "replace").splitlines()
    try:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error}); expected ScanNet's {TABLE}") from None
    found = list(rows[0]) if rows else []
    missing = [name for name in _COLUMNS if name not in found]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(map(quote, missing))}; expected ScanNet's {TABLE}"
        )
    nyu40: dict[str, int] = {}
    first_nyu40: dict[str, int] = {}
    ids: dict[str, int] = {}
    nyu40_names = ["unannotated", *(f"nyu40 class {i}" for i in range(1, 41))]
    categories: dict[int, str] = {}
    counts: Counter[int] = Counter()
    for line, row in enumerate(rows, 2):
        number, nyu = _number(path, line, row, "id"), _number(path, line, row, "nyu40id")
        for column, value, most in (("nyu40id", nyu, 40), ("id", number, 2**31 - 1)):
            if not 0 <= value <= most:
                raise InputError(f"{path}: line {line}: {column} is {value}; expected 0 to {most}")
        label = row["raw_category"]
        nyu40[label] = nyu
        first_nyu40.setdefault(label, nyu)
        ids.setdefault(label, number)
        categories.setdefault(number, row.get("category") or label)
        counts[number] += _number(path, line, row, "count") if "count" in row else 0
        if nyu:
            nyu40_names[nyu] = row.get("nyu40class") or nyu40_names[nyu]
    constants = path.with_name(CONSTANTS)
    digest = hashlib.sha256(data)
    if constants.is_file():
        official = read_bytes(constants)
        digest.update(official)
        scannet200 = _official_classes(constants, official)
    else:
        del counts[_LEFT_OUT]
        ranked = sorted(counts, key=lambda i: (-counts[i], i))
        scannet200 = tuple(sorted(ranked[:200]))
    return LabelTable(
        path=path,
        nyu40=nyu40,
        first_nyu40=first_nyu40,
        ids=ids,
        scannet200=scannet200,
        nyu40_names=tuple(nyu40_names),
        scannet200_names=tuple(categories.get(i, f"id {i}") for i in scannet200),
        checksum=digest.hexdigest(),
    )


def read_split(path: Path) -> list[str]:
    """The scan ids in a split file, one a line, in its order.

    Raises:
        InputError: the file is missing, or names no scan.
    """
    expected = "a list of scan ids"
    names = read_bytes(path, expected).decode("utf-8-sig", "replace").split()
    if not names:
        raise InputError(f"{path}: names no scans; expected one id a line")
    return list(dict.fromkeys(names))


def find_splits(folders: Sequence[Path]) -> dict[str, Path]:
    """The split files `scannetv2_train.txt` and so on, by split, where they are first found."""
    return {
        split: path
        for split in SPLITS
        if (path := find_file(folders, f"scannetv2_{split}.txt")) is not None
    }


def find_file(folders: Sequence[Path], name: str) -> Path | None:
    """The first of the folders' files of that name, also in the places where people keep them."""
    for folder in folders:
        for place in (folder, folder / "meta_data", folder / "Tasks" / "Benchmark"):
            if (place / name).is_file():
                return place / name
    return None


def _number(path: Path, line: int, row: Mapping[str, str | None], column: str) -> int:
    try:
        return int(row[column] or "")
    except ValueError:
        raise InputError(
            f"{path}: line {line}: {column} is {quote(row[column])}; expected a whole number"
        ) from None


def _official_classes(path: Path, data: bytes) -> tuple[int, ...]:
    """VALID_CLASS_IDS_200 out of ScanNet's Python file, which is parsed but never run."""
    try:
        for node in ast.parse(data).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="VALID_CLASS_IDS_200")], value=value):
                    ids = tuple(ast.literal_eval(value))
                    if ids and len(set(ids)) == len(ids) and all(type(i) is int for i in ids):
                        return ids
    except (ValueError, TypeError, SyntaxError, RecursionError):
        pass
    raise InputError(f"{path}: no VALID_CLASS_IDS_200; expected ScanNet's list of 200 class ids")


_COLUMNS = ("id", "raw_category", "nyu40id")
_LEFT_OUT = 1177
