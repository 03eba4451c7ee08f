"""What an answer in free text says about an image: boxes, options, class names, smiles.

Each reader takes the faults of the reference that it is to repeat; without any it reads as a person
would. The faults are facts of LAMM's scorers (github.com/OpenGVLab/LAMM at ea57136,
src/ChEF/metric/detection.py, vqa.py, classification.py and utils.py); `images.FAULTS` says what
each of them does. The words of other senses and forms come from WordNet 3.0 (Princeton University),
which those scorers ask.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnsweredBox:
    """A box of an answer: its corners, what the answer calls it, and which class that is.

    `corners` is x1, y1, x2, y2, or None where they are no box: numbers that are none, or a first
    corner beyond the second. `label` is None where no class is named.
    """

    corners: tuple[float, float, float, float] | None
    phrase: str
    label: str | None


def read_boxes(
    text: str, names: Mapping[str, Sequence[str]], faults: Collection[str] = ()
) -> list[AnsweredBox]:
    """The boxes of an answer, with the class that its sentence names for each.

    A box is four numbers in brackets. Its class is the one named last before it; in a sentence
    that begins with a box, the one named next after it; in a sentence that names none, the last one
    of the sentences before.

    Args:
        text: such as "A cat at [0.1, 0.2, 0.5, 0.6] and a dog at [0, 0, 1, 1]."
        names: the words for each class.
    """
    found: list[AnsweredBox] = []
    carried: tuple[str, str | None] = ("", None)
    set_phrases = "voc-set-phrases" in faults
    for sentence in _set_sentences(text) if set_phrases else _SENTENCE_ENDS.split(text):
        boxes = list((_SET_BOX if set_phrases else _BOX).finditer(sentence))
        if "voc-one-box-a-sentence" in faults:
            boxes = boxes[:1]
        mentions = [m for m in find_names(sentence, names) if not m.negated]
        for box in boxes:
            if set_phrases:
                phrase = _set_phrase(sentence)
                if phrase is None:
                    continue
                named = [m.label for m in find_names(phrase, names)]
                name = (phrase, named[-1] if named else None)
            else:
                mention = _mention_of(box.start(), boxes[0].start(), mentions)
                if mention is not None:
                    carried = (sentence[mention.start : mention.end], mention.label)
                name = carried
            corners = _corners(box.groups())
            if corners is not None or "voc-malformed-uncounted" not in faults:
                found.append(AnsweredBox(corners, *name))
        if mentions and not boxes:
            last = mentions[-1]
            carried = (sentence[last.start : last.end], last.label)
    return found


def box_is(box: AnsweredBox, label: str, faults: Collection[str] = ()) -> bool:
    """Whether an answer calls a box by the name of a class."""
    key, exact = label.lower(), "voc-exact-words" in faults
    words = box.phrase.split(" ") if exact else [t.text for t in _tokens(box.phrase)]
    if "voc-any-sense" in faults and any(w in _OTHER_SENSES.get(key, ()) for w in words):
        return True
    return (
        any(w in _EXACT_WORDS.get(key, _words(label)) for w in words)
        if exact
        else box.label == label
    )


def choose_option(text: str, choices: Sequence[str], faults: Collection[str] = ()) -> int | None:
    """Which of the choices an answer takes, counted from 0; None if none or several.

    A letter is looked for after "answer" or "option", then in brackets, then alone at the
    beginning; then the text of a choice.
    """
    last = "E" if "scienceqa-letters-a-to-e" in faults else chr(ord("A") + len(choices) - 1)
    guarded = "scienceqa-letter-of-a-word" not in faults
    if "scienceqa-set-phrases" in faults:
        article = _NO_ARTICLE if guarded else ""
        patterns = [
            (rf"[Tt]he answer is \(?([A-{last}]){article}\)?(?=\W)", False),
            (rf"ANSWER: ([A-{last}])" + (rf"(?!\w){_NO_ARTICLE}" if guarded else ""), True),
            (rf"\(([A-{last}])\)", False),
        ]
    else:
        text = re.sub(r"\s+", " ", text)  # the patterns are slow on long runs of blanks
        end = rf"(?!\w|['\u2019]\w){_NO_ARTICLE}" if guarded else ""
        patterns = [
            (rf"(?i){_ANSWER_IS}([A-{last}]){end}", True),
            (rf"(?i)\(\s*([A-{last}])\s*\)", False),
            (rf"(?i)^\W*([A-{last}])(?:\W*$|[).:]\s)", False),
        ]
    for pattern, several in patterns:
        letters = [letter.upper() for letter in re.findall(pattern, text)]
        if several and "scienceqa-first-of-several" in faults:
            letters = letters[:1]
        if letters:
            number = ord(letters[0]) - ord("A")
            return number if len(set(letters)) == 1 and number < len(choices) else None
    if "scienceqa-choice-in-choice" in faults:
        named = [i for i, choice in enumerate(choices) if choice.lower() in text.lower()]
    else:
        numbers = {str(i): [choice] for i, choice in enumerate(choices)}
        mentions = find_names(text, numbers, plurals=False)
        named = list({int(m.label) for m in mentions if not m.negated})
        named = [i for i in named if sum(c.lower() == choices[i].lower() for c in choices) == 1]
    return named[0] if len(named) == 1 else None


def named_classes(
    text: str, names: Mapping[str, Sequence[str]], faults: Collection[str] = (), noun: str = ""
) -> set[str]:
    """The classes that an answer names and does not deny.

    Args:
        names: the words for each class.
        noun: what the classes are of, such as "hair": where some of them are said of it, the
            others do not count, as the brown in "blond hair and brown eyes".
    """
    if "names-wordnet" in faults:
        words = treebank_words(text)
        mentions = [
            Mention(label, i, i, _is_negated(words, i), 0, 0)
            for i, word in enumerate(words)
            for label in names
            if word in _WORDNET_FORMS.get(label.lower(), _words(label))
        ]
    else:
        words = [token.text for token in _tokens(text)]
        mentions = find_names(text, names)
        if noun:
            mentions = [m for m in mentions if _is_said_of(noun, words, m)] or mentions
    return {m.label for m in mentions if "names-negation" in faults or not m.negated}


def smiles(text: str, faults: Collection[str] = ()) -> bool | None:
    """Whether an answer says that somebody smiles; None if it does not say, or says both."""
    words = treebank_words(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    contractions = "smile-contractions" not in faults
    denials = {"no", "not", "n't"} if contractions else {"no", "not"}
    denied = not denials.isdisjoint(words if contractions else treebank_words(text))
    if "smile-any-no" in faults and denied:
        return False
    if "smile-silence" in faults and not denied:
        return True
    if words[:1] == ["yes"] or (words[:1] == ["no"] and words[1:2] != ["doubt"]):
        return words[0] == "yes"
    said = {
        not _is_negated(words, i, contractions=contractions)
        for i, word in enumerate(words)
        if word.startswith(_SMILING)
    }
    if said:
        return said.pop() if len(said) == 1 else None
    return False if any(word.startswith(_UNSMILING) for word in words) else None


@dataclass(frozen=True)
class Mention:
    """A class named in a text: its tokens `first` to `last`, its characters `start` to `end`."""

    label: str
    first: int
    last: int
    negated: bool
    start: int
    end: int


def find_names(
    text: str, names: Mapping[str, Sequence[str]], *, plurals: bool = True
) -> list[Mention]:
    """The classes that a text names, by whole words in any case; the longest name that fits."""
    phrases: dict[tuple[str, ...], str] = {}
    for phrase, label in ((phrase, label) for label, given in names.items() for phrase in given):
        words = [token.text for token in _tokens(phrase)]
        if words:
            for form in _forms(words[-1]) if plurals else [words[-1]]:
                phrases.setdefault((*words[:-1], form), label)
    tokens, longest = _tokens(text), max(map(len, phrases), default=0)
    words = [token.text for token in tokens]
    found: list[Mention] = []
    i = 0
    while i < len(words):
        sizes = range(min(longest, len(words) - i), 0, -1)
        size = next((n for n in sizes if tuple(words[i : i + n]) in phrases), 0)
        if size:
            label, end = phrases[tuple(words[i : i + size])], i + size - 1
            negated = _is_negated(words, i)
            found.append(Mention(label, i, end, negated, tokens[i].start, tokens[end].end))
        i += size or 1
    return found


def treebank_words(text: str) -> list[str]:
    """Lower-case tokens as the Penn Treebank has them, near enough to NLTK's `word_tokenize`."""
    spaced = _TREEBANK_PERIOD.sub(" . ", text.lower())
    spaced = _TREEBANK_MARKS.sub(r" \g<0> ", spaced)
    spaced = re.sub(r"\bcannot\b", "can not", spaced)
    spaced = re.sub(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' ", f" {spaced} ")
    spaced = re.sub(r"([^' ])('s|'m|'d|'ll|'re|'ve|n't|')(?=\s)", r"\1 \2", spaced)
    return spaced.split()


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]")


