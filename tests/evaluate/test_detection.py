"""Detection scores: laws, a slow plain reference, and the command as a user meets it."""

import math

import numpy as np
import pytest

from o2s.evaluate.detection import _curve_scores, _match, _pool, box_ious, score_detection
from o2s.evaluate.report import Report
from o2s.evaluate.scene_boxes import (
    PredictedBoxes,
    TrueBoxes,
)

CLASSES = ("bed", "chair", "desk")
Predictions = dict[str, PredictedBoxes]
Truth = dict[str, TrueBoxes]


def predicted(scene: str, boxes: object, scores: object, labels: list[str]) -> PredictedBoxes:
    rows = np.array(boxes, np.float64).reshape(-1, 7)
    values = np.array(scores, np.float64)
    return PredictedBoxes(scene, rows, values, tuple(labels), (None,) * len(labels))


def true(scene: str, boxes: object, labels: list[str]) -> TrueBoxes:
    rows = np.array(boxes, np.float64).reshape(-1, 7)
    return TrueBoxes(scene, tuple(map(str, range(len(labels)))), rows, tuple(labels))


def scenes(seed: int, *, count: int = 6, turned: bool = False) -> tuple[Predictions, Truth]:
    """Boxes near true ones and elsewhere, several on one object, equal scores among them."""
    rng = np.random.default_rng(seed)
    found, truth = {}, {}
    for number in range(count):
        name = f"scene{number}"
        n, m = int(rng.integers(1, 9)), int(rng.integers(0, 25))
        boxes = np.zeros((n, 7))
        boxes[:, :3], boxes[:, 3:6] = rng.uniform(-2, 2, (n, 3)), rng.uniform(0.5, 2, (n, 3))
        boxes[:, 6] = rng.uniform(-3, 3, n) * turned
        labels = rng.choice([*CLASSES[:2], ""], n)
        pick = rng.integers(0, n, m)
        noise = rng.choice([0, 0.1, 0.5], (m, 1)) * rng.normal(size=(m, 7))
        noise[:, 6] *= turned
        guessed = np.where(rng.random(m) < 0.8, labels[pick], rng.choice(CLASSES, m))
        guessed = np.where(guessed == "", CLASSES[2], guessed)
        near = np.abs(boxes[pick] + noise) * np.where(boxes[pick] < 0, -1, 1)
        found[name] = predicted(name, near, rng.integers(0, 8, m) / 8, guessed.tolist())
        truth[name] = true(name, boxes, labels.tolist())
    return found, truth


def plain_scores(
    found: Predictions, truth: Truth, label: str, threshold: float
) -> tuple[float, float]:
    """AP and AR of one class, one detection after the other."""
    detections = [
        (-score, s, i)
        for s, boxes in enumerate(found.values())
        for i, score in enumerate(boxes.scores.tolist())
        if boxes.labels[i] == label
    ]
    positives = sum(name == label for boxes in truth.values() for name in boxes.labels)
    taken, right, curve = set(), 0, []
    names = list(truth)
    for seen, (_, s, i) in enumerate(sorted(detections), 1):
        objects = truth[names[s]]
        best, which = -1.0, -1
        for j, name in enumerate(objects.labels):
            iou = box_ious(found[names[s]].boxes[i : i + 1], objects.boxes[j : j + 1])[0, 0]
            if name == label and iou > best:
                best, which = iou, j
        if best > threshold and (s, which) not in taken:
            taken.add((s, which))
            right += 1
        curve.append((right / positives if positives else 0, right / seen))
    recalls = sorted({recall for recall, _ in curve if recall > 0})
    area, before = 0.0, 0.0
    for recall in recalls:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area, before


