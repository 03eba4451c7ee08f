"""Tables of numbers in text, as ASCII PLY and PCD hold them."""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from o2s.errors import InputError
from o2s.io.cloud import quote


def read_table(
    path: Path, body: bytes, *, skip: int, rows: int, columns: int, first_line: int, what: str
) -> Float64[np.ndarray, "N C"]:
    """Parse `rows` lines of `columns` numbers each, after `skip` other lines; blank lines are free.

    `first_line` is the number of the body's first line in the file and `what` the plural of what
    a row is; both serve the error messages.

    Raises:
        InputError: fewer rows than promised, a row of another length, a word that is no number.
    """
    if not rows:
        return np.zeros((0, columns))

    def complaint() -> InputError:
        return _complaint(path, body, skip, rows, columns, first_line, what)

    # Counting newlines first keeps an absurd promise from reaching anything that believes it.
    if skip + rows > body.count(b"\n") + 1:
        raise complaint()
    lines = islice(filter(bytes.strip, io.BytesIO(body)), skip, skip + rows)
    first = next(lines, None)
    if first is None:  # loadtxt warns of an empty input
        raise complaint()

    def rest() -> Iterator[bytes]:
        yield first
        yield from lines

    try:
        table = np.loadtxt(rest(), comments=None, encoding="latin-1", ndmin=2)
    except ValueError:
        raise complaint() from None
    if table.shape != (rows, columns):
        raise complaint()
    return table


def _complaint(
    path: Path, body: bytes, skip: int, rows: int, columns: int, first_line: int, what: str
) -> InputError:
    """Go through the text again, slowly, to name the first line that is wrong."""
    seen = 0
    for number, line in enumerate(io.BytesIO(body), first_line):
        words = line.decode("latin-1").split()
        if not words:
            continue
        seen += 1
        if seen <= skip:
            continue
        if seen > skip + rows:
            break
        for word in words:
            if not is_number(word):
                return InputError(f"{path}: line {number} holds {quote(word)}; expected a number")
        if len(words) != columns:
            return InputError(
                f"{path}: line {number} holds {len(words)} numbers; expected {columns}"
            )
    held = max(seen - skip, 0)
    if held < rows:
        return InputError(f"{path}: the header promises {rows} {what}, the file holds {held}")
    return InputError(f"{path}: the {what} are not {rows} lines of {columns} numbers each")


def is_number(word: str) -> bool:
    """Whether a word is a number as files may write it."""
    try:
        float(word)
    except ValueError:
        return False
    return word.isascii() and "_" not in word  # float() is laxer than a file may be
