"""A picture of a scan and its boxes: from above with the ceiling off, and in perspective.

draw_scene     layout, legend and file
  viewpoints   which points to draw and from where
  splatting    points to pixels, with depth
  _draw_boxes  wireframes over the pixels, paler where the scan hides them
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from scipy.ndimage import median_filter

from o2s.scene import Boxes, Scene
from o2s.view.png import DPI, save_png
from o2s.view.splatting import Camera, point_spacings, render
from o2s.view.viewpoints import below_ceiling, best_viewpoint

WIDTH, HEIGHT = 1600, 900  # pixels
LEGEND_ROWS = 6
ROW = 20  # pixels of a row of the legend
TICKS = 48  # pixels under and beside the view from above
MIDDLE = "center_baseline"
# Okabe and Ito (2008), "Color Universal Design", without black.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
GREY = "#8C8C8C"


@dataclass(frozen=True)
class Mark:
    """How a box is marked: its number in the legend, the text on the box, the number of its color.

    Colors repeat after the last of `PALETTE`.
    """

    number: int
    text: str
    color: int


def draw_scene(
    scene: Scene,
    boxes: Boxes,
    path: Path,
    *,
    captions: Sequence[str] | None = None,
    title: str = "",
    marks: Sequence[Mark] | None = None,
    others: Boxes | None = None,
) -> None:
    """Writes a PNG of 1600 x 900 pixels: the scan with its boxes from above and in perspective.

    Boxes carry their number, 1 for the first, or what `marks` says, one a box. `others` are drawn
    below them in grey, without numbers. The legend under the pictures gives each number's label,
    score and, where `captions` has one text a box, its caption. The axes of the view from above are
    in metres, in world coordinates (`Scene.offset` added). A scan without colors is colored by
    height. The same arguments give the same bytes, and a file is written whole or not.

    Raises ValueError if there are captions or marks but not one a box.
    """
    if captions is not None and len(captions) != len(boxes):
        raise ValueError(f"{len(captions)} captions for {len(boxes)} boxes")
    if marks is None:
        marks = [Mark(i + 1, str(i + 1), i) for i in range(len(boxes))]
    if len(marks) != len(boxes):
        raise ValueError(f"{len(marks)} marks for {len(boxes)} boxes")
    legend = _legend(boxes, captions)
    top = HEIGHT - (44 if title else 12)
    bottom = ROW * legend.rows + 14 + TICKS

    points = scene.points.detach().cpu().double().numpy()
    kept = below_ceiling(points) if len(points) else np.zeros(0, dtype=bool)
    points, colors = points[kept], _colors(scene)[kept]
    spacings = point_spacings(points) if len(points) else np.zeros(0)
    corners = boxes.corners().detach().cpu().double().numpy()
    grey = (others or Boxes.none()).corners().detach().cpu().double().numpy()
    framed = _framed(points, np.concatenate([corners, grey]))

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    extent = np.ptp(framed, axis=0)
    left, gap, room = TICKS + 14, 20, top - bottom
    across = int(np.clip(room * extent[0] / extent[1], 260, 740))
    height = min(room, int(across * extent[1] / extent[0]) + 24)
    above = Camera.framing(
        framed, azimuth=-90.0, elevation=90.0, size=(across, height), perspective=False
    )
    image, depths = render(points, colors, spacings, above)
    # From above every box shows whole, also under a lamp or a wall's rim.
    depths[:] = np.inf
    axes = _panel(
        figure, left, bottom + (room - height) // 2, above, image, depths, corners, marks, grey
    )
    _metre_ticks(axes, above, scene.offset.cpu().numpy())

    view = best_viewpoint(points) if len(points) else None
    drawn = view.drawn if view else kept
    camera = Camera.framing(
        framed,
        azimuth=view.azimuth if view else -135.0,
        elevation=view.elevation if view else 38.0,
        size=(WIDTH - left - across - gap - 12, top - bottom + TICKS),
    )
    pixels = render(points[drawn], colors[drawn], spacings[drawn], camera)
    axes = _panel(
        figure, left + across + gap, bottom - TICKS, camera, *pixels, corners, marks, grey
    )
    axes.set_axis_off()

    if title:
        line = textwrap.shorten(title, 120, placeholder=" …")
        x, y = 14 / WIDTH, 1 - 24 / HEIGHT
        figure.text(x, y, line, size=14, weight="bold", va=MIDDLE, parse_math=False)
    _draw_legend(figure, legend, marks)
    save_png(figure, path)


def _colors(scene: Scene) -> Float64[ndarray, "N 3"]:
    """RGB of each point: its own, or its height in a color scale, shaded by its normal."""
    if scene.colors is not None:
        return scene.colors.detach().cpu().double().numpy()
    height = scene.points[:, 2].detach().cpu().double().numpy()
    low, high = np.quantile(height, [0.01, 0.99]) if len(height) else (0.0, 1.0)
    share = ((height - low) / max(high - low, 1e-6)).clip(0, 1)
    colors = matplotlib.colormaps["viridis"](0.15 + 0.8 * share)[:, :3]
    if scene.normals is None:
        return colors
    light = np.array([0.48, 0.36, 0.8])
    # Estimated normals often point either way: both sides of a surface are lit alike.
    lit = np.abs(scene.normals.detach().cpu().double().numpy() @ light)
    return colors * (0.5 + 0.5 * lit.clip(0, 1))[:, None]


def _framed(
    points: Float64[ndarray, "N 3"], corners: Float64[ndarray, "R 8 3"]
) -> Float64[ndarray, "M 3"]:
    """What the pictures must hold: all but stray points, boxes if not far off, half a metre."""
    if len(points) == 0:
        points = corners.reshape(-1, 3) if len(corners) else np.zeros((1, 3))
    some = points[:: len(points) // 50_000 + 1]
    low, high = np.quantile(some, [0.001, 0.999], axis=0)
    inside = some[((some >= low) & (some <= high)).all(1)]
    near = corners.reshape(-1, 3).clip(low - 0.3, high + 0.3)
    cube = (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5) * 0.5 + (low + high) / 2
    return np.concatenate([inside, near, cube])


def _panel(
    figure: Figure,
    left: int,
    bottom: int,
    camera: Camera,
    image: ndarray,
    depths: Float64[ndarray, "H W"],
    corners: Float64[ndarray, "R 8 3"],
    marks: Sequence[Mark],
    grey: Float64[ndarray, "S 8 3"],
) -> Axes:
    """Axes whose coordinates are the camera's pixels, with the picture and the boxes in them."""
    place = (left / WIDTH, bottom / HEIGHT, camera.width / WIDTH, camera.height / HEIGHT)
    axes = figure.add_axes(place)
    axes.imshow(
        image, extent=(0, camera.width, camera.height, 0), interpolation="nearest", aspect="auto"
    )
    for box in grey:
        visible, hidden = _edge_runs(camera, depths, box)
        for edges, alpha in ((hidden, 0.4), (visible, 0.9)):
            lines = LineCollection(edges, colors=GREY, linewidths=1.2, alpha=alpha, zorder=2.5)
            axes.add_collection(lines, autolim=False)
    _draw_boxes(axes, camera, depths, corners, marks)
    axes.set_xlim(0, camera.width)
    axes.set_ylim(camera.height, 0)
    for spine in axes.spines.values():
        spine.set_color("#999999")
    return axes