def _tokens(text: str) -> list[_Token]:
    """Words in lower case, and marks."""
    plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return [_Token(m.group().lower(), m.start(), m.end()) for m in _WORD.finditer(plain)]


def _forms(word: str) -> Iterator[str]:
    yield word
    if word.endswith(("s", "x", "z", "ch", "sh")):
        yield word + "es"
    elif re.search("[^aeiou]y$", word):
        yield word[:-1] + "ies"
    else:
        yield word + "s"


_BREAKS = frozenset([*".,;:!?", "but", "instead", "rather", "however", "because", "although"])
_NEGATIONS = frozenset(["no", "not", "never", "neither", "nor", "without", "cannot", "isnt", "n't"])


def _is_negated(words: Sequence[str], at: int, *, contractions: bool = True) -> bool:
    """Whether a negation stands before a word in its part of the sentence."""
    for i in range(at - 1, -1, -1):
        if words[i] in _BREAKS:
            return False
        short = words[i].endswith("n't")
        negates = contractions if short else words[i] in _NEGATIONS
        if negates and words[i + 1] not in ("only", "doubt"):
            return True
    return False


def _is_said_of(noun: str, words: Sequence[str], mention: Mention) -> bool:
    """Whether the noun follows within two words, or stands before in the same part."""
    if noun in words[mention.last + 1 : mention.last + 4]:
        return True
    for word in reversed(words[: mention.first]):
        if word in _BREAKS or word in ("and", "eyes"):
            return False
        if word == noun:
            return True
    return False


