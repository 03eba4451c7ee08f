"""What stands in which room, and how: the recipes from which rooms are laid out, as data."""

from dataclasses import dataclass
from typing import Literal

How = Literal[
    "door",  # in a wall, with free floor before it
    "window",  # in a wall, at its height
    "at window",  # before a window, from the floor up
    "at wall",  # with its back to a wall
    "row",  # side by side along one wall, with the others of the row
    "corner",  # in a corner of the room
    "middle",  # away from the walls
    "beside",  # to the left or right of the anchor, backs in line
    "before",  # at the anchor's front, facing it
    "around",  # at all sides of the anchor, facing it
    "opposite",  # with its back to the wall that the anchor faces
    "on",  # on top of the anchor
    "on wall",  # hanging
    "under",  # flat on the floor below the anchor
]


@dataclass(frozen=True)
class Step:
    """Try to place `count` (least, most) pieces of the first of the classes that fits.

    `chance` is the probability that the step is taken at all, and it is not where one of `unless`
    is there already; `anchor` are classes that are placed already; `height` is the range of heights
    in metres that will do.
    """

    how: How
    labels: tuple[str, ...]
    count: tuple[int, int] = (1, 1)
    chance: float = 1.0
    anchor: tuple[str, ...] = ()
    height: tuple[float, float] = (0.0, 3.0)
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A kind of room: the range of its floor's area in square metres, the steps, and the classes of
    which it needs one of each group."""

    area: tuple[float, float]
    steps: tuple[Step, ...]
    needs: tuple[tuple[str, ...], ...]


SURFACES = ("table", "desk", "nightstand", "dresser", "cabinet", "tv stand", "counter")
_DOOR = Step("door", ("door",), (1, 2))
_WINDOWS = Step("window", ("window",), (1, 2))
_CURTAIN = Step("at window", ("curtain", "blinds"), (1, 2), 0.6)
_PICTURES = Step("on wall", ("picture",), (1, 3), 0.9)
_CLOCK = Step("on wall", ("clock",), chance=0.3, height=(0.0, 0.8))
_PLANT = Step("corner", ("plant",), (1, 2), 0.7, height=(0.4, 2.2))
_FLOOR_LAMP = Step("corner", ("lamp",), (1, 2), 0.6, height=(1.0, 2.2))
_TRASH_CAN = Step("corner", ("trash can", "basket"), chance=0.5)
_SMALL_THINGS = Step(
    "on", ("vase", "book", "plant", "box", "speaker"), (1, 3), 0.8, SURFACES, (0.0, 0.5)
)

_MORE = Step(
    "corner", ("chair", "stool", "box", "speaker", "suitcase", "guitar", "bench"), (1, 3), 0.7
)

RECIPES: dict[str, Recipe] = {
    "living room": Recipe(
        (14.0, 40.0),
        (
            *(_DOOR, _WINDOWS),
            Step("at wall", ("sofa",), (1, 1)),
            Step("before", ("table",), anchor=("sofa",), height=(0.2, 0.6)),
            Step(
                "opposite", ("tv stand", "cabinet", "dresser"), anchor=("sofa",), height=(0.0, 1.0)
            ),
            Step("on", ("television",), anchor=("tv stand", "cabinet", "dresser")),
            Step("opposite", ("television",), anchor=("sofa",), unless=("television",)),
            Step("at wall", ("sofa", "chair"), (1, 2), 0.6),
            Step("at wall", ("bookshelf",), (1, 2), 0.7),
            Step("at wall", ("piano", "fireplace", "radiator", "cabinet"), chance=0.5),
            Step("under", ("rug",), chance=0.6, anchor=("table", "sofa")),
            *(_CURTAIN, _PLANT, _FLOOR_LAMP),
            Step("corner", ("guitar", "speaker", "fan"), chance=0.3),
            Step("on", ("lamp",), chance=0.5, anchor=SURFACES, height=(0.0, 0.8)),
            *(_PICTURES, _CLOCK, _SMALL_THINGS, _TRASH_CAN, _MORE),
        ),
        (("sofa",), ("table", "tv stand")),
    ),
    "bedroom": Recipe(
        (9.0, 24.0),
        (
            *(_DOOR, _WINDOWS),
            Step("at wall", ("bed",)),
            Step("beside", ("nightstand",), (1, 2), 0.95, ("bed",)),
            Step("on", ("lamp",), (1, 2), 0.8, ("nightstand",), (0.0, 0.8)),
            Step("at wall", ("wardrobe",), (1, 1), 0.9),
            Step("at wall", ("dresser", "cabinet"), (1, 1), 0.6),
            Step("at wall", ("desk",), chance=0.5),
            Step("before", ("chair",), anchor=("desk",)),
            Step("on", ("laptop", "monitor", "lamp"), (1, 2), 0.8, ("desk",), (0.0, 0.8)),
            Step("at wall", ("bookshelf", "chair", "bench"), (1, 2), 0.6),
            Step("under", ("rug",), chance=0.5, anchor=("bed",)),
            Step("on", ("television",), chance=0.3, anchor=("dresser", "cabinet")),
            *(_CURTAIN, _PLANT, _FLOOR_LAMP),
            Step("on wall", ("mirror",), chance=0.4, height=(0.3, 1.6)),
            Step("corner", ("basket", "suitcase", "backpack", "box"), (1, 2), 0.5),
            *(_PICTURES, _CLOCK, _SMALL_THINGS, _MORE),
        ),
        (("bed",), ("nightstand", "wardrobe", "dresser")),
    ),
    "kitchen": Recipe(
        (8.0, 20.0),
        (
            *(_DOOR, _WINDOWS),
            Step("row", ("refrigerator",)),
            Step("row", ("counter", "cabinet"), height=(0.7, 1.1)),
            Step("row", ("sink",)),
            Step("row", ("stove", "oven")),
            Step("row", ("dishwasher", "washing machine"), chance=0.6),
            Step("row", ("counter", "cabinet"), (1, 2), 0.7, height=(0.7, 1.1)),
            Step("middle", ("table",), chance=0.9, height=(0.6, 1.1)),
            Step("around", ("chair", "stool"), (2, 4), anchor=("table",)),
            Step("on", ("microwave", "coffee maker"), (1, 2), 0.8, ("counter", "cabinet", "table")),
            Step("at wall", ("cabinet", "water cooler", "radiator"), chance=0.5),
            *(_PLANT, _TRASH_CAN, _CLOCK, _PICTURES, _SMALL_THINGS),
        ),
        (("refrigerator", "stove", "oven"), ("sink",)),
    ),
    "bathroom": Recipe(
        (8.0, 13.0),
        (
            _DOOR,
            Step("window", ("window",), (0, 1)),
            Step("at wall", ("bathtub", "shower")),
            Step("at wall", ("toilet",)),
            Step("at wall", ("sink", "bathroom vanity")),
            Step("on wall", ("mirror",), chance=0.8, anchor=("sink", "bathroom vanity")),
            Step("at wall", ("washing machine",), chance=0.5),
            Step("at wall", ("cabinet", "radiator", "water heater"), (1, 2), 0.6),
            Step("on wall", ("towel",), (1, 2), 0.6),
            Step("corner", ("basket", "trash can", "plant"), (1, 2), 0.7, height=(0.0, 1.0)),
        ),
        (("toilet",), ("sink", "bathroom vanity")),
    ),
    "office": Recipe(
        (10.0, 36.0),
        (
            *(_DOOR, _WINDOWS),
            Step("at wall", ("desk", "table"), (1, 4), height=(0.6, 1.6)),
            Step("before", ("chair",), (4, 4), anchor=("desk",)),
            Step("on", ("monitor", "laptop"), (2, 4), anchor=("desk",)),
            Step(
                "on",
                ("keyboard", "telephone", "printer", "lamp"),
                (1, 3),
                0.8,
                ("desk",),
                (0.0, 0.8),
            ),
            Step("at wall", ("bookshelf",), (1, 3), 0.9),
            Step("at wall", ("cabinet",), (1, 2), 0.6),
            Step("middle", ("table",), chance=0.4, height=(0.6, 1.1)),
            Step("around", ("chair",), (2, 6), anchor=("table",)),
            Step("at wall", ("sofa", "chair"), chance=0.3),
            Step("on wall", ("whiteboard",), chance=0.7),
            Step("corner", ("water cooler", "printer", "fan"), chance=0.3),
            *(_PLANT, _FLOOR_LAMP, _TRASH_CAN, _PICTURES, _CLOCK, _SMALL_THINGS, _MORE),
        ),
        (("desk",), ("chair",)),
    ),
    "dining room": Recipe(
        (10.0, 28.0),
        (
            *(_DOOR, _WINDOWS),
            Step("middle", ("table",), height=(0.6, 0.95)),
            Step("around", ("chair",), (3, 8), anchor=("table",)),
            Step("at wall", ("dresser", "cabinet"), (1, 2), 0.9),
            Step("at wall", ("fireplace", "piano", "radiator", "bookshelf"), (1, 2), 0.5),
            Step("on", ("vase", "plant"), chance=0.8, anchor=("table",), height=(0.0, 0.6)),
            *(_CURTAIN, _PLANT, _FLOOR_LAMP),
            Step("on", ("lamp",), chance=0.4, anchor=("dresser", "cabinet"), height=(0.0, 0.8)),
            *(_PICTURES, _CLOCK, _SMALL_THINGS, _MORE),
        ),
        (("table",), ("chair",)),
    ),
}