def _draw_boxes(
    axes: Axes,
    camera: Camera,
    depths: Float64[ndarray, "H W"],
    corners: Float64[ndarray, "R 8 3"],
    marks: Sequence[Mark],
) -> None:
    """Wireframes and numbers; the first boxes lie on top and choose their label's place first."""
    placed: list[tuple[float, float, float, float]] = []
    for number in range(len(corners), 0, -1):
        visible, hidden = _edge_runs(camera, depths, corners[number - 1])
        color = _color(marks[number - 1])
        order = 3 + 2 * (len(corners) - number) / len(corners)
        # Without the dark rim the light colors are lost on a light wall.
        for edges, tint, width, alpha, above in (
            (hidden, color, 0.9, 0.6, 0.0),
            (visible, "black", 3.6, 0.65, 0.001),
            (visible, color, 2.1, 1.0, 0.002),
        ):
            lines = LineCollection(edges, colors=tint, linewidths=width, alpha=alpha)
            lines.set(zorder=order + above, capstyle="round")
            axes.add_collection(lines, autolim=False)
    for mark, box in zip(marks, corners, strict=True):
        pixels, depth = camera.project(box)
        if (depth <= 0).any():
            continue
        wide = 9.0 + 7.5 * len(mark.text)
        place = _label_place(pixels, wide, 17.0, camera, placed)
        placed.append(place)
        x, y = place[:2]
        axes.text(x, y, mark.text, va=MIDDLE, zorder=6, parse_math=False, **_badge(mark, 9))


def _edge_runs(
    camera: Camera, depths: Float64[ndarray, "H W"], box: Float64[ndarray, "8 3"]
) -> tuple[list[ndarray], list[ndarray]]:
    """The twelve edges in pixels, split where the scan begins or ends to hide them."""
    runs: tuple[list[ndarray], list[ndarray]] = ([], [])
    share = np.linspace(0, 1, 65)[:, None]
    for low in range(8):
        for axis in range(3):
            high = low | 1 << axis
            if high == low:
                continue
            pixels, depth = camera.project(box[low] + share * (box[high] - box[low]))
            column, row = np.floor(pixels).astype(np.int64).T
            inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
            surface = np.full(len(share), np.inf)
            surface[inside] = depths[row[inside], column[inside]]
            # Edges lie on surfaces, and surfaces are noisy: short changes are none.
            hides = median_filter(surface < depth - 0.06, size=9, mode="nearest")
            borders = np.flatnonzero(np.diff(hides)) + 1
            for start, end in zip([0, *borders], [*borders, len(share) - 1], strict=True):
                if (depth[start : end + 1] > 0).all():
                    runs[int(hides[start])].append(pixels[start : end + 1])
    return runs


