"""The entries of furniture catalogues.

It reads the furniture catalogues of Sweet Home 3D: `.sh3f` files, which are zips of models and a
`PluginFurnitureCatalog.properties`, alone, in a folder, or in Debian's package
`sweethome3d-furniture`; and folders of meshes with a `furniture.csv`. In a catalogue sizes are in
centimetres, and a model has y up and its front towards +z once it is turned by its `modelRotation`
(three rows); then it is scaled to its size. See DefaultFurnitureCatalog in Sweet Home 3D's sources.
"""

import csv
import hashlib
import io
import math
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from o2s.datasets.furniture_classes import CLASSES, classify
from o2s.datasets.furniture_meshes import (
    DAMAGE,
    Files,
    Model,
    bounds,
    kind_of_file,
    read_mesh,
)
from o2s.errors import InputError, first_line
from o2s.io.cloud import quote

TABLE = "furniture.csv"
TABLE_COLUMNS = ("file", "name", "class", "creator", "licence")
CATALOGUE = "PluginFurnitureCatalog.properties"
MOST_FACES = 100_000  # polygons of an OBJ; a scan would not show what more of them add


@dataclass(frozen=True)
class Piece:
    """One model of a catalogue. `size` is width, depth and height; lengths are in metres."""

    key: str  # catalogue and item, as in "Scopia/office_chair"
    name: str  # as in the catalogue
    fine: str  # a lower-case noun phrase for texts: "office chair"
    label: str  # one of CLASSES
    size: tuple[float, float, float]
    elevation: float  # of its lowest point above the floor
    split: str
    creator: str
    licence: str
    source: str
    library: int = 0  # of libraries that were joined, which one it is from
    digest: str = ""  # SHA-256 of the model's file


UNREADABLE = "cannot be read"  # how `why` begins where a file is damaged or missing


@dataclass(frozen=True)
class Entry:
    """An item of a catalogue whose split is not known yet; `why` tells why it is left out."""

    piece: Piece
    model: Model
    digest: str = ""
    why: str = ""


def catalogues(path: Path) -> Iterator[Files]:
    """The .sh3f files that a path stands for, in the order of their names."""
    if path.is_dir():
        found = sorted(path.rglob("*.sh3f"))
        if not found:
            raise InputError(f"{path}: no .sh3f and no {TABLE} in it; expected furniture")
        yield from map(Files, found)
    elif not path.is_file():
        raise InputError(f"{path}: no such file; expected a .deb, a .sh3f or a folder of furniture")
    elif path.suffix == ".deb":
        yield from _unpack(path)
    else:
        yield Files(path)


def read_catalogue(files: Files) -> list[Entry]:
    with files.reading() as read:
        try:
            values = parse_properties(read(CATALOGUE))
        except InputError as error:
            raise InputError(f"{error}; expected a library of Sweet Home 3D") from None
        common: dict[str, str] = {}
        items: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for key, value in values.items():
            field, _, number = key.partition("#")
            of = items[int(number)] if number.isdecimal() else common
            of[field] = " ".join(value.split())
        if not items:
            raise InputError(f"{files.path}: {CATALOGUE} lists no furniture")
        for item in items.values():
            item["model"] = item.get("model", "").lstrip("/")
        stated = _stated_licences(files, read, [item["model"] for item in items.values()])
        words = (common.get("name", files.path.stem), common.get("version"), common.get("provider"))
        source = ", ".join(filter(None, words))
        entries = []
        for number, item in sorted(items.items()):
            key = f"{files.path.stem}/{item.get('id', '').rpartition('#')[2] or number}"
            licence = item.get("license") or common.get("license") or "licence not stated"
            licence = stated.get(item["model"], licence)
            entries.append(_catalogue_entry(files, read, key, item, licence, source))
    return entries


