"""The picture of confusions: size, determinism, and which cells are dark."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from o2s.view.confusion import CELL, MOST, draw_confusion, shown_shares


def test_the_same_bytes_again_and_nothing_beside_it(tmp_path: Path):
    counts = np.array([[3, 1], [0, 2]])
    for name in ("a.png", "b.png"):
        draw_confusion(counts, ["$chair", "table_"], tmp_path / name, title="Scores")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}


def test_cells_are_darker_the_greater_their_share_of_the_row(tmp_path: Path):
    counts = np.array([[60, 40, 0], [0, 0, 0], [0, 1, 9]])
    draw_confusion(counts, ["a", "b", "c"], tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")[..., :3]
    across = picture.shape[0] - 20 - 3 * CELL  # the first row of cells begins here
    left = int(20 + 6.2 * len("a (100)"))
    light = [
        [
            np.median(picture[across + r * CELL + 2 :][:19, left + c * CELL + 2 :][:, :19], (0, 1))
            for c in range(3)
        ]
        for r in range(3)
    ]
    red = np.array(light)[..., 0]
    assert red[0, 0] < red[0, 1] < red[0, 2]
    assert red[2, 2] < red[0, 0] < red[0, 1] < red[2, 1]
    assert np.allclose(light[1], [[0xDD / 255] * 3] * 3, atol=0.01)


def test_of_many_classes_those_with_most_objects_are_shown(tmp_path: Path):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (90, 90))
    chosen, shares = shown_shares(counts)
    objects = counts.sum(axis=1)
    left_out = np.setdiff1d(np.arange(90), chosen)
    assert len(chosen) == MOST
    assert chosen == sorted(chosen)
    assert objects[chosen].min() >= objects[left_out].max()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares[:, -1] * objects[chosen], counts[chosen][:, left_out].sum(1))
    draw_confusion(counts, [f"class {i}" for i in range(90)], tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[1] > CELL * (MOST + 1)


def test_rows_without_objects_are_no_numbers():
    chosen, shares = shown_shares(np.array([[0, 0], [1, 3]]))
    assert chosen == [0, 1]
    assert np.isnan(shares[0]).all()
    assert shares[1].tolist() == [0.25, 0.75]


def test_names_must_fit(tmp_path: Path):
    with pytest.raises(ValueError, match="1 names for 2 classes"):
        draw_confusion(np.eye(2, dtype=np.int64), ["a"], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
