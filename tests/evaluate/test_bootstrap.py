import numpy as np
import pytest

from o2s.evaluate.bootstrap import Sampled, draw_counts, estimate, mean_estimate, sampled_mean


def test_each_draw_has_as_many_items_as_there_are() -> None:
    counts = draw_counts(range(17), seed=0, draws=50)
    assert counts.shape == (50, 17)
    assert (counts.sum(axis=1) == 17).all()
    assert len(np.unique(counts, axis=0)) > 1


def test_items_of_a_group_are_drawn_together() -> None:
    counts = draw_counts(["a", "b", "a", "c", "b"], seed=1, draws=40)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_same_seed_draws_the_same() -> None:
    first, again = (draw_counts(range(9), seed=4, draws=5) for _ in range(2))
    assert (first == again).all()
    assert (first != draw_counts(range(9), seed=5, draws=5)).any()


def test_an_interval_has_the_width_that_theory_says() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    score = mean_estimate(values, draw_counts(range(400), seed=0, draws=2000))
    error = values.std() / 400**0.5
    assert score.value == pytest.approx(values.mean())
    assert score.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert score.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_the_mean_of_each_draw_is_that_of_its_items() -> None:
    values = np.array([1.0, 2.0, 4.0])
    counts = np.array([[3, 0, 0], [1, 1, 1], [0, 0, 3]], np.int32)
    draws = sampled_mean(values, counts).draws
    assert draws is not None
    assert draws.tolist() == pytest.approx([1.0, 7 / 3, 4.0])


def test_a_difference_is_taken_draw_by_draw() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=200)
    counts = draw_counts(range(200), seed=0, draws=500)
    better = sampled_mean(shared + 0.1, counts).minus(sampled_mean(shared, counts)).estimate()
    # The two vary together, so the difference of exactly 0.1 is certain though each alone is not.
    assert better.low == pytest.approx(0.1)
    assert better.high == pytest.approx(0.1)


def test_what_is_not_available_stays_so_in_a_difference() -> None:
    missing = Sampled(None, reason="needs Java")
    for difference in (missing.minus(Sampled(1.0)), Sampled(1.0).minus(missing)):
        assert difference.value is None
        assert difference.estimate().reason == "needs Java"


def test_no_items_have_no_mean() -> None:
    assert mean_estimate(np.zeros(0), None).value is None


def test_draws_without_a_score_do_not_count() -> None:
    score = estimate(0.5, np.array([np.nan, 0.4, 0.6]))
    assert (score.low, score.high) == (pytest.approx(0.405), pytest.approx(0.595))
    assert estimate(0.5, np.array([np.nan])).low is None
