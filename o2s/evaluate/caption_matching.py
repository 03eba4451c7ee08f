"""Which predicted box's caption describes which annotated object, as each public project decides.

All take the predicted boxes of a scene in their order, and its true boxes. They differ in how a box
finds its object, in what happens when several find the same, and in the comparison with the
threshold k on intersection over union (IoU):

| rule | an object's caption is that of | IoU |
| --- | --- | --- |
| scan2cap | the last box whose nearest object centre is the object's | > k |
| ll3da | the best of the boxes that overlap this object the most | > k |
| chat-scene | the best of the boxes that overlap this one the most of those annotated | >= k |
| leo | the best of the first 50 boxes, the last of equal ones | >= k |
| video-3d-llm | the best of the first 50 boxes, the first of equal ones | >= k |
| benchmark | the box that the Hungarian assignment by generalised IoU gives it | >= k |

Sources: daveredrum/Scan2Cap lib/eval_helper.py feed_scene_cap and benchmark/eval.py; Open3DA/LL3DA
eval_utils/evaluate_densecap.py; ZzZZCHS/Chat-Scene preprocess/prepare_scan2cap_annos.py;
embodied-generalist data/datasets.py LeoScan2Cap; LaVi-Lab/Video-3D-LLM
scripts/3d/preprocessing/process_scan2cap.py. Boxes count with the extent along the axes, as there.

Known faults, repeated here unless said otherwise:

- all: 1e-8 m^3 is added to the union, so an IoU of exactly k comes out below k, and ">= k" misses.
  The benchmark adds it in float32, where only the union of small boxes feels it.
- benchmark: where a scene has fewer boxes than objects, the objects that the assignment leaves
  without a box get the first one; and its generalised IoU, which measures overlaps along the wrong
  axes, never sees any. Only `as_published` repeats these.
- benchmark: a scene without any box leaves the mean. Here its objects count as missed.
- scan2cap: its arrays of objects are padded with zeros, and a box near the origin may go to one of
  those. Not repeated.
- video-3d-llm: a missed object is compared with the descriptions of the object before it in the
  file. Not repeated.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import linear_sum_assignment

FIRST = 50  # boxes that LEO and Video-3D-LLM look at
_EPSILON = 1e-8  # which all of them add to the union, in cubic metres


def match(
    rule: str,
    predicted: Float64[np.ndarray, "R 7"],
    true: Float64[np.ndarray, "G 7"],
    annotated: Bool[np.ndarray, "G"],
    threshold: float,
    *,
    as_published: bool = False,
) -> Int64[np.ndarray, "G"]:
    """The number of the predicted box of each true object, -1 where it is missed.

    Args:
        rule: one of RULES.
        predicted: the R predicted boxes of a scene.
        true: its G objects.
        annotated: which of them have captions; the others never match.
        threshold: k.
        as_published: repeat the faults of "benchmark" that are named above.
    """
    chosen = np.full(len(true), -1)
    if len(predicted) and annotated.any():
        overlaps = overlap(predicted, true, np.float32 if rule == "benchmark" else np.float64)
        if rule == "benchmark":
            _benchmark(chosen, overlaps, predicted, true, annotated, threshold, as_published)
        else:
            RULES[rule](chosen, overlaps, predicted, true, annotated, threshold)
    chosen[~annotated] = -1
    return chosen


def overlap(
    a: Float64[np.ndarray, "R 7"],
    b: Float64[np.ndarray, "G 7"],
    precision: type[np.floating] = np.float64,
) -> Float[np.ndarray, "R G"]:
    """IoU of the extents of boxes along the axes, computed in the given precision."""
    intersection, union, _ = _volumes(a, b, precision)
    return intersection / (union + precision(_EPSILON))


def _scan2cap(chosen, overlaps, predicted, true, annotated, threshold) -> None:
    squared = ((predicted[:, None, :3] - true[None, :, :3]) ** 2).sum(axis=-1)
    nearest = squared.argmin(axis=1)
    for box, target in enumerate(nearest):
        if overlaps[box, target] > threshold:
            chosen[target] = box


def _ll3da(chosen, overlaps, predicted, true, annotated, threshold) -> None:
    best = np.zeros(len(true))
    for box, target in enumerate(overlaps.argmax(axis=1)):
        if overlaps[box, target] > max(threshold, best[target]):
            best[target], chosen[target] = overlaps[box, target], box


def _chat_scene(chosen, overlaps, predicted, true, annotated, threshold) -> None:
    among = np.where(annotated, overlaps, -1.0)
    best = np.full(len(true), -1.0)
    for box, target in enumerate(among.argmax(axis=1)):
        if among[box, target] > best[target]:
            best[target], chosen[target] = among[box, target], box
    chosen[best < threshold] = -1


def _leo(chosen, overlaps, predicted, true, annotated, threshold) -> None:
    first = overlaps[:FIRST]
    last_best = len(first) - 1 - first[::-1].argmax(axis=0)
    found = first.max(axis=0) >= threshold
    chosen[found] = last_best[found]


def _video_3d_llm(chosen, overlaps, predicted, true, annotated, threshold) -> None:
    first = overlaps[:FIRST]
    found = (first.max(axis=0) >= threshold) & (first.max(axis=0) > 0)
    chosen[found] = first.argmax(axis=0)[found]


def _benchmark(chosen, overlaps, predicted, true, annotated, threshold, as_published) -> None:
    columns = np.flatnonzero(annotated)
    alike = _generalised(predicted, true[columns], sees_overlap=not as_published)
    box_of = np.zeros(len(columns), int) if as_published else np.full(len(columns), -1)
    boxes, targets = linear_sum_assignment(-alike)
    box_of[targets] = boxes
    for box, target in zip(box_of, columns, strict=True):
        if box >= 0 and overlaps[box, target] >= threshold:
            chosen[target] = box


RULES: dict[str, Callable[..., None]] = {
    "scan2cap": _scan2cap,
    "ll3da": _ll3da,
    "chat-scene": _chat_scene,
    "leo": _leo,
    "video-3d-llm": _video_3d_llm,
    "benchmark": _benchmark,
}


def _generalised(
    a: Float64[np.ndarray, "R 7"], b: Float64[np.ndarray, "G 7"], *, sees_overlap: bool
) -> Float64[np.ndarray, "R G"]:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of the extents along the axes."""
    intersection, union, hull = _volumes(a, b, np.float64)
    if not sees_overlap:
        intersection, union = np.zeros_like(intersection), union + intersection
    iou = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return iou - np.divide(hull - union, hull, out=np.zeros_like(hull), where=hull > 0)


