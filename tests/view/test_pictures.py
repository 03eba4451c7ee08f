"""The picture as a file: size, determinism, what it shows, and what is left after a failure."""

from dataclasses import replace

import numpy as np
import pytest
import rooms_fake
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from o2s.scene import Boxes, Scene
from o2s.view import pictures
from o2s.view.pictures import GREY, PALETTE, Mark, draw_scene


def make_scene(points: torch.Tensor, colors: torch.Tensor | None = None) -> Scene:
    return Scene("test", points, colors, None, torch.eye(4, dtype=torch.float64))


def make_boxes(centres_sizes: torch.Tensor) -> Boxes:
    count = len(centres_sizes)
    scores = torch.linspace(1, 0.1, count)
    centres, sizes = centres_sizes[:, :3], centres_sizes[:, 3:]
    return Boxes(centres, sizes, torch.zeros(count), scores, ("chair",) * count)


@pytest.fixture(scope="module")
def room():
    scan = rooms_fake.room(0, size=(4.0, 3.0, 2.5), points=8000)
    return make_scene(scan.points, scan.colors), make_boxes(scan.boxes)


def drawn(path) -> np.ndarray:
    return (imread(path)[..., :3] * 255).round().astype(int)


def test_a_png_of_the_stated_size_and_the_same_bytes_again(room, tmp_path):
    for name in ("a.png", "b.png"):
        draw_scene(
            room[0], room[1], tmp_path / name, captions=["A chair."] * len(room[1]), title="A room"
        )
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert drawn(tmp_path / "a.png").shape == (900, 1600, 3)
    assert first == (tmp_path / "b.png").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png"}


def test_each_box_appears_in_its_color_in_both_panels(room, tmp_path):
    draw_scene(room[0], room[1], tmp_path / "a.png")
    image = drawn(tmp_path / "a.png")[:800]  # above the legend
    for color in PALETTE[: len(room[1])]:
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        columns = np.flatnonzero((np.abs(image - rgb) <= 3).all(2).any(0))
        assert columns.min() < 760
        assert columns.max() > 860


def test_marks_give_the_color_and_the_words_of_each_box(room, tmp_path):
    scene, boxes = room
    numbers = [Mark(i + 1, str(i + 1), i) for i in range(len(boxes))]
    cases = {
        "plain": None,
        "numbers": numbers,
        "legend": [replace(mark, number=mark.number + 1) for mark in numbers],
        "text": [replace(mark, text=f"{mark.text}  0.5") for mark in numbers],
        "color": [replace(mark, color=1) for mark in numbers],
    }
    for name, marks in cases.items():
        draw_scene(scene, boxes, tmp_path / name, marks=marks)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "numbers").read_bytes()
    plain = drawn(tmp_path / "plain")
    changed = {name: (drawn(tmp_path / name) != plain).any(2) for name in cases}
    legend = 900 - pictures.ROW * pictures._legend(boxes, None).rows - 14
    assert changed["legend"][legend:].any()
    assert not changed["legend"][:legend].any()
    assert changed["text"][:legend].any()
    assert not changed["text"][legend:].any()
    first = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    assert (np.abs(plain - first) <= 3).all(2).any()
    assert not (np.abs(drawn(tmp_path / "color") - first) <= 3).all(2).any()


def test_other_boxes_are_grey_and_without_numbers(room, tmp_path):
    scene, boxes = room
    first, rest = boxes.select(torch.tensor([0])), boxes.select(torch.arange(1, len(boxes)))
    draw_scene(scene, first, tmp_path / "a.png", others=rest)
    image = drawn(tmp_path / "a.png")
    grey = [int(GREY[i : i + 2], 16) for i in (1, 3, 5)]
    columns = np.flatnonzero((np.abs(image[:800] - grey) <= 14).all(2).sum(0) > 5)
    assert columns.min() < 760
    assert columns.max() > 860
    for color in PALETTE[1 : len(boxes)]:
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert not (np.abs(image - rgb) <= 3).all(2).any()
    draw_scene(scene, boxes, tmp_path / "b.png")
    draw_scene(scene, boxes, tmp_path / "c.png", others=Boxes.none())
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_box_edges_fall_where_the_camera_puts_them(room, tmp_path, monkeypatch):
    panels = []
    original = pictures._panel

    def spy(figure, left, bottom, camera, image, depths, corners, *rest):
        panels.append((left, bottom, camera, corners))
        return original(figure, left, bottom, camera, image, depths, corners, *rest)

    monkeypatch.setattr(pictures, "_panel", spy)
    scene, boxes = room
    draw_scene(scene, boxes.select(torch.tensor([0])), tmp_path / "a.png")
    image = drawn(tmp_path / "a.png")
    left, bottom, camera, corners = panels[0]
    # Two points of the upper rim, seen from above and clear of the label in its middle.
    for start, end in ((4, 5), (5, 7), (4, 6)):
        spot = corners[0, start] * 0.75 + corners[0, end] * 0.25
        x, y = camera.project(spot[None])[0][0]
        row = round(900 - bottom - camera.height + y)
        patch = image[row - 1 : row + 2, round(left + x) - 1 : round(left + x) + 2]
        rgb = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(patch - rgb).sum(2) < 30).any()


