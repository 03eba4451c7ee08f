"""Preparing a data set: every scan of a source becomes one prepared file, in several processes.

A source names the scans of a data set and reads one of them; see `scannet.py`, `s3dis.py` and
`ply_folder.py`. What is prepared already, from the same bytes with the same settings, is left
alone, so that a killed run can be started again and does the rest. The results depend neither on
the number of workers nor on interruptions.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from o2s.datasets.workers import outcomes
from o2s.errors import InputError
from o2s.files import alone_in, clear_leftovers, write_json
from o2s.io.cloud import read_bytes
from o2s.io.labelled import VERSION, LabelledScan, is_labelled, labelled_facts, write_labelled

INDEX, FAILED = "index.json", "failed.json"


@dataclass(frozen=True)
class Entry:
    """One scan of a source: its name, where it lies, its split, whether it is annotated."""

    name: str
    path: Path
    split: str | None = None
    labelled: bool = True


@dataclass(frozen=True)
class Parsed:
    """A scan as its source read it; `faces` of its mesh, `notes` on what is odd about it, and how
    many `groups` its annotation has."""

    scan: LabelledScan
    faces: Int32[np.ndarray, "F 3"] | None = None
    notes: tuple[str, ...] = ()
    groups: int = 0


@runtime_checkable
class Source(Protocol):
    """A data set in its raw layout. Sources are sent to other processes: keep them small."""

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        ...

    @property
    def checksum(self) -> str:
        """Of all that the results depend on beside the files of a scan, such as label tables."""
        ...

    @property
    def split(self) -> str | None:
        """Which part of the data set was asked for; None for all of it."""
        ...

    def entries(self) -> Sequence[Entry]:
        """The scans, each with a name of its own.

        Raises:
            InputError: there are none, or a split names none that exist.
        """
        ...

    def missing(self) -> Mapping[str, str]:
        """Scans that were asked for and are not there, each with one line that says so."""
        ...

    def files(self, entry: Entry) -> Mapping[str, Path]:
        """The files of one scan, by a short name."""
        ...

    def parse(self, entry: Entry, content: Mapping[str, bytes]) -> Parsed:
        """The scan out of the bytes of its files.

        Raises:
            InputError: the files are broken or do not fit together.
        """
        ...


@runtime_checkable
class Extra(Protocol):
    """Something more that is written for each scan, below the folder of the prepared files."""

    @property
    def folder(self) -> str:
        """The name of the folder that it writes to."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Options that change what it writes; one output folder holds one setting."""
        ...

    def is_current(self, entry: Entry, prepared: Path) -> bool:
        """Whether all is there for a scan whose prepared file is current."""
        ...

    def write(self, entry: Entry, parsed: Parsed, prepared: Path) -> None:
        """Write it for one scan, each file whole or not at all."""
        ...


@dataclass
class Report:
    """What a run did. `failed` and `notes` hold one line a scan, by the scan's name."""

    done: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outcome:
    name: str
    kept: bool = False
    failure: str | None = None
    notes: tuple[str, ...] = ()


def prepare(
    source: Source,
    out: Path,
    *,
    workers: int = 1,
    extras: Sequence[Extra] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Prepare all scans of a source into `out`/<name>.safetensors, `index.json` and `failed.json`.

    A scan that cannot be prepared is named in the report and in `failed.json`, and the others are
    finished. `failed.json` also keeps the failures of other splits; it is absent where there are
    none. `progress` is called with the number of scans
    that are through and of all.

    Raises:
        InputError: there are no scans; `out` is in use by another run, or holds results of extras
            with other settings.
        OSError: `out` cannot be written to, for example because the disk is full.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}, expected at least 1")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder, or a new name for one")
    entries = source.entries()
    found = _read_json(out / INDEX)
    if isinstance(found, dict) and found.get("dataset", source.dataset) != source.dataset:
        raise InputError(
            f"{out}: holds scans of {found['dataset']}; choose another --out for {source.dataset}"
        )
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        clear_leftovers(out)
        for extra in extras:
            _settle(out / extra.folder / "settings.json", extra.settings)
        report = Report(failed=dict(source.missing()))
        jobs = [(source, entry, out, extras) for entry in entries]
        for through, outcome in enumerate(outcomes(_prepare_one, jobs, workers), 1):
            if outcome.failure is not None:
                report.failed[outcome.name] = outcome.failure
            elif outcome.kept:
                report.kept += 1
            else:
                report.done += 1
            if outcome.notes:
                report.notes[outcome.name] = list(outcome.notes)
            progress(through, len(entries))
        asked = {entry.name for entry in entries} | report.failed.keys()
        earlier = {} if source.split is None else _failures(out)
        failed = {n: line for n, line in earlier.items() if n not in asked} | report.failed
        if failed:
            lines = [{"scan": name, "reason": failed[name]} for name in sorted(failed)]
            write_json(out / FAILED, lines)
        else:
            (out / FAILED).unlink(missing_ok=True)
        write_json(out / INDEX, _index(source.dataset, out, failed))
    return report


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of prepared scans: `dataset`, `class_names`, and `scans`, a list of
    name, file, split, vertices and objects (None where the scan is not annotated).

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a folder that `o2s prepare` wrote")
    index = _read_json(path)
    keys = {"version", "dataset", "class_names", "scans"}
    if not isinstance(index, dict) or not keys <= index.keys() or index["version"] != VERSION:
        raise InputError(f"{path}: not an index of version {VERSION}; run `o2s prepare` again")
    return index


