"""The embeddings of whole shapes, by a region encoder: public test sets and meshes of furniture.

    source -> P points of each shape, normalised    regions [N, P, C]
           -> region encoder                        features [N, D], length 1

Of shapes with more points ULIP takes the farthest ones of a loop that begins at random
(github.com/salesforce/ULIP, data/dataset_3d.py, `farthest_point_sample`). Here they are drawn at
random by a seed, as the points of regions are, or by that loop from the first point on.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from o2s.datasets.furniture import SPLITS, FurnitureLibrary
from o2s.datasets.furniture_objects import FurnitureObjects
from o2s.datasets.modelnet import ModelNet40
from o2s.datasets.openshape import ScanObjectNN
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.datasets.ulip import ObjaverseLvis
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.evaluate.object_features import (
    ObjectFeatures,
    embed_regions,
    encoder_checksum,
    stored_tensors,
    weights_checksum,
)
from o2s.io.cloud import quote
from o2s.ops.boxes import points_in_boxes
from o2s.ops.sampling import farthest_point_sample, resample
from o2s.regions import RegionConfig, normalise

Sampling = Literal["random", "farthest"]
Progress = Callable[[int, int], None]
_STORED = 256  # shapes of one file of the cache


@dataclass(frozen=True)
class Layout:
    """How shapes lie on the disk: which splits there are, and what reads one."""

    splits: tuple[str, ...]
    read: Callable[[Path, str, Progress], TripletSource]


def open_shapes(
    layout: str, path: Path, split: str, *, progress: Progress = lambda done, total: None
) -> TripletSource:
    """The shapes at a path.

    Args:
        layout: one of `LAYOUTS`.
        path: a folder, or the file of `scanobjectnn`.
        split: one of the layout's.
        progress: called with how much is read and how much there is, where that takes long.

    Raises:
        InputError: there is no such layout or split, or the files are missing or damaged.
    """
    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: expected one of {', '.join(LAYOUTS)}")
    splits = LAYOUTS[layout].splits
    if split not in splits:
        raise InputError(
            f"{path}: the layout {layout} has no split {quote(split)}; there is {', '.join(splits)}"
        )
    return LAYOUTS[layout].read(path, split, progress)


def embed_shapes(
    source: TripletSource,
    encoder: SceneEncoder,
    *,
    name: str = "shapes",
    classes: Sequence[str] | None = None,
    sampling: Sampling = "random",
    untrained: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ObjectFeatures:
    """Embed the shapes of a source; targets number its classes.

    Args:
        source: N shapes.
        encoder: its region encoder embeds, its config says how many points are drawn, and by
            which seed.
        name: of the source, in errors and reports.
        classes: what the targets number, instead of the source's classes. Shapes of other classes
            are left out and counted.
        sampling: what is taken of shapes with more points; see this file's head.
        untrained: the parts of the encoder that hold random numbers.
        facts: further facts about what made the features.
        cache: a folder for the embeddings; those that are there are not made again.
        progress: called with the number of shapes done and the number of all.

    Raises:
        InputError: a shape cannot be read, or none is of one of the classes.
    """
    names = tuple(source.classes if classes is None else classes)
    place = {label: i for i, label in enumerate(names)}
    labels = [source.label(i) for i in range(len(source))]
    chosen = [i for i, label in enumerate(labels) if label in place]
    if not chosen:
        there = quote(", ".join(source.classes))
        raise InputError(
            f"{name}: no shape is of one of the {len(names)} classes; its classes are {there}"
        )
    weights = weights_checksum(encoder)
    checksum = encoder_checksum(encoder, f"shapes {sampling}", weights)
    features: list[Float32[Tensor, "_ D"]] = []
    for start in range(0, len(chosen), _STORED):
        rows: list[Float32[Tensor, "P C"]] = []
        for done, i in enumerate(chosen[start : start + _STORED], start):
            if progress is not None:
                progress(done, len(chosen))
            rows.append(_region_of(source, i, encoder, sampling))
        stored = None if cache is None else cache / f"shapes_{start:06d}.safetensors"
        features.append(_embed(torch.stack(rows), encoder, checksum, stored))
    left_out = sorted({label for label in labels if label not in place})
    notes = ()
    if left_out:
        count = len(labels) - len(chosen)
        notes = (f"{count} shapes of other classes were left out: {', '.join(left_out)}",)
    return ObjectFeatures(
        features=torch.cat(features),
        targets=torch.tensor([place[labels[i]] for i in chosen]),
        source=name,
        classes=names,
        untrained=("region encoder",) if "region encoder" in untrained else (),
        notes=notes,
        made_from={
            "shapes": len(chosen),
            "points": encoder.config.regions.points,
            "sampling": sampling,
            **(facts or {}),
            "encoder": checksum,
            "weights": weights,
        },
    )


def shape_region(
    shape: Triplet,
    config: RegionConfig,
    *,
    channels: int,
    metric: bool,
    sampling: Sampling = "random",
    number: int = 0,
) -> Float32[Tensor, "P C"]:
    """One shape as the region encoder takes it; without colours it is grey.

    Args:
        shape: where it has a box, the points in the box are the shape.
        config: how many points, by which seed.
        channels: as `regions.normalise` takes them.
        metric: whether points are in metres, as `regions.normalise` takes it.
        sampling: what is taken of more points than wanted.
        number: of the shape, so that each is drawn from differently.
    """
    points = torch.tensor(shape.points)
    colors = None if shape.colors is None else torch.tensor(shape.colors).float() / 255
    inside = torch.arange(len(points))
    if shape.box is not None:
        box = torch.cat([torch.tensor(shape.box), torch.zeros(1)])[None]
        # Boxes end at their outermost points, which must not be lost by rounding.
        found = points_in_boxes(points, box, margin=config.margin + 1e-5)[0].nonzero()[:, 0]
        inside = found if len(found) else inside
    kept = inside[_draw(points[inside], config, sampling, number)]
    colors = None if colors is None else colors[kept]
    return normalise(points[kept], colors, channels, metric=metric)


def _draw(
    points: Float32[Tensor, "N 3"], config: RegionConfig, sampling: Sampling, number: int
) -> Int64[Tensor, "P"]:
    if sampling == "farthest" and len(points) > config.points:
        return farthest_point_sample(points[None], config.points)[0]
    return resample(len(points), config.points, config.seed + number)


def _region_of(
    source: TripletSource, number: int, encoder: SceneEncoder, sampling: Sampling
) -> Float32[Tensor, "P C"]:
    return shape_region(
        source[number],
        encoder.config.regions,
        channels=encoder.point_bert.config.channels,
        metric=source.metric,
        sampling=sampling,
        number=number,
    )


def _embed(
    regions: Float32[Tensor, "R P C"], encoder: SceneEncoder, checksum: str, cache: Path | None
) -> Float32[Tensor, "R D"]:
    """The embeddings of regions; from the cache if the same regions and encoder made them."""
    made_from = f"{checksum} {hashlib.sha256(regions.numpy().tobytes()).hexdigest()}"
    found = stored_tensors(cache, made_from, lambda: {"features": embed_regions(regions, encoder)})
    return found["features"]


LAYOUTS: Mapping[str, Layout] = {
    "modelnet40": Layout(
        ("train", "test"),
        lambda path, split, _: ModelNet40(path, "train" if split == "train" else "test"),
    ),
    "modelnet10": Layout(
        ("train", "test"),
        lambda path, split, _: ModelNet40(
            path, "train" if split == "train" else "test", categories=10
        ),
    ),
    "objaverse-lvis": Layout(("test",), lambda path, _split, _: ObjaverseLvis(path)),
    "scanobjectnn": Layout(("test",), lambda path, _split, _: ScanObjectNN(path)),
    "furniture": Layout(
        SPLITS,
        lambda path, split, progress: FurnitureObjects(
            FurnitureLibrary.open(path), split=split, images=None, scans=0, progress=progress
        ),
    ),
}