def read_table(table: Path) -> list[Entry]:
    """The entries of a `furniture.csv`."""
    files = Files(table.parent)
    with files.reading() as read:
        rows = csv.DictReader(read(TABLE).decode("utf-8-sig", "replace").splitlines())
        try:
            numbered = [(rows.line_num, row) for row in rows]
        except csv.Error as error:
            raise InputError(f"{table}: line {rows.line_num}: {error}") from None
        missing = [name for name in TABLE_COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise InputError(
                f"{table}: no column {', '.join(map(quote, missing))}; "
                f"expected {', '.join(TABLE_COLUMNS)} and perhaps {', '.join(_SIDES)}, elevation"
            )
        return [_table_entry(table, files, read, line, row) for line, row in numbered]


def parse_properties(data: bytes) -> dict[str, str]:
    """The values of a Java .properties file: latin-1, with continued lines and escapes.

    The rules are those of java.util.Properties.load.
    """
    text = data.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
    values: dict[str, str] = {}
    logical = ""
    for line in [*text.split("\n"), ""]:
        line = line.lstrip(" \t\f")
        if not logical and (not line or line[0] in "#!"):
            continue
        logical += line
        if (len(logical) - len(logical.rstrip("\\"))) % 2:
            logical = logical[:-1]
            continue
        if match := _PROPERTY.fullmatch(logical):
            values[_unescape(match[1])] = _unescape(match[2])
        logical = ""
    return values


def _unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPES.get(code, code)

    plain = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", character, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unpack(package: Path) -> list[Files]:
    """The .sh3f files in a Debian package, which is an ar archive around a tar archive."""
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(_package_data(package))) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None and member.name.endswith(".sh3f"):
                    found.append(Files(package / PurePosixPath(member.name).name, content.read()))
    except DAMAGE as error:
        raise InputError(f"{package}: not a whole package ({first_line(error)})") from None
    if not found:
        raise InputError(f"{package}: no .sh3f in it; expected Debian's sweethome3d-furniture")
    return sorted(found, key=lambda files: files.path)


def _package_data(package: Path) -> bytes:
    data = package.read_bytes()
    at = len(_AR_MAGIC)
    while data.startswith(_AR_MAGIC) and (header := _AR_HEADER.match(data, at)):
        at = header.end() + int(header[2])
        content = data[header.end() : at]
        at += at % 2  # members begin at even places
        if not header[1].startswith(b"data.tar"):
            continue
        if content.startswith(_ZSTD_MAGIC):
            raise InputError(
                f"{package}: packed with zstd, which Python's tarfile does not read; "
                "give the folder that dpkg-deb -x makes of it"
            )
        if len(content) == int(header[2]):
            return content
    raise InputError(f"{package}: no whole data.tar in it; expected a Debian package")


def _catalogue_entry(
    files: Files,
    read: Callable[[str], bytes],
    key: str,
    item: Mapping[str, str],
    licence: str,
    source: str,
) -> Entry:
    name = item.get("name", "")
    piece = _plain_piece(key, name, item.get("creator", ""), licence, source)
    model = Model(files, item["model"], np.eye(3))
    try:
        width, depth, height = (_number(item.get(side, ""), side) / 100 for side in _SIDES)
        elevation = _number(item.get("elevation", "0"), "elevation") / 100
        if min(width, depth, height) <= 0:
            raise InputError(f"the size is {width} x {depth} x {height} m; expected more than 0")
        words = item.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()
        rotation = np.array([_number(word, "modelRotation") for word in words])
        if len(rotation) != 9:
            raise InputError(f"modelRotation has {len(rotation)} numbers; expected 9")
        size = (width, depth, height)
        kind = classify(
            key, name, category=item.get("category", ""), size=size, elevation=elevation
        )
        piece = replace(piece, fine=kind.phrase, label=kind.label, size=size, elevation=elevation)
        model = replace(model, rotation=rotation.reshape(3, 3))
        if kind.left_out:
            return Entry(piece, model, why=kind.left_out)
        return _hashed(piece, model, read)
    except InputError as error:
        return Entry(piece, model, why=f"{UNREADABLE}: {error}")


