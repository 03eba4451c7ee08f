"""Pictures of what a detector found and missed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from o2s.evaluate.detection import box_ious
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes
from o2s.io import read_scene
from o2s.scene import Boxes
from o2s.view.pictures import Mark, draw_scene

SCORE = 0.3  # boxes below are not drawn
RIGHT, WRONG, MISSED = 2, 5, 0  # numbers of colours in `view.pictures.PALETTE`: green, red, orange


@dataclass(frozen=True)
class Judged:
    """Rows of the boxes that are right, of those that are wrong, and of the objects missed."""

    right: tuple[int, ...]
    wrong: tuple[int, ...]
    missed: tuple[int, ...]


def judge(
    found: PredictedBoxes, truth: TrueBoxes, classes: Sequence[str], iou: float = 0.25
) -> Judged:
    """Which boxes find an object, as `score_detection` counts them.

    Of boxes that overlap by more than half the best alone counts, and none of a score below 0.3.
    Boxes "object" of detectors without classes find objects of any class.
    """
    overlaps = box_ious(found.boxes, found.boxes)
    rows: list[int] = []
    for row in np.argsort(-found.scores, kind="stable"):
        if found.scores[row] >= SCORE and not (overlaps[row, rows] > 0.5).any():
            rows.append(int(row))
    objects = [i for i, label in enumerate(truth.labels) if label in classes]
    ious = box_ious(found.boxes, truth.boxes)
    taken: set[int] = set()
    right, wrong = [], []
    for row in rows:
        label = found.labels[row]
        fitting = [i for i in objects if label in ("", "object", truth.labels[i])]
        best = max(fitting, key=lambda i: ious[row, i], default=None)
        if best is None or ious[row, best] <= iou or best in taken:
            wrong.append(row)
        else:
            taken.add(best)
            right.append(row)
    return Judged(tuple(right), tuple(wrong), tuple(i for i in objects if i not in taken))


def draw_detections(
    scans: Mapping[str, Path],
    predictions: Mapping[str, PredictedBoxes],
    truth: Mapping[str, TrueBoxes],
    classes: Sequence[str],
    folder: Path,
    update: Callable[[int, int], None],
) -> None:
    """A picture a scan, FOLDER/<scene>.png: green boxes are right, red ones wrong, orange objects
    were missed."""
    folder.mkdir(parents=True, exist_ok=True)
    for done, (name, scan) in enumerate(scans.items()):
        update(done, len(scans))
        scene = read_scene(scan)
        found, true = predictions[name], truth[name]
        judged = judge(found, true, classes)
        drawn = [(found.boxes[i], found.labels[i], found.scores[i], RIGHT) for i in judged.right]
        drawn += [(found.boxes[i], found.labels[i], found.scores[i], WRONG) for i in judged.wrong]
        drawn += [(true.boxes[i], true.labels[i], 1.0, MISSED) for i in judged.missed]
        boxes = np.array([box for box, *_ in drawn]).reshape(-1, 7)
        boxes[:, :3] -= scene.offset.numpy()
        rows = torch.from_numpy(boxes).float()
        scores = torch.tensor([score for *_, score, _ in drawn], dtype=torch.float32)
        labels = tuple(label for _, label, *_ in drawn)
        objects = len(judged.right) + len(judged.missed)
        title = f"{name}: {len(judged.right)} of {objects} objects found (green), "
        title += f"{len(judged.wrong)} wrong boxes (red), {len(judged.missed)} missed (orange)"
        draw_scene(
            scene,
            Boxes(rows[:, :3], rows[:, 3:6], rows[:, 6], scores, labels),
            folder / f"{name}.png",
            title=title,
            marks=[Mark(i, label, color) for i, (_, label, _, color) in enumerate(drawn, 1)],
        )