def is_newer(paths: Iterable[Path], than: Path) -> bool:
    """Whether all files exist, `than` among them, and none of them was written before `than`."""
    try:
        since = than.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns >= since for path in paths)
    except FileNotFoundError:
        return False


def _prepare_one(source: Source, entry: Entry, out: Path, extras: Sequence[Extra]) -> _Outcome:
    prepared = out / f"{entry.name}.safetensors"
    try:
        if not entry.name.isprintable():
            raise InputError(f"{str(entry.path)!a}: the name cannot be written; rename the scan")
        if prepared.exists() and not is_labelled(prepared):
            raise InputError(f"{prepared}: is no prepared scan and would be overwritten; move it")
        content = _read(source, entry)
        made_from = _fingerprint(source, entry, content)
        facts = labelled_facts(prepared)
        current = facts is not None and facts["made_from"] == made_from
        stale = [extra for extra in extras if not (current and extra.is_current(entry, prepared))]
        if facts is not None and current and not stale:
            return _Outcome(entry.name, kept=True, notes=tuple(facts["notes"]))
        parsed = source.parse(entry, content)
        _require_finite(entry, parsed.scan)
        if not current:
            write_labelled(parsed.scan, prepared, made_from=made_from, notes=parsed.notes)
        for extra in stale:
            extra.write(entry, parsed, prepared)
    except InputError as error:
        name = entry.name.encode("utf-8", "backslashreplace").decode()
        return _Outcome(name, failure=str(error))
    return _Outcome(entry.name, notes=parsed.notes)


def _read(source: Source, entry: Entry) -> dict[str, bytes]:
    try:
        return {name: read_bytes(path) for name, path in source.files(entry).items()}
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _require_finite(entry: Entry, scan: LabelledScan) -> None:
    """A last look at what a source made: coordinates that are not finite spoil all that reads them.

    Raises:
        InputError: there are such coordinates.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        objects = () if scan.objects is None else (scan.objects.boxes, scan.objects.raw_boxes)
        arrays = (scan.xyz, scan.alignment, scan.aligned_xyz, *objects)
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError(f"{entry.path}: coordinates that are not finite, or far too large")


def _failures(out: Path) -> dict[str, str]:
    """The failures of earlier runs."""
    found = _read_json(out / FAILED)
    entries = found if isinstance(found, list) else []
    return {e["scan"]: e["reason"] for e in entries if isinstance(e, dict) and len(e) == 2}


def _read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _fingerprint(source: Source, entry: Entry, content: Mapping[str, bytes]) -> str:
    settings = [VERSION, source.dataset, source.checksum, entry.name, entry.split]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name in sorted(content):
        digest.update(f"{name}\0{len(content[name])}\0".encode())
        digest.update(content[name])
    return digest.hexdigest()


def _index(dataset: str, out: Path, failed: Mapping[str, str]) -> dict[str, Any]:
    """An index of what the folder holds, also from earlier runs over other splits.

    Raises:
        InputError: scans of several label tables, whose numbers mean different classes.
    """
    scans, class_names = [], {}
    for path in sorted(out.glob("*.safetensors")):
        facts = labelled_facts(path)
        if facts is None or facts["name"] in failed:
            continue
        names = facts["class_names"]
        if names and class_names and names != class_names:
            raise InputError(
                f"{path}: made with another label table than the scans before it; run `o2s "
                "prepare` without --split"
            )
        class_names = names or class_names
        objects = facts["object_names"]
        scans.append(
            {
                "name": facts["name"],
                "file": path.name,
                "split": facts["split"],
                "vertices": facts["vertices"],
                "objects": None if objects is None else len(objects),
            }
        )
    return {"version": VERSION, "dataset": dataset, "class_names": class_names, "scans": scans}


def _settle(path: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings of an extra beside its results, or refuse to mix them with others."""
    if path.exists():
        found = _read_json(path)
        if found != settings:
            raise InputError(
                f"{path.parent}: was written with {json.dumps(found)}, not {json.dumps(settings)}; "
                "remove the folder or choose another --out"
            )
    else:
        write_json(path, settings)
