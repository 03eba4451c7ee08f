"""What detected objects are near and on."""

import torch

from o2s.llm.relations import relations
from o2s.scene import Boxes


def boxes_of(*rows: tuple[float, ...]) -> Boxes:
    """Centre and size of each."""
    table = torch.tensor(rows)
    count = len(rows)
    zeros = torch.zeros(count)
    return Boxes(table[:, :3], table[:, 3:], zeros, zeros, tuple("abcdefgh"[:count]))


TABLE = (0.0, 0.0, 0.4, 2.0, 1.0, 0.8)
LAMP = (0.5, 0.2, 1.0, 0.3, 0.3, 0.4)  # stands on the table
CHAIR = (0.0, 1.0, 0.45, 0.5, 0.5, 0.9)  # 0.25 m from the table
BED = (5.0, 0.0, 0.3, 2.0, 2.0, 0.6)


def test_what_is_on_and_near() -> None:
    near, on = relations(boxes_of(TABLE, LAMP, CHAIR, BED))
    assert on == [None, 0, None, None]
    assert near == [2, 2, 0, 0]  # of the lamp and its table neither is near the other


def test_alone_or_empty() -> None:
    assert relations(boxes_of(TABLE)) == ([None], [None])
    assert relations(Boxes.none()) == ([], [])
    assert relations(boxes_of(TABLE, LAMP)) == ([None, None], [None, 0])


def test_an_object_found_twice_is_not_its_own_neighbour() -> None:
    again = (0.1, 0.0, 0.4, 2.0, 1.0, 0.8)
    near, on = relations(boxes_of(TABLE, again, BED))
    assert near == [2, 2, 1]
    assert on == [None, None, None]


def test_of_two_that_touch_the_one_with_the_nearer_centre() -> None:
    beside = (1.25, 0.0, 0.4, 0.5, 0.5, 0.8)
    long = (0.0, -3.0, 0.4, 2.0, 5.0, 0.8)
    assert relations(boxes_of(TABLE, long, beside))[0][0] == 2


def test_what_hangs_high_above_or_stands_beneath_is_not_on_it() -> None:
    hanging = (0.0, 0.0, 2.0, 0.4, 0.4, 0.3)
    beneath = (0.0, 0.0, 0.2, 0.4, 0.4, 0.4)
    assert relations(boxes_of(TABLE, hanging, beneath))[1] == [None, None, None]


def test_turned_boxes_reach_as_far_as_they_do() -> None:
    boxes = boxes_of((0.0, 0.0, 0.4, 4.0, 0.2, 0.8), (0.0, 1.5, 0.4, 0.2, 0.2, 0.8), CHAIR, BED)
    turned = Boxes(
        boxes.centres,
        boxes.sizes,
        torch.tensor([torch.pi / 2, 0.0, 0.0, 0.0]),
        boxes.scores,
        boxes.labels,
    )
    assert relations(boxes)[0][1] == 2
    assert relations(turned)[0][1] == 0
