"""Reading boxes, options, names and smiles out of free text."""

import pytest

from o2s.evaluate.image_answers import (
    box_is,
    choose_option,
    find_names,
    named_classes,
    read_boxes,
    smiles,
    treebank_words,
)

NAMES = {"cat": ["cat"], "dog": ["dog"], "person": ["person", "man"], "bus": ["bus"]}
CHOICES = ["north", "northeast", "a magnet"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A cat at [0, 0.1, 0.5, 0.6] and a dog at (0 0 1 1).", ["cat", "dog"]),
        ("Two cats: [0, 0, 1, 1], [0, 0, .5, .5]", ["cat", "cat"]),
        ("[0, 0, 1, 1] is a cat and [0, 0, 1, 1] is a dog.", ["cat", "dog"]),
        ("There is a MAN. His box is [0, 0, 1, 1].", ["person"]),
        ("There is no dog here. [0, 0, 1, 1]", [None]),
        ("buses [0, 0, 1, 1]", ["bus"]),
        ("", []),
        ("A cat at [0, 0, 1].", []),
    ],
)
def test_each_box_has_the_class_that_its_sentence_names(
    text: str, expected: list[str | None]
) -> None:
    assert [box.label for box in read_boxes(text, NAMES)] == expected


@pytest.mark.parametrize(
    "numbers", ["1, 0, 0, 1", "0, 0, 1.2.3, 1", "nan, 0, 1, 1", "0, 0, 1e999, 1"]
)
def test_malformed_boxes_count_unless_the_fault_hides_them(numbers: str) -> None:
    [box] = read_boxes(f"A cat at [{numbers}].", NAMES)
    assert box.corners is None
    assert read_boxes(f"A cat at [{numbers}].", NAMES, ["voc-malformed-uncounted"]) == []


def test_negative_coordinates_are_read() -> None:
    [box] = read_boxes("A cat at [-0.1, 0, 1, 1]", NAMES)
    assert box.corners == (-0.1, 0.0, 1.0, 1.0)


def test_faults_of_boxes_change_what_is_read() -> None:
    text = "The cat object is at [0, 0, 1, 1] and [0, 0, 2, 2]. A dog at [0, 0, 1, 1]."
    assert len(read_boxes(text, NAMES)) == 3
    assert len(read_boxes(text, NAMES, ["voc-one-box-a-sentence"])) == 2
    assert [box.phrase for box in read_boxes(text, NAMES, ["voc-set-phrases"])] == ["cat", "cat"]


def test_a_guy_is_a_cat_only_with_the_fault() -> None:
    [box] = read_boxes("The guy object is at [0, 0, 1, 1].", NAMES, ["voc-set-phrases"])
    assert not box_is(box, "cat")
    assert box_is(box, "cat", ["voc-any-sense"])
    assert box_is(box, "person", ["voc-exact-words"])


def test_exact_words_find_neither_capitals_nor_dining_tables() -> None:
    names = {**NAMES, "diningtable": ["diningtable", "dining table"]}
    for word, label in (("Man", "person"), ("diningtable", "diningtable")):
        [box] = read_boxes(f"{word} [0, 0, 1, 1]", names)
        assert box_is(box, label)
        assert not box_is(box, label, ["voc-exact-words"])


@pytest.mark.parametrize(
    "text, chosen",
    [
        ("B", 1),
        ("b.", 1),
        ("(C) a magnet", 2),
        ("Answer: A", 0),
        ("The answer is b because it is", 1),
        ("The answer is A magnet.", 2),
        ("**Answer:** B", 1),
        ("**Answer**: B.", 1),
        ("The answer is 'B'.", 1),
        ("The answer is \u201cB\u201d.", 1),
        ("The answer is A's own", None),
        ("The answer is" + "\n" * 3000 + "north", 0),
        ("It lies northeast.", 1),
        ("(A) or (B)", None),
        ("north or northeast", None),
        ("not north, northeast", 1),
        ("answer: (G)", None),
        ("", None),
    ],
)
def test_options_are_read_by_letter_or_text(text: str, chosen: int | None) -> None:
    assert choose_option(text, CHOICES) == chosen


@pytest.mark.parametrize(
    "fault, text, chosen, at_fault",
    [
        ("scienceqa-set-phrases", "B.", 1, None),
        ("scienceqa-letter-of-a-word", "The answer is A magnet.", 2, 0),
        ("scienceqa-first-of-several", "Answer: A. Answer: B.", None, 0),
        ("scienceqa-choice-in-choice", "It lies northeast.", 1, None),
    ],
)
def test_each_fault_of_choices_changes_an_answer(
    fault: str, text: str, chosen: int | None, at_fault: int | None
) -> None:
    assert choose_option(text, CHOICES) == chosen
    assert choose_option(text, CHOICES, [fault]) == at_fault


def test_the_sixth_letter_is_lost_with_the_fault() -> None:
    assert choose_option("(F)", list("uvwxyz")) == 5
    assert choose_option("(F)", list("uvwxyz"), ["scienceqa-letters-a-to-e"]) is None


def test_denied_classes_are_not_named() -> None:
    assert named_classes("This is not a cat, it is a dog.", NAMES) == {"dog"}
    assert named_classes("It isn\N{RIGHT SINGLE QUOTATION MARK}t a cat but a dog", NAMES) == {"dog"}
    assert named_classes("no doubt a cat", NAMES) == {"cat"}
    assert named_classes("not a cat", NAMES, ["names-negation"]) == {"cat"}


def test_wordnet_takes_toads_for_frogs() -> None:
    names = {"frog": ["frog"], "ship": ["ship"]}
    assert named_classes("a toad, shipped", names) == set()
    assert named_classes("a toad, shipped", names, ["names-wordnet"]) == {"frog", "ship"}


def test_the_colour_of_eyes_is_not_that_of_hair() -> None:
    names = {"blond": ["blond"], "brown": ["brown"]}
    assert named_classes("blond hair and brown eyes", names, noun="hair") == {"blond"}
    assert named_classes("The hair is brown, the dress blond", names, noun="hair") == {"brown"}
    assert named_classes("Brown.", names, noun="hair") == {"brown"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Yes, he is smiling.", True),
        ("No.", False),
        ("She isn't smiling", False),
        ("She never smiles", False),
        ("There is no doubt that she smiles", True),
        ("A neutral expression", False),
        ("A face", None),
        ("", None),
    ],
)
def test_smiles_are_read(text: str, expected: bool | None) -> None:
    assert smiles(text) is expected


@pytest.mark.parametrize(
    "fault, text, expected, at_fault",
    [
        ("smile-silence", "", None, True),
        ("smile-contractions", "She isn't smiling", False, True),
        ("smile-any-no", "There is no doubt that she smiles", True, False),
    ],
)
def test_each_fault_of_smiles_changes_an_answer(
    fault: str, text: str, expected: bool | None, at_fault: bool
) -> None:
    assert smiles(text) is expected
    assert smiles(text, [fault]) is at_fault


def test_the_longest_name_is_found_with_its_place() -> None:
    names = {"plant": ["plant"], "pot": ["potted plant"]}
    [mention] = find_names("Two POTTED  plants", names)
    assert (mention.label, mention.start, mention.end) == ("pot", 4, 18)


def test_treebank_words_split_marks_and_contractions() -> None:
    assert treebank_words("It isn't a cat.") == ["it", "is", "n't", "a", "cat", "."]
    assert treebank_words("I cannot (say): 1,000") == [
        "i",
        "can",
        "not",
        "(",
        "say",
        ")",
        ":",
        "1,000",
    ]
