"""What TR3D learns from: plain loops beside the assignment, hand-made boxes beside the losses."""

import pytest
import torch
from torch import Tensor

from o2s.detect.tr3d import Located
from o2s.detect.tr3d_loss import assign, box_loss, focal_loss, tr3d_loss
from o2s.ops.boxes import box_iou


def plain_assign(
    points: Tensor, level: Tensor, boxes: Tensor, box_level: Tensor, cells: int
) -> list[int]:
    owners: list[tuple[float, int]] = [(float("inf"), -1)] * len(points)
    for number, box in enumerate(boxes):
        far = ((points - box[:3]) ** 2).sum(dim=1)
        usable = sorted(float(d) for d in far[level == box_level[number]])
        limit = usable[cells] if len(usable) > cells else float("inf")
        for place, distance in enumerate(far.tolist()):
            if level[place] == box_level[number] and distance < limit:
                owners[place] = min(owners[place], (distance, number))
    return [owner for _, owner in owners]


@pytest.mark.parametrize("count", [3, 40])
def test_cells_answer_as_in_a_plain_loop(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    points = torch.rand(count, 3, generator=generator)
    level = torch.randint(0, 2, (count,), generator=generator)
    boxes = torch.rand(5, 7, generator=generator)
    box_level = torch.tensor([0, 1, 0, 1, 0])
    found = assign(points, level, boxes, box_level, 4)
    assert found.tolist() == plain_assign(points, level, boxes, box_level, 4)
    assert (found >= 0).any()


def test_no_more_cells_answer_than_asked_and_all_of_the_level() -> None:
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    level = torch.arange(100) % 2
    found = assign(points, level, torch.tensor([[0.5, 0.5, 0.5, 1, 1, 1, 0]]), torch.tensor([1]))
    assert int((found == 0).sum()) == 6
    assert set(level[found == 0].tolist()) == {1}


def test_nothing_answers_where_nothing_is() -> None:
    nobody = torch.zeros(0, dtype=torch.long)
    level = torch.zeros(4, dtype=torch.long)
    assert assign(torch.rand(4, 3), level, torch.zeros(0, 7), nobody).tolist() == [-1] * 4
    box = torch.ones(1, 7)
    assert len(assign(torch.zeros(0, 3), nobody, box, torch.tensor([0]))) == 0


def test_the_box_loss_is_one_minus_diou() -> None:
    a = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0], [0, 0, 0, 2, 2, 2, 0], [0, 0, 0, 1, 1, 1, 0]])
    b = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0], [1, 0, 0, 2, 2, 2, 0], [3, 0, 0, 1, 1, 1, 0]])
    # IoU 1, 1/3 and 0; centres 0, 1 and 3 apart; boxes around both 3 x 2 x 2 and 4 x 1 x 1.
    expected = torch.tensor([0.0, 1 - 1 / 3 + 1 / 17, 1 + 9 / 18])
    torch.testing.assert_close(box_loss(a, b), expected, atol=1e-6, rtol=0)


def test_the_box_loss_of_turned_boxes_turns_with_them() -> None:
    a = torch.tensor([[0.2, 0.1, 0.0, 2, 1, 1, 0.0]])
    b = torch.tensor([[0.0, 0.0, 0.3, 1.5, 1, 2, 0.4]])
    quarter = torch.pi / 2
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = [torch.cat([x[:, :3] @ turn.T, x[:, 3:6], x[:, 6:] + quarter], dim=1) for x in (a, b)]
    torch.testing.assert_close(box_loss(*turned), box_loss(a, b), atol=1e-4, rtol=0)
    iou = box_iou(a, b)[0, 0]
    reach = torch.tensor([[1.0, 0.5], [0.75, 0.5]])
    cos, sin = torch.tensor(0.4).cos(), torch.tensor(0.4).sin()
    reach[1] = torch.stack([0.75 * cos + 0.5 * sin, 0.75 * sin + 0.5 * cos])
    high = torch.maximum(reach[0] + torch.tensor([0.2, 0.1]), reach[1])
    low = torch.minimum(torch.tensor([0.2, 0.1]) - reach[0], -reach[1])
    diagonal = (high - low).square().sum() + (1.3 + 0.7) ** 2
    expected = 1 - iou + (0.04 + 0.01 + 0.09) / diagonal
    torch.testing.assert_close(box_loss(a, b)[0], expected, atol=1e-4, rtol=0)
    a.requires_grad_()
    box_loss(a, b).sum().backward()
    assert a.grad is not None
    assert a.grad[0, 6] != 0


def test_the_focal_loss_is_the_formula() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    p = logits.sigmoid()
    found = focal_loss(logits, torch.tensor([[1.0, 0.0]]))
    positive = -0.25 * (1 - p[0, 0]) ** 2 * p[0, 0].log()
    negative = -0.75 * p[0, 1] ** 2 * (1 - p[0, 1]).log()
    torch.testing.assert_close(found, torch.stack([positive, negative])[None])


def located(boxes: Tensor, logits: Tensor) -> Located:
    """Four cells at the centres of the boxes, two in each of two clouds."""
    coded = torch.cat([torch.zeros(4, 3), boxes[:, 3:6].log()], dim=1).requires_grad_()
    cloud = torch.tensor([0, 0, 1, 1])
    return Located(boxes[:, :3], torch.zeros(4, dtype=torch.long), cloud, coded, logits)


def test_losses_vanish_where_all_is_right_and_grow_where_it_is_not() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0], [5, 0, 0, 1, 2, 1, 0]]).repeat(2, 1)
    labels = torch.tensor([0, 1])
    logits = torch.tensor([[9.0, -9], [-9, 9]]).repeat(2, 1)
    truth = ([boxes[:2], boxes[2:]], [labels, labels], torch.tensor([0, 0]))
    # Each cell is asked by both objects of its cloud and answers for the nearer.
    right = tr3d_loss(located(boxes, logits), *truth)
    assert right["box"] < 1e-6
    assert right["class"] < 1e-3
    larger = boxes * torch.tensor([1, 1, 1, 1.5, 1, 1, 1])
    loss = tr3d_loss(located(larger, logits), *truth)["box"].item()
    assert loss == pytest.approx(1 / 3, abs=1e-4)
    assert tr3d_loss(located(boxes, -logits), *truth)["class"] > 1


def test_the_class_loss_is_over_the_cells_that_answer() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0], [5, 0, 0, 1, 2, 1, 0]]).repeat(2, 1)
    logits = torch.zeros(4, 2)
    nothing = torch.zeros(0, 7)
    none = torch.zeros(0, dtype=torch.long)
    some = tr3d_loss(
        located(boxes, logits),
        [boxes[:1], nothing],
        [torch.tensor([0]), none],
        torch.tensor([0, 0]),
    )
    # One cell answers for the only object; of eight scores one is positive.
    half = torch.tensor(0.5)
    expected = -(0.25 + 7 * 0.75) * 0.25 * half.log()
    torch.testing.assert_close(some["class"], expected)


def test_a_batch_without_objects_still_reaches_all_outputs() -> None:
    boxes = torch.ones(4, 7)
    logits = torch.zeros(4, 2, requires_grad=True)
    found = located(boxes, logits)
    none = [torch.zeros(0, dtype=torch.long)] * 2
    losses = tr3d_loss(found, [torch.zeros(0, 7)] * 2, none, torch.tensor([0, 0]))
    (losses["box"] + losses["class"]).backward()
    assert losses["box"] == 0
    assert found.coded.grad is not None
    assert not found.coded.grad.any()
    assert logits.grad is not None
    assert logits.grad.any()
