"""Colours get the name that people would give them."""

import numpy as np
import pytest

from o2s.datasets.color_names import NAMES, color_name, name_of


@pytest.mark.parametrize(
    "color, name",
    [
        ((10, 10, 12), "black"),
        ((128, 128, 130), "grey"),
        ((245, 245, 240), "white"),
        ((110, 70, 35), "brown"),
        ((222, 200, 165), "beige"),
        ((200, 30, 30), "red"),
        ((250, 140, 20), "orange"),
        ((240, 220, 40), "yellow"),
        ((60, 140, 60), "green"),
        ((40, 70, 190), "blue"),
        ((120, 40, 170), "purple"),
        ((250, 150, 190), "pink"),
    ],
)
def test_plain_colours(color: tuple[int, int, int], name: str) -> None:
    assert name_of(np.array(color, np.uint8)) == name


def test_every_colour_has_one_of_the_names() -> None:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    found = {name_of(np.array([r, g, b])) for r in levels for g in levels for b in levels}
    assert found == set(NAMES)


def test_a_mesh_has_the_colour_of_most_of_its_surface() -> None:
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1], [1, 0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 4]], np.int32)  # areas 2 and 0.5
    colors = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
    assert color_name(vertices, faces, colors) == "red"
    assert color_name(vertices, faces, colors, least=0.9) is None
    assert color_name(vertices, faces, colors[::-1]) == "blue"
