"""Classes of furniture by name."""

import pytest

from o2s.datasets import furniture_classes
from o2s.datasets.furniture_classes import CLASSES, classify


@pytest.mark.parametrize(
    "name, label, phrase",
    [
        ("Chair", "chair", "chair"),
        ("Office Chair", "chair", "office chair"),
        ("Bar chair", "stool", "bar stool"),
        ("Coffee table", "table", "coffee table"),
        ("Bedside table", "nightstand", "bedside table"),
        ("Table lamp", "lamp", "table lamp"),
        ("Desk lamp", "lamp", "desk lamp"),
        ("Desk table", "desk", "desk"),
        ("Dressing table", "dresser", "dressing table"),
        ("Sofa 2 seats", "sofa", "two-seat sofa"),
        ("Futon couch", "sofa", "futon couch"),
        ("Glass door cabinet", "cabinet", "cabinet with a glass door"),
        ("Double door with panes", "door", "double door with panes"),
        ("Triple French window", "window", "french window"),
        ("Window blind", "blinds", "window blind"),
        ("Shower curtain", "shower curtain", "shower curtain"),
        ("TV stand", "tv stand", "television stand"),
        ("TV 16:9", "television", "television"),
        ("Island bath", "bathtub", "freestanding bathtub"),
        ("Piano bench", "bench", "piano bench"),
        ("Chest freezer", "refrigerator", "chest freezer"),
        ("Sink cabinet", "sink", "sink cabinet"),
        ("Toilets unit", "toilet", "toilet"),
        ("Full bookcase", "bookshelf", "bookcase full of books"),
        ("Book", "book", "book"),
        ("Frame Hôi An", "picture", "picture frame"),
    ],
)
def test_classes_by_name(name: str, label: str, phrase: str) -> None:
    kind = classify("Any/key", name)
    assert (kind.label, kind.phrase, kind.left_out) == (label, phrase, "")


@pytest.mark.parametrize(
    "name, more, why",
    [
        ("Woman", {"category": "Characters"}, "people or animals"),
        ("Mannequin female", {}, "people or animals"),
        ("Bus", {"category": "Vehicles"}, "vehicle"),
        ("Spiral staircase", {}, "stairs"),
        ("Street lamp", {}, "outdoors"),
        ("Palm tree plant", {"category": "Exterior"}, "outdoors"),
        ("Garage door", {}, "not furniture"),
        ("Table tennis", {}, "a game"),
        ("Toilet brush", {}, "part of something"),
        ("Pendant lamp", {}, "fixed to ceiling or wall"),
        ("Lamp", {"elevation": 1.9}, "fixed to ceiling or wall"),
        ("Clock", {"size": (0.07, 0.04, 0.07)}, "too small to be seen in a scan"),
        ("Plant", {"size": (3.0, 3.0, 5.0)}, "larger than a room"),
        ("Armchair-ish wheelchair", {}, "no class"),
        ("Spoon", {}, "no class"),
    ],
)
def test_what_is_left_out(name: str, more: dict[str, object], why: str) -> None:
    assert classify("Any/key", name, **more).left_out == why


def test_the_tables_of_classes_agree() -> None:
    labels = set(CLASSES)
    assert len(labels) == len(furniture_classes._TABLE)
    assert {label for label, _ in furniture_classes._CORRECTIONS.values()} <= labels
    assert labels >= furniture_classes._IN_GARDENS_TOO
    assert all(1 <= nyu40 <= 40 for _, nyu40 in CLASSES.values())
    # those of ScanNet's detection benchmark that are furniture
    wanted = {"sofa": 6, "television": 25, "wardrobe": 39, "nightstand": 32, "refrigerator": 24}
    assert {label: CLASSES[label][1] for label in wanted} == wanted
