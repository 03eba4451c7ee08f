"""Scores of answers about images, as the LAMM benchmark has them, which Octavius was scored with.

    voc        recall and precision of boxes with their classes, at an overlap of 0.5
    scienceqa  accuracy of multiple choice
    flickr30k  CIDEr of captions
    cifar10    accuracy of class names
    celeba     accuracy of the colour of hair, and of smiling

PREDICTIONS are a JSON list, or one JSON object a line, of {"id", "answer"}; LAMM's older "text" is
read for "answer", and a "CoT_answer" stands before it. The REFERENCE is a LAMM meta file, a list of
entries with an "id" (the number of the entry, from 0, where there is none) and

    voc        "object": [{"label", "bbox": [x1, y1, x2, y2]}], in the units of the answers
    scienceqa  "gt_choices": the texts of the choices, "gt_choice": the number of the right one
    flickr30k  "sentences": the captions that people wrote
    cifar10    "label"
    celeba     "attr": "1" (smiles), "-1" (does not), or a colour of hair

Other keys are passed over. With all FAULTS the scores equal those of LAMM's scorers
(github.com/OpenGVLab/LAMM at ea57136, the protocol "LAMM" of src/ChEF/metric/__init__.py), except
that the precision of answers without a box is none here, and 0 there.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from o2s.errors import InputError
from o2s.evaluate import image_answers as answers
from o2s.evaluate import ngrams
from o2s.evaluate.bootstrap import Estimate, draw_counts, estimate, mean_estimate
from o2s.evaluate.json_files import read_records
from o2s.evaluate.report import Report, Row, Table, file_facts, versions
from o2s.io.cloud import quote

FAULTS = {
    "voc-one-box-a-sentence": "Of each sentence only the first box is read; others count nowhere.",
    "voc-set-phrases": "A box counts only in a sentence with one of eight set phrases, such as "
    "'classified as X.', and in [x, y, x, y] without signs; others do not count as wrong.",
    "voc-malformed-uncounted": "A box whose corners are swapped, or no numbers, is not wrong.",
    "voc-any-sense": "A name counts for a class in any sense of WordNet: a 'guy' is a cat.",
    "voc-exact-words": "Names are compared by the words between blanks, as written, with WordNet: "
    "'Person' and 'girls' are no persons, and diningtable, pottedplant and tvmonitor, which it "
    "lacks, are never found.",
    "scienceqa-set-phrases": "Letters are read only from 'The answer is X' with a mark or blank "
    "after it, 'ANSWER: X' and '(X)', in upper case: 'B', 'B.' and 'Answer: B' are wrong.",
    "scienceqa-letters-a-to-e": "The letters A to E are read, however many choices there are.",
    "scienceqa-letter-of-a-word": "'The answer is A magnet' takes A, and 'ANSWER: Earth' takes E.",
    "scienceqa-first-of-several": "Of several letters after 'ANSWER:' the first one counts.",
    "scienceqa-choice-in-choice": "Choices are searched for inside words and each other: where "
    "'north' is a choice, the text 'northeast' is never right.",
    "flickr30k-line-ends": "A caption with a line end other than a line feed becomes two for the "
    "tokenizer, and all captions after it are compared with those of other images.",
    "names-any-mention": "Naming the right class among others is right; so is a list of all.",
    "names-negation": "What an answer denies counts as named: 'not a cat' is right for a cat.",
    "names-wordnet": "Names are the words of WordNet's first sense, in any form: 'toad' is a frog, "
    "'machine' an automobile, 'shipped' a ship, and 'sedan' and 'lorry' are nothing.",
    "smile-silence": "Without 'no' or 'not' an answer says that somebody smiles, even an empty.",
    "smile-contractions": '"isn\'t" denies nothing, so that "isn\'t smiling" means smiling.',
    "smile-any-no": "A 'no' or 'not' anywhere denies the smile, also 'no doubt' and 'not only'.",
}
_FAULTS_OF = {"cifar10": ("names-",), "celeba": ("names-", "smile-")}
_Draws = Int32[np.ndarray, "S N"]


def score_images(
    predictions: Path,
    reference: Path,
    *,
    task: str,
    as_lamm: bool = False,
    faults: Sequence[str] = (),
    overlap: float = 0.5,
    seed: int = 0,
) -> Report:
    """The scores of answers about images, with the named faults of LAMM's scorer or all of them.

    A box finds an object of VOC from an intersection over union of `overlap` on. Raises InputError
    where a file is not as it should be, or the task has no such fault.
    """
    own = [name for name in FAULTS if name.startswith(_FAULTS_OF.get(task, f"{task}-"))]
    for name in faults:
        if name not in own:
            raise InputError(f"--fault {name}: {task} has the faults {', '.join(own)}")
    if not 0 < overlap <= 1:
        raise InputError(f"--iou {overlap}: expected a number above 0, up to 1")
    applied = [name for name in own if as_lamm or name in faults]
    entries = _read(reference, f"entries of a LAMM meta file for {task}", numbered=True)
    texts = _read_answers(predictions, entries, reference)
    counts = draw_counts(range(len(entries)), seed=seed)
    if task == "voc":
        found = [_image(entry) for entry in entries.values()]
        tables = [_score_boxes(found, texts, applied, overlap, counts)]
    elif task == "scienceqa":
        tables = [_score_choices([_choices(e) for e in entries.values()], texts, applied, counts)]
    elif task == "flickr30k":
        captions = {key: e.texts("sentences") for key, e in entries.items()}
        said = dict(zip(entries, texts, strict=True))
        tables = [_score_captions(captions, said, applied, counts)]
    elif task == "cifar10":
        labels = [e.text("label") for e in entries.values()]
        tables = [_score_names("CIFAR-10", labels, texts, answers.CIFAR_NAMES, applied, counts)]
    else:
        tables = _score_faces([_attribute(e) for e in entries.values()], texts, applied, seed)
    facts = {
        "predictions": file_facts(predictions),
        "reference": file_facts(reference),
        "overlap": overlap if task == "voc" else None,
        "faults": applied,
        "seed": seed,
        "versions": versions("scipy", "pycocoevalcap"),
    }
    notes = [f"with a fault of LAMM, {name}: {FAULTS[name]}" for name in applied]
    return Report(f"images, {task}", tables, facts, notes)


def intersection_over_union(
    a: Float32[np.ndarray, "R 4"], b: Float32[np.ndarray, "S 4"]
) -> Float32[np.ndarray, "R S"]:
    """Overlaps of boxes x1, y1, x2, y2; 0 where a number is NaN or neither box has an area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.nan_to_num(shared / (areas[0][:, None] + areas[1] - shared), nan=0.0)