_SENTENCE_ENDS = re.compile(r"(?<!\d)\.(?=\s|$)|[\n;]")
_NUMBER = r"([-+]?(?:[\d.][\w.+-]*|nan|inf\w*))"
_BOX = re.compile(r"(?i)[\[(]\s*" + r"(?:\s*,\s*|\s+)".join([_NUMBER] * 4) + r"\s*[\])]")
_SET_BOX = re.compile(r"\[ ?" + ", ?".join([r"([\d.]+)"] * 4) + r" ?\]")
_SET_PHRASES = [  # what stands before and after the name; the last that fits tells it
    ("The ", ".+?", "(?=object)"),
    ("classified as ", ".+?", r"(?: is| and| within|\.|,)"),
    ("categorized as ", ".+?", r"(?: can| at|\.|,)"),
    ("belong(?:s|ing) to the category of ", ".+?", r"(?: at|\.|,)"),
    ("belong(?:s|ing) to the ", ".+", " category"),
    ("falls under the category of ", ".+?", r"[.,]"),
    ("falls under the ", ".+", " category"),
    ("its category is ", ".+?", r"[.,]"),
]


def _set_sentences(text: str) -> Iterator[str]:
    parts = text.strip().split(". ")
    for i, part in enumerate(parts):
        part = part.strip()
        if part:
            yield (part[:-1] if i == len(parts) - 1 and part.endswith(".") else part) + "."


def _set_phrase(sentence: str) -> str | None:
    found = None
    for before, name, after in _SET_PHRASES:
        match = re.search(f"{before}({name}){after}", sentence, re.DOTALL)
        found = match.group(1).strip() if match else found
    return found


def _mention_of(at: int, first_box: int, mentions: Sequence[Mention]) -> Mention | None:
    before = [m for m in mentions if m.start < at]
    after = [m for m in mentions if m.start > at]
    box_leads = bool(mentions) and mentions[0].start > first_box
    chosen = after[:1] or before[-1:] if box_leads else before[-1:] or after[:1]
    return chosen[0] if chosen else None


def _corners(values: Sequence[str]) -> tuple[float, float, float, float] | None:
    try:
        x1, y1, x2, y2 = map(float, values)
    except ValueError:
        return None
    return (x1, y1, x2, y2) if x1 <= x2 and y1 <= y2 and math.isfinite(x1 + y1 + x2 + y2) else None


_ANSWER_IS = (
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|was|would be|should be|must be))?[\s*]*[:=]?\s*"
    r"(?:(?:option|choice|letter)\b)?[\s*\"'\u201c\u2018(\[]*"
)
_NO_ARTICLE = r"(?!(?<=[Aa])\s+(?!because\b|since\b|as\b|and\b|for\b)\w)"
_SMILING = ("smil", "grin", "laugh", "beam")
_UNSMILING = ("frown", "neutral", "serious", "sad", "unsmiling", "angry", "scowl")
_TREEBANK_MARKS = re.compile(
    r"[;@#$%&?!()\[\]{}<>\"*`\u2012-\u2015\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb]"
    r"|--|\.{2,}|[:,](?!\d)"
)
_TREEBANK_PERIOD = re.compile(
    r"(?<!\.)\.(?=[\s)\";}\]*:@'({\[\u2019\u201d\u00bb]|[\])}>\"'!?\u2019\u201d\u00bb ]*\s*$)"
)


def _phrases(text: str) -> dict[str, str]:
    """Lists of names, such as "bus: bus, coach; cat: cat"."""
    lists = [entry.split(":") for entry in text.split(";")]
    return {label.strip(): " ".join(names.split()) for label, names in lists}


