"""The wordings of questions and descriptions, of which some are kept from training."""

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml

from o2s.errors import InputError
from o2s.io.cloud import quote

FILE = Path(__file__).with_name("room_wordings.yaml")
# The sets of slots of which a wording fills one. {the}, {a} and {many} are noun phrases with their
# article or in the plural, {noun} is the bare noun, {after} such as "next to the desk", {stand}
# such as "stand at the bed facing the desk", {where} such as "on your left".
QUESTIONS: dict[str, tuple[set[str], ...]] = {
    "existence": ({"a"}, {"many"}),
    "count": ({"many"},),
    "color": ({"the"},),
    "material": ({"the"},),
    "compare": ({"more", "first", "second"},),
    "nearest": ({"the"},),
    "side": ({"stand", "the"},),
    "on_top": ({"the"},),
    "support": ({"the"},),
    "room": (set(),),
    "between": ({"first", "second"},),
}
DESCRIPTIONS: dict[str, tuple[set[str], ...]] = {
    "only": ({"noun"}, {"a"}, {"the"}),
    "attribute": ({"noun", "word"}, {"a"}, {"the"}),
    "size": ({"noun", "word"}, {"the"}),
    "place": ({"a", "after"}, {"the", "after"}, {"noun", "after"}),
    "attribute_place": ({"a", "after"}, {"the", "after"}, {"noun", "word", "after"}),
    "view": ({"stand", "where", "a"}, {"stand", "where", "the"}),
    "caption": ({"a"},),
}


@dataclass(frozen=True)
class Wording:
    """The wordings of one kind: those for all splits, and those for val and test alone."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Wordings:
    """All wordings, by kind."""

    questions: Mapping[str, Wording]
    descriptions: Mapping[str, Wording]


def load_wordings(path: Path = FILE) -> Wordings:
    """Read wordings: `questions` and `descriptions`, kinds, then lists `train` and `held_out`.

    Raises:
        InputError: not such a file, a kind is missing or unknown, a list is empty, a wording is
            given twice or its slots are not a set that its kind fills. The message names the key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    parts = {"questions": QUESTIONS, "descriptions": DESCRIPTIONS}
    _check_keys(path, "", values, parts)
    return Wordings(**{name: _kinds(path, name, values[name], parts[name]) for name in parts})


def fill(wording: str, slots: Mapping[str, str]) -> str:
    """The wording with its slots filled and a capital at the start of each sentence."""
    text = wording.format(**slots)
    for end in (". ", "? "):
        text = end.join(part[:1].upper() + part[1:] for part in text.split(end))
    return text


class WordingChooser:
    """Hands out the wordings of each kind in turn, in an order drawn with `rng`.

    With `held_out` every second one is held out from training, without it none is.
    """

    def __init__(self, wordings: Mapping[str, Wording], rng: Random, *, held_out: bool) -> None:
        self._turns: dict[str, list[list[str]]] = {}
        for kind, wording in wordings.items():
            lists = [wording.train, wording.held_out] if held_out else [wording.train]
            self._turns[kind] = [rng.sample(texts, len(texts)) for texts in lists]

    def next(self, kind: str, without: Collection[str] = ()) -> str | None:
        """The next wording that is not among `without`; None if there is none."""
        turns = self._turns[kind]
        for texts in list(turns):
            turns.append(turns.pop(0))
            for text in list(texts):
                texts.append(texts.pop(0))
                if text not in without:
                    return text
        return None


def _kinds(
    path: Path, part: str, values: object, kinds: Mapping[str, tuple[set[str], ...]]
) -> dict[str, Wording]:
    read = _check_keys(path, part, values, kinds)
    found: dict[str, Wording] = {}
    for kind, slots in kinds.items():
        key = f"{part}.{kind}"
        lists = _check_keys(path, key, read[kind], ("train", "held_out"))
        texts: dict[str, tuple[str, ...]] = {}
        for name, values in lists.items():
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}: {key}.{name} is {quote(values)}; expected wordings")
            for i, text in enumerate(values):
                _check_slots(f"{path}: {key}.{name}[{i}]", text, slots)
            texts[name] = tuple(values)
        every = texts["train"] + texts["held_out"]
        for text in every:
            if every.count(text) > 1:
                raise InputError(f"{path}: {key}: {quote(text)} twice; expected it once")
        found[kind] = Wording(**texts)
    return found


def _check_keys(path: Path, key: str, values: object, expected: Collection[str]) -> dict:
    where = f"{path}: {key}" if key else f"{path}"
    if not isinstance(values, dict):
        raise InputError(f"{where}: {quote(values)}; expected the keys {', '.join(expected)}")
    for name in values:
        if name not in expected:
            raise InputError(f"{where}: unknown key {quote(name)}; expected {', '.join(expected)}")
    for name in expected:
        if name not in values:
            raise InputError(f"{where}: no key {quote(name)}; expected {', '.join(expected)}")
    return values


def _check_slots(where: str, text: object, expected: Collection[set[str]]) -> None:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} is {quote(text)}; expected a text")
    try:
        slots = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        raise InputError(f"{where}: {quote(text)}: braces do not match") from None
    if slots not in expected:
        choices = " or ".join(" ".join(f"{{{s}}}" for s in sorted(e)) or "none" for e in expected)
        raise InputError(f"{where}: {quote(text)}; expected the slots {choices}")