@dataclass(frozen=True)
class _Entry:
    """The values of one entry of a file; `at` says where it stands."""

    at: str
    values: Mapping[str, Any]

    def text(self, key: str, value: object = None) -> str:
        value = self.values.get(key) if value is None else value
        if not isinstance(value, str) or not value.strip() or _is_broken(value):
            raise self.wrong(key, value, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        return [self.text(f"{key}[{i}]", value) for i, value in enumerate(self.list(key))]

    def list(self, key: str, *, empty: bool = False) -> list[Any]:
        values = self.values.get(key)
        if not isinstance(values, list) or not (values or empty):
            raise self.wrong(key, values, "a list" if empty else "a list that is not empty")
        return values

    def wrong(self, key: str, found: object, expected: str) -> InputError:
        shown = "missing" if found is None else quote(found)
        return InputError(f"{self.at}.{key}: {shown}; expected {expected}")


def _read(path: Path, expected: str, *, numbered: bool) -> dict[str, _Entry]:
    """Entries by id; where there is none, the number of the entry is it if they are `numbered`."""
    found: dict[str, _Entry] = {}
    for number, (at, values) in enumerate(read_records(path, expected)):
        entry = _Entry(at, values)
        identity = values.get("id", number if numbered else None)
        identity = str(identity) if type(identity) is int else entry.text("id").strip()
        if identity in found:
            first = found[identity].at
            raise InputError(f"{at}.id: {quote(identity)} comes twice, first in {first}")
        found[identity] = entry
    if not found:
        raise InputError(f"{path}: no entries; expected {expected}")
    return found


def _read_answers(path: Path, entries: Mapping[str, _Entry], reference: Path) -> list[str]:
    """One answer for each entry, in their order."""
    said = _read(path, 'predictions with "id" and "answer"', numbered=False)
    for identity, entry in said.items():
        if identity not in entries:
            raise InputError(f"{entry.at}.id: {quote(identity)} is not in {reference}")
    missing = [identity for identity in entries if identity not in said]
    if missing:
        raise InputError(f"{path}: no answer for {quote(missing[0])}, an entry of {reference}")
    return [_answer(said[identity]) for identity in entries]


def _answer(entry: _Entry) -> str:
    found = {"CoT_answer": entry.values.get("CoT_answer", "")}
    key = "text" if "answer" not in entry.values and "text" in entry.values else "answer"
    found[key] = entry.values.get(key)
    for name, text in found.items():
        if not isinstance(text, str) or _is_broken(text):
            raise entry.wrong(name, text, "a text")
    return "".join(found.values())


def _is_broken(text: str) -> bool:  # half of a pair, which JSON may name and no file can hold
    return any("\ud800" <= letter <= "\udfff" for letter in text)


@dataclass(frozen=True)
class _Image:
    """What VOC's score needs of an image: classes and boxes of its objects."""

    labels: Sequence[str]
    boxes: Float32[np.ndarray, "R 4"]


def _image(entry: _Entry) -> _Image:
    labels: list[str] = []
    boxes: list[list[float]] = []
    for i, values in enumerate(entry.list("object", empty=True)):
        if not isinstance(values, dict):
            raise entry.wrong(f"object[{i}]", values, "an object with label and bbox")
        inner = _Entry(f"{entry.at}.object[{i}]", values)
        box = inner.list("bbox")
        numbers = [v for v in box if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(box) != 4 or len(numbers) != 4 or not all(abs(v) < 1e15 for v in numbers):
            raise inner.wrong("bbox", box, "four numbers x1, y1, x2, y2")
        if box[0] > box[2] or box[1] > box[3]:
            raise inner.wrong("bbox", box, "x1 up to x2 and y1 up to y2")
        labels.append(inner.text("label"))
        boxes.append([float(v) for v in box])
    return _Image(labels, np.array(boxes, np.float32).reshape(-1, 4))


def _score_boxes(
    images: Sequence[_Image],
    texts: Sequence[str],
    faults: Collection[str],
    overlap: float,
    counts: _Draws,
) -> Table:
    names = _names({label for image in images for label in image.labels}, answers.VOC_NAMES)
    number = {name: k for k, name in enumerate(names)}
    # in each image: objects, boxes, boxes that find an object, and so whatever their classes
    sums = {name: np.zeros((len(images), 4)) for name in ("all", *names)}
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        boxes = answers.read_boxes(text, names, faults)
        corners = np.full((len(boxes), 4), np.nan, np.float32)
        for row, box in zip(corners, boxes, strict=True):
            row[:] = np.nan if box.corners is None else box.corners
        near = intersection_over_union(image.boxes, corners) >= np.float32(overlap)
        called = np.array([[answers.box_is(b, name, faults) for b in boxes] for name in names])
        called = called.reshape(len(names), len(boxes)).astype(bool)
        match = _match(near & called[[number[label] for label in image.labels]])
        sums["all"][i] = (*near.shape, (match >= 0).sum(), (_match(near) >= 0).sum())
        for name in names:
            mine = [label == name for label in image.labels]
            sums[name][i, :3] = sum(mine), called[number[name]].sum(), (match[mine] >= 0).sum()
    rows: list[Row] = []
    for name, values in sums.items():
        objects, boxes, found, near = values.T
        if name != "all" and not objects.any() and not boxes.any():
            continue
        scores = {
            "recall": _ratio(found, objects, counts),
            "precision": _ratio(found, boxes, counts),
        }
        if name == "all":
            scores["recall without classes"] = _ratio(near, objects, counts)
            scores["precision without classes"] = _ratio(near, boxes, counts)
        counted = {"objects": objects.sum(), "boxes": boxes.sum(), "found": found.sum()}
        rows.append(Row(name, {key: int(value) for key, value in counted.items()}, scores))
    return Table(f"VOC2012, boxes at an overlap of {overlap:g}", rows)


def _match(fits: Bool[np.ndarray, "R S"]) -> Int32[np.ndarray, "R"]:
    """The box of each object, -1 for none, so that as many objects as can be have one."""
    if not fits.size:
        return np.full(len(fits), -1, np.int32)
    return maximum_bipartite_matching(csr_matrix(fits), perm_type="column")


def _ratio(
    part: Float64[np.ndarray, "N"],
    whole: Float64[np.ndarray, "N"],
    counts: _Draws,
) -> Estimate:
    if not whole.any():
        return Estimate.unavailable("nothing to divide by: no objects, or no boxes in the answers")
    with np.errstate(invalid="ignore", divide="ignore"):
        return estimate(float(part.sum() / whole.sum()), (counts @ part) / (counts @ whole))


def _choices(entry: _Entry) -> tuple[list[str], int]:
    choices, right = entry.texts("gt_choices"), entry.values.get("gt_choice")
    if len(choices) > 26:
        raise entry.wrong("gt_choices", choices, "up to 26 choices")
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
        raise entry.wrong("gt_choice", right, f"a number from 0 to {len(choices) - 1}")
    return choices, right


def _score_choices(
    questions: Sequence[tuple[Sequence[str], int]],
    texts: Sequence[str],
    faults: Collection[str],
    counts: _Draws,
) -> Table:
    chosen = [
        answers.choose_option(text, choices, faults)
        for (choices, _), text in zip(questions, texts, strict=True)
    ]
    kinds = [f"{len(choices)} choices" for choices, _ in questions]
    right = [taken == wanted for taken, (_, wanted) in zip(chosen, questions, strict=True)]
    return Table(
        "ScienceQA, choices", _accuracies(kinds, right, [c is not None for c in chosen], counts)
    )


def _score_names(
    title: str,
    labels: Sequence[str],
    texts: Sequence[str],
    known: Mapping[str, str],
    faults: Collection[str],
    counts: _Draws,
    noun: str = "",
) -> Table:
    names = _names(set(labels), known)
    named = [answers.named_classes(text, names, faults, noun) for text in texts]
    right = [
        label in said if "names-any-mention" in faults else said == {label}
        for label, said in zip(labels, named, strict=True)
    ]
    return Table(title, _accuracies(labels, right, [len(said) == 1 for said in named], counts))


def _attribute(entry: _Entry) -> str:
    value = entry.values.get("attr")
    return str(value) if type(value) is int and abs(value) == 1 else entry.text("attr")


def _score_faces(
    attributes: Sequence[str], texts: Sequence[str], faults: Collection[str], seed: int
) -> list[Table]:
    """Hair and smiles, each with draws of its own."""
    tables: list[Table] = []
    for of_smiles in (False, True):
        mine = [i for i, attribute in enumerate(attributes) if (attribute in _SMILES) == of_smiles]
        if not mine:
            continue
        labels, said = [attributes[i] for i in mine], [texts[i] for i in mine]
        drawn = draw_counts(range(len(mine)), seed=seed)
        if of_smiles:
            found = [{True: "1", False: "-1", None: ""}[answers.smiles(t, faults)] for t in said]
            right = [a == b for a, b in zip(labels, found, strict=True)]
            kinds = [_SMILES[label] for label in labels]
            rows = _accuracies(kinds, right, [a != "" for a in found], drawn)
            tables.append(Table("CelebA, smiles", rows))
        else:
            names = answers.HAIR_NAMES
            tables.append(_score_names("CelebA, hair", labels, said, names, faults, drawn, "hair"))
    return tables


def _accuracies(
    kinds: Sequence[str],
    right: Sequence[bool],
    answered: Sequence[bool],
    counts: _Draws,
) -> list[Row]:
    """Accuracy in all and for each kind; `answered` counts items with one clear answer."""
    values, clear = np.array(right, np.float64), np.array(answered)
    rows: list[Row] = []
    for name in ("all", *sorted(set(kinds))):
        mine = np.array([name in ("all", kind) for kind in kinds])
        counted = {"images": int(mine.sum()), "answered": int(clear[mine].sum())}
        rows.append(Row(name, counted, {"accuracy": mean_estimate(values[mine], counts[:, mine])}))
    return rows


def _score_captions(
    references: Mapping[str, Sequence[str]],
    said: Mapping[str, str],
    faults: Collection[str],
    counts: _Draws,
) -> Table:
    ngrams.require_pycocoevalcap()
    try:
        tokenize = _tokenize_lines if "flickr30k-line-ends" in faults else ngrams.tokenize_ptb
        wanted = tokenize(references)
        given = tokenize({key: [text] for key, text in said.items()})
        values = ngrams.cider(wanted, {key: texts[0] for key, texts in given.items()})
        score = mean_estimate(values, counts)
    except ngrams.NotAvailable as error:
        score = Estimate.unavailable(str(error))
    counted = {"images": len(said), "references": sum(map(len, references.values()))}
    return Table("Flickr30k, captions", [Row("all", counted, {"CIDEr": score})])


def _tokenize_lines(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The tokenizer without care for line ends."""
    ngrams.require_java()
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({k: [{"caption": t} for t in v] for k, v in texts.items()})


def _names(labels: Collection[str], known: Mapping[str, str]) -> dict[str, list[str]]:
    """The words for each class, of the reference's labels and of the classes known besides."""
    keys = {label: _key(label) for label in sorted(labels)}
    keys |= {name: name for name in known if name not in keys.values()}
    return {
        label: [label.replace("_", " "), *known.get(key, "").split(", ")]
        for label, key in keys.items()
    }


def _key(label: str) -> str:
    key = re.sub(r"[\s_]", "", label.lower()).removesuffix("hair")
    return {"blonde": "blond", "grey": "gray"}.get(key, key)


_SMILES = {"1": "smiling", "-1": "not smiling"}
