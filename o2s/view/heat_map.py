"""What pictures of tables of numbers share: a page with a grid of cells, names beside and above."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from o2s.view.png import DPI, save_png

MARGIN = 20  # pixels right of the cells and below them


@contextmanager
def page_of_cells(
    path: Path, rows: int, columns: int, *, cell: int, left: float, top: float, least: float
) -> Iterator[tuple[Figure, Axes]]:
    """A white page and the axes of its cells, written as PNG in the end, whole or not at all.

    Args:
        path: the .png file.
        rows: of cells.
        columns: of cells.
        cell: pixels of a cell's side.
        left: pixels left of the cells, for the names of rows.
        top: pixels above them, for the names of columns.
        least: pixels that the page is wide at least.
    """
    width = max(left + cell * columns + MARGIN, least)
    height = top + cell * rows + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    place = (left / width, MARGIN / height, cell * columns / width, cell * rows / height)
    yield figure, figure.add_axes(place)
    save_png(figure, path)


def write_above(figure: Figure, line: str, down: float, **style: Any) -> None:
    """A line of text at the left, its middle `down` pixels below the upper edge of the page."""
    width, height = figure.get_size_inches() * DPI
    figure.text(12 / width, 1 - down / height, line, va="center", parse_math=False, **style)
