import pytest

from o2s.evaluate.answer_cleaning import clean_answer


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("  The Brown   chair. ", "brown chair"),
        ("2", "two"),
        ("23 chairs", "twenty-three chairs"),
        ("21", "21"),
        ("none", "zero"),
        ("letf of the tv", "left of TV"),
        ("a chai", "chair"),
        ("at 3 oclock", "at three o'clock"),
        ("o' clock", "o'clock"),
        ("mat2", "mat"),
        ("backwards", "backward"),
        ("a", "a"),  # an article with nothing after it stays
        ("the the chair", "the chair"),  # one article of a run is dropped
        ("椅子", ""),
        ("Café!", "caf"),
        ("yes, it's on-the desk: x", "yes, it's on-desk: x"),
    ],
)
def test_answers_are_cleaned_as_by_leo(text: str, cleaned: str) -> None:
    assert clean_answer(text) == cleaned
