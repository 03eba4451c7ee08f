"""Files that appear whole or not at all."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two runs apart
    fcntl = None

from o2s.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well.

    Whoever reads `path` sees the old file or the whole new one. After an error nothing is left, and
    an OSError names `path`. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp{path.suffix}"
    try:
        yield temporary
        temporary.chmod(_default_mode())  # some libraries write for the owner alone
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def settled(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a folder was begun with: those in its JSON file, or, where there is no
    file, these, which are written to it.

    Raises:
        InputError: the file holds no settings.
    """
    if not path.exists():
        write_json(path, settings)
        return dict(settings)
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is damaged; choose another --out")
    return found


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which leaves no file behind and ends with the process.

    Raises:
        InputError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{folder}: another command is writing there; wait for it") from None
    finally:
        os.close(handle)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files below a folder that killed processes left.

    Only for folders that nobody else is writing to.
    """
    for path in folder.rglob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp(\.\w+)?")


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
