"""JSON files of other people's making, read strictly: every mistake is one line that says where."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from o2s.errors import InputError
from o2s.io.cloud import quote, read_bytes


def read_text(path: Path, expected: str) -> str:
    """A text file in UTF-8.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    try:
        return read_bytes(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; expected {expected}") from None


def parse_json(at: str, text: str, expected: str, *, finite: bool = False) -> Any:
    """JSON whose objects have each key once (of others, Python would keep the last).

    With `finite` NaN and Infinity, which are Python's and no JSON, are refused; without it whoever
    reads the numbers can say better which one is wrong.

    Raises:
        InputError: it is anything else; `at` begins the line.
    """
    try:
        constant = _refuse if finite else None
        return json.loads(text, object_pairs_hook=each_key_once, parse_constant=constant)
    except RepeatedKeyError as error:
        raise InputError(f"{at}: {error}; expected {expected}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{at}: not JSON; expected {expected}") from None


def read_records(path: Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list, of JSON lines, or the one object of a file, and where they are.

    Raises:
        InputError: there is no such file, it is not JSON, a key comes twice in an object, or it
            holds other things than objects, or nothing.
    """
    text = read_text(path, expected)
    if text.lstrip()[:1] == "[":
        values = enumerate(parse_json(f"{path}", text, expected))
        records = [(f"{path}: [{number}]", value) for number, value in values]
    else:
        records = list(_read_lines(path, text, expected))
    if not records:
        raise InputError(f"{path}: empty; expected {expected}")
    for at, value in records:
        if not isinstance(value, dict):
            raise InputError(f"{at}: {quote(value)}; expected {expected}")
        yield at, value


class RepeatedKeyError(ValueError):
    """An object or mapping that says the same key twice."""


def each_key_once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping out of pairs.

    Raises:
        RepeatedKeyError: a key comes twice.
    """
    held: dict[Any, Any] = {}
    for key, value in pairs:
        if key in held:
            raise RepeatedKeyError(f"the key {quote(key)} comes twice")
        held[key] = value
    return held


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _read_lines(path: Path, text: str, expected: str) -> Iterator[tuple[str, Any]]:
    """What each line holds; of a text whose first line is no whole object, what all of it holds."""
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) < 2 or not lines[0][1].rstrip().endswith("}"):
        yield f"{path}", parse_json(f"{path}", text, expected)
        return
    for number, line in lines:
        at = f"{path}: line {number}"
        yield at, parse_json(at, line, expected)
