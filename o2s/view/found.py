"""A picture of a search: the objects that words found, marked in the scan."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from o2s.scene import Boxes, Scene
from o2s.view.pictures import Mark, draw_scene


def draw_found(
    scene: Scene,
    boxes: Boxes,
    path: Path,
    queries: Sequence[str],
    found: Sequence[Sequence[tuple[int, float]]],
    *,
    note: str = "",
) -> None:
    """Writes a PNG: found objects in one color a query, the other boxes grey; see `draw_scene`.

    Found objects carry rank and similarity. An object that two queries found is marked twice.

    Args:
        scene: the scan.
        boxes: all its objects.
        path: the file.
        queries: what was looked for.
        found: for each query the row in `boxes` and the similarity of its objects, best first.
        note: ends the title.
    """
    hits = [(i, rank, *hit) for i, best in enumerate(found) for rank, hit in enumerate(best, 1)]
    rows = [row for *_, row, _ in hits]
    others = torch.ones(len(boxes), dtype=torch.bool)
    others[rows] = False
    draw_scene(
        scene,
        replace(
            boxes.select(torch.tensor(rows, dtype=torch.int64)),
            labels=tuple(queries[i] for i, *_ in hits),
            scores=torch.tensor([similarity for *_, similarity in hits]),
        ),
        path,
        title=f"{scene.name}: {', '.join(queries)}{note}",
        marks=[Mark(rank, f"{rank}  {similarity:z.2f}", i) for i, rank, _, similarity in hits],
        others=boxes.select(others),
    )
