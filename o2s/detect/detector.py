"""What every detector is: a module that turns scans into scored boxes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from o2s.scene import Boxes, Scene


class Detector(nn.Module, ABC):
    """Proposes regions of interest.

    `detect` may be overridden where it gains from batching. `classes` are the labels that it can
    give; `needs_training` is true where its boxes mean nothing before it has been trained.
    """

    classes: tuple[str, ...]
    needs_training: bool

    @abstractmethod
    def forward(self, scene: Scene) -> Boxes:
        """The boxes of one scan in scene coordinates, best first."""

    def detect(self, scenes: Sequence[Scene]) -> list[Boxes]:
        """The boxes of several scans; the same as one by one."""
        return [self(scene) for scene in scenes]


class LearnedDetector(Detector):
    """A detector with weights, built from a config that says its size.

    A new one holds random numbers; `needs_training` is false once weights have been loaded.
    """

    config: Any
    choices: ClassVar[tuple[str, ...]]  # fields of the config that say which boxes are chosen

    @abstractmethod
    def choose_as_published(self) -> None:
        """From now on give boxes of any score and several labels a place, as average precision
        wants them, and not what one would take for the objects of a scan."""

    def choose_as(self, wanted: Any) -> None:
        """Choose boxes as a config says, where it differs from the defaults.

        Args:
            wanted: a config of this detector's kind.

        Raises:
            ValueError: it wants another size than the detector has.
        """
        plain = type(wanted)()
        changed = {
            field.name: getattr(wanted, field.name)
            for field in fields(wanted)
            if getattr(wanted, field.name) != getattr(plain, field.name)
        }
        for name, value in changed.items():
            if name not in self.choices and value != getattr(self.config, name):
                raise ValueError(
                    f"{name} is {value!r}, but the weights are of a detector with "
                    f"{getattr(self.config, name)!r}; with weights only {', '.join(self.choices)} "
                    "can be set"
                )
        self.config = replace(self.config, **changed)

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "LearnedDetector":
        """A published detector with its weights.

        Raises:
            ValueError: keys or shapes are not those of one.
        """

    def load_published(self, state: Mapping[str, Tensor], name: str) -> None:
        """Take over published weights, every key accounted for, and go to evaluation mode.

        Args:
            state: tensors by our names.
            name: whose keys they should be, for messages.

        Raises:
            ValueError: keys are missing or left over, or of another shape.
        """
        expected = self.state_dict()
        lacking, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
        for what, keys in (("lacks", lacking), (f"has beside a {name}'s", surplus)):
            if keys:
                raise ValueError(f"{what} {len(keys)} keys, such as {min(keys)}")
        for key, value in state.items():
            if value.shape != expected[key].shape:
                shapes = f"{list(value.shape)}, expected {list(expected[key].shape)}"
                raise ValueError(f"{key} is of shape {shapes}")
        self.load_state_dict(state)
        self.needs_training = False
        self.eval()
