"""The picture of a search: what is marked, in which color, and what is grey."""

import pytest
import rooms_fake
import torch
from matplotlib.image import imread

from o2s.scene import Boxes, Scene
from o2s.view import found
from o2s.view.found import draw_found
from o2s.view.pictures import Mark


@pytest.fixture(scope="module")
def room():
    scan = rooms_fake.room(0, size=(4.0, 3.0, 2.5), points=8000)
    scene = Scene("a room", scan.points, scan.colors, None, torch.eye(4, dtype=torch.float64))
    count = len(scan.boxes)
    centres, sizes = scan.boxes[:, :3], scan.boxes[:, 3:]
    return scene, Boxes(centres, sizes, torch.zeros(count), torch.ones(count), ("object",) * count)


@pytest.fixture
def drawn_with(monkeypatch):
    """The boxes and options of the last picture, which is drawn all the same."""
    last = {}
    draw = found.draw_scene

    def spy(scene, boxes, path, **options):
        last.update(options, boxes=boxes)
        draw(scene, boxes, path, **options)

    monkeypatch.setattr(found, "draw_scene", spy)
    return last


def test_found_objects_are_marked_and_the_others_grey(room, drawn_with, tmp_path):
    scene, boxes = room
    assert len(boxes) > 3
    hits = [[(2, 0.61), (0, -0.001)], [(2, 0.5)]]
    draw_found(scene, boxes, tmp_path / "a.png", ["a chair", "lamps"], hits, note=" (by chance)")
    assert imread(tmp_path / "a.png").shape[:2] == (900, 1600)
    marked = drawn_with["boxes"]
    torch.testing.assert_close(marked.tensor, boxes.tensor[[2, 0, 2]])
    assert marked.labels == ("a chair", "a chair", "lamps")
    torch.testing.assert_close(marked.scores, torch.tensor([0.61, -0.001, 0.5]))
    assert drawn_with["marks"] == [
        Mark(1, "1  0.61", 0),
        Mark(2, "2  0.00", 0),
        Mark(1, "1  0.50", 1),
    ]
    rest = [i for i in range(len(boxes)) if i not in (0, 2)]
    torch.testing.assert_close(drawn_with["others"].tensor, boxes.tensor[rest])
    assert drawn_with["title"] == "a room: a chair, lamps (by chance)"


def test_nothing_found_leaves_all_boxes_grey(room, drawn_with, tmp_path):
    scene, boxes = room
    draw_found(scene, boxes, tmp_path / "a.png", ["a chair"], [[]])
    assert len(drawn_with["boxes"]) == 0
    torch.testing.assert_close(drawn_with["others"].tensor, boxes.tensor)
    draw_found(scene, Boxes.none(), tmp_path / "b.png", ["a chair"], [[]])
    assert imread(tmp_path / "b.png").shape[:2] == (900, 1600)
