"""What `prepare` takes from a scan's `.sens` stream: single frames, and crops of its objects."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o2s.datasets.crops import find_crops, write_crops
from o2s.datasets.preparation import Entry, Parsed, is_newer
from o2s.datasets.scannet_raw import STREAM
from o2s.datasets.sens import SensStream, export_frames
from o2s.files import write_json


@dataclass(frozen=True)
class Frames:
    """Every N-th frame in frames/<scan>/: color, depth, pose and intrinsic, as SensReader does.

    `frames.json` is written last and says that the scan's frames are complete.
    """

    every: int

    folder = "frames"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"every": self.every}

    def is_current(self, entry: Entry, prepared: Path) -> bool:
        done = prepared.parent / self.folder / entry.name / _DONE
        if not _of_this_stream(done, entry):
            return False
        stream = _stream(entry)
        held = json.loads(done.read_bytes()).get("stream_bytes")
        return not stream.exists() or held == stream.stat().st_size

    def write(self, entry: Entry, parsed: Parsed, prepared: Path) -> None:
        folder = prepared.parent / self.folder / entry.name
        with SensStream(_stream(entry)) as stream:
            shutil.rmtree(folder, ignore_errors=True)  # of an older stream
            count = export_frames(stream, folder, self.every)
        size = _stream(entry).stat().st_size
        write_json(folder / _DONE, {"frames": count, "every": self.every, "stream_bytes": size})


@dataclass(frozen=True)
class Crops:
    """The best views of each annotated object in crops/<scan>/, described by its crops.json.

    Nothing for scans without annotation.
    """

    every: int
    per_object: int

    folder = "crops"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"every": self.every, "per_object": self.per_object}

    def is_current(self, entry: Entry, prepared: Path) -> bool:
        done = prepared.parent / self.folder / entry.name / "crops.json"
        fresh = _of_this_stream(done, entry) and is_newer([done], prepared)
        return fresh or not entry.labelled

    def write(self, entry: Entry, parsed: Parsed, prepared: Path) -> None:
        scan = parsed.scan
        if scan.objects is None or scan.instance is None:
            return
        folder = prepared.parent / self.folder / entry.name
        names = dict(zip(scan.objects.ids.tolist(), scan.objects.names, strict=True))
        with SensStream(_stream(entry)) as stream:
            shutil.rmtree(folder, ignore_errors=True)  # of other objects or an older stream
            crops = find_crops(
                scan.xyz, scan.instance, stream, every=self.every, per_object=self.per_object
            )
            write_crops(crops, names, stream, folder)


def _stream(entry: Entry) -> Path:
    return entry.path / f"{entry.name}{STREAM}"


def _of_this_stream(done: Path, entry: Entry) -> bool:
    """Whether `done` was written after the stream, which may be deleted once it was read."""
    stream = _stream(entry)
    return is_newer([done], stream) if stream.exists() else done.is_file()


_DONE = "frames.json"
