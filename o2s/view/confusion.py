"""A picture of which classes are taken for which: one row a true class, one column a prediction."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float64, Integer
from matplotlib.axes import Axes
from numpy import ndarray

from o2s.view.heat_map import page_of_cells, write_above

MOST = 60  # classes that a picture holds
CELL = 22  # pixels of a cell's side
LETTER = 6.2  # pixels of a letter of the names
LONGEST = 28  # letters of a name
EMPTY = "#dddddd"  # rows of classes without objects
OTHER = "other classes"
CAPTION = "Rows: true class (objects). Columns: what it was taken for, in per cent of the row."


def draw_confusion(
    counts: Integer[ndarray, "C C"], names: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Write a PNG of a confusion matrix, each row divided by its sum.

    Cells give the share of the row's objects in per cent, where it is at least a half. Rows of
    classes without objects are grey. Of more than 60 classes the 60 with most objects are drawn
    (lower numbers first among equals, in the order of the classes), and a last column holds what
    was taken for any other. The same arguments give the same bytes.

    Args:
        counts: how many objects of class i were taken for class j, at [i, j].
        names: of the C classes.
        path: the .png file, written whole or not at all.
        title: a line above the picture.

    Raises:
        ValueError: there are no classes, or not one name for each.
    """
    if not len(counts) or len(names) != len(counts):
        raise ValueError(f"{len(names)} names for {len(counts)} classes, expected one for each")
    rows, shares = shown_shares(counts)
    columns = [names[i] for i in rows] + [OTHER] * (shares.shape[1] - len(rows))
    labels = [f"{_short(names[i])} ({counts[i].sum()})" for i in rows]
    columns = [_short(name) for name in columns]

    left = 20 + LETTER * max(map(len, labels))
    top = (60 if title else 40) + LETTER * max(map(len, columns))
    least = max(520.0, 24 + 9.5 * len(title))
    shape = len(labels), len(columns)
    with page_of_cells(path, *shape, cell=CELL, left=left, top=top, least=least) as (figure, axes):
        axes.set_facecolor(EMPTY)
        _draw_cells(axes, shares)
        axes.set_xticks(range(len(columns)), columns, rotation=90, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=8)
        lines = [(title, 11, "bold"), (CAPTION, 8, "normal")]
        for i, (line, size, weight) in enumerate(lines if title else lines[1:]):
            write_above(figure, line, 16.0 + 20 * i, size=size, weight=weight)


def shown_shares(
    counts: Integer[ndarray, "C C"],
) -> tuple[list[int], Float64[ndarray, "R W"]]:
    """The classes that a picture shows, and the share of each prediction in their rows.

    W is R, and one more where there are other classes. Rows without objects are NaN.
    """
    objects = counts.sum(axis=1)
    chosen = sorted(np.argsort(-objects, kind="stable")[:MOST].tolist())
    shown = counts[np.ix_(chosen, chosen)]
    if len(chosen) < len(counts):
        others = objects[chosen] - shown.sum(axis=1)
        shown = np.concatenate([shown, others[:, None]], axis=1)
    with np.errstate(invalid="ignore"):
        return chosen, shown / objects[chosen, None]


def _draw_cells(axes: Axes, shares: Float64[ndarray, "R W"]) -> None:
    colors = matplotlib.colormaps["Blues"]
    picture = np.ma.masked_invalid(shares)
    axes.imshow(picture, cmap=colors, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks(np.arange(shares.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shares.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.6)
    axes.tick_params(which="minor", length=0, top=False, left=False, bottom=False)
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        ink = "white" if share > 0.5 else "black"
        text = f"{100 * share:.0f}"
        axes.text(column, row, text, size=6.5, color=ink, ha="center", va="center_baseline")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 2] + " …"
