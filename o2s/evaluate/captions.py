"""Scores of dense captioning: m@kIoU, as each public project counts it.

m@kIoU is the mean, over the annotated objects, of a caption metric m between the caption of the box
that found the object with an IoU above k and the object's descriptions (Chen et al., CVPR 2021,
equation 3). An object that was missed gets the empty caption "sos eos", which for ROUGE-L and
METEOR is a little above 0. So m@kIoU is a recall: boxes too many cost nothing. The F-scores beside
it count them: with s the sum of m over the found objects alone, precision is s over the number of
predicted boxes, recall s over the number of objects (Scan2Cap's benchmark/eval.py).

| variant | descriptions | captions | tokens |
| --- | --- | --- | --- |
| scan2cap, ll3da | "sos", the first 30 of `token`, "eos" | "sos", the words, "eos" | white space |
| chat-scene | "sos", `description`, "eos" | the same | Penn Treebank |
| leo | as scan2cap | a blank before ". " | white space |
| video-3d-llm | `description`, lower case, blanks around "." and "," | the same | white space |
| benchmark | "sos", all of `token`, "eos" | "sos", the words, "eos" | white space |

How boxes find objects: `caption_matching`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32, Int64

from o2s.evaluate.answers import with_blanks, without_line_ends
from o2s.evaluate.bootstrap import Sampled
from o2s.evaluate.caption_matching import match
from o2s.evaluate.ngrams import METRICS, Meteor, Ngrams, NotAvailable, tokenize_ptb
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes

MISSED = "sos eos"


@dataclass(frozen=True)
class DescribedObject:
    """An annotated object with its descriptions, as text and as ScanRefer's tokens.

    An object that annotators named differently is described once for each name; `names` are those
    of all its annotations, in the order of their file.
    """

    scene_id: str
    object_id: str
    name: str
    descriptions: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class CaptionVariant:
    """How a project makes texts, and which name of an object with several it goes by."""

    descriptions: Callable[[DescribedObject], list[str]]
    caption: Callable[[str], str]
    missed: str = MISSED
    skips_unknown: bool = False  # whether objects named "... unknown" do not count
    names: Literal["first", "last", "all", "one"] = "all"
    treebank: bool = False
    meteor_text: Callable[[str], str] = str


def _tokens(described: DescribedObject, limit: int | None) -> list[str]:
    return [" ".join(["sos", *words[:limit], "eos"]) for words in described.tokens]


def _words(caption: str) -> str:
    return " ".join(["sos", *caption.split(), "eos"])


def _spaced(text: str) -> str:
    return "sos " + text.replace(".", " . ").replace(",", " , ").lower() + " eos"


VARIANTS: dict[str, CaptionVariant] = {
    "scan2cap": CaptionVariant(lambda o: _tokens(o, 30), _words, names="first"),
    "ll3da": CaptionVariant(
        lambda o: _tokens(o, 30),
        lambda caption: f"sos {caption} eos".replace("  ", " "),
        skips_unknown=True,
        names="last",
        meteor_text=without_line_ends,
    ),
    "chat-scene": CaptionVariant(
        lambda o: [f"sos {text} eos" for text in o.descriptions],
        lambda caption: f"sos {caption} eos",
        names="one",
        treebank=True,
    ),
    "leo": CaptionVariant(
        lambda o: _tokens(o, 30),
        lambda caption: f"sos {caption} eos".replace(". ", " . "),
        meteor_text=with_blanks,
    ),
    "video-3d-llm": CaptionVariant(
        lambda o: [_spaced(text) for text in o.descriptions],
        lambda caption: _spaced(caption.strip()),
        missed=_spaced(""),
    ),
    "benchmark": CaptionVariant(lambda o: _tokens(o, None), _words, names="one"),
}


@dataclass(frozen=True)
class CaptionScores:
    """Scores over all objects and by name of the object, with what they are counted over."""

    all: Mapping[str, Sampled]
    classes: Mapping[str, Mapping[str, Sampled]]
    objects: Sequence[DescribedObject]
    found: Sequence[bool]
    predicted: int


def score_captions(
    described: Sequence[DescribedObject],
    truth: Mapping[str, TrueBoxes],
    predictions: Mapping[str, PredictedBoxes],
    variant: str,
    threshold: float,
    *,
    counts: Callable[[Sequence[str]], Int32[np.ndarray, "S N"] | None] = lambda groups: None,
    meteor: Meteor | None = None,
    as_published: bool = False,
) -> CaptionScores:
    """m@kIoU and its F-scores.

    Classes are scored by the words' weights among all objects, so that they average to the whole.

    Args:
        described: the annotated objects, one for each scene, object and name.
        truth: the true boxes of the scenes.
        predictions: the predicted boxes with their captions.
        variant: one of VARIANTS.
        threshold: k.
        counts: makes bootstrap draws out of the scene of each item.
        meteor: a METEOR process; without one METEOR is not available.
        as_published: repeat the faults that `caption_matching` names.
    """
    style = VARIANTS[variant]
    objects = _merged(described) if style.names == "one" else list(described)
    if style.skips_unknown:
        objects = [o for o in objects if not o.name.endswith("unknown")]
    box_scenes = [scene for scene, held in predictions.items() for _ in range(len(held))]
    if not objects:
        reason = "no object counts: all are named unknown"
        none = {name: Sampled(None, reason=reason) for name in METRICS}
        return CaptionScores(none, {}, [], [], len(box_scenes))
    boxes = _find(objects, truth, predictions, variant, threshold, as_published=as_published)
    texts = [
        style.missed if box < 0 else style.caption(_caption(predictions[o.scene_id], box))
        for o, box in zip(objects, boxes, strict=True)
    ]
    found = np.array([box >= 0 for box in boxes], dtype=np.float64)
    scene_of = [o.scene_id for o in objects]
    drawn = counts([*scene_of, *box_scenes])
    of_objects = None if drawn is None else drawn[:, : len(objects)]
    of_boxes = None if drawn is None else drawn[:, len(objects) :].sum(axis=1)
    try:
        ngrams = _count(objects, texts, style, meteor)
    except NotAvailable as reason:
        none = {name: Sampled(None, reason=str(reason)) for name in METRICS}
        names = sorted({o.name for o in objects})
        return CaptionScores(
            none, dict.fromkeys(names, none), objects, (found > 0).tolist(), len(box_scenes)
        )
    whole = dict(ngrams.scores(of_objects))
    for name, values in ngrams.item_scores().items():
        if values is None:
            whole[f"{name} F"] = Sampled(None, reason=whole[name].reason)
        else:
            whole[f"{name} F"] = _f_score(
                np.nan_to_num(values) * found, len(box_scenes), of_objects, of_boxes
            )
    rows: dict[str, list[int]] = {}
    for i, described_object in enumerate(objects):
        rows.setdefault(described_object.name, []).append(i)
    classes = {
        name: ngrams.scores(of_objects, np.array(members), own_corpus=False)
        for name, members in sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
    }
    return CaptionScores(whole, classes, objects, (found > 0).tolist(), len(box_scenes))


def _find(
    objects: Sequence[DescribedObject],
    truth: Mapping[str, TrueBoxes],
    predictions: Mapping[str, PredictedBoxes],
    variant: str,
    threshold: float,
    *,
    as_published: bool,
) -> list[int]:
    """The number of the predicted box of each described object, -1 where it is missed."""
    described = {(o.scene_id, o.object_id) for o in objects}
    matches: dict[tuple[str, str], int] = {}
    for scene, true in truth.items():
        annotated = np.array([(scene, identity) in described for identity in true.ids], dtype=bool)
        if scene in predictions:
            chosen = match(
                variant,
                predictions[scene].boxes,
                true.boxes,
                annotated,
                threshold,
                as_published=as_published,
            )
            matches |= {(scene, i): int(box) for i, box in zip(true.ids, chosen, strict=True)}
    which = VARIANTS[variant].names
    boxes = []
    for o in objects:
        counted = {"first": o.names[0], "last": o.names[-1]}.get(which, o.name)
        box = matches.get((o.scene_id, o.object_id), -1)
        boxes.append(box if o.name == counted else -1)
    return boxes


def _merged(described: Sequence[DescribedObject]) -> list[DescribedObject]:
    """One entry an object, whatever names it has."""
    merged: dict[tuple[str, str], DescribedObject] = {}
    for o in described:
        key = (o.scene_id, o.object_id)
        first = merged.get(key)
        if first is not None:
            texts, tokens = first.descriptions + o.descriptions, first.tokens + o.tokens
            o = DescribedObject(*key, first.name, texts, tokens, o.names)
        merged[key] = o
    return list(merged.values())


def _caption(predicted: PredictedBoxes, box: int) -> str:
    return predicted.captions[box] or ""


def _count(
    objects: Sequence[DescribedObject],
    texts: Sequence[str],
    style: CaptionVariant,
    meteor: Meteor | None,
) -> Ngrams:
    references = [style.descriptions(o) for o in objects]
    if style.treebank:
        tokenized = tokenize_ptb(
            {f"caption {i}": [text] for i, text in enumerate(texts)}
            | {f"references {i}": held for i, held in enumerate(references)}
        )
        texts = [tokenized[f"caption {i}"][0] for i in range(len(texts))]
        references = [tokenized[f"references {i}"] for i in range(len(references))]
    return Ngrams(references, texts, meteor, meteor_text=style.meteor_text)


def _f_score(
    values: Float64[np.ndarray, "N"],
    boxes: int,
    of_objects: Int32[np.ndarray, "S N"] | None,
    of_boxes: Int64[np.ndarray, "S"] | None,
) -> Sampled:
    """The harmonic mean of sum / boxes and sum / objects, which is 2 sum / (boxes + objects)."""
    value = 2 * float(values.sum()) / max(1, boxes + len(values))
    if of_objects is None or of_boxes is None:
        return Sampled(value)
    return Sampled(value, 2 * (of_objects @ values) / (of_boxes + of_objects.sum(axis=1)))
