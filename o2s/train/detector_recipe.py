"""The recipe of a detector: a YAML file as a dataclass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from o2s.detect.detr3d import Detr3d, Detr3dConfig
from o2s.detect.detr3d_loss import SetLossConfig
from o2s.detect.tr3d import SCANNET, SUNRGBD, Tr3d, Tr3dConfig
from o2s.errors import InputError
from o2s.io.cloud import quote
from o2s.train.checks import check_optimisation
from o2s.train.detector_augmentation import DetectorAugmentation


@dataclass(frozen=True)
class DetectorData:
    """The annotated scans.

    Args:
        scenes: the folder that `o2s prepare` wrote, with train and val scans.
        classes: the prepared class list that names the objects.
        leave_out: classes that are no objects.
        coarse_above: classes whose objects are longer than this in the median, in metres, are
            learned by the coarser cells; only for class lists without a published choice.
    """

    scenes: str = "prepared"
    classes: str = "scannet18"
    leave_out: Sequence[str] = field(default_factory=list)
    coarse_above: float = 1.0


@dataclass(frozen=True)
class DetectorOptimisation:
    """How long and how fast it learns.

    Args:
        epochs: passes over all scans, `repeats` times each.
        batch_size: scans in each process at each step.
        drop_at: "step" schedules: the learning rate falls to a tenth after these shares of the run.
        schedule: "step", or "cosine" to nothing after `warmup`, a share of the run.
    """

    epochs: int = 12
    repeats: int = 15
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "step"
    drop_at: Sequence[float] = (8 / 12, 11 / 12)
    warmup: float = 0.0
    clip: float = 10.0
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_optimisation(self)
        if self.schedule not in ("step", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}, expected step or cosine")
        if not all(0 <= share <= 1 for share in self.drop_at):
            raise ValueError(f"drop_at is {self.drop_at}, expected shares from 0 to 1")


@dataclass(frozen=True)
class DetectorRecipe:
    """All that `o2s train detector` does.

    Args:
        data: annotated scans.
        detector: which is trained, of the size that `tr3d` or `detr3d` says. The classes are those
            of the data, unless `tr3d` names some.
        set_loss: what a 3DETR learns from.
        augment, optimisation: how.
    """

    data: DetectorData = field(default_factory=DetectorData)
    detector: Literal["tr3d", "detr3d"] = "tr3d"
    tr3d: Tr3dConfig = field(default_factory=lambda: Tr3dConfig(classes=[], levels=[]))
    detr3d: Detr3dConfig = field(default_factory=Detr3dConfig)
    set_loss: SetLossConfig = field(default_factory=SetLossConfig)
    augment: DetectorAugmentation = field(default_factory=DetectorAugmentation)
    optimisation: DetectorOptimisation = field(default_factory=DetectorOptimisation)


def build(recipe: DetectorRecipe, sides: Mapping[str, np.ndarray]) -> Tr3d | Detr3d:
    """A new detector for the classes of the data.

    Args:
        recipe: its size; ScanNet's and SUN RGB-D's published lists keep their order and levels.
        sides: the longest sides of the objects of each class in the training scans.

    Raises:
        InputError: `tr3d` names a class that no object is of.
    """
    data, tr3d = recipe.data, recipe.tr3d
    unknown = [name for name in tr3d.classes if name not in sides]
    if unknown and recipe.detector == "tr3d":
        raise InputError(
            f"tr3d.classes: no object of {quote(unknown[0])} in the training scans; expected some "
            f"of {', '.join(sorted(sides))}"
        )
    names = sorted(sides)
    levels = [int(np.median(sides[name]) > data.coarse_above) for name in names]
    for published in (SCANNET, SUNRGBD):
        is_scannet = published is SCANNET and data.classes == "scannet18"
        if is_scannet or set(sides) == set(published):
            kept = {n: at for n, at in published.items() if n not in data.leave_out}
            names, levels = list(kept), list(kept.values())
    if recipe.detector == "detr3d":
        return Detr3d(replace(recipe.detr3d, classes=names))
    return Tr3d(tr3d if tr3d.classes else replace(tr3d, classes=names, levels=levels))
