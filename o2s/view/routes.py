"""A picture of which experts questions take: one row a group, one column an expert."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from o2s.view.heat_map import page_of_cells, write_above

CELL = 44  # pixels of a cell's side
LETTER = 6.5  # pixels of a letter of the names
CAPTION = "Rows: groups. Columns: experts. Mean weight, in per cent."


def draw_routes(weights: Float64[ndarray, "G E"], names: Sequence[str], path: Path) -> None:
    """Write a PNG heat map of the mean weights of E experts in G groups of questions.

    Raises:
        ValueError: not one name for each group.
    """
    if len(names) != len(weights):
        raise ValueError(f"{len(names)} names for {len(weights)} groups, expected one for each")
    groups, experts = weights.shape
    left, top = 24 + LETTER * max(map(len, names)), 62.0
    least = LETTER * len(CAPTION) + 20
    page = page_of_cells(path, groups, experts, cell=CELL, left=left, top=top, least=least)
    limit = max(1e-9, float(np.abs(weights).max()))
    with page as (figure, axes):
        axes.imshow(weights, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=limit, aspect="auto")
        axes.set_xticks(range(experts), [str(e) for e in range(experts)], parse_math=False)
        axes.set_yticks(range(groups), list(names), parse_math=False)
        axes.tick_params(
            top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=7, length=2
        )
        for row, column in np.ndindex(groups, experts):
            share = weights[row, column]
            ink = "white" if share > 0.6 * limit else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, size=8, color=ink, ha="center", va="center_baseline")
        write_above(figure, CAPTION, 14.0, size=8)
