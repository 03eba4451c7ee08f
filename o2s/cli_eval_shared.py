"""What the commands `o2s eval qa`, `captions` and `naming` share."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from o2s.errors import InputError
from o2s.loading import ModelSource, load_answerer
from o2s.terminal import progress_bar, say_untrained, step

if TYPE_CHECKING:
    from o2s.evaluate.running import Scenes
    from o2s.llm.answering import SceneAnswerer


class Regions(StrEnum):
    """Which boxes a model sees."""

    detector = "detector"
    reference = "reference"


RegionsOption = Annotated[
    Regions,
    typer.Option(
        help="What the model sees: what its detector finds, or the true boxes with their classes."
    ),
]


def check_choice(predictions: Path | None, scenes: Path | None, out_folder: Path | None) -> None:
    """Raises InputError unless there are predictions to score or a model to run."""
    if (predictions is None) == (scenes is None):
        raise InputError(
            "give either a file of predictions, or --scenes and --out to let o2s run the model"
        )
    if scenes is not None and out_folder is None:
        raise InputError("--scenes runs the model: say with --out where its predictions go")
    if out_folder is not None:
        check_folder(out_folder)


def check_folder(out_folder: Path) -> None:
    """Raises InputError where a report could not be written, before the work that leads to it."""
    there = next(path for path in (out_folder, *out_folder.absolute().parents) if path.exists())
    if not there.is_dir():
        expected = "expected a folder, or a new name for one"
        raise InputError(f"--out {out_folder}: {there} is a file; {expected}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--out {out_folder}: {there} cannot be written to")
    for name in ("scores.json", "scores.md"):
        if (out_folder / name).is_dir():
            raise InputError(f"--out {out_folder}: {name} is a folder; expected none, or a file")


class Work(NamedTuple):
    """A model, the scenes that it is asked about, and what draws a line of progress."""

    answerer: "SceneAnswerer"
    scenes: "Scenes"
    progress: Callable[[int, int], None]


@contextmanager
def model_at_work(
    what: str,
    source: ModelSource,
    device: str | None,
    scenes: Path,
    names: Sequence[str],
    asked_by: Path,
    out_folder: Path,
    settings: dict[str, Any],
    *,
    shell: bool,
) -> Iterator[Work]:
    """Open a model and scenes, and the folder of a run, for this process alone.

    Args:
        what: the model does, for the line of progress.
        source: the model.
        device: where it computes.
        scenes: the prepared folder.
        names: of the scenes.
        asked_by: the file that names them.
        out_folder: of the run.
        settings: of the run; gets the facts of model and scenes. "regions" says what is seen.
        shell: whether true boxes have walls, floor and ceiling.

    Raises:
        InputError: a scene is missing, or the folder holds a run with other settings.
    """
    from o2s.evaluate.running import begin_run, model_facts, open_scenes
    from o2s.evaluate.scene_boxes import made_from, prepared_scans
    from o2s.files import alone_in

    with progress_bar() as progress:
        with step(progress, "loading the language model"):
            answerer = load_answerer(source, device)
        encoder, regions = answerer.model.encoder, settings["regions"]
        found = open_scenes(scenes, encoder, names, asked_by, regions, shell=shell)
        name = str(source.folder) if source.folder is not None else f"config {source.config}"
        scans = prepared_scans(scenes)
        settings |= {"scenes": scenes.name, "scans": made_from({n: scans[n] for n in names})}
        settings |= model_facts(answerer, name)
        out_folder.mkdir(parents=True, exist_ok=True)
        with alone_in(out_folder), step(progress, what) as update:
            begin_run(out_folder, settings)
            yield Work(answerer, found, update)
    say_untrained(answerer.untrained)


def untrained_note(settings: Mapping[str, Any]) -> list[str]:
    """What a report must say of a model whose parts hold random numbers."""
    untrained = settings.get("untrained")
    if not untrained:
        return []
    parts = ", ".join(map(str, untrained)) if isinstance(untrained, list) else str(untrained)
    return [f"Untrained, so these scores tell nothing of a trained model: {parts}."]
