"""Triplets of points, texts and images of one object, as ULIP learns from them.

ULIP: Xue et al., CVPR 2023 (arXiv 2212.05171). Where a triplet comes from, a reader of a public
layout, scans with annotated objects or a library of meshes, is a `TripletSource`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True)
class Triplet:
    """One object.

    `points` have z up and are in metres where the source is `metric`. `texts` holds at least one:
    the name of the class, finer names, descriptions. `images` are files and may be none. Where the
    points are cut out of a scan, `box` is the object's own box, centre and size, and the points
    reach beyond it, so that it can be moved.
    """

    points: Float32[np.ndarray, "N 3"]
    colors: UInt8[np.ndarray, "N 3"] | None
    label: str
    texts: tuple[str, ...]
    images: tuple[Path, ...] = ()
    box: Float32[np.ndarray, "6"] | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError(f"an object of class {self.label} has no text, expected at least one")


def names_with_color(names: Sequence[str], color: str | None) -> tuple[str, ...]:
    """Names, each once, and the same with the colour before them, if it is known."""
    distinct = tuple(dict.fromkeys(names))
    return distinct + (tuple(f"{color} {name}" for name in distinct) if color else ())


class TripletSource(ABC):
    """Objects by number. `classes` are those that occur, sorted; `metric` says that points are in
    metres, so that the size of an object tells something; `name` is what scores are called by."""

    classes: tuple[str, ...]
    metric: bool = False

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Triplet: ...

    @abstractmethod
    def label(self, index: int) -> str:
        """The class of an object, without reading its points."""

    def texts(self, index: int) -> tuple[str, ...]:
        """The texts of an object; without reading its points where the layout allows it."""
        return self[index].texts

    def images(self, index: int) -> tuple[Path, ...]:
        """The images of an object; without reading its points where the layout allows it."""
        return self[index].images
