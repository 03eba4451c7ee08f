"""The report on dense captions: every variant and threshold, by class, beside blind captions."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from o2s.datasets.language_files import json_entries
from o2s.errors import InputError
from o2s.evaluate.answer_files import is_text
from o2s.evaluate.answer_report import BASELINES
from o2s.evaluate.bootstrap import Sampled, draw_counts
from o2s.evaluate.captions import (
    VARIANTS,
    CaptionScores,
    DescribedObject,
    score_captions,
)
from o2s.evaluate.ngrams import Meteor
from o2s.evaluate.report import Report, Row, Table
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes
from o2s.io.cloud import quote


def read_described(path: Path) -> list[DescribedObject]:
    """The annotated objects of a file in ScanRefer's format, in its order.

    Raises:
        InputError: the file is damaged or of another format, or an annotation comes twice.
    """
    found: dict[tuple[str, str, str], DescribedObject] = {}
    seen: set[tuple[str, str, str]] = set()
    names: dict[tuple[str, str], tuple[str, ...]] = {}
    for entry in json_entries([path], "ScanRefer"):
        scene, identity = entry.text("scene_id"), entry.id("object_id")
        annotation = (scene, identity, entry.id("ann_id"))
        if annotation in seen:
            raise InputError(
                f"{entry.at}ann_id: scene {scene}, object {identity}, annotation {annotation[2]} "
                "comes twice"
            )
        seen.add(annotation)
        name = entry.text("object_name")
        text, words = entry.values.get("description"), entry.values.get("token")
        if not is_text(text):
            raise entry.wrong("description", text, "a text")
        if not isinstance(words, list) or not all(is_text(word) for word in words):
            raise entry.wrong("token", words, "a list of the words of the description")
        earlier = found.get((scene, identity, name))
        texts, tokens = (earlier.descriptions, earlier.tokens) if earlier else ((), ())
        names[scene, identity] = (*names.get((scene, identity), ()), name)
        found[scene, identity, name] = DescribedObject(
            scene, identity, name, (*texts, text), (*tokens, tuple(words)), ()
        )
    if not found:
        raise InputError(f"{path}: no descriptions; expected at least one")
    return [replace(o, names=names[o.scene_id, o.object_id]) for o in found.values()]


def check_boxes(
    described: Sequence[DescribedObject],
    truth: Mapping[str, TrueBoxes],
    *,
    reference: Path,
    boxes: Path,
) -> None:
    """Raise InputError unless there is a true box of each object."""
    for o in described:
        if o.scene_id not in truth:
            there = "; run `o2s prepare` on it" if boxes.is_dir() else ""
            raise InputError(
                f"{boxes}: no scene {quote(o.scene_id)}, whose objects {reference} describes{there}"
            )
        if o.object_id not in truth[o.scene_id].ids:
            raise InputError(
                f"{boxes}: no box of object {quote(o.object_id)} in scene {quote(o.scene_id)}, "
                f"which {reference} describes"
            )


def check_captions(
    described: Sequence[DescribedObject],
    truth: Mapping[str, TrueBoxes],
    predictions: Mapping[str, PredictedBoxes],
    *,
    reference: Path,
    boxes: Path,
    found_in: Path,
) -> None:
    """Raise InputError where descriptions, true boxes and predictions do not belong together."""
    check_boxes(described, truth, reference=reference, boxes=boxes)
    scenes = {o.scene_id for o in described}
    for scene, predicted in predictions.items():
        if scene not in scenes:
            raise InputError(
                f"{found_in}: scene {quote(scene)} is not in {reference}; expected boxes for its "
                f"{len(scenes)} scenes alone"
            )
        if None in predicted.captions:
            number = predicted.captions.index(None)
            raise InputError(
                f"{found_in}: box {number} of scene {quote(scene)} has no caption; expected one "
                "for each box"
            )
    if not predictions:
        raise InputError(f"{found_in}: no predictions; expected boxes with captions")


def report_captions(
    described: Sequence[DescribedObject],
    truth: Mapping[str, TrueBoxes],
    predictions: Mapping[str, PredictedBoxes],
    *,
    variants: Sequence[str],
    thresholds: Sequence[float],
    baselines: Mapping[str, Mapping[str, PredictedBoxes]] | None = None,
    training: Sequence[DescribedObject] | None = None,
    seed: int = 0,
    draws: int = 1000,
    as_published: bool = False,
    made_from: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Score captions of predicted boxes.

    Args:
        described: the annotated objects.
        truth: the true boxes of their scenes.
        predictions: boxes with captions by scene.
        variants: names out of `captions.VARIANTS`.
        thresholds: k of m@kIoU.
        baselines: predictions each of "blind" and "shuffled", where there are any.
        training: objects whose most frequent description is the majority; the scored ones if None.
        seed: of the bootstrap, which draws scenes.
        draws: of the bootstrap; 0 for no intervals.
        as_published: repeat the known faults of each project's scorer.
        made_from: facts for the report.
        notes: further notes.
    """
    systems = {"model": predictions}
    systems |= {BASELINES[name]: held for name, held in (baselines or {}).items()}
    systems["majority caption"] = _all_say(predictions, _majority(training or described))
    tables: list[Table] = []

    def counts(groups: Sequence[str]) -> np.ndarray | None:
        return draw_counts(groups, seed=seed, draws=draws) if draws else None

    with Meteor() as meteor:

        def score(held: Mapping[str, PredictedBoxes], variant: str, k: float) -> CaptionScores:
            return score_captions(
                described,
                truth,
                held,
                variant,
                k,
                counts=counts,
                meteor=meteor,
                as_published=as_published,
            )

        for variant in variants:
            for k in thresholds:
                scored = {system: score(held, variant, k) for system, held in systems.items()}
                model = scored["model"]
                title = f"{variant} @{k}IoU"
                rows = [_row("all", model, lambda o: True, model.all)]
                for name, scores in model.classes.items():
                    rows.append(_row(name, model, _named(name), scores))
                tables.append(Table(title, rows))
                rows = [_row(s, each, lambda o: True, each.all) for s, each in scored.items()]
                for system in [BASELINES[name] for name in (baselines or {})]:
                    gain = {
                        metric: value.minus(scored[system].all[metric])
                        for metric, value in model.all.items()
                    }
                    name = f"gain over {system.split(' (')[0]}"
                    rows.append(_row(name, model, lambda o: True, gain))
                tables.append(Table(f"{title}, beside captions without the scene", rows))
    scenes = {o.scene_id for o in described}
    texts = [*notes, *_notes(scenes, predictions, baselines or {}, draws, as_published)]
    return Report("dense captioning", tables, made_from or {}, texts)