def test_world_coordinates_on_the_axes(room, tmp_path):
    scene, boxes = room
    moved = torch.eye(4, dtype=torch.float64)
    moved[:3, 3] = torch.tensor([-100.0, 0, 0])
    draw_scene(scene, boxes, tmp_path / "a.png")
    draw_scene(replace(scene, from_file=moved), boxes, tmp_path / "b.png")
    first, second = drawn(tmp_path / "a.png"), drawn(tmp_path / "b.png")
    changed = np.flatnonzero((first != second).any((1, 2)))
    assert len(changed) > 0
    assert changed.min() > 700  # only the numbers of the x axis


def test_no_colors_no_boxes_one_point_no_points(room, tmp_path):
    scene, boxes = room
    normals = torch.nn.functional.normalize(torch.rand(len(scene), 3), dim=1)
    cases = [
        (replace(scene, colors=None), boxes),
        (replace(scene, colors=None, normals=normals), boxes),
        (scene, Boxes.none()),
        (make_scene(torch.zeros(1, 3)), Boxes.none()),
        (make_scene(torch.zeros(0, 3)), Boxes.none()),
        (make_scene(torch.zeros(0, 3)), boxes),
    ]
    for number, (one, some) in enumerate(cases):
        draw_scene(one, some, tmp_path / f"{number}.png")
        image = drawn(tmp_path / f"{number}.png")
        assert image.shape == (900, 1600, 3)
        assert (image < 200).any()


def test_many_boxes_long_words_and_odd_letters(room, tmp_path):
    generator = torch.Generator().manual_seed(0)
    many = torch.rand(40, 6, generator=generator) + 0.1
    captions = ["It costs $5 or $6, says \u6905\u5b50.\n" * 9, *["A chair. " * 12] * 39]
    draw_scene(
        room[0], make_boxes(many), tmp_path / "a.png", captions=captions, title="$x_1$ " * 60
    )
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("captions", [False, True])
@pytest.mark.parametrize("count", [0, 1, 9, 24, 25, 100])
def test_the_legend_names_or_counts_every_box(count, captions):
    boxes = make_boxes(torch.ones(count, 6))
    legend = pictures._legend(boxes, ["A long caption. " * 20] * count if captions else None)
    numbers = [number for _, _, number, _ in legend.cells if number]
    assert numbers == list(range(1, len(numbers) + 1))
    more = [text for *_, text in legend.cells if text.startswith("… and ")]
    missing = count - len(numbers)
    assert more == ([f"… and {missing} more"] if missing else [])
    assert all(c < legend.columns and r < legend.rows for c, r, *_ in legend.cells)
    assert len({cell[:2] for cell in legend.cells}) == len(legend.cells)


def test_captions_and_marks_must_fit_the_boxes(room, tmp_path):
    with pytest.raises(ValueError, match="1 captions for"):
        draw_scene(room[0], room[1], tmp_path / "a.png", captions=["one"])
    with pytest.raises(ValueError, match="1 marks for"):
        draw_scene(room[0], room[1], tmp_path / "a.png", marks=[Mark(1, "1", 0)])


def test_a_failure_leaves_the_old_file_and_no_other(room, tmp_path, monkeypatch):
    def fails(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError("disk full")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises(OSError, match="disk full"):
        draw_scene(room[0], room[1], tmp_path / "a.png")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]
