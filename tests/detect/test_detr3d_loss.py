"""What 3DETR learns from: matching by trial of all, losses of hand-made boxes, gradients."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from detr3d_fake import close, cloud, outputs_of, tiny
from torch import Tensor
from torch.nn import functional

from o2s.detect.detr3d import extents
from o2s.detect.detr3d_loss import (
    SUNRGBD,
    SetLossConfig,
    detr3d_loss,
    encode_headings,
    generalised_iou,
    layer_loss,
    match,
)
from o2s.ops.boxes import box_iou


def objects(turned: bool) -> tuple[Tensor, Tensor]:
    boxes = torch.tensor(
        [[-1.0, -1, 0, 1, 0.5, 1, 0], [1, 1, 0, 0.6, 1.2, 1, 0], [0, 0, 1, 1, 1, 1, 0]]
    )
    if turned:
        boxes[:, 6] = torch.tensor([0.4, -2.0, 3.0])
    return boxes, torch.tensor([0, 1, 1])


def perfect(turned: bool) -> tuple[Tensor, Tensor]:
    """Boxes and logits of five queries, of which 1, 3 and 4 find the objects."""
    boxes, labels = objects(turned)
    found = torch.tensor([[0.5, -1, 0, 1, 1, 1, 0]]).repeat(5, 1)
    found[[3, 1, 4]] = boxes
    logits = torch.zeros(5, 3)
    logits[:, 2] = 9
    logits[[3, 1, 4]] = 9 * functional.one_hot(labels, 3).float()
    return found, logits


@pytest.mark.parametrize("turned", [False, True])
def test_perfect_boxes_cost_nothing_and_others_what_is_wrong_with_them(turned: bool) -> None:
    bins = 4 if turned else 1
    (boxes, labels), (found, logits) = objects(turned), perfect(turned)

    def loss(found: Tensor, logits: Tensor) -> dict[str, float]:
        outputs = outputs_of(found, logits, bins)
        return {k: float(v) for k, v in detr3d_loss(outputs, [boxes], [labels]).items()}

    best = loss(found, logits)
    names = {"class", "centre", "size", "angle_class", "angle_residual", "giou"}
    assert best.keys() == names
    assert all(best[name] == pytest.approx(0, abs=1e-3) for name in names - {"giou"})
    assert turned or best["giou"] == pytest.approx(0, abs=1e-4)
    changes = {"centre": (0, 0.1), "size": (3, 0.2)} | (
        {"angle_residual": (6, 0.1)} if turned else {}
    )
    for name, (column, change) in changes.items():
        moved = found.clone()
        moved[[1, 3, 4], column] += change
        worse = loss(moved, logits)
        assert {other for other in names if worse[other] > best[other] + 1e-3} >= {name, "giou"}
        assert sum(worse.values()) > sum(best.values())
    moved = found.clone()
    moved[[1, 3, 4], :3] += torch.tensor([0.1, -0.2, 0.1])
    # Distances are fractions of 4 m, their sum is the mean over the objects, times 5.
    assert loss(moved, logits)["centre"] == pytest.approx(5 * 0.4 / 4, abs=1e-5)
    moved = found.clone()
    moved[3, 3:6] += 0.2
    assert loss(moved, logits)["size"] == pytest.approx(0.6 / 4 / 3, abs=1e-5)
    assert loss(found, logits.flip(1))["class"] > best["class"] + 1


def test_a_query_without_an_object_counts_less() -> None:
    (boxes, labels), (found, logits) = objects(False), perfect(False)
    outputs = outputs_of(found, 0 * logits)
    config = SetLossConfig(no_object=0.25)
    logs = torch.zeros(5, 3).log_softmax(dim=1)
    wanted = torch.tensor([2, 1, 2, 0, 1])
    weights = torch.tensor([0.25, 1, 0.25, 1, 1])
    expected = -(weights * logs[range(5), wanted]).sum() / weights.sum()
    assert float(detr3d_loss(outputs, [boxes], [labels], config)["class"]) == pytest.approx(
        float(expected)
    )
    outputs = outputs_of(found, logits + torch.tensor([0.0, 0.0, -18.0]))
    heavy = detr3d_loss(outputs, [boxes], [labels], replace(config, no_object=1.0))["class"]
    light = detr3d_loss(outputs, [boxes], [labels], config)["class"]
    assert heavy > light > 0


def test_scans_without_objects_teach_that_there_is_none() -> None:
    found, logits = perfect(False)
    losses = detr3d_loss(outputs_of(found, logits), [torch.zeros(0, 7)], [torch.zeros(0).long()])
    assert losses["class"] > 1
    assert all(losses[name] == 0 for name in losses if name != "class")


def test_all_layers_learn_and_each_by_its_own_matching() -> None:
    (boxes, labels), (found, logits) = objects(False), perfect(False)
    last, first = outputs_of(found, logits), outputs_of(found.flip(0) * 1.1, logits.flip(0))
    both = detr3d_loss(replace(last, earlier=(first,)), [boxes], [labels])
    alone = [layer_loss(x, [boxes], [labels], SetLossConfig()) for x in (last, first)]
    assert all(close(both[name], alone[0][name] + alone[1][name]) for name in both)
    assert alone[1]["class"] == pytest.approx(float(alone[0]["class"]), abs=1e-5)
    assert "giou" not in detr3d_loss(last, [boxes], [labels], SUNRGBD)


@pytest.mark.parametrize("queries, objects", [(5, 3), (4, 4), (3, 5)])
def test_no_other_matching_costs_less(queries: int, objects: int) -> None:
    cost = torch.randn(queries, objects, generator=torch.Generator().manual_seed(0))
    rows, columns = match(cost)
    few = min(queries, objects)
    assert len(rows) == len(set(rows.tolist())) == len(set(columns.tolist())) == few
    least = min(
        sum(float(cost[q, o]) for q, o in zip(some, others, strict=True))
        for some in itertools.permutations(range(queries), few)
        for others in itertools.combinations(range(objects), few)
    )
    assert float(cost[rows, columns].sum()) == pytest.approx(least, abs=1e-5)
    with pytest.raises(ValueError, match="must be finite"):
        match(cost / 0 * 0)


@pytest.mark.parametrize("weight", ["cost_class", "cost_object", "cost_centre", "cost_giou"])
def test_each_cost_decides_on_the_matching(weight: str) -> None:
    """Two queries, one object: the second is the better one by what is asked about only."""
    boxes, labels = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0]]), torch.tensor([0])
    found = boxes.repeat(2, 1)
    logits = torch.tensor([[1.0, 0, 0], [0.9, 0, 0]])
    if weight == "cost_class":
        logits[1] = torch.tensor([2.0, -9, 1])
    elif weight == "cost_object":
        logits[1] = torch.tensor([0.0, 2, -1])
    elif weight == "cost_centre":
        found[0, :3], found[1, :6] = 0.2, torch.tensor([0.1, 0, 0, 0.2, 0.2, 0.2])
    else:
        found[0, 3:6], found[1, 0] = 0.4, 0.1
    none = dict.fromkeys(["cost_class", "cost_object", "cost_centre", "cost_giou"], 0.0)
    only = replace(SetLossConfig(), **{**none, weight: 1.0})
    outputs = outputs_of(found, logits)
    loss = layer_loss(outputs, [boxes], [labels], only)
    swapped = outputs_of(found.flip(0), logits.flip(0))
    targets = torch.tensor([2, 0])
    expected = functional.cross_entropy(logits, targets, torch.tensor([1, 1, 0.25]))
    assert close(loss["class"], expected)
    assert close(layer_loss(swapped, [boxes], [labels], only)["class"], expected)


def test_headings_are_coded_as_they_are_read() -> None:
    headings = torch.linspace(-7, 7, 57)
    part, rest = encode_headings(headings, 12)
    assert rest.abs().max() <= 1.0001
    assert set(part.tolist()) == set(range(12))
    clockwise = (2 * part + rest) * math.pi / 12
    assert close((clockwise + headings).cos(), torch.ones(57))
    assert not any(x.any() for x in encode_headings(headings, 1))


@pytest.mark.parametrize("turned", [0.0, 1.0])
def test_generalised_iou_is_iou_less_the_share_that_is_empty(turned: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(30, 7, generator=generator), torch.rand(20, 7, generator=generator)
    a[:, 6], b[:, 6] = a[:, 6] * 9 * turned, b[:, 6] * 9 * turned
    a[:9] = b[:9]
    overlaps = box_iou(a, b)
    volumes = a[:, None, 3:6].prod(dim=2) + b[:, 3:6].prod(dim=1)
    union = volumes / (1 + overlaps)
    reach_a, reach_b = extents(a[:, 3:6], a[:, 6]) / 2, extents(b[:, 3:6], b[:, 6]) / 2
    high = torch.maximum((a[:, :3] + reach_a)[:, None], b[:, :3] + reach_b)
    low = torch.minimum((a[:, :3] - reach_a)[:, None], b[:, :3] - reach_b)
    expected = overlaps - 1 + union / (high - low).prod(dim=2)
    found = generalised_iou(a, b)
    assert close(found, expected, 1e-3)
    assert ((overlaps > 0) & (overlaps < 1)).any()
    assert turned or close(found.diagonal()[:9], torch.ones(9))
    assert found.min() < 0


def test_gradients_of_overlaps_are_those_of_small_steps() -> None:
    a = torch.tensor([[0.0, 0, 0, 2, 1, 1, 0.3], [0.1, 0.2, 0, 1, 1, 2, -1]]).double()
    b = torch.tensor([[0.3, 0.1, 0.2, 1.5, 1, 1, 1.2]]).double()
    (gradient,) = torch.autograd.grad(generalised_iou(a.requires_grad_(), b).sum(), a)
    for i, column in itertools.product(range(2), range(7)):
        step = torch.zeros_like(a)
        step[i, column] = 1e-6
        rise = generalised_iou(a.detach() + step, b) - generalised_iou(a.detach() - step, b)
        assert float(gradient[i, column]) == pytest.approx(float(rise.sum()) / 2e-6, abs=1e-5)
    same = b.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generalised_iou(same, b).sum(), same)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("masked", [True, False])
def test_gradients_reach_every_parameter_and_training_lowers_the_loss(masked: bool) -> None:
    torch.manual_seed(0)
    changes = {"encoder_dropout": 0.0, "decoder_dropout": 0.0, "head_dropout": 0.0}
    detector = tiny(masked=masked, angle_bins=4, **changes).train()
    points = torch.cat([cloud(0, 300), cloud(1, 300)]) * 4 - 2
    (boxes, labels), optimiser = objects(True), torch.optim.AdamW(detector.parameters(), 1e-2)
    totals = []
    for step in range(20):
        losses = detr3d_loss(detector.outputs(points), [boxes, boxes[:1]], [labels, labels[:1]])
        loss = torch.stack(list(losses.values())).sum()
        totals.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            grads = {name: p.grad for name, p in detector.named_parameters()}
            idle = {name for name, g in grads.items() if g is None or g.abs().max() < 1e-6}
            # Queries start out as 0 and remain so after a norm, whatever its weight; a constant
            # that is added before batch normalisation changes nothing behind it.
            constants = {"encoder.layers.2.linear2.bias", "decoder.norm.bias"}
            assert idle == {"decoder.layers.0.norm1.weight", *constants}
        optimiser.step()
    assert totals[-1] < 0.9 * totals[0]
