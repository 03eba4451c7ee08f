"""Triplets as batches: the same for the same numbers, and true to what they are made of."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from o2s.datasets.triplets import Triplet, TripletSource
from o2s.regions import GREY, normalise
from o2s.train.region_augmentation import RegionAugmentation
from o2s.train.region_batches import (
    BalancedSampler,
    EmbeddedImages,
    EmbeddedTexts,
    RegionBatches,
    cut_region,
    draw_points,
)

OFF = RegionAugmentation(
    on_normalised=False, dropout=0.0, scale=(1.0, 1.0), shift=0.0, perturb=0.0, turn=0.0
)
TEXTS = ("chair", "red chair", "table", "a table by the wall")


class Source(TripletSource):
    """Chairs and tables of random points; tables have no colour and chairs an image."""

    classes = ("chair", "table")

    def __init__(self, count: int = 6, metric: bool = True) -> None:
        self.count, self.metric = count, metric

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Triplet:
        rng = np.random.default_rng(index)
        points = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
        box = np.array([0, 0, 0, 1, 1, 1], np.float32)
        if index % 2:
            return Triplet(points, None, "table", TEXTS[2:], (), box)
        colors = rng.integers(0, 256, (200, 3), dtype=np.uint8)
        return Triplet(points, colors, "chair", TEXTS[:2], (Path("chair.jpg"),), box)

    def label(self, index: int) -> str:
        return "table" if index % 2 else "chair"


def batches(source: Source | None = None, **options: object) -> RegionBatches:
    vectors = F.normalize(torch.arange(12.0).reshape(4, 3) + 1, dim=1)
    texts = EmbeddedTexts({text: i for i, text in enumerate(TEXTS)}, vectors)
    images = EmbeddedImages({Path("chair.jpg"): 0}, torch.tensor([[0.0, 0.0, 1.0]]))
    values = {"points": 50, "channels": 7, "augment": None} | options
    return RegionBatches([source or Source()], ("chair", "lamp", "table"), texts, images, **values)


def test_an_object_comes_with_its_text_its_image_and_its_class() -> None:
    chair, table = batches()[0], batches()[1]
    assert (int(chair["classes"]), int(table["classes"])) == (0, 2)
    assert (int(chair["text_ids"]), int(table["text_ids"])) == (0, 2)
    assert (bool(chair["has_image"]), bool(table["has_image"])) == (True, False)
    torch.testing.assert_close(chair["images"], torch.tensor([0.0, 0.0, 1.0]))
    assert batches().targets == [0, 2, 0, 2, 0, 2]


def test_without_changes_a_region_is_what_the_encoder_sees_in_use() -> None:
    triplet = Source()[0]
    inside = (np.abs(triplet.points) <= 0.5 + 1e-5).all(axis=1)
    assert triplet.colors is not None
    count = int(inside.sum())
    expected = normalise(
        torch.from_numpy(triplet.points[inside]),
        torch.from_numpy(triplet.colors[inside].astype(np.float32) / 255),
        7,
    )
    for augment in (None, OFF):
        found = cut_region(np.random.default_rng(0), triplet, count, 7, augment)
        order = torch.cdist(expected[:, :3], found[:, :3]).argmin(dim=1)
        torch.testing.assert_close(found[order], expected, atol=1e-5, rtol=1e-5)


def test_a_source_that_is_not_in_metres_has_no_size() -> None:
    assert (batches(Source(metric=False))[0]["points"][:, 6] == 0).all()
    assert (batches()[0]["points"][:, 6] != 0).all()


def test_points_without_colour_are_grey() -> None:
    assert (batches()[1]["points"][:, 3:6] == GREY).all()


def test_ulips_changes_of_scale_stay_and_ours_are_normalised_away() -> None:
    triplet = Source()[0]
    for on_normalised, expected in ((True, 0.5), (False, 1.0)):
        augment = RegionAugmentation(
            on_normalised=on_normalised, dropout=0.0, scale=(0.5, 0.5), shift=0.0, perturb=0.0
        )
        region = cut_region(np.random.default_rng(0), triplet, 30, 3, augment)
        assert float(region.norm(dim=1).max()) == pytest.approx(expected, abs=1e-3)


def test_a_region_in_training_has_the_size_that_it_has_in_use() -> None:
    still = RegionAugmentation(
        dropout=0.0, scale=(1.0, 1.0), shift=0.0, perturb=0.0, turn=0.0, on_normalised=True
    )
    rng = np.random.default_rng(0)
    used = cut_region(rng, Source()[0], 30, 7, None)
    for augment in (still, replace(still, on_normalised=False)):
        region = cut_region(np.random.default_rng(0), Source()[0], 30, 7, augment)
        assert torch.equal(region[:, 6], region[:1, 6].expand(30))
        assert float(region[0, 6]) == pytest.approx(float(used[0, 6]), abs=0.3)


def test_one_point_is_no_reason_for_numbers_that_are_none() -> None:
    points = np.ones((20, 3), np.float32)
    augment = RegionAugmentation(on_normalised=False, warp=0.2)
    triplet = Triplet(points, None, "chair", ("chair",))
    assert cut_region(np.random.default_rng(0), triplet, 8, 7, augment).isfinite().all()


def test_the_same_draw_is_the_same_and_another_is_not() -> None:
    changed = batches(augment=RegionAugmentation())
    once, again, other = changed[(0, 4)], changed[(0, 4)], changed[(0, 5)]
    assert torch.equal(once["points"], again["points"])
    assert not torch.equal(once["points"], other["points"])


def test_texts_are_drawn_in_training_and_the_class_name_otherwise() -> None:
    drawn = batches(augment=OFF, label_share=0.5)
    counts = Counter(int(drawn[(0, i)]["text_ids"]) for i in range(400))
    assert set(counts) == {0, 1}
    assert 0.15 < counts[1] / 400 < 0.35  # half of one half
    assert {int(batches(augment=OFF, label_share=1.0)[(0, i)]["text_ids"]) for i in range(50)} == {
        0
    }


def test_too_few_points_are_all_there_before_any_repeats() -> None:
    kept = np.arange(10)
    drawn = draw_points(np.random.default_rng(0), kept, 25)
    assert len(drawn) == 25
    assert set(drawn) == set(kept)
    assert len(set(draw_points(np.random.default_rng(0), kept, 7))) == 7


@pytest.mark.parametrize("balance, share", [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_classes_are_balanced_as_asked(balance: float, share: float) -> None:
    targets = [0] * 900 + [1] * 100
    sampler = BalancedSampler(targets, balance=balance, seed=0, length=4000)
    drawn = [targets[index] for index, _ in sampler]
    assert len(drawn) == 4000
    assert drawn.count(0) / 4000 == pytest.approx(share, abs=0.03)


def test_epochs_draw_differently_and_number_their_draws_on() -> None:
    sampler = BalancedSampler([0, 1, 1], balance=0.0, seed=0, length=10)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(2)
    later = list(sampler)
    assert [index for index, _ in first] != [index for index, _ in later]
    assert [draw for _, draw in first] == list(range(10))
    assert [draw for _, draw in later] == list(range(20, 30))


def test_a_balance_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        BalancedSampler([0], balance=2.0, seed=0)