def _volumes(
    a: Float64[np.ndarray, "R 7"], b: Float64[np.ndarray, "G 7"], precision: type[np.floating]
) -> tuple[Float[np.ndarray, "R G"], Float[np.ndarray, "R G"], Float[np.ndarray, "R G"]]:
    """Volumes of intersections, unions and common hulls."""
    low_a, high_a, low_b, high_b = (
        corner.astype(precision) for boxes in (a, b) for corner in _extent(boxes)
    )
    low_a, high_a = low_a[:, None], high_a[:, None]
    inside = np.minimum(high_a, high_b) - np.maximum(low_a, low_b)
    intersection = inside.clip(min=0).prod(axis=-1)
    sums = (high_a - low_a).prod(axis=-1) + (high_b - low_b).prod(axis=-1)
    hull = (np.maximum(high_a, high_b) - np.minimum(low_a, low_b)).prod(axis=-1)
    return intersection, sums - intersection, hull


def _extent(
    boxes: Float64[np.ndarray, "R 7"],
) -> tuple[Float64[np.ndarray, "R 3"], Float64[np.ndarray, "R 3"]]:
    """Lowest and highest corner of the boxes as they stand, turned by their headings."""
    cos, sin = np.abs(np.cos(boxes[:, 6])), np.abs(np.sin(boxes[:, 6]))
    x, y, z = boxes[:, 3:6].T
    halves = np.stack([cos * x + sin * y, sin * x + cos * y, z], axis=1) / 2
    return boxes[:, :3] - halves, boxes[:, :3] + halves