def _label_place(
    pixels: Float64[ndarray, "8 2"],
    wide: float,
    high: float,
    camera: Camera,
    placed: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Centre and size of a label on its box, where it covers least of the labels so far."""
    low, top = pixels.min(0), pixels.max(0)
    middle = (low + top) / 2
    upper = pixels[pixels[:, 1].argsort(kind="stable")]
    sides = [(low[0], middle[1]), (top[0], middle[1])]
    candidates = np.array(
        [(middle[0], low[1]), *upper[:4], middle, (middle[0], top[1]), *upper[4:], *sides]
    )
    border = np.array([wide, high]) / 2 + 2
    candidates = candidates.clip(border, np.array([camera.width, camera.height]) - border)
    covers = np.zeros(len(candidates))
    for x, y, other_wide, other_high in placed:
        apart = np.abs(candidates - (x, y))
        shared = (np.array([wide + other_wide, high + other_high]) / 2 + 2 - apart).clip(0)
        covers += shared.prod(1)
    x, y = candidates[covers.argmin()]
    return float(x), float(y), wide, high


def _metre_ticks(axes: Axes, camera: Camera, offset: Float64[ndarray, "3"]) -> None:
    """Ticks in metres of world coordinates on a view from above."""
    half = np.array([camera.width, camera.height]) / 2 / camera.scale
    middle = (camera.eye + offset)[:2]
    locator = MaxNLocator(nbins=7, steps=[1, 2, 5, 10])
    for axis, way, length in ((0, 1, camera.width), (1, -1, camera.height)):
        low, high = middle[axis] - half[axis], middle[axis] + half[axis]
        values = [v for v in locator.tick_values(low, high) if low <= v <= high]
        pixels = [length / 2 + way * (v - middle[axis]) * camera.scale for v in values]
        which = axes.xaxis if axis == 0 else axes.yaxis
        which.set_ticks(pixels, [f"{v:g}" for v in values])
        which.set_label_text(f"{'xy'[axis]} (m)")
    axes.tick_params(labelsize=9, color="#999999")


@dataclass(frozen=True)
class _Legend:
    """Lines of text in columns: column, row, number of the box that starts there or 0, text."""

    columns: int
    rows: int
    cells: list[tuple[int, int, int, str]]


def _legend(boxes: Boxes, captions: Sequence[str] | None) -> _Legend:
    """As few rows as hold every box; where the rows run out, the last line counts the others."""
    columns = 4 if captions is None else 2
    entries = []
    for number, (label, score) in enumerate(
        zip(boxes.labels, boxes.scores.tolist(), strict=True), start=1
    ):
        text = f"{label}  {score:z.2f}" + (f"  {captions[number - 1]}" if captions else "")
        width = (WIDTH // columns - 60) // 7  # characters of seven pixels
        lines = textwrap.wrap(text, width, max_lines=3, placeholder=" …") or [""]
        entries.append([(number if i == 0 else 0, line) for i, line in enumerate(lines)])
    for rows in range(LEGEND_ROWS + 1):
        cells = _flow(entries, columns, rows)
        if cells is not None:
            return _Legend(columns, rows, cells)
    for count in range(len(entries) - 1, -1, -1):
        more = [(0, f"… and {len(entries) - count} more")]
        cells = _flow([*entries[:count], more], columns, LEGEND_ROWS)
        if cells is not None:
            return _Legend(columns, LEGEND_ROWS, cells)
    raise AssertionError("one line always fits")


def _flow(
    entries: list[list[tuple[int, str]]], columns: int, rows: int
) -> list[tuple[int, int, int, str]] | None:
    """Entries one under the other, column by column, none torn apart; None if they do not fit."""
    cells, column, row = [], 0, 0
    for entry in entries:
        if row + len(entry) > rows:
            column, row = column + 1, 0
        if column == columns or len(entry) > rows:
            return None
        cells += [(column, row + i, number, text) for i, (number, text) in enumerate(entry)]
        row += len(entry)
    return cells


def _draw_legend(figure: Figure, legend: _Legend, marks: Sequence[Mark]) -> None:
    """The legend along the lower border of the figure."""
    for column, row, number, text in legend.cells:
        x = 14 + column * (WIDTH - 14) // legend.columns
        y = 8 + ROW * (legend.rows - row - 0.5)
        # Captions are a model's words: a dollar sign in them is no formula.
        figure.text((x + 28) / WIDTH, y / HEIGHT, text, size=9, va=MIDDLE, parse_math=False)
        if number:
            mark = marks[number - 1]
            x, y = (x + 10) / WIDTH, y / HEIGHT
            figure.text(x, y, str(mark.number), va=MIDDLE, **_badge(mark, 8))


def _color(mark: Mark) -> str:
    return PALETTE[mark.color % len(PALETTE)]


def _badge(mark: Mark, size: int) -> dict[str, Any]:
    """How a box's number is written: on a plate of the color of the box."""
    color = _color(mark)
    luminance = np.dot([0.2126, 0.7152, 0.0722], to_rgb(color))
    plate = {"boxstyle": "round,pad=0.22", "facecolor": color, "edgecolor": "black", "lw": 0.8}
    ink = "black" if luminance > 0.42 else "white"
    return {"size": size, "weight": "bold", "ha": "center", "color": ink, "bbox": plate}
