"""Triplets as training batches: regions of one size, augmented, beside the embeddings of a text and
an image of each.

    source -> the points of the (moved) box -> P points, changed, normalised    points [B, P, C]
           -> one of its texts, embedded by the text tower                      texts [B, E]
           -> one of its images, embedded by the image tower                    images [B, E]

What comes out depends on the seed, the object's number and that of the draw alone, whatever the
order, the batch and the number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset, Sampler, Subset

from o2s.datasets.triplets import Triplet, TripletSource
from o2s.regions import normalise
from o2s.train.region_augmentation import (
    RegionAugmentation,
    change_colors,
    change_shape,
    move_box,
    occlude,
)


@dataclass(frozen=True)
class EmbeddedTexts:
    """Each distinct text and its embedding, unit vectors."""

    number: Mapping[str, int]
    vectors: Float32[Tensor, "M E"]


@dataclass(frozen=True)
class EmbeddedImages:
    """Each image file and its embedding, unit vectors; empty where no images are used."""

    number: Mapping[Path, int]
    vectors: Float32[Tensor, "V E"]


class RegionBatches(Dataset[dict[str, Tensor]]):
    """The objects of several sources as regions.

    Args:
        sources: where the objects come from.
        classes: the names of all classes, in the order of their numbers.
        texts, images: embeddings of all texts and images of the sources.
        points: P, points of a region.
        channels: C, as `regions.normalise` takes it.
        augment: random changes; None for the region as an encoder would see it in use.
        label_share: how often the text is the name of the class and not any of the texts.
        seed: of all that is random.
    """

    def __init__(
        self,
        sources: Sequence[TripletSource],
        classes: Sequence[str],
        texts: EmbeddedTexts,
        images: EmbeddedImages,
        *,
        points: int,
        channels: int,
        augment: RegionAugmentation | None,
        label_share: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.sources, self.classes = list(sources), tuple(classes)
        self.texts, self.images = texts, images
        self.points, self.channels, self.augment = points, channels, augment
        self.label_share, self.seed = label_share, seed
        self.places = [(s, i) for s, source in enumerate(sources) for i in range(len(source))]
        number = {name: i for i, name in enumerate(self.classes)}
        self.targets: list[int] = [number[sources[s].label(i)] for s, i in self.places]

    def of(self, source: int) -> Subset[dict[str, Tensor]]:
        """The objects of one of the sources, by its number, alone."""
        return Subset(self, [row for row, (s, _) in enumerate(self.places) if s == source])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        """One object; a pair is its number and that of its draw, which changes it differently."""
        index, draw = index if isinstance(index, tuple) else (index, 0)
        rng = np.random.default_rng([self.seed, index, draw])
        source, row = self.places[index]
        triplet = self.sources[source][row]
        region = cut_region(
            rng,
            triplet,
            self.points,
            self.channels,
            self.augment,
            metric=self.sources[source].metric,
        )
        text = triplet.texts[0]
        if self.augment is not None and rng.random() >= self.label_share:
            text = triplet.texts[rng.integers(len(triplet.texts))]
        number = self.texts.number[text]
        shown = [path for path in triplet.images if path in self.images.number]
        image = torch.zeros(self.images.vectors.shape[1])
        if shown:
            image = self.images.vectors[self.images.number[shown[rng.integers(len(shown))]]]
        return {
            "points": region,
            "texts": self.texts.vectors[number],
            "images": image,
            "has_image": torch.tensor(bool(shown)),
            "text_ids": torch.tensor(number),
            "classes": torch.tensor(self.targets[index]),
        }


def cut_region(
    rng: np.random.Generator,
    triplet: Triplet,
    count: int,
    channels: int,
    augment: RegionAugmentation | None,
    *,
    metric: bool = True,
) -> Float32[Tensor, "P C"]:
    """One region of an object, as Point-BERT takes it; not augmented, all points of its box.

    `metric` says that points are in metres, see `regions.normalise`.
    """

    def normalised(
        xyz: Float32[np.ndarray, "P 3"], rgb: Float32[np.ndarray, "P 3"] | None, channels: int
    ) -> Float32[Tensor, "P C"]:
        colors = None if rgb is None else torch.from_numpy(rgb)
        return normalise(torch.from_numpy(xyz), colors, channels, metric=metric)

    points, colors = triplet.points, triplet.colors
    kept = np.arange(len(points))
    if triplet.box is not None:
        spread = 0.0 if augment is None else augment.box_jitter
        inside = np.flatnonzero(move_box(rng, points, triplet.box, spread))
        kept = inside if len(inside) else kept
    if augment is not None and rng.random() < augment.occlusion:
        kept = kept[occlude(rng, points[kept])]
    chosen = draw_points(rng, kept, count)
    xyz = points[chosen]
    rgb = None if colors is None else colors[chosen].astype(np.float32) / np.float32(255)
    if augment is None:
        return normalised(xyz, rgb, channels)
    before = normalised(xyz, None, channels) if augment.on_normalised else None
    if before is not None:
        xyz = before[:, :3].numpy()
    xyz, dropped = change_shape(rng, xyz, augment)
    if rgb is not None:
        rgb[dropped] = rgb[0]
        rgb = change_colors(rng, rgb, augment)
    region = normalised(xyz, rgb, channels)
    if before is not None:
        region[:, :3] = torch.from_numpy(xyz)
        region[:, 6:] = before[:, 6:]  # the size in metres
    return region


def draw_points(
    rng: np.random.Generator, kept: Int64[np.ndarray, "N"], count: int
) -> Int64[np.ndarray, "P"]:
    """`count` of the points, each at most once where there are enough; else all and repeats."""
    if len(kept) >= count:
        return rng.choice(kept, count, replace=False)
    return np.concatenate([kept, rng.choice(kept, count - len(kept))])


class BalancedSampler(Sampler[tuple[int, int]]):
    """Epochs of draws in which rare classes come more often: pairs of object and draw; the numbers
    of draws go on from epoch to epoch.

    A class of n objects is drawn with probability proportional to n ** (1 - balance): 0 leaves
    classes as they are, 1 makes them equal.
    """

    def __init__(
        self, targets: Sequence[int], *, balance: float, seed: int, length: int | None = None
    ) -> None:
        if not 0 <= balance <= 1:
            raise ValueError(f"balance is {balance}, expected 0 to 1")
        counts = torch.bincount(torch.tensor(targets)).double()
        self.weights = (counts**-balance)[torch.tensor(targets)]
        self.seed, self.epoch = seed, 0
        self.length = len(targets) if length is None else length

    def set_epoch(self, epoch: int) -> None:
        """Another epoch draws others."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        chosen = torch.multinomial(self.weights, self.length, True, generator=generator)
        first = self.epoch * self.length
        return iter([(int(index), first + i) for i, index in enumerate(chosen)])
