import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.ops.boxes import box_iou, nms_3d, points_in_boxes, same_box
from o2s.scene import Boxes


def random_boxes(seed: int, count: int, kind: str) -> torch.Tensor:
    """Boxes crowded enough to overlap: upright, with headings, or on a lattice with many ties."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 7, generator=generator) * torch.tensor([2, 2, 1, 1.5, 1.5, 1, 6.3])
    if kind != "headings":
        boxes[:, 6] = 0
    if kind == "lattice":
        boxes = (boxes * 2).round() / 2  # sizes of 0 among them
    return boxes


def rasterised_iou(a: torch.Tensor, b: torch.Tensor, steps: int = 32) -> float:
    """IoU of two boxes by counting: the share of a regular grid in `a` that `b` holds too."""
    ticks = (torch.arange(steps) + 0.5) / steps - 0.5
    x, y, z = (torch.cartesian_prod(ticks, ticks, ticks) * a[3:6]).unbind(-1)
    cos, sin = a[6].cos(), a[6].sin()
    grid = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=1) + a[:3]
    volume_a, volume_b = float(a[3:6].prod()), float(b[3:6].prod())
    overlap = float(points_in_boxes(grid, b[None]).float().mean()) * volume_a
    return overlap / (volume_a + volume_b - overlap)


kinds = st.sampled_from(["upright", "headings", "lattice"])
seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_rotated_iou_matches_counting(seed):
    a, b = random_boxes(seed, 2, "headings") + torch.tensor([0, 0, 0, 0.1, 0.1, 0.1, 0])
    assert float(box_iou(a[None], b[None])) == pytest.approx(rasterised_iou(a, b), abs=0.03)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, kind=kinds)
def test_iou_is_symmetric_bounded_and_one_with_itself(seed, kind):
    boxes = random_boxes(seed, 12, kind)
    overlaps = box_iou(boxes, boxes)
    torch.testing.assert_close(overlaps, overlaps.T, atol=1e-6, rtol=0)
    assert ((overlaps >= 0) & (overlaps <= 1 + 1e-6)).all()
    solid = (boxes[:, 3:6] > 0).all(dim=1)
    torch.testing.assert_close(overlaps.diagonal(), solid.float())


@settings(deadline=None, max_examples=50)
@given(seed=seeds, kind=kinds, angle=st.floats(-7, 7))
def test_iou_does_not_change_when_both_turn(seed, kind, angle):
    boxes = random_boxes(seed, 10, kind)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = boxes.clone()
    turned[:, 0] = cos * boxes[:, 0] - sin * boxes[:, 1]
    turned[:, 1] = sin * boxes[:, 0] + cos * boxes[:, 1]
    turned[:, 6] += angle
    torch.testing.assert_close(box_iou(turned, turned), box_iou(boxes, boxes), atol=1e-5, rtol=0)


def test_iou_of_known_boxes():
    a = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0]])
    others = torch.tensor(
        [
            [1.0, 0, 0, 2, 2, 2, 0],  # shares half
            [2.0, 0, 0, 2, 2, 2, 0],  # touches
            [0.0, 0, 0, 1, 1, 1, 0],  # inside
            [0.0, 0, 0, 2, 2, 0, 0],  # flat
            [0.0, 0, 0, 2, -2, 2, 0],  # a size below 0 counts as 0
        ]
    )
    expected = torch.tensor([[1 / 3, 0, 1 / 8, 0, 0]])
    torch.testing.assert_close(box_iou(a, others), expected)
    quarter_turn = others + torch.tensor([0, 0, 0, 0, 0, 0, math.pi / 2])
    torch.testing.assert_close(box_iou(a, quarter_turn), expected)
    eighth_turn = torch.tensor([[0.0, 0, 0, 2, 2, 2, math.pi / 4]])
    octagon = 8 * (math.sqrt(2) - 1)
    torch.testing.assert_close(
        float(box_iou(a, eighth_turn)), octagon / (8 - octagon), atol=1e-6, rtol=0
    )


def test_upright_iou_has_gradients_and_never_nan():
    boxes = random_boxes(0, 8, "lattice").requires_grad_()
    box_iou(boxes, boxes.detach()).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()
    assert box_iou(boxes[:0].detach(), boxes.detach()).shape == (0, 8)


@settings(deadline=None, max_examples=80)
@given(
    seed=seeds,
    count=st.integers(0, 40),
    kind=kinds,
    labelled=st.booleans(),
    threshold=st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]),
)
def test_suppression(seed, count, kind, labelled, threshold):
    boxes = random_boxes(seed, count, kind)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator).mul(8).round()  # with ties
    labels = torch.randint(3, (count,), generator=generator) if labelled else None
    kept = nms_3d(boxes, scores, threshold, labels)
    assert torch.equal(kept, nms_3d(boxes, scores, threshold, labels, backend="torch"))

    overlaps = box_iou(boxes, boxes)
    expected: list[int] = []
    for i in sorted(range(count), key=lambda i: (-scores[i].item(), i)):
        rivals = [j for j in expected if labels is None or labels[i] == labels[j]]
        if all(overlaps[j, i] <= threshold for j in rivals):
            expected.append(i)
    assert kept.tolist() == expected

    again = nms_3d(boxes[kept], scores[kept], threshold, None if labels is None else labels[kept])
    assert torch.equal(again, torch.arange(len(kept)))


@settings(deadline=None, max_examples=50)
@given(seed=seeds, kind=kinds, margin=st.sampled_from([0.0, 0.25]))
def test_backends_agree_on_the_points_in_boxes(seed, kind, margin):
    boxes = random_boxes(seed, 5, kind)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(seed)) * 3 - 0.5
    if kind == "lattice":
        points = (points * 4).round() / 4
    inside = points_in_boxes(points, boxes, margin)
    assert torch.equal(inside, points_in_boxes(points, boxes, margin, backend="torch"))
    if kind != "headings":
        offsets = (points - boxes[:, None, :3]).abs()
        assert torch.equal(inside, (offsets <= boxes[:, None, 3:6] / 2 + margin).all(dim=-1))


def test_faces_belong_to_the_box_and_the_heading_is_that_of_the_corners():
    boxes = Boxes(
        torch.tensor([[1.0, 2, 3]]),
        torch.tensor([[4.0, 1, 2]]),
        torch.tensor([0.7]),
        torch.ones(1),
        ("bed",),
    )
    corners = boxes.corners()[0]
    centre = boxes.centres[0]
    assert points_in_boxes(centre + (corners - centre) * 0.999, boxes.tensor).all()
    assert not points_in_boxes(centre + (corners - centre) * 1.001, boxes.tensor).any()
    assert points_in_boxes(centre + (corners - centre) * 1.001, boxes.tensor, 0.01).all()
    upright = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0]])
    assert points_in_boxes(torch.tensor([[1.0, 1, -1], [1, 0, 0]]), upright).all()


def test_the_box_that_is_the_wanted_one():
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0], [0.2, 0, 0, 1, 1, 1, 0], [9, 9, 9, 1, 1, 1, 0]])
    wanted = torch.tensor([0.15, 0, 0, 1, 1, 1, 0])
    assert same_box(wanted, boxes) == 1
    assert same_box(wanted, boxes[2:]) is None
    assert same_box(wanted, boxes[:0]) is None
    third = torch.tensor([0.5, 0, 0, 1, 1, 1, 0])  # an IoU of a third with the first
    assert same_box(third, boxes[:1], 0.33) == 0
    assert same_box(third, boxes[:1], 0.34) is None
