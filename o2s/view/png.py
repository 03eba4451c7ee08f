"""Figures of matplotlib as PNG files."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from o2s.files import replacing

DPI = 100  # pixels an inch


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes."""
    with replacing(path) as temporary, warnings.catch_warnings():
        # Letters that the font lacks are drawn as empty boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
