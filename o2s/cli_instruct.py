"""The command `o2s instruct`: annotations in words and prepared scans to instruction records."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from o2s.errors import InputError
from o2s.terminal import out, print_error, progress_bar, step

if TYPE_CHECKING:
    from o2s.datasets.language_files import Description, Question

EXAMPLE = (
    "Example: o2s instruct --scenes prepared --scanqa ScanQA_v1.0_train.json --out instructions"
)


class SplitName(StrEnum):
    """The splits of a data set."""

    train = "train"
    val = "val"
    test = "test"


class TaskName(StrEnum):
    """The tasks of Scan2Inst."""

    classification3d = "classification3d"
    description3d = "description3d"
    VQA3D = "VQA3D"
    conversation = "conversation"
    dense_captioning = "dense_captioning"
    object_counting = "object_counting"


def instruct(
    scenes: Annotated[Path, typer.Option(help="A folder that `o2s prepare` wrote.")],
    out_folder: Annotated[Path, typer.Option("--out", help="The folder for the records.")],
    scanqa: Annotated[
        list[Path] | None, typer.Option(help="A file of ScanQA's questions; repeatable.")
    ] = None,
    scanrefer: Annotated[
        list[Path] | None, typer.Option(help="A file of ScanRefer's descriptions; repeatable.")
    ] = None,
    nr3d: Annotated[
        list[Path] | None, typer.Option(help="Nr3D's CSV file of utterances; repeatable.")
    ] = None,
    sqa3d: Annotated[
        list[Path] | None,
        typer.Option(
            help="SQA3D's folder; or its questions, and once more --sqa3d with the annotations."
        ),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Whose scenes to take.")] = SplitName.train,
    tasks: Annotated[
        list[TaskName] | None,
        typer.Option(help="Make records of this task; repeatable. All that the files allow, else."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses among wordings and groups questions.")] = 0,
    templates: Annotated[
        Path | None, typer.Option(help="A YAML file of wordings instead of the one of o2s.")
    ] = None,
    without_answers: Annotated[
        bool, typer.Option("--without-answers", help="Keep questions that have no answers, too.")
    ] = False,
    octavius: Annotated[
        Path | None, typer.Option(help="Also write the records to this .json file, as Octavius'.")
    ] = None,
) -> None:
    """Make instruction records out of annotations in words and scene labels.

    The records of a split are a Hugging Face dataset, written with save_to_disk, in OUT/<split>,
    with skipped.json beside them; OUT/data_card.json, .md and .png say what all splits hold.
    Annotations of scenes that are not prepared are skipped and counted.
    """
    from o2s.datasets.data_card import write_data_card
    from o2s.datasets.instruction_tasks import TEMPLATES, read_templates
    from o2s.datasets.language_files import (
        find_sqa3d,
        read_nr3d,
        read_scanqa,
        read_scanrefer,
        read_sqa3d,
    )
    from o2s.datasets.scan2inst import make_records, save_records, write_octavius
    from o2s.files import alone_in, clear_leftovers

    if out_folder.exists() and not out_folder.is_dir():
        raise InputError(f"{out_folder}: is a file; expected a folder, or a new name for one")
    if octavius is not None and octavius.is_dir():
        raise InputError(f"--octavius {octavius}: is a folder; expected the name of a .json file")
    pairs = find_sqa3d(sqa3d or [], split.value)
    chosen = _choose(tasks, questions=bool(scanqa or pairs), descriptions=bool(scanrefer or nr3d))
    wordings = templates or TEMPLATES
    with progress_bar() as progress:
        with step(progress, "reading annotations"):
            words = read_templates(wordings)
            questions: list[Question] = [*read_scanqa(scanqa or []), *read_sqa3d(pairs)]
            descriptions: list[Description] = [
                *read_scanrefer(scanrefer or []),
                *read_nr3d(nr3d or []),
            ]
        with step(progress, "making records"):
            dataset, skipped = make_records(
                scenes,
                split=split.value,
                questions=questions,
                descriptions=descriptions,
                tasks=[task.value for task in chosen],
                seed=seed,
                templates=words,
                without_answers=without_answers,
            )
        with step(progress, "writing records"):
            files = {
                "scanqa": scanqa or [],
                "sqa3d": [path for pair in pairs for path in pair if path is not None],
                "scanrefer": scanrefer or [],
                "nr3d": nr3d or [],
                "templates": [wordings],
            }
            made_from: dict[str, Any] = {
                "seed": seed,
                "tasks": [task.value for task in chosen],
                "files": [_fact(kind, path) for kind, paths in files.items() for path in paths],
            }
            target = out_folder / split.value
            out_folder.mkdir(parents=True, exist_ok=True)
            with alone_in(out_folder):
                clear_leftovers(out_folder)
                save_records(dataset, target, skipped=skipped, made_from=made_from)
                if octavius is not None:
                    write_octavius(dataset, octavius)
                card = write_data_card(out_folder)[split.value]
    if str(skipped):
        print_error(f"skipped annotations: {skipped}; see {target / 'skipped.json'}")
    counts = ", ".join(f"{sum(n.values())} {task}" for task, n in card["tasks"].items())
    text = f"{len(dataset)} records ({counts}) of {card['scenes']} scenes, in {target}"
    out.print(text, markup=False, highlight=False, soft_wrap=True)


_OF_QUESTIONS = (TaskName.VQA3D, TaskName.conversation)
_OF_DESCRIPTIONS = (TaskName.classification3d, TaskName.description3d, TaskName.dense_captioning)


def _choose(tasks: list[TaskName] | None, *, questions: bool, descriptions: bool) -> list[TaskName]:
    """The tasks to make, in the order of their list; those asked for need their files."""
    lacking: dict[TaskName, str] = {}
    if not questions:
        lacking |= dict.fromkeys(_OF_QUESTIONS, "--scanqa or --sqa3d")
    if not descriptions:
        lacking |= dict.fromkeys(_OF_DESCRIPTIONS, "--scanrefer or --nr3d")
    for task in tasks or ():
        if task in lacking:
            raise InputError(f"--tasks {task.value} needs annotations: say {lacking[task]} as well")
    return [task for task in TaskName if (task in tasks if tasks else task not in lacking)]


def _fact(kind: str, path: Path) -> dict[str, str]:
    from hashlib import sha256

    return {"kind": kind, "name": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}
