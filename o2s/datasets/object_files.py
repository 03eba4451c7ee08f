"""What the readers of public object sets share: lists, JSON, points and colours out of arrays."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from o2s.errors import InputError
from o2s.io.cloud import quote, read_bytes, unit_colors


def z_up(points: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
    """Points with y up turned by 90 degrees about x, so that z is up: (x, y, z) to (x, -z, y).

    OpenShape (src/data.py) swaps y and z instead, which mirrors every object.
    """
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


_FARTHEST = 1e10  # squares of differences stay finite in float32


def object_points(values: object, at: str) -> Float32[np.ndarray, "N 3"]:
    """The first three columns of an array, as points; `at` begins the error.

    Raises:
        InputError: it is no array of at least one row and three columns of finite numbers.
    """
    array: np.ndarray = values if isinstance(values, np.ndarray) else np.zeros(0)
    if array.ndim != 2 or array.shape[-1] < 3 or not len(array) or array.dtype.kind not in "fiu":
        raise InputError(f"{at}: {_shown(values)}; expected points as numbers of [N, 3] or more")
    with np.errstate(over="ignore", invalid="ignore"):
        points = array[:, :3].astype(np.float32)
    finite = (np.abs(points) <= _FARTHEST).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{at}: point {int(finite.argmin())} is not finite or too far out; expected numbers"
        )
    return points


def object_colors(values: object, count: int, at: str) -> UInt8[np.ndarray, "N 3"]:
    """Colours of `count` points, whether the array runs to 1 or to 255; `at` begins the error.

    Raises:
        InputError: it is no array of that many rows and three columns of finite numbers.
    """
    array = values if isinstance(values, np.ndarray) else np.zeros(0)
    if array.shape != (count, 3) or array.dtype.kind not in "fiu":
        raise InputError(f"{at}: {_shown(values)}; expected colours as numbers of [{count}, 3]")
    if not np.isfinite(array).all():
        raise InputError(f"{at}: not finite; expected numbers")
    if (array < 0).any():
        raise InputError(f"{at}: negative; expected numbers from 0 to 1 or to 255")
    return np.rint(unit_colors(array) * 255).astype(np.uint8)


def read_list(path: Path, expected: str) -> tuple[str, ...]:
    """The lines of a text file, without blank ones.

    Raises:
        InputError: the file is missing, empty or no text, or a line comes twice.
    """
    lines = [line.strip() for line in _read_text(path, expected).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: the file is empty; expected {expected}")
    twice = first_repeated(lines)
    if twice is not None:
        raise InputError(f"{path}: {quote(twice)} comes twice; expected {expected}")
    return tuple(lines)


def read_json(path: Path, expected: str) -> Any:
    """What a JSON file holds, with each key of a mapping once.

    Raises:
        InputError: the file is missing or no JSON, or a key comes twice.
    """
    text = _read_text(path, expected)
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except _RepeatedKeyError as error:
        raise InputError(f"{path}: the key {error} comes twice; expected {expected}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; expected {expected}") from None


def read_mapping(path: Path, expected: str) -> dict[str, Any]:
    """The mapping of a JSON file, with at least one entry.

    Raises:
        InputError: as `read_json`, or it holds anything else.
    """
    held = read_json(path, expected)
    if not isinstance(held, dict) or not held:
        raise InputError(f"{path}: {quote(held)}; expected {expected}")
    return held


def read_entries(path: Path, expected: str) -> list[dict[str, Any]]:
    """The mappings of a JSON list, at least one.

    Raises:
        InputError: as `read_json`, or it holds anything else.
    """
    held = read_json(path, expected)
    if not isinstance(held, list) or not held:
        raise InputError(f"{path}: {quote(held)}; expected {expected}")
    for i, entry in enumerate(held):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: [{i}]: {quote(entry)}; expected {expected}")
    return held


def one_text(value: object, at: str, expected: str = "a text") -> str:
    """A text that is not blank, with single spaces; `at` begins the error.

    Raises:
        InputError: it is anything else.
    """
    words = value.split() if isinstance(value, str) else []
    if not words:
        shown = "missing" if value is None else quote(value)
        raise InputError(f"{at}: {shown}; expected {expected}")
    return " ".join(words)


def first_repeated(texts: Iterable[str]) -> str | None:
    """The first text that was there before, if there is one."""
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text
        seen.add(text)
    return None


def distinct(texts: list[str]) -> tuple[str, ...]:
    """Each text once, in the order in which they came first."""
    return tuple(dict.fromkeys(texts))


class _RepeatedKeyError(ValueError):
    pass


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise _RepeatedKeyError(quote(first_repeated([key for key, _ in pairs])))
    return held


def _read_text(path: Path, expected: str) -> str:
    try:
        return read_bytes(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; expected {expected}") from None


def _shown(values: object) -> str:
    if isinstance(values, np.ndarray):
        return f"{values.dtype} of shape {list(values.shape)}"
    return "missing" if values is None else quote(values)
