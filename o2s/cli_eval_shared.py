"""What the commands `o2s eval qa` and `o2s eval captions` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o2s.errors import InputError


def check_choice(
    predictions: Path | None, scenes: Path | None, out_folder: Path | None, draws: int
) -> None:
    """Raises InputError unless there are predictions to score or a model to run."""
    if (predictions is None) == (scenes is None):
        raise InputError(
            "give either a file of predictions, or --scenes and --out to let o2s run the model"
        )
    if scenes is not None and out_folder is None:
        raise InputError("--scenes runs the model: say with --out where its predictions go")
    if out_folder is not None and out_folder.exists() and not out_folder.is_dir():
        raise InputError(f"--out {out_folder}: is a file; expected a folder, or a new name for one")
    if draws < 0:
        raise InputError(f"--draws is {draws}, expected at least 0")


def untrained_note(settings: Mapping[str, Any]) -> list[str]:
    """What a report must say of a model whose parts hold random numbers."""
    untrained = settings.get("untrained")
    if not untrained:
        return []
    parts = ", ".join(map(str, untrained)) if isinstance(untrained, list) else str(untrained)
    return [f"Untrained, so these scores tell nothing of a trained model: {parts}."]
