"""The header of a PLY file: which elements it promises, how many and of which types."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from o2s.errors import InputError
from o2s.io.cloud import parse_count, quote

TYPE_OF = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
}
NAME_OF = {code: name for name, code in reversed(TYPE_OF.items())}
_ORDER_OF = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Property:
    name: str
    dtype: np.dtype
    length: np.dtype | None = None  # the type of a list's length; None for a single number


@dataclass(frozen=True)
class Element:
    name: str
    rows: int
    properties: list[Property]

    @property
    def has_lists(self) -> bool:
        return any(p.length is not None for p in self.properties)

    @property
    def least_bytes(self) -> int:
        """Bytes of a row whose lists are all empty; of every row where there are none."""
        return sum((p.length or p.dtype).itemsize for p in self.properties)


@dataclass(frozen=True)
class Header:
    order: str | None  # "<" or ">"; None means text
    elements: list[Element]
    size: int  # in bytes
    lines: int
    newline: bytes

    def vertex(self, path: Path) -> Element:
        for element in self.elements:
            if element.name == "vertex":
                if element.has_lists:
                    raise InputError(f"{path}: a vertex holds a list; expected numbers only")
                return element
        raise InputError(f"{path}: no element 'vertex' in the header; expected x, y and z of each")

    def before(self, element: Element) -> list[Element]:
        return self.elements[: self.elements.index(element)]


def read_header(path: Path, data: bytes) -> Header:
    if not re.match(rb"ply[ \t]*[\r\n]", data):
        raise InputError(f"{path}: not a PLY file; expected 'ply' as its first line")
    # Old Macintosh files end lines with a carriage return alone; the first line tells.
    newline = b"\r" if re.match(rb"ply[ \t]*\r(?!\n)", data) else b"\n"
    order, elements = "", []
    at = number = 0
    while True:
        end = data.find(newline, at)
        line = data[at : len(data) if end < 0 else end].decode("latin-1").strip()
        at, number = end + 1, number + 1
        if line == "end_header":
            at = at or len(data)
            break
        if end < 0:
            raise InputError(f"{path}: the header has no 'end_header'; is the file cut short?")
        where = f"{path}: line {number}"
        match line.split():
            case ["ply"] | ["comment" | "obj_info", *_] | []:
                pass
            case ["format", name, *_] if name in _ORDER_OF:
                order = _ORDER_OF[name]
            case ["element", name, rows]:
                if any(name == e.name for e in elements):
                    raise InputError(f"{where} repeats the element {quote(name)}")
                count = parse_count(path, rows, f"the number of {quote(name)} on line {number}")
                elements.append(Element(name, count, []))
            case ["property", *words] if len(words) in (2, 4) and elements:
                _add_property(where, elements[-1], words, order or "<")
            case _:
                raise InputError(f"{where} is {quote(line)}; expected a line of a PLY header")
    if order == "":
        raise InputError(f"{path}: the header names no format; expected {' or '.join(_ORDER_OF)}")
    return Header(order, elements, at, number, newline)


def _add_property(where: str, element: Element, words: list[str], order: str) -> None:
    *types, name = words
    is_list = len(types) == 3
    if is_list and types.pop(0) != "list":
        raise InputError(f"{where}: {quote(' '.join(words))}; expected 'list' and two types")
    for word in types:
        if word not in TYPE_OF:
            raise InputError(
                f"{where}: unknown type {quote(word)}; expected one of {', '.join(TYPE_OF)}"
            )
    if any(name == p.name for p in element.properties):
        raise InputError(f"{where} repeats the property {quote(name)}")
    dtypes = [np.dtype(order + TYPE_OF[word]) for word in types]
    if is_list and dtypes[0].kind == "f":
        raise InputError(f"{where}: a list's length is of type {types[0]}; expected an integer")
    element.properties.append(Property(name, dtypes[-1], dtypes[0] if is_list else None))
