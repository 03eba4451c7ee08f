"""Turned footprints: their overlap against clipping, and its gradients against differences."""

import torch
from torch import Tensor

from o2s.ops.boxes import box_iou
from o2s.ops.footprints import extents, footprint_overlap
from o2s.scene import Boxes


def boxes(seed: int, count: int = 60) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, 7, generator=generator)
    rows[:, 2], rows[:, 5] = 0, 1  # all of one height
    rows[:, 3:5] += 0.2
    rows[:, 6] = (rows[:, 6] - 0.5) * 7
    return rows


def test_overlaps_are_those_of_clipping() -> None:
    a, b = boxes(0), boxes(1)
    overlap = footprint_overlap(a[:, None], b[None])
    areas = (a[:, 3] * a[:, 4])[:, None] + b[:, 3] * b[:, 4]
    torch.testing.assert_close(overlap / (areas - overlap), box_iou(a, b), atol=1e-4, rtol=0)
    assert (overlap > 0).any()
    assert (overlap == 0).any()


def test_a_box_overlaps_itself_wholly_and_one_inside_another_too() -> None:
    a = boxes(2)
    torch.testing.assert_close(footprint_overlap(a, a), a[:, 3] * a[:, 4], atol=1e-4, rtol=1e-4)
    small = a * torch.tensor([1, 1, 1, 0.5, 0.5, 1, 1])
    torch.testing.assert_close(footprint_overlap(a, small), small[:, 3] * small[:, 4])


def test_gradients_are_those_of_finite_differences() -> None:
    a, b = boxes(3, 8).double(), boxes(4, 8).double()
    assert torch.autograd.gradcheck(footprint_overlap, (a.requires_grad_(), b.requires_grad_()))


def test_extents_hold_the_corners() -> None:
    rows = boxes(5)
    corners = Boxes(rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 0], ("x",) * len(rows)).corners()
    size = corners.amax(dim=1) - corners.amin(dim=1)
    torch.testing.assert_close(extents(rows[:, 3:6], rows[:, 6]), size, atol=1e-5, rtol=1e-5)
