"""The commands `o2s prepare DATASET`: raw data sets to prepared scans."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from o2s.errors import InputError
from o2s.options import Unit, UnitOption, Up, UpOption
from o2s.terminal import out, print_error, progress_bar, step

if TYPE_CHECKING:
    from o2s.datasets.preparation import Extra, Report, Source

prepare = typer.Typer(
    help="Turn a raw data set into prepared scans, one .safetensors a scan, and an index.json.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Project(StrEnum):
    """Whose arrays to write as well."""

    votenet = "votenet"
    scanrefer = "scanrefer"
    mmdet3d = "mmdet3d"
    pointcept = "pointcept"


OutOption = Annotated[Path, typer.Option("--out", help="The folder for the prepared scans.")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Processes; half of the processors if not given.")
]


@prepare.command(epilog="Example: o2s prepare scannet ScanNet --out prepared --workers 4")
def scannet(
    raw: Annotated[Path, typer.Argument(help="The download: scans/, scans_test/, label table.")],
    out_folder: OutOption,
    workers: WorkersOption = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or a file of scan ids; else all scans.")
    ] = None,
    also: Annotated[
        list[Project] | None, typer.Option(help="Also write this project's arrays; repeatable.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="The label table, if it does not lie in RAW.")
    ] = None,
    subsample_seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Draw VoteNet's and ScanRefer's 50,000 points; else all are kept."
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="every=N", help="Also write every N-th frame of the .sens streams."),
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(min=1, help="Also cut this many views of each object out of those frames."),
    ] = None,
) -> None:
    """Prepare ScanNet's raw scans.

    Scans that are prepared already, from the same files, are left alone: a command that was
    interrupted can be run again and does the rest. Scans that cannot be prepared are named at the
    end and in failed.json; the exit code is 1 if there are any.
    """
    from o2s.datasets.exports import Export
    from o2s.datasets.frames import Crops, Frames
    from o2s.datasets.scannet import ScanNet

    every = None if frames is None else parse_every(frames)
    if crops is not None and every is None:
        raise InputError("--crops looks at every N-th frame: say --frames every=N as well")
    source = ScanNet(raw, split, labels)
    projects = dict.fromkeys(also or ())
    if subsample_seed is not None and not {Project.votenet, Project.scanrefer} & projects.keys():
        raise InputError(
            "--subsample-seed draws VoteNet's and ScanRefer's points: say --also votenet or --also "
            "scanrefer as well"
        )
    if Project.pointcept in projects:
        source.require_splits()
    extras: list[Extra] = [Export(project.value, subsample_seed) for project in projects]
    extras += [] if every is None else [Frames(every)]
    extras += [] if every is None or crops is None else [Crops(every, crops)]
    _run(source, out_folder, workers, extras)


@prepare.command(epilog="Example: o2s prepare s3dis Stanford3dDataset_v1.2 --out prepared")
def s3dis(
    raw: Annotated[Path, typer.Argument(help="The folder with Area_1 to Area_6.")],
    out_folder: OutOption,
    workers: WorkersOption = None,
    split: Annotated[str | None, typer.Option(help="One area, such as Area_5; else all.")] = None,
) -> None:
    """Prepare the rooms of S3DIS's text files."""
    from o2s.datasets.s3dis import S3DIS

    _run(S3DIS(raw, split), out_folder, workers, [])


@prepare.command(epilog="Example: o2s prepare ply my-scans --out prepared")
def ply(
    raw: Annotated[Path, typer.Argument(help="A folder of .ply files.")],
    out_folder: OutOption,
    workers: WorkersOption = None,
    up: UpOption = Up.auto,
    unit: UnitOption = Unit.auto,
) -> None:
    """Prepare all PLY files of a folder: scans of your own, without annotation."""
    from o2s.datasets.ply_folder import PlyFolder

    _run(PlyFolder(raw, up.value, unit.value), out_folder, workers, [])


def default_workers(workers: int | None) -> int:
    """What was asked for, else half of the processors."""
    return max(1, (os.cpu_count() or 1) // 2) if workers is None else workers


def _run(source: "Source", out_folder: Path, workers: int | None, extras: "list[Extra]") -> None:
    from o2s.datasets.preparation import prepare as prepare_all

    workers = default_workers(workers)
    with progress_bar() as progress, step(progress, "preparing") as update:
        report = prepare_all(source, out_folder, workers=workers, extras=extras, progress=update)
    _print_report(report, out_folder)


def _print_report(report: "Report", out_folder: Path) -> None:
    for name, notes in sorted(report.notes.items()):
        for note in notes:
            print_error(f"{name}: {note}")
    for name in sorted(report.failed):
        print_error(report.failed[name])
    failed = len(report.failed)
    counts = f"{report.done} prepared, {report.kept} already there, {failed} failed"
    out.print(f"{counts}, in {out_folder}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def parse_every(text: str) -> int:
    """The N of `every=N`.

    Raises:
        InputError: the text is anything else.
    """
    key, _, number = text.partition("=")
    digits = number.isascii() and number.isdigit() and len(number) < 10
    if key != "every" or not digits or int(number) < 1:
        raise InputError(f"--frames is {text!r}, expected every=N with N at least 1")
    return int(number)
