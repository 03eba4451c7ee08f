"""The command `o2s eval images`: scores of answers about images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from o2s.cli_eval_shared import check_folder
from o2s.errors import InputError
from o2s.options import JsonReportOption, OutFolderOption, SeedOption
from o2s.terminal import progress_bar, step

EXAMPLE = (
    "Example: o2s eval images answers.json --task voc --reference Detection_VOC2012.json --as-lamm"
)


class ImageTaskName(StrEnum):
    """The tasks of the LAMM benchmark that are scored."""

    voc = "voc"
    scienceqa = "scienceqa"
    flickr30k = "flickr30k"
    cifar10 = "cifar10"
    celeba = "celeba"


def images(
    predictions: Annotated[
        Path, typer.Argument(help='The answers: JSON, a list or lines of {"id", "answer"}.')
    ],
    task: Annotated[ImageTaskName, typer.Option(help="What the answers are about.")],
    reference: Annotated[Path, typer.Option(help="The task's meta file of the LAMM benchmark.")],
    as_lamm: Annotated[
        bool, typer.Option("--as-lamm", help="Score with all faults of LAMM's scorer.")
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="Score with this fault of LAMM's scorer; repeatable."),
    ] = None,
    overlap: Annotated[
        float, typer.Option("--iou", help="The overlap from which on a box finds an object (voc).")
    ] = 0.5,
    out_folder: OutFolderOption = None,
    json_output: JsonReportOption = False,
    seed: SeedOption = 0,
) -> None:
    """Score answers about images, as the LAMM benchmark does, without its faults.

    Boxes of VOC2012 by recall and precision, choices of ScienceQA, names of CIFAR-10 and hair and
    smiles of CelebA by accuracy, captions of Flickr30k by CIDEr. A name that is no fault of the
    task prints those that are.
    """
    from o2s.evaluate.images import score_images
    from o2s.evaluate.report import write_report
    from o2s.terminal_report import print_report

    if out_folder is not None:
        check_folder(out_folder)
    if overlap != 0.5 and task is not ImageTaskName.voc:
        raise InputError("--iou goes with --task voc: other tasks have no boxes")
    with progress_bar() as progress, step(progress, "scoring"):
        report = score_images(
            predictions,
            reference,
            task=task.value,
            as_lamm=as_lamm,
            faults=fault or [],
            overlap=overlap,
            seed=seed,
        )
    if out_folder is not None:
        write_report(report, out_folder)
    print_report(report, json_output=json_output)
