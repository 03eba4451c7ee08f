"""The command `o2s eval probe`: how well a linear classifier tells objects by their features."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from o2s.cli_eval_shared import check_folder
from o2s.cli_eval_zero_shot import Resampled
from o2s.options import DrawsOption, JsonReportOption, ThreadsOption
from o2s.terminal import progress_bar, step

EXAMPLE = "Example: o2s eval probe train/features.safetensors test/features.safetensors"


def probe(
    train: Annotated[
        Path,
        typer.Argument(help="Objects to learn from: OUT/features.safetensors of eval zero-shot."),
    ],
    test: Annotated[Path, typer.Argument(help="Objects to score, a file of the same kind.")],
    val: Annotated[
        Path | None,
        typer.Option(help="Objects to choose the regularisation on, instead of folds of TRAIN."),
    ] = None,
    resample: Annotated[
        Resampled, typer.Option(help="What the intervals draw: objects one by one, or scenes.")
    ] = Resampled.objects,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and the bootstrap.")] = 0,
    draws: DrawsOption = 1000,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="A folder for scores.json, scores.md and confusion.png."),
    ] = None,
    json_output: JsonReportOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Fit multinomial logistic regression on embedded objects, and score it on others.

    Files of features are what `o2s eval zero-shot --scenes` or `--shapes` leaves in --out. Classes
    are matched by name. The strength of the L2 regularisation is chosen on --val, or by 5-fold
    cross-validation on TRAIN that keeps the objects of a scene together.
    """
    from o2s.evaluate.linear_probe import score_probe
    from o2s.evaluate.object_features import read_features
    from o2s.evaluate.report import file_facts, write_report
    from o2s.files import alone_in, clear_leftovers
    from o2s.loading import set_threads
    from o2s.terminal_report import print_report
    from o2s.view.confusion import draw_confusion

    if out_folder is not None:
        check_folder(out_folder)
    set_threads(threads)
    paths = [path for path in (train, test, val) if path is not None]
    given = [read_features(path) for path in paths]
    with progress_bar() as progress, step(progress, "fitting the probe") as update:
        scores = score_probe(
            given[0],
            given[1],
            val=None if val is None else given[2],
            resample=resample.value,
            seed=seed,
            draws=draws,
            progress=update,
        )
    report = scores.report
    files = {"files": [file_facts(path) for path in paths]}
    report = replace(report, made_from={**report.made_from, **files})
    if out_folder is not None:
        out_folder.mkdir(parents=True, exist_ok=True)
        with alone_in(out_folder):
            clear_leftovers(out_folder)
            title = f"Linear probe on {len(given[1].targets)} objects"
            title += " (untrained encoder)" if report.made_from["untrained"] else ""
            picture = out_folder / "confusion.png"
            draw_confusion(scores.confusion, scores.classes, picture, title=title)
            write_report(report, out_folder)
    print_report(report, json_output=json_output)
