"""The laws of the records that pass between the stages."""

import math

import pytest
import torch
from fakes import scene_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from o2s.scene import Boxes, Scene


def boxes(count: int = 5, seed: int = 0) -> Boxes:
    generator = torch.Generator().manual_seed(seed)
    return Boxes(
        centres=torch.randn(count, 3, generator=generator),
        sizes=torch.rand(count, 3, generator=generator) + 0.1,
        headings=6 * torch.rand(count, generator=generator) - 3,
        scores=torch.linspace(1, 0.5, count),
        labels=tuple("abcdefgh"[:count]),
    )


def scan(count: int = 6, colors: bool = True) -> Scene:
    generator = torch.Generator().manual_seed(0)
    points, rgb, normals = torch.rand(3, count, 3, generator=generator)
    from_file = torch.eye(4, dtype=torch.float64)
    from_file[:3, 3] = torch.tensor([500_000.25, -4_000_000.5, 3.0])
    return Scene("scan", points, rgb if colors else None, normals if colors else None, from_file)


def plain_corners(box: list[float]) -> Tensor:
    """Each corner by itself, with the textbook's rotation about z."""
    x, y, z, length, width, height, heading = box
    corners = []
    for up in (-height / 2, height / 2):
        for left in (-width / 2, width / 2):
            for ahead in (-length / 2, length / 2):
                turned_x = math.cos(heading) * ahead - math.sin(heading) * left
                turned_y = math.sin(heading) * ahead + math.cos(heading) * left
                corners.append([x + turned_x, y + turned_y, z + up])
    return torch.tensor(corners)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_corners_are_those_of_the_plain_rotation(seed: int) -> None:
    made = boxes(seed=seed)
    expected = torch.stack([plain_corners(row) for row in made.tensor.tolist()])
    assert torch.allclose(made.corners(), expected, atol=1e-5)


def test_a_box_is_centre_and_full_size_not_lowest_and_highest_corner() -> None:
    """The public code of Octavius calls its boxes so and stores the other."""
    box = Boxes(
        torch.tensor([[1.0, 2, 3]]),
        torch.tensor([[4.0, 6, 8]]),
        torch.zeros(1),
        torch.ones(1),
        ("table",),
    )
    assert box.corners()[0, 0].tolist() == [-1, -1, -1]
    assert box.corners()[0, 7].tolist() == [3, 5, 7]
    assert torch.equal(box.corners().mean(dim=1), box.centres)
    assert torch.equal(box.corners().amax(dim=1) - box.corners().amin(dim=1), box.sizes)


def test_the_bits_of_a_corner_are_its_sides() -> None:
    made = boxes()
    upright = Boxes(made.centres, made.sizes, torch.zeros(5), made.scores, made.labels)
    corners = upright.corners()
    for number in range(8):
        side = torch.tensor([number & 1, number >> 1 & 1, number >> 2 & 1]) - 0.5
        assert torch.allclose(corners[:, number], made.centres + side * made.sizes, atol=1e-6)


def test_a_quarter_turn_swaps_length_and_width() -> None:
    box = Boxes(
        torch.zeros(1, 3),
        torch.tensor([[2.0, 1, 1]]),
        torch.tensor([math.pi / 2]),
        torch.ones(1),
        ("bed",),
    )
    extent = box.corners()[0].amax(dim=0) - box.corners()[0].amin(dim=0)
    assert torch.allclose(extent, torch.tensor([1.0, 2, 1]), atol=1e-6)


def test_the_tensor_holds_centre_size_and_heading_in_this_order() -> None:
    made = boxes()
    parts = torch.split(made.tensor, [3, 3, 1], dim=1)
    assert torch.equal(parts[0], made.centres)
    assert torch.equal(parts[1], made.sizes)
    assert torch.equal(parts[2][:, 0], made.headings)


@pytest.mark.parametrize(
    "index, kept",
    [
        (torch.tensor([3, 0, 3]), [3, 0, 3]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
        (torch.tensor([-1]), [4]),
        (torch.zeros(0, dtype=torch.long), []),
        (torch.zeros(5, dtype=torch.bool), []),
    ],
    ids=["integers", "mask", "from the end", "none", "empty mask"],
)
def test_select_keeps_every_field_and_the_labels_in_step(index: Tensor, kept: list[int]) -> None:
    made = boxes()
    chosen = made.select(index)
    assert len(chosen) == len(kept)
    assert chosen.labels == tuple(made.labels[i] for i in kept)
    assert torch.equal(chosen.tensor, made.tensor[kept])
    assert torch.equal(chosen.scores, made.scores[kept])


@pytest.mark.parametrize("count", [0, 2, 5, 9])
def test_best_are_the_first_ones_as_many_as_there_are(count: int) -> None:
    made = boxes()
    best = made.best(count)
    assert best.labels == made.labels[:count]
    assert torch.equal(best.scores, made.scores[:count])


def test_labels_that_do_not_match_are_an_error_that_counts_both() -> None:
    made = boxes()
    with pytest.raises(ValueError, match="2 labels for 5 boxes"):
        Boxes(made.centres, made.sizes, made.headings, made.scores, ("a", "b"))


def test_no_boxes_have_no_corners_and_take_every_operation() -> None:
    none = Boxes.none()
    assert len(none) == len(none.best(3)) == 0
    assert none.corners().shape == (0, 8, 3)
    assert none.tensor.shape == (0, 7)


@pytest.mark.parametrize("colors", [True, False])
@pytest.mark.parametrize(
    "index", [torch.tensor([4, 1]), torch.arange(6) > 3], ids=["integers", "mask"]
)
def test_selecting_points_keeps_their_colours_and_normals(index: Tensor, colors: bool) -> None:
    scene = scan(colors=colors)
    chosen = scene.select(index)
    assert len(chosen) == 2
    assert torch.equal(chosen.points, scene.points[index])
    for mine, whole in ((chosen.colors, scene.colors), (chosen.normals, scene.normals)):
        if whole is None:
            assert mine is None
        else:
            assert mine is not None
            assert torch.equal(mine, whole[index])
    assert chosen.name == scene.name
    assert torch.equal(chosen.from_file, scene.from_file)


@pytest.mark.parametrize("colors", [True, False])
def test_moving_moves_every_tensor_of_the_points(colors: bool) -> None:
    moved = scan(colors=colors).to("meta")
    for tensor in (moved.points, moved.colors, moved.normals):
        assert tensor is None or tensor.device.type == "meta"
    assert (moved.colors is None) == (not colors)
    assert torch.equal(scan().to("cpu").points, scan().points)


def test_adding_the_offset_undoes_the_centring_in_double_precision() -> None:
    scene = scan()
    homogeneous = torch.cat([scene.points.double(), torch.ones(6, 1, dtype=torch.float64)], dim=1)
    in_file = (torch.linalg.inv(scene.from_file) @ homogeneous.T).T[:, :3]
    assert torch.allclose(scene.points + scene.offset, in_file, rtol=0, atol=1e-8)
    assert torch.equal(scene_of(scene.points).offset, torch.zeros(3, dtype=torch.float64))


def test_records_cannot_be_changed() -> None:
    for record, field in ((scan(), "points"), (boxes(), "centres")):
        with pytest.raises(AttributeError):
            setattr(record, field, torch.zeros(1, 3))
