"""What every detector is: a module that turns scans into scored boxes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from o2s.scene import Boxes, Scene


class Detector(nn.Module, ABC):
    """Proposes regions of interest.

    A learned detector is a subclass with parameters that overrides `forward` (and `detect`, if
    it gains from batching). `classes` are the labels that it can give; `needs_training` is true
    where its boxes mean nothing before it has been trained.
    """

    classes: tuple[str, ...]
    needs_training: bool

    @abstractmethod
    def forward(self, scene: Scene) -> Boxes:
        """The boxes of one scan in scene coordinates, best first."""

    def detect(self, scenes: Sequence[Scene]) -> list[Boxes]:
        """The boxes of several scans; the same as one by one."""
        return [self(scene) for scene in scenes]
