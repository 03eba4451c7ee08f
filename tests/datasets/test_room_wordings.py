"""Noun phrases, and the wordings that they are put into."""

from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest
import yaml
from room_language_fake import make_object, make_room

from o2s.datasets.room_phrases import NamedRoom, Phrase, plural, same_color, with_article
from o2s.datasets.room_wordings import (
    DESCRIPTIONS,
    FILE,
    QUESTIONS,
    WordingChooser,
    fill,
    load_wordings,
)
from o2s.errors import InputError


def test_articles_and_plurals() -> None:
    nouns = {
        "chair": ("a chair", "chairs"),
        "office chair": ("an office chair", "office chairs"),
        "bookshelf": ("a bookshelf", "bookshelves"),
        "box": ("a box", "boxes"),
        "couch": ("a couch", "couches"),
        "trash can": ("a trash can", "trash cans"),
        "bathroom vanity": ("a bathroom vanity", "bathroom vanities"),
        "urinal": ("a urinal", "urinals"),
        "oven": ("an oven", "ovens"),
        "tray": ("a tray", "trays"),
        "glass": ("a glass", "glasses"),
    }
    for noun, (one, many) in nouns.items():
        assert (with_article(noun), plural(noun)) == (one, many)
    phrase = Phrase("bench", "orange", "next to the desk")
    assert phrase.a == "an orange bench next to the desk"
    assert phrase.many == "orange benches next to the desk"
    assert plural("shoes") == "shoes"


def test_colors_that_people_confuse_are_not_told_apart() -> None:
    assert same_color("brown", "beige") is same_color("red", None) is None
    assert same_color("gray", "grey") is True
    assert (same_color("red", "red"), same_color("red", "blue")) == (True, False)


def test_a_hardly_scanned_object_silences_its_class() -> None:
    objects = [
        make_object(0, "chair", (1.0, 1.0, 0.5, 0.5, 0.5, 1.0)),
        make_object(1, "chair", (3.0, 3.0, 0.5, 0.5, 0.5, 1.0), seen=0.1),
        make_object(2, "shoes", (5.0, 5.0, 0.1, 0.3, 0.3, 0.2)),
    ]
    objects.append(make_object(3, "desk", (5.0, 1.0, 0.4, 1.0, 1.0, 0.8), seen=0.15))
    named = NamedRoom(make_room(objects), Random(0))
    assert [o.label for o in named.objects] == ["desk"]


def test_shipped_wordings_are_enough_and_a_quarter_is_held_out() -> None:
    wordings = load_wordings()
    for part, least in ((wordings.questions, 8), (wordings.descriptions, 6)):
        for kind, wording in part.items():
            count = len(wording.train) + len(wording.held_out)
            assert count >= least, kind
            assert 0.2 <= len(wording.held_out) / count <= 0.3, kind


@pytest.mark.parametrize(
    "part, kind, split, value, expected",
    [
        ("questions", "color", "train", ["What color?"], r"questions\.color\.train\[0\]: .*{the}"),
        (
            "questions",
            "color",
            "train",
            [],
            r"questions\.color\.train is '\[\]'; expected wordings",
        ),
        (
            "questions",
            "color",
            "train",
            [3],
            r"questions\.color\.train\[0\] is '3'; expected a text",
        ),
        ("questions", "room", "held_out", ["{a}?"], "expected the slots none"),
        ("questions", "count", "dev", ["x"], "questions.count: unknown key 'dev'"),
        ("questions", "count", "train", ["{many"], "braces do not match"),
        ("questions", "count", "held_out", ["{many}?"] * 2, "questions.count: .* twice"),
        ("descriptions", "shape", "train", ["x"], "descriptions: unknown key 'shape'"),
    ],
)
def test_broken_wordings_name_the_key(
    tmp_path: Path, part: str, kind: str, split: str, value: list, expected: str
) -> None:
    values = yaml.safe_load(FILE.read_text())
    values[part].setdefault(kind, {})[split] = value
    path = tmp_path / "wordings.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=expected) as caught:
        load_wordings(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_kinds_and_no_yaml(tmp_path: Path) -> None:
    values = yaml.safe_load(FILE.read_text())
    del values["questions"]["room"]
    path = tmp_path / "wordings.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="questions: no key 'room'; expected existence, count"):
        load_wordings(path)
    path.write_text("a: [")
    with pytest.raises(InputError, match="not YAML"):
        load_wordings(path)
    path.write_text("- 1")
    with pytest.raises(InputError, match="expected the keys questions, descriptions"):
        load_wordings(path)
    assert (QUESTIONS.keys(), DESCRIPTIONS.keys()) == tuple(
        asdict(load_wordings())[part].keys() for part in ("questions", "descriptions")
    )


def test_wordings_take_turns() -> None:
    wordings = load_wordings().questions
    chooser = WordingChooser(wordings, Random(0), held_out=True)
    texts = [chooser.next("color") for _ in range(12)]
    held_out = [text in wordings["color"].held_out for text in texts]
    assert held_out == [False, True] * 6
    assert set(texts) == {*wordings["color"].train, *wordings["color"].held_out}
    assert chooser.next("color", texts) is None
    assert (
        fill("you {stand}. {the} is it", {"stand": "sit", "the": "the bed"})
        == "You sit. The bed is it"
    )