def _stated_licences(
    files: Files, read: Callable[[str], bytes], models: Iterable[str]
) -> dict[str, str]:
    """By model, the licence that a file in its folder states, as those of blendswap.com do.

    It may differ from the catalogue's: a few CC-BY models are in the catalogue of CC-0 ones.
    """
    model_in = {PurePosixPath(model).parent: model for model in models}
    stated: dict[str, str] = {}
    with files.zip() as archive:
        names = [n for n in archive.namelist() if _LICENCE_FILE.search(n)]
    for name in names:
        model = next((model_in[p] for p in PurePosixPath(name).parents if p in model_in), None)
        text = re.sub(r"<[^>]+>", "\n", read(name).decode("latin-1"))
        terms = re.search(r"Released under\s+(Creative Commons [^\n]+)", text)
        if model is not None and terms:
            stated[model] = " ".join(terms[1].split())
    return stated


def _table_entry(
    table: Path,
    files: Files,
    read: Callable[[str], bytes],
    line: int,
    row: Mapping[str | None, Any],
) -> Entry:
    text = {column: " ".join(str(value or "").split()) for column, value in row.items()}
    name, label = text["name"], text["class"]
    if label not in CLASSES:
        raise InputError(f"{table}: line {line}: no class {quote(label)}; one is 'sofa'")
    if not PurePosixPath(text["file"]).name:
        raise InputError(f"{table}: line {line}: no file; expected the name of a mesh")
    key = f"{table.parent.name}/{PurePosixPath(text['file']).with_suffix('')}"
    licence = text["licence"] or "licence not stated"
    piece = _plain_piece(key, name, text["creator"], licence, table.parent.name)
    elevation = _number(text.get("elevation") or "0", f"{table}: line {line}: elevation")
    piece = replace(piece, fine=name.lower() or label, label=label, elevation=elevation)
    model = Model(files, text["file"], np.eye(3))
    given = [text.get(side, "") for side in _SIDES]
    size = (0.0, 0.0, 0.0)
    if any(given):
        where = f"{table}: line {line}"
        width, depth, height = (_number(given[i], f"{where}: {_SIDES[i]}") for i in range(3))
        size = (width, depth, height)
        if min(size) <= 0:
            raise InputError(f"{where}: a length is not above 0; expected metres")
    try:
        if not any(given):
            low, high = bounds(read_mesh(model)[0])
            width, depth, height = (high - low).tolist()
            size = (width, depth, height)
            if min(size) <= 0:
                raise InputError(f"it is flat: {width:.3g} x {depth:.3g} x {height:.3g} m")
        return _hashed(replace(piece, size=size), model, read)
    except InputError as error:
        return Entry(piece, model, why=f"{UNREADABLE}: {error}")


def _plain_piece(key: str, name: str, creator: str, licence: str, source: str) -> Piece:
    """A piece of which only the words are known."""
    return Piece(key, name, "", "", (0.0, 0.0, 0.0), 0.0, "", creator, licence, source)


def _hashed(piece: Piece, model: Model, read: Callable[[str], bytes]) -> Entry:
    if kind_of_file(model) not in _FORMATS:
        raise InputError(f"{quote(model.name)}; expected one of {', '.join(_FORMATS)}")
    data = read(model.name)
    faces = data.count(b"\nf ") if kind_of_file(model) == "obj" else 0
    why = f"too large: {faces} polygons" if faces > MOST_FACES else ""
    return Entry(piece, model, hashlib.sha256(data).hexdigest(), why)


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{what} is {quote(text)}; expected a number")
    return value


_SIDES = ("width", "depth", "height")
_FORMATS = ("obj", "glb", "gltf", "ply")
_LICENCE_FILE = re.compile(r"licen[cs]e[^/]*\.(?:txt|html?)$", re.IGNORECASE)
_PROPERTY = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = re.compile(rb"([^\n]{16})[^\n]{32}(\d+) *`\n", re.DOTALL)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
