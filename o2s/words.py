"""Words of questions and answers about rooms that both the data and the model go by."""

import re

SIDES = ("in front", "left", "behind", "right")  # of a viewer: quarter turns, counter-clockwise
NUMBERS = (  # from one on, as answers say how many there are
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def without_article(text: str) -> str:
    """A name that a template can bring its own article to."""
    return re.sub(r"^(?:an?|the) (?=\S)", "", text, flags=re.IGNORECASE)