def values(report: Report) -> dict[tuple[str, str, str], float | None]:
    return {
        (table.title, row.name, name): score.value
        for table in report.tables
        for row in table.rows
        for name, score in row.scores.items()
    }


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("turned", [False, True])
def test_scores_are_those_of_the_plain_reference(seed: int, turned: bool) -> None:
    found, truth = scenes(seed, turned=turned)
    report = score_detection(found, truth, classes=CLASSES, draws=0)
    scores = values(report)
    for name, threshold in (("0.25", 0.25), ("0.50", 0.5)):
        title = f"AP and AR at IoU {name}"
        plain = {label: plain_scores(found, truth, label, threshold) for label in CLASSES}
        for label, (ap, ar) in plain.items():
            assert scores[title, label, "AP"] == pytest.approx(ap, abs=1e-12)
            assert scores[title, label, "AR"] == pytest.approx(ar, abs=1e-12)
        means = np.mean(list(plain.values()), axis=0)
        assert scores[title, "mean of 3 classes", "AP"] == pytest.approx(means[0], abs=1e-12)
        assert scores[title, "mean of 3 classes", "AR"] == pytest.approx(means[1], abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_recall_at_k_is_the_recall_of_the_k_best_boxes_alone(seed: int) -> None:
    found, truth = scenes(seed)
    scores = values(score_detection(found, truth, classes=CLASSES, recall_at=(1, 4, 99), draws=0))
    listed = {s: true(s, t.boxes[[n != "" for n in t.labels]], []) for s, t in truth.items()}
    objects = {s: true(s, t.boxes, ["x"] * len(t.boxes)) for s, t in listed.items()}
    for count in (1, 4, 99):
        best = {}
        for s, p in found.items():
            order = sorted(range(len(p)), key=lambda i, p=p: -p.scores[i])[:count]
            best[s] = predicted(s, p.boxes[order], p.scores[order], ["x"] * len(order))
        for name, threshold in (("0.25", 0.25), ("0.50", 0.5)):
            expected = plain_scores(best, objects, "x", threshold)[1]
            key = ("class-agnostic recall", f"{count} proposals", f"IoU {name}")
            assert scores[key] == pytest.approx(expected, abs=1e-12)


def test_drawing_a_scene_twice_is_the_same_as_two_copies_of_it() -> None:
    found, truth = scenes(3)
    weights = np.array([[2, 0, 1, 3, 1, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
    for label in range(2):
        drawn = _curve_scores(
            _match(_pool(found, truth, CLASSES, "3detr"), label, [0.25]), 0, weights
        )
        for number, row in enumerate(weights[:2]):
            names = [(s, f"{s}-{i}") for s, n in zip(truth, row, strict=True) for i in range(n)]
            copies = {to: found[s] for s, to in names}, {to: truth[s] for s, to in names}
            once = np.ones((1, len(names)), np.int32)
            match = _match(_pool(*copies, CLASSES, "3detr"), label, [0.25])
            for one, several in zip(_curve_scores(match, 0, once), drawn, strict=True):
                assert several[number] == pytest.approx(one[0], abs=1e-12, nan_ok=True)
        assert np.isnan(drawn[0][2])


def test_intervals_are_seeded_and_hold_the_score_of_alike_scenes() -> None:
    found, truth = scenes(1, count=20)
    first, again, other = (
        score_detection(found, truth, classes=CLASSES, seed=seed, draws=200) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    mean = first.tables[0].rows[0].scores["AP"]
    assert mean.low is not None
    assert mean.high is not None
    assert mean.value is not None
    assert mean.low < mean.value < mean.high


def test_one_more_box_on_a_taken_object_is_wrong_and_equal_is_not_above() -> None:
    unit = [0.0, 0, 0, 1, 1, 1, 0]
    half = [0.0, 0, 0.25, 1, 1, 0.5, 0]  # IoU exactly 1/2
    truth = {"a": true("a", [unit], ["bed"])}
    for boxes, ap, ar in (
        ([unit, unit], 1.0, 1.0),
        ([half], 0.0, 0.0),
        ([half, unit], 0.5, 1.0),
    ):
        found = {"a": predicted("a", boxes, [0.9, 0.8][: len(boxes)], ["bed"] * len(boxes))}
        report = score_detection(found, truth, classes=("bed",), thresholds=(0.5,), draws=0)
        row = report.tables[0].rows[-1]
        assert (row.scores["AP"].value, row.scores["AR"].value) == (ap, ar)


def test_a_box_that_overlaps_a_taken_object_most_does_not_count_for_its_neighbour() -> None:
    truth = {"a": true("a", [[0, 0, 0, 1, 1, 1, 0], [0.2, 0, 0, 1, 1, 1, 0]], ["bed", "bed"])}
    boxes = [[0, 0, 0, 1, 1, 1, 0], [0.05, 0, 0, 1, 1, 1, 0]]
    found = {"a": predicted("a", boxes, [0.9, 0.8], ["bed", "bed"])}
    report = score_detection(found, truth, classes=("bed",), draws=0)
    assert report.tables[0].rows[-1].scores["AR"].value == 0.5


def test_a_class_without_true_boxes_counts_0_or_is_no_number() -> None:
    unit = [0.0, 0, 0, 1, 1, 1, 0]
    truth = {"a": true("a", [unit], ["bed"])}
    found = {"a": predicted("a", [unit, unit], [0.9, 0.8], ["bed", "chair"])}
    ours = score_detection(found, truth, classes=CLASSES, draws=0)
    assert ours.tables[0].rows[0].name == "mean of 2 classes"  # nothing is known of desks
    assert ours.tables[0].rows[0].scores["AP"].value == 0.5
    assert any("desk" in note for note in ours.notes)
    theirs = score_detection(found, truth, classes=CLASSES, variant="mmdet3d", draws=0)
    assert "mmdet3d" in theirs.tables[0].title
    rows = {row.name: row.scores["AP"].value for row in theirs.tables[0].rows}
    assert rows == {"mean of 2 classes": None, "bed": 1.0, "chair": None}


def test_scenes_without_boxes_and_without_truth_are_no_trouble() -> None:
    empty = np.zeros((0, 7))
    found = {s: predicted(s, empty, [], []) for s in "ab"}
    truth = {"a": true("a", [[0, 0, 0, 1, 1, 1, 0]], ["bed"]), "b": true("b", empty, [])}
    report = score_detection(found, truth, classes=CLASSES, draws=50)
    assert report.tables[0].rows[0].scores["AP"].value == 0
    nothing = score_detection(found, dict.fromkeys("ab", truth["b"]), classes=CLASSES, draws=50)
    assert set(values(nothing).values()) == {None}
    assert "not available" in nothing.markdown()


def test_true_boxes_as_predictions_score_1() -> None:
    _, truth = scenes(5, turned=True)
    found = {
        s: predicted(s, t.boxes[k], np.ones(k.sum()), [n for n in t.labels if n])
        for s, t in truth.items()
        for k in [np.array([n != "" for n in t.labels])]
    }
    report = score_detection(found, truth, classes=CLASSES, thresholds=(0.25, 0.99), draws=0)
    assert set(values(report).values()) == {1.0}


def test_iou_of_upright_boxes_is_that_of_their_intervals() -> None:
    rng = np.random.default_rng(0)
    a = np.concatenate(
        [rng.uniform(-1, 1, (30, 3)), rng.uniform(0, 2, (30, 3)), np.zeros((30, 1))], 1
    )
    a[0, 4] = 0
    ious = box_ious(a, a[::-1].copy())
    for i, j in np.ndindex(*ious.shape):
        b, overlap = a[::-1][j], 1.0
        for axis in range(3):
            low = max(a[i, axis] - a[i, 3 + axis] / 2, b[axis] - b[3 + axis] / 2)
            high = min(a[i, axis] + a[i, 3 + axis] / 2, b[axis] + b[3 + axis] / 2)
            overlap *= max(high - low, 0)
        union = a[i, 3:6].prod() + b[3:6].prod() - overlap
        assert ious[i, j] == pytest.approx(overlap / union if overlap else 0, abs=1e-15)


def test_iou_of_turned_boxes() -> None:
    square = np.array([[1.0, 2, 3, 1, 1, 1, 0]])
    turned = square + np.array([0, 0, 0, 0, 0, 0, np.pi / 4])
    octagon = 2 * (math.sqrt(2) - 1)
    assert box_ious(square, turned)[0, 0] == pytest.approx(octagon / (2 - octagon), abs=1e-14)
    rng = np.random.default_rng(1)
    a, b = (np.concatenate([rng.uniform(0.2, 2, (20, 6)), np.zeros((20, 1))], 1) for _ in range(2))
    quarter = b[:, [0, 1, 2, 4, 3, 5, 6]] + np.array([0, 0, 0, 0, 0, 0, np.pi / 2])
    np.testing.assert_allclose(box_ious(a, quarter), box_ious(a, b), atol=1e-14)
    a[:, 6], b[:, 6] = rng.uniform(-3, 3, (2, 20))
    np.testing.assert_allclose(box_ious(a, b), box_ious(b, a).T, atol=1e-14)
    cos, sin = math.cos(0.7), math.sin(0.7)
    moved = []
    for boxes in (a, b):  # turning the room changes nothing
        x, y = boxes[:, 0], boxes[:, 1]
        turned = boxes + np.array([0, 0, 0, 0, 0, 0, 0.7])
        turned[:, 0], turned[:, 1] = cos * x - sin * y, sin * x + cos * y
        moved.append(turned)
    np.testing.assert_allclose(box_ious(*moved), box_ious(a, b), atol=1e-13)
