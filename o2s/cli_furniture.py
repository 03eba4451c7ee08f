"""The command `o2s furniture`: a library of made-up furniture."""

from pathlib import Path
from typing import Annotated

import typer

from o2s.terminal import out, progress_bar, step

EXAMPLE = "Example: o2s furniture --count 12 --out sketched"


def furniture(
    out_folder: Annotated[
        Path, typer.Option("--out", help="A folder for the meshes and furniture.csv.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Pieces of each class.")] = 12,
    seed: Annotated[int, typer.Option(help="Other seeds make other pieces.")] = 0,
) -> None:
    """Draw made-up furniture: meshes of some seventy classes, free of any licence.

    `o2s rooms --furniture OUT` furnishes rooms with it. Pieces that are there already are left
    alone: a command that was interrupted can be run again and does the rest.
    """
    from o2s.datasets.sketched_library import write_furniture

    with progress_bar() as progress, step(progress, "drawing furniture") as update:
        pieces = write_furniture(out_folder, count=count, seed=seed, progress=update)
    summary = f"{pieces} pieces of furniture in {out_folder}"
    out.print(summary, markup=False, highlight=False, soft_wrap=True)
