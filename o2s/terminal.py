"""What commands print and write: tables, JSON, pictures, progress, errors."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from o2s.options import Unit, Up

if TYPE_CHECKING:
    from o2s.llm.answering import Answer
    from o2s.scene import Boxes, Scene

logger = logging.getLogger(__name__)

out = Console()
err = Console(stderr=True)


def boxes_json(
    scan: Path, scene: "Scene", boxes: "Boxes", captions: list[str] | None = None
) -> dict[str, Any]:
    """Boxes in world coordinates: upright, metres, about the file's own origin."""
    centres = (boxes.centres.double() + scene.offset).tolist()
    entries = [
        {
            "centre": [round(v, 4) for v in centres[i]],
            "size": [round(v, 4) for v in boxes.sizes[i].tolist()],
            "heading": round(float(boxes.headings[i]), 4),
            "score": round(float(boxes.scores[i]), 4),
            "label": boxes.labels[i],
        }
        | ({} if captions is None else {"caption": captions[i]})
        for i in range(len(boxes))
    ]
    return {"scan": str(scan), "boxes": entries}


def answer_json(scan: Path, answer: "Answer", objects: int) -> dict[str, Any]:
    """One answer as `o2s ask --json` prints it."""
    return {
        "scan": str(scan),
        "question": answer.question,
        "answer": answer.text,
        "objects": objects,
        "route": [round(weight, 4) for weight in answer.route],
    }


def print_wide(table: Table) -> None:
    """A table as wide as it must be: a narrow terminal breaks lines, but no figure is cut off."""
    wide = Console(file=out.file, width=10_000)
    wide.print(table, width=wide.measure(table).maximum)


def print_boxes(scene: "Scene", boxes: "Boxes", captions: list[str] | None = None) -> None:
    """A table of boxes, in world coordinates."""
    table = Table(
        "#", "label", "score", "centre (m)", "size (m)", title=Text(f"objects of {scene.name}")
    )
    if captions is not None:
        table.add_column("caption")
    centres = (boxes.centres.double() + scene.offset).tolist()
    for i, (centre, size) in enumerate(zip(centres, boxes.sizes.tolist(), strict=True)):
        row = [str(i + 1), boxes.labels[i], f"{float(boxes.scores[i]):.2f}"]
        row += [" ".join(f"{v:.2f}" for v in centre), " ".join(f"{v:.2f}" for v in size)]
        table.add_row(*row, *([] if captions is None else [Text(captions[i])]))
    out.print(table)


def print_json(value: dict[str, Any]) -> None:
    """JSON on standard output, and nothing else there."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    print(json.dumps(value, indent=2, ensure_ascii=encoding != "utf8"))


def draw(
    scene: "Scene",
    boxes: "Boxes",
    path: Path,
    captions: list[str] | None = None,
    untrained: list[str] | None = None,
) -> None:
    """The scan with its boxes, as a PNG file; its title says if the captions are untrained."""
    from o2s.view.pictures import draw_scene

    note = " (captions by an untrained model)" if captions and untrained else ""
    draw_scene(scene, boxes, path, captions=captions, title=scene.name + note)


def say_empty(scene: "Scene", boxes: "Boxes") -> None:
    """Warn, on standard error, of a scan in which no object was found."""
    if len(boxes):
        return
    extent = scene.points.amax(dim=0) - scene.points.amin(dim=0)
    sides = " x ".join(f"{side:.1f}" for side in extent.tolist())
    err.print(
        f"no objects found in {scene.name} ({len(scene)} points, {sides} m): what is said of it "
        "does not rest on the scan. Is it a scan of a room, in the unit that --unit says?",
        style="yellow",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def say_untrained(parts: list[str]) -> None:
    """Warn, on standard error, of parts that hold random numbers."""
    if parts:
        err.print(
            f"untrained: {', '.join(parts)}. These hold random numbers: answers, captions and "
            "tokens do not tell of the scan yet.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def print_error(error: object) -> None:
    """One line on standard error."""
    err.print(f"o2s: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """Steps of work on standard error, gone once they are done; for people only."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


@contextlib.contextmanager
def step(progress: Progress, what: str) -> Iterator[Callable[[int, int], None]]:
    """One line of progress; yields a function that takes how much is done and how much there is.

    Where no person watches (a log file, a pipe), steps of more than a second leave a line.
    """
    task = progress.add_task(what, total=None)
    begun = time.monotonic()
    try:
        yield lambda done, total: progress.update(task, completed=done, total=total)
        seconds = time.monotonic() - begun
        if progress.disable and seconds > 1:
            logger.info("%s: %.1f s", what, seconds)
    finally:
        progress.remove_task(task)


def read_scan(progress: Progress, scan: Path, up: Up, unit: Unit) -> "Scene":
    """A scan, read under a line of progress."""
    from o2s.io import read_scene

    with step(progress, f"reading {scan.name}"):
        return read_scene(scan, up=up.value, unit=unit.value)


def each(progress: Progress, what: str, items: list[Path]) -> Iterator[Path]:
    """The items one by one, with a bar that says how many are done."""
    with step(progress, what) as update:
        for done, item in enumerate(items):
            update(done, len(items))
            yield item


class ConsoleHandler(logging.Handler):
    """Log lines above a running progress bar, one line each however narrow the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"o2s: {record.getMessage()}"
        err.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
