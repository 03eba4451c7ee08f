import numpy as np
import pytest

from o2s.evaluate.caption_matching import RULES, match, overlap


def random_scene(seed: int, predicted: int = 12, true: int = 6) -> tuple[np.ndarray, ...]:
    """Boxes on a coarse grid, so that equal overlaps and equal distances are common."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        rows = np.zeros((count, 7))
        rows[:, :3] = rng.integers(0, 4, size=(count, 3)) / 2
        rows[:, 3:6] = rng.integers(1, 4, size=(count, 3)) / 2
        return rows

    annotated = rng.random(true) < 0.7
    annotated[0] = True
    return boxes(predicted), boxes(true), annotated


def plain_overlap(a: np.ndarray, b: np.ndarray) -> float:
    shared = 1.0
    for axis in range(3):
        low = max(a[axis] - a[3 + axis] / 2, b[axis] - b[3 + axis] / 2)
        high = min(a[axis] + a[3 + axis] / 2, b[axis] + b[3 + axis] / 2)
        shared *= max(high - low, 0)
    return shared / (np.prod(a[3:6]) + np.prod(b[3:6]) - shared + 1e-8)


def plain_match(rule, predicted, true, annotated, k):
    """Each rule as its project's loops decide it."""
    chosen = [-1] * len(true)
    if rule == "scan2cap":
        for i, box in enumerate(predicted):
            distances = [sum((box[:3] - other[:3]) ** 2) for other in true]
            target = distances.index(min(distances))
            if plain_overlap(box, true[target]) > k:
                chosen[target] = i
    elif rule == "ll3da":
        best = [0.0] * len(true)
        for i, box in enumerate(predicted):
            overlaps = [plain_overlap(box, other) for other in true]
            target = overlaps.index(max(overlaps))
            if overlaps[target] > k and overlaps[target] > best[target]:
                best[target], chosen[target] = overlaps[target], i
    elif rule == "chat-scene":
        best = [-1.0] * len(true)
        for i, box in enumerate(predicted):
            largest, target = -1.0, -1
            for j, other in enumerate(true):
                if annotated[j] and plain_overlap(box, other) > largest:
                    largest, target = plain_overlap(box, other), j
            if largest > best[target]:
                best[target], chosen[target] = largest, i
        chosen = [c if b >= k else -1 for c, b in zip(chosen, best, strict=True)]
    elif rule in ("leo", "video-3d-llm"):
        for j, other in enumerate(true):
            largest = k if rule == "leo" else 0.0
            for i, box in enumerate(predicted[:50]):
                iou = plain_overlap(box, other)
                if (rule == "leo" and iou >= largest) or (iou >= k and iou > largest):
                    largest, chosen[j] = iou, i
    return [c if a else -1 for c, a in zip(chosen, annotated, strict=True)]


@pytest.mark.parametrize("rule", [name for name in RULES if name != "benchmark"])
@pytest.mark.parametrize("k", [0.25, 0.5])
def test_boxes_find_objects_as_each_project_decides(rule: str, k: float) -> None:
    found = 0
    for seed in range(150):
        predicted, true, annotated = random_scene(seed, predicted=3 + seed % 60)
        ours = match(rule, predicted, true, annotated, k).tolist()
        assert ours == plain_match(rule, predicted, true, annotated, k), seed
        found += sum(box >= 0 for box in ours)
    assert found > 30


@pytest.mark.parametrize("seed", range(20))
def test_the_benchmark_gives_each_box_to_one_object(seed: int) -> None:
    predicted, true, annotated = random_scene(seed)
    ours = match("benchmark", predicted, true, annotated, 0.25)
    taken = ours[ours >= 0]
    assert len(set(taken.tolist())) == len(taken)
    assert (ours[~annotated] == -1).all()
    for target in np.flatnonzero(ours >= 0):
        assert plain_overlap(predicted[ours[target]], true[target]) >= 0.2499


def test_the_benchmark_assigns_before_it_looks_at_the_threshold() -> None:
    # The first box fits the first object best, but the second object has no other box near it.
    true = np.array([[0, 0, 0, 1, 1, 1, 0], [1, 0, 0, 1, 1, 1, 0]], float)
    predicted = np.array([[0.4, 0, 0, 1, 1, 1, 0], [-0.45, 0, 0, 1, 1, 1, 0]], float)
    both = np.array([True, True])
    assert match("benchmark", predicted, true, both, 0.2).tolist() == [1, 0]
    assert match("ll3da", predicted, true, both, 0.2).tolist() == [0, -1]


def test_the_benchmark_as_published_gives_its_first_box_to_the_rest() -> None:
    true = np.array([[0, 0, 0, 1, 1, 1, 0], [0.25, 0, 0, 1, 1, 1, 0]], float)
    predicted = np.array([[0, 0, 0, 1, 1, 1, 0]], float)
    both = np.array([True, True])
    assert match("benchmark", predicted, true, both, 0.5).tolist() == [0, -1]
    assert match("benchmark", predicted, true, both, 0.5, as_published=True).tolist() == [0, 0]


@pytest.mark.parametrize("rule", RULES)
def test_no_boxes_find_nothing(rule: str) -> None:
    _, true, annotated = random_scene(0)
    assert (match(rule, np.zeros((0, 7)), true, annotated, 0.25) == -1).all()


@pytest.mark.parametrize("rule", RULES)
def test_an_overlap_of_exactly_the_threshold_misses_but_in_the_benchmark(rule: str) -> None:
    true = np.array([[0, 0, 0, 1, 1, 1, 0]], float)
    half = np.array([[0, 0, 0, 1, 1, 0.5, 0]], float)  # IoU 1/2
    expected = [0] if rule == "benchmark" else [-1]
    assert match(rule, half, true, np.array([True]), 0.5).tolist() == expected
    assert match(rule, half, true, np.array([True]), 0.49).tolist() == [0]


def test_a_turned_box_counts_with_its_extent() -> None:
    turned = np.array([[0, 0, 0, 2, 1, 1, np.pi / 2]])
    upright = np.array([[0, 0, 0, 1, 2, 1, 0]], float)
    assert overlap(turned, upright)[0, 0] == pytest.approx(1)


def test_boxes_without_volume_overlap_nothing() -> None:
    flat = np.array([[0, 0, 0, 1, 1, 0, 0]], float)
    assert overlap(flat, flat)[0, 0] == 0