def all_variants(names: Sequence[str]) -> list[str]:
    """The variants that names stand for, of which "all" is one."""
    return list(VARIANTS) if "all" in names else list(dict.fromkeys(names))


def _named(name: str) -> Callable[[DescribedObject], bool]:
    return lambda o: o.name == name


def _row(
    title: str,
    scores: CaptionScores,
    belongs: Callable[[DescribedObject], bool],
    sampled: Mapping[str, Sampled],
) -> Row:
    members = [i for i, o in enumerate(scores.objects) if belongs(o)]
    counts = {
        "objects": len(members),
        "found": sum(scores.found[i] for i in members),
        "descriptions": sum(len(scores.objects[i].descriptions) for i in members),
    }
    if len(members) == len(scores.objects):
        counts["boxes"] = scores.predicted
    name = title.replace("_", " ")
    return Row(name, counts, {metric: value.estimate() for metric, value in sampled.items()})


def _majority(described: Sequence[DescribedObject]) -> str:
    """The most frequent description; of equally frequent ones the first in the alphabet."""
    found = Counter(text for o in described for text in o.descriptions)
    return min(found, key=lambda text: (-found[text], text))


def _all_say(predictions: Mapping[str, PredictedBoxes], text: str) -> dict[str, PredictedBoxes]:
    return {
        scene: replace(held, captions=(text,) * len(held)) for scene, held in predictions.items()
    }


def _notes(
    scenes: set[str],
    predictions: Mapping[str, PredictedBoxes],
    baselines: Mapping[str, Mapping[str, PredictedBoxes]],
    draws: int,
    as_published: bool,
) -> Iterator[str]:
    missing = sorted(scenes - predictions.keys())
    if missing:
        yield (
            f"{len(missing)} of {len(scenes)} scenes have no predicted boxes, such as "
            f"{missing[0]}: their objects count as missed."
        )
    yield (
        "CIDEr weighs words by the descriptions of all scored objects: it compares only with "
        "scores over the same objects. Scores named F also count boxes that found nothing."
    )
    if draws:
        yield f"Intervals: {draws} bootstrap draws of scenes."
    if as_published:
        yield (
            "As published: the benchmark gives the first box of a scene to objects that its "
            "assignment leaves without one."
        )
    for name in BASELINES:
        if name not in baselines:
            yield (
                f"There is no {name} row: the model's own captions without the scene are not at "
                f"hand. Give them with --{name}, or let o2s run the model (--scenes)."
            )
