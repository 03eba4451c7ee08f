"""What the commands `o2s eval qa` and `o2s eval captions` share."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from o2s.errors import InputError


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


def untrained_note(settings: Mapping[str, Any]) -> list[str]:
    """What a report must say of a model whose parts hold random numbers."""
    untrained = settings.get("untrained")
    if not untrained:
        return []
    parts = ", ".join(map(str, untrained)) if isinstance(untrained, list) else str(untrained)
    return [f"Untrained, so these scores tell nothing of a trained model: {parts}."]