# What a person calls the classes.
VOC_NAMES = _phrases("""
    aeroplane: aeroplane, airplane, plane, aircraft, jet; bicycle: bicycle, bike, cycle;
    bird: bird; boat: boat, ship, sailboat, yacht, vessel; bottle: bottle; bus: bus, coach;
    car: car, automobile, sedan, suv, taxi; cat: cat, kitten; chair: chair, armchair;
    cow: cow, cattle, calf, bull; diningtable: dining table, table; dog: dog, puppy;
    horse: horse, pony; motorbike: motorbike, motorcycle, motor bike; sheep: sheep, lamb;
    person: person, people, man, men, woman, women, boy, girl, guy, child, children, baby, lady,
        human, pedestrian, rider, cyclist; pottedplant: potted plant, plant;
    sofa: sofa, couch, settee; train: train, locomotive;
    tvmonitor: tv monitor, tv, television, monitor, screen
""")
CIFAR_NAMES = _phrases("""
    airplane: airplane, aeroplane, plane, aircraft, jet; automobile: automobile, car, sedan, auto;
    bird: bird; cat: cat, kitten; deer: deer; dog: dog, puppy; frog: frog; horse: horse, pony;
    ship: ship, boat; truck: truck, lorry, fire truck
""")
HAIR_NAMES = _phrases("""
    black: black; blond: blond, blonde, golden; brown: brown, brunette, brunet; gray: gray, grey;
    bald: bald
""")


def _words(nouns: str, others: str = "") -> frozenset[str]:
    """Nouns with their plurals, and words as they stand."""
    return frozenset([*others.split(), *(form for n in nouns.split() for form in _forms(n))])


def _table(text: str) -> dict[str, frozenset[str]]:
    """Lists of words, such as "dog: dog | puppy; cow: cow": nouns, then words without plurals."""
    lists = [entry.split(":") for entry in text.split(";")]
    return {label.strip(): _words(*words.split("|")) for label, words in lists}


# The words that LAMM takes for each class of VOC in its own sense, where it is not the name alone;
# three classes have none.
_EXACT_WORDS = _table("""
    aeroplane: aeroplane airplane plane; bicycle: bicycle bike cycle wheel;
    bird: bird | hummingbird; boat: boat | ship sailboat yacht; cow: cow moo-cow | calf;
    bus: bus autobus coach charabanc double-decker jitney motorbus motorcoach omnibus | busses;
    car: car auto automobile machine motorcar railcar gondola; dog: dog | puppy;
    horse: horse | pony; motorbike: motorbike minibike motorcycle; sofa: sofa couch lounge;
    person: person individual mortal somebody someone soul
        | man men woman women baby people child children girl boy guy kayaker;
    diningtable: ; pottedplant: ; tvmonitor:
""")
# What the same words mean besides: "guy" is a sense of "cat".
_OTHER_SENSES = _table("""
    bicycle: pedal; boat: sauceboat; bottle: bottleful; bus: busbar heap jalopy;
    bird: birdie boo chick dame doll fowl hiss hoot raspberry razz shuttle shuttlecock skirt snort
        wench | birdwatch razzing razzings;
    cat: barf bozo cast cat-o'-nine-tails chuck guy hombre honk kat khat puke purge qat quat retch
        sick vomit | CAT CT Caterpillar disgorge regorge regurgitate spew spue upchuck barves;
    chair: chairman chairperson chairwoman lead moderate president professorship
        | chairmen chairwomen;
    cow: | overawe; horse: buck cavalry knight sawbuck sawhorse; motorbike: cycle;
    dog: andiron blackguard bounder cad chase click detent dog-iron firedog frank frankfurter frump
        heel hotdog hound pawl tag tail track trail weenie wiener wienerwurst;
    train: aim caravan check coach condition discipline gear gearing geartrain groom rail school
        string take trail | civilise civilize cultivate develop direct educate prepare
""")
# What WordNet takes for the first sense of a class of CIFAR-10 or a colour of hair, in any form.
_WORDNET_FORMS = _table("""
    airplane: aeroplane airplane plane | planed planing planest; bird: bird | birding;
    automobile: auto automobile car machine motorcar
        | automobiled automobiling machined machining;
    cat: cat true_cat | cated cating catted catting; deer: cervid deer;
    dog: dog domestic_dog | dogged dogging doged doging;
    frog: anuran batrachian frog salientian toad toad_frog | froged frogged frogging froging;
    horse: horse | horsed horsing; ship: ship | shipped shiped shiping;
    truck: motortruck truck | trucked;
    black: black blackness inkiness | blacked blacker blackest;
    blond: blond blonde | blonder blondest; blonde: blond blonde | blonder blondest;
    brown: brown brownness | browned browner;
    gray: gray grayness grey greyness
        | grayed grayer grayest graying greyed greyer greyest greying graies greies;
    grey: grey | greyed greyer greyest greying greies; bald: bald | balded balding
""")
