"""The cleaning of answers that LEO introduced and others took over.

Lower case, white space, typing errors of the annotations, numbers as words, no articles. The rules
and their order are those of `clean_answer` in embodied-generalist's data/data_utils.py (Huang et
al., ICML 2024); an order of its own would give other scores.
"""

import re

_TYPING_ERRORS = {
    **{"letf": "left", "let": "left", "tehre": "there", "rigth": "right", "rght": "right"},
    **{"behine": "behind", "tv": "TV", "chai": "chair", "wasing": "washing"},
    **{"waslked": "walked", "oclock": "o'clock", r"o'[ ]+clock": "o'clock"},
}
_NUMBERS = {
    **{"0": "zero", "none": "zero", "1": "one", "2": "two", "3": "three", "4": "four"},
    **{"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine", "10": "ten"},
    **{"11": "eleven", "12": "twelve", "13": "thirteen", "14": "fourteen", "15": "fifteen"},
    **{"16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty"},
    **{"23": "twenty-three"},
}


def clean_answer(text: str) -> str:
    """An answer as LEO, Chat-Scene, LLaVA-3D and Video-3D-LLM (on SQA3D) compare it."""
    text = text.lower()
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _whole_words(words: dict[str, str]) -> list[tuple[str, str]]:
    return [(rf"\b{word}\b", replacement) for word, replacement in words.items()]


_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"[ ]+$", ""),
        (r"^[ ]+", ""),
        (r" {2,}", " "),
        (r"\.[ ]{2,}", ". "),
        (r"[^a-zA-Z0-9,'\s\-:]+", ""),
        *_whole_words(_TYPING_ERRORS),
        *_whole_words(_NUMBERS),
        (r"\b([a-zA-Z]+)([0-9])\b", r"\g<1>"),  # such as "mat2"
        *((rf"\b{article}\b ([a-zA-Z]+)", r"\g<1>") for article in ("a", "an", "the")),
        (r"\bbackwards\b", "backward"),
    ]
]
