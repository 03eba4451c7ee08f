"""Detection scores: average precision and recall at thresholds of IoU, and recall of proposals.

The rule is the one of VoteNet (Qi et al., ICCV 2019; facebookresearch/votenet, utils/eval_det.py),
which 3DETR (utils/eval_det.py) and mmdet3d (mmdet3d/evaluation/functional/indoor_eval.py) have
taken over. All detections of a class are sorted by score. Each looks at the true box of its class
and scene with the largest IoU; it is right if that IoU is above the threshold (not equal to it)
and no detection before it has that box. Else it is wrong, even if another true box would do. AP is
the area under the precision-recall curve after each precision is raised to the best at the same
or a higher recall; AR is the recall of all detections.

Two variants differ where the projects do:

    3detr    float64; a class with detections and without true boxes has AP and AR 0 in the means
    mmdet3d  boxes and scores are rounded to float32 first; such a class, and with it the means,
             is not a number

Of equal scores the earlier scene, and in it the earlier box, comes first. The projects sort them
with NumPy's unstable sort, so that there they come in the order of the machine's processor.

Recall at k: the same rule for all objects as one class, with the k best boxes of each scene alone.
It is one to one: several boxes on one object count once, and a box that overlaps a taken object
most is lost. Counting an object as found if any box overlaps it enough gives at least as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from o2s.evaluate.bootstrap import DRAWS, Estimate, draw_counts, estimate
from o2s.evaluate.report import Report, Row, Table
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes
from o2s.ops.boxes import pair_iou
from o2s.ops.kernels import compiled

Variant = Literal["3detr", "mmdet3d"]
THRESHOLDS = (0.25, 0.5)
RECALL_AT = (8, 16, 32, 64, 128, 256)


def score_detection(
    predictions: Mapping[str, PredictedBoxes],
    truth: Mapping[str, TrueBoxes],
    *,
    classes: Sequence[str],
    class_agnostic: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
    recall_at: Sequence[int] = RECALL_AT,
    variant: Variant = "3detr",
    seed: int = 0,
    draws: int = DRAWS,
    made_from: Mapping[str, Any] | None = None,
) -> Report:
    """AP and AR of each class and their means, and class-agnostic recall at k.

    Args:
        predictions: boxes of each scene of `truth`; labels are of `classes`.
        truth: the true boxes. Those whose label is not of `classes` are left out.
        classes: the classes to score, in the order of the report.
        class_agnostic: take all objects as one class "object", whatever their labels.
        thresholds: a detection is right above this IoU; in [0, 1).
        recall_at: the numbers k of proposals.
        variant: as above.
        seed: of the intervals, for which whole scenes are drawn.
        draws: how many times; 0 for no intervals.
        made_from: what else the report names.
    """
    pool = _pool(predictions, truth, classes, variant)
    anything = _match(pool, None, thresholds)
    if class_agnostic:
        matches = {"object": anything}
    else:
        all_matches = {name: _match(pool, i, thresholds) for i, name in enumerate(classes)}
        matches = {n: m for n, m in all_matches.items() if m.truth.any() or len(m.scenes)}
    weights = draw_counts(range(pool.scenes), seed=seed, draws=draws) if draws else None
    tables = [
        Table(
            f"AP and AR at IoU {_named(t)}{_as(variant)}", _class_rows(matches, i, variant, weights)
        )
        for i, t in enumerate(thresholds)
    ]
    if class_agnostic:
        tables = [Table(f"class-agnostic {t.title}", t.rows) for t in tables]
    rows = [_recall_row(pool, anything, k, thresholds, weights) for k in recall_at]
    facts = {
        "variant": variant,
        "thresholds": list(thresholds),
        "recall_at": list(recall_at),
        "scenes": pool.scenes,
        "seed": seed,
        "draws": draws,
    }
    notes = _notes(matches, classes, class_agnostic, variant)
    title = f"class-agnostic recall{_as(variant)}"
    return Report("detection", [*tables, Table(title, rows)], facts | dict(made_from or {}), notes)


def box_ious(
    a: Float64[np.ndarray, "R 7"], b: Float64[np.ndarray, "S 7"]
) -> Float64[np.ndarray, "R S"]:
    """IoU of boxes as rows of centre, size and heading, 0 where a box has no volume.

    Pairs without headings are computed as differences of corners, the others by clipping one
    footprint against the other, all in float64.
    """
    half_a, half_b = a[:, 3:6] / 2, b[:, 3:6] / 2
    high = np.minimum((a[:, :3] + half_a)[:, None], b[:, :3] + half_b)
    low = np.maximum((a[:, :3] - half_a)[:, None], b[:, :3] - half_b)
    overlap = np.maximum(high - low, 0).prod(axis=2)
    union = a[:, 3:6].prod(axis=1)[:, None] + b[:, 3:6].prod(axis=1) - overlap
    ious = np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
    turned = (a[:, 6] != 0)[:, None] | (b[:, 6] != 0)
    if turned.any():
        rows, columns = np.nonzero(turned)
        ious[rows, columns] = _clipped_ious(a[rows], b[columns])
    return ious


@dataclass(frozen=True)
class _Pool:
    """The detections of all scenes, scene by scene, and how many true boxes there are.

    For each detection the true box with the largest IoU among all (`any_`) and among those of its
    class (`own_`): which (a number over all scenes) and how much, -1 where there is none.
    """

    scenes: int  # their number
    scene: Int64[np.ndarray, "D"]
    label: Int64[np.ndarray, "D"]
    score: Float64[np.ndarray, "D"]
    any_target: Int64[np.ndarray, "D"]
    any_iou: Float64[np.ndarray, "D"]
    own_target: Int64[np.ndarray, "D"]
    own_iou: Float64[np.ndarray, "D"]
    truth: Int64[np.ndarray, "S C"]  # true boxes of each scene and class


@dataclass(frozen=True)
class _Match:
    """The detections of one class, best first: their scenes and whether they are right."""

    scenes: Int64[np.ndarray, "D"]
    right: Bool[np.ndarray, "J D"]  # at each threshold
    ranks: Int64[np.ndarray, "D"]  # among the detections of the class in the same scene, from 0
    truth: Int64[np.ndarray, "S"]  # true boxes of the class in each scene


def _pool(
    predictions: Mapping[str, PredictedBoxes],
    truth: Mapping[str, TrueBoxes],
    classes: Sequence[str],
    variant: Variant,
) -> _Pool:
    number = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(truth), len(classes)), np.int64)
    columns: list[list[np.ndarray]] = []
    begin = 0
    for scene, (name, true) in enumerate(truth.items()):
        found = predictions[name]
        kept = np.array([label in number for label in true.labels], bool)
        true_labels = np.array([number[n] for n in true.labels if n in number], np.int64)
        labels = np.array([number.get(n, -1) for n in found.labels], np.int64)
        ious = box_ious(_rounded(found.boxes, variant), _rounded(true.boxes[kept], variant))
        own = np.where(labels[:, None] == true_labels, ious, -1.0)
        scores = _rounded(found.scores, variant)
        scenes = np.full(len(found), scene, np.int64)
        columns.append([scenes, labels, scores, *_best(ious, begin), *_best(own, begin)])
        np.add.at(counts[scene], true_labels, 1)
        begin += len(true_labels)
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
    names = ("scene", "label", "score", "any_target", "any_iou", "own_target", "own_iou")
    fields = dict(zip(names, joined, strict=True))
    return _Pool(scenes=len(truth), truth=counts, **fields)


def _best(
    ious: Float64[np.ndarray, "R S"], begin: int
) -> tuple[Int64[np.ndarray, "R"], Float64[np.ndarray, "R"]]:
    """The first of the true boxes that a detection overlaps most, and by how much."""
    if not ious.shape[1]:
        return np.full(len(ious), -1, np.int64), np.full(len(ious), -1.0)
    target = ious.argmax(axis=1)
    return target + begin, ious[np.arange(len(ious)), target]


def _match(pool: _Pool, label: int | None, thresholds: Sequence[float]) -> _Match:
    """The detections of one class, or of all as one class, against the truth."""
    if label is None:
        chosen = np.arange(len(pool.scene))
        target, iou, truth = pool.any_target, pool.any_iou, pool.truth.sum(axis=1)
    else:
        chosen = np.flatnonzero(pool.label == label)
        target, iou, truth = pool.own_target, pool.own_iou, pool.truth[:, label]
    order = chosen[np.argsort(-pool.score[chosen], kind="stable")]
    right = np.zeros((len(thresholds), len(order)), bool)
    for row, threshold in zip(right, thresholds, strict=True):
        near = np.flatnonzero(iou[order] > threshold)
        # What a detection aims at does not depend on the others: the first to aim has the box.
        row[near[np.unique(target[order][near], return_index=True)[1]]] = True
    scenes = pool.scene[order]
    return _Match(scenes, right, _ranks(scenes), truth)


def _ranks(scenes: Int64[np.ndarray, "D"]) -> Int64[np.ndarray, "D"]:
    """How many rows before a row are of the same scene."""
    order = np.argsort(scenes, kind="stable")
    begins = np.searchsorted(scenes[order], scenes[order])
    ranks = np.empty(len(scenes), np.int64)
    ranks[order] = np.arange(len(scenes)) - begins
    return ranks


def _curve_scores(
    match: _Match, threshold: int, weights: Int32[np.ndarray, "W S"]
) -> tuple[Float64[np.ndarray, "W"], Float64[np.ndarray, "W"]]:
    """AP and AR where scene s is there `weights[:, s]` times; not a number without true boxes.

    A right detection that is there w times raises the recall in w steps; as precision rises on the
    way, all of them have at least the precision after the last: one step of w is the same.
    """
    positives = weights @ match.truth
    hits = np.flatnonzero(match.right[threshold])
    ap, ar = np.zeros(len(weights)), np.zeros(len(weights))
    step = max(1, _CHUNK // max(1, len(match.scenes)))
    for start in range(0, len(weights) if len(hits) else 0, step):
        chunk = weights[start : start + step]
        seen = chunk[:, match.scenes].cumsum(axis=1, dtype=np.int32)[:, hits]
        gain = chunk[:, match.scenes[hits]]
        found = gain.cumsum(axis=1, dtype=np.int32)
        precision = found / np.maximum(seen, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        ap[start : start + step] = (gain * best).sum(axis=1)
        ar[start : start + step] = found[:, -1]
    return _shares(ap, positives), _shares(ar, positives)


def _class_rows(
    matches: Mapping[str, _Match],
    threshold: int,
    variant: Variant,
    weights: Int32[np.ndarray, "W S"] | None,
) -> list[Row]:
    """The mean, if there are several classes, and each class.

    A class whose true boxes are all in scenes that were not drawn is no part of that draw's mean.
    """
    rows: list[Row] = []
    values: dict[str, list[float]] = {"AP": [], "AR": []}
    drawn: dict[str, list[np.ndarray]] = {"AP": [], "AR": []}
    for name, match in matches.items():
        once = np.ones((1, len(match.truth)), np.int32)
        whole = dict(zip(values, _curve_scores(match, threshold, once), strict=True))
        if weights is None:
            several = dict.fromkeys(values, np.zeros(0))
        else:
            several = dict(zip(values, _curve_scores(match, threshold, weights), strict=True))
        scores = {}
        for key, value in whole.items():
            lacking = not match.truth.any()
            scores[key] = (
                _without_truth(variant) if lacking else estimate(float(value[0]), several[key])
            )
            values[key].append(0.0 if lacking else float(value[0]))
            drawn[key].append(np.zeros_like(several[key]) if lacking else several[key])
        counts = {"truth": int(match.truth.sum()), "detections": len(match.scenes)}
        rows.append(Row(name, counts, scores))
    if list(matches) == ["object"]:
        return rows
    means = {key: _mean(values[key], drawn[key]) for key in values}
    if variant == "mmdet3d" and not all(match.truth.any() for match in matches.values()):
        means = dict.fromkeys(values, _without_truth(variant))
    totals = {key: sum(row.counts[key] for row in rows) for key in ("truth", "detections")}
    return [Row(f"mean of {len(rows)} classes", totals, means), *rows]


def _mean(values: list[float], drawn: list[np.ndarray]) -> Estimate:
    if not values:
        return Estimate.unavailable("neither true boxes nor detections")
    table = np.array(drawn)
    known = np.isfinite(table)
    return estimate(float(np.mean(values)), _shares(np.where(known, table, 0).sum(0), known.sum(0)))


def _without_truth(variant: Variant) -> Estimate:
    if variant == "mmdet3d":
        return Estimate.unavailable("a class has detections and no true boxes")
    return Estimate(0.0)


def _recall_row(
    pool: _Pool,
    anything: _Match,
    count: int,
    thresholds: Sequence[float],
    weights: Int32[np.ndarray, "W S"] | None,
) -> Row:
    scores = {}
    for right, threshold in zip(anything.right, thresholds, strict=True):
        hits = anything.scenes[right & (anything.ranks < count)]
        found = np.bincount(hits, minlength=pool.scenes)
        name = f"IoU {_named(threshold)}"
        if not anything.truth.any():
            scores[name] = Estimate.unavailable("no true boxes")
            continue
        drawn = np.zeros(0)
        if weights is not None:
            drawn = _shares((weights @ found).astype(np.float64), weights @ anything.truth)
        scores[name] = estimate(float(found.sum() / anything.truth.sum()), drawn)
    counts = {
        "truth": int(anything.truth.sum()),
        "detections": int((anything.ranks < count).sum()),
    }
    return Row(f"{count} proposals", counts, scores)


def _notes(
    matches: Mapping[str, _Match], classes: Sequence[str], class_agnostic: bool, variant: Variant
) -> list[str]:
    notes = [
        "a detection is right if its IoU with the true box that it overlaps most is above the "
        "threshold and no detection with a higher score has that box",
        "recall at k takes all objects as one class and the k best boxes of each scene",
    ]
    if class_agnostic:
        text = "the detector gives no classes: all objects of the class list are one class"
        return [*notes, f'{text}, "object"']
    absent = [name for name in classes if name not in matches]
    if absent:
        text = "neither true boxes nor detections, not in the means"
        notes.append(f"{text}: {', '.join(absent)}")
    lacking = [name for name, match in matches.items() if not match.truth.any()]
    if lacking:
        text = {"3detr": "0 in the means", "mmdet3d": "the means are not a number"}[variant]
        notes.append(f"detections but no true boxes, {text}: {', '.join(lacking)}")
    return notes


_CHUNK = 2**22  # numbers that are computed at once, to stay in a few tens of megabytes


def _shares(
    part: Float64[np.ndarray, "W"], whole: Int64[np.ndarray, "W"]
) -> Float64[np.ndarray, "W"]:
    """part / whole, not a number where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _rounded(
    values: Float64[np.ndarray, "*shape"], variant: Variant
) -> Float64[np.ndarray, "*shape"]:
    return values.astype(np.float32).astype(np.float64) if variant == "mmdet3d" else values


def _named(threshold: float) -> str:
    return f"{threshold:.2f}" if round(threshold, 2) == threshold else f"{threshold!r}"


def _as(variant: Variant) -> str:
    return "" if variant == "3detr" else f", as {variant}"


@compiled
def _clipped_ious(a, b):
    ious = np.empty(len(a))
    for i in range(len(a)):
        ious[i] = pair_iou(a[i], b[i])
    return ious
