"""Zero-shot classification: the class whose name is nearest to an object's points wins.

    objects -> region encoder       features [N, D], length 1
    classes -> text_embeddings      vectors [C, D], length 1
            -> cosines              [N, C] -> rank of the true class -> top-1, top-3, top-5

An object is right in top-k if fewer than k classes come before its own. A class comes before
another if its cosine is higher, or the same and its number lower. The micro average counts every
object the same; the macro average counts every class the same that has objects. Cosines are those
of ULIP (Xue et al., CVPR 2023; github.com/salesforce/ULIP, main.py, `test_zeroshot_3d_core`), in
float32, whose top-k differs in ties alone: torch.topk returns tied classes in no stated order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Integer
from torch import Tensor

from o2s.errors import InputError
from o2s.evaluate.bootstrap import DRAWS, Estimate, draw_counts, estimate
from o2s.evaluate.object_features import ObjectFeatures
from o2s.evaluate.report import Report, Row, Table, versions
from o2s.evaluate.text_embeddings import TextEmbeddings, unit
from o2s.io.cloud import quote

TOP = (1, 3, 5)
CONFUSIONS = 20  # the most frequent ones in the report
_CHUNK = 512  # objects whose cosines are held at once


@dataclass(frozen=True)
class Ranking:
    """Of N objects: how many classes come before the true one, the class that comes first, and
    how many true classes are level with another."""

    ranks: Int64[np.ndarray, "N"]
    predicted: Int64[np.ndarray, "N"]
    tied: int


def score_zero_shot(
    objects: ObjectFeatures,
    text: TextEmbeddings,
    *,
    candidates: Sequence[str] | None = None,
    resample: Literal["objects", "scenes"] = "objects",
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Report, Int64[np.ndarray, "C C"]]:
    """The report, and how many objects of class i were taken for class j, at [i, j].

    Args:
        objects: what is classified.
        text: embeddings of all candidates.
        candidates: the classes to choose from. If not given, those that `objects` names, or else
            those of `text`. Objects that name their classes are matched by name.
        resample: what the bootstrap draws; scenes where objects of a scene resemble each other.
        seed: of the draws.
        draws: how many; with 0 there are no intervals.

    Raises:
        InputError: objects, candidates and text do not fit together.
    """
    classes = tuple(candidates or objects.classes or text.classes)
    chosen = text.select(classes)
    require_same_width(objects.features.shape[1], objects.source, text)
    if resample == "scenes" and objects.scenes is None:
        raise InputError(f"{objects.source}: does not say which scenes its objects are of")
    targets = _numbered(objects, classes, named=objects.classes or text.classes)
    ranking = rank_classes(objects.features, targets, chosen.vectors(), source=objects.source)
    true = targets.numpy()
    confusion = np.zeros((len(classes),) * 2, np.int64)
    np.add.at(confusion, (true, ranking.predicted), 1)
    report = Report(
        task="zero-shot",
        tables=[
            *score_tables(
                ranking.ranks,
                true,
                classes,
                scenes=objects.scenes if resample == "scenes" else None,
                seed=seed,
                draws=draws,
            ),
            confusion_table(confusion, classes),
        ],
        notes=_notes(objects, chosen, ranking, confusion),
        made_from={
            "objects": {"source": Path(objects.source).name, **objects.made_from},
            "untrained": list(objects.untrained),
            "text": {"source": Path(text.source).name, "width": text.width},
            "templates": list(text.templates) or "averaged before",
            "classes": len(classes),
            "intervals": {"resampled": resample, "seed": seed, "draws": draws},
            "versions": versions("torch", "transformers"),
        },
    )
    return report, confusion


def rank_classes(
    features: Float32[Tensor, "N D"],
    targets: Int64[Tensor, "N"],
    vectors: Float32[Tensor, "C D"],
    *,
    source: str = "features",
) -> Ranking:
    """Rank the classes of each object by cosine; `vectors` have length 1, `features` any.

    Raises:
        InputError: features that are zero; `source` begins the message.
    """
    features = unit(features, lambda row: f"{source}: features[{row}]")
    ranks, predicted, tied = [], [], 0
    number = torch.arange(len(vectors))
    for start in range(0, len(features), _CHUNK):
        cosines = features[start : start + _CHUNK] @ vectors.T
        own = targets[start : start + _CHUNK, None]
        reached = cosines.gather(1, own)
        before = (cosines > reached).sum(dim=1)
        level = ((cosines >= reached).sum(dim=1) - before > 1).nonzero()[:, 0]
        equal = cosines[level] == reached[level]
        before[level] += (equal & (number < own[level])).sum(dim=1)
        ranks.append(before)
        predicted.append(cosines.argmax(dim=1))  # the first of equal ones
        tied += len(level)
    return Ranking(torch.cat(ranks).numpy(), torch.cat(predicted).numpy(), tied)


def require_same_width(width: int, source: str, text: TextEmbeddings) -> None:
    """Raise InputError unless embeddings of objects are as wide as those of the classes."""
    if width != text.width:
        raise InputError(
            f"{source}: embeddings of width {width}, and {text.source} of width {text.width}; "
            "expected the same width, of towers that were trained together"
        )


def _numbered(
    objects: ObjectFeatures, classes: Sequence[str], *, named: Sequence[str]
) -> Int64[Tensor, "N"]:
    """The target of each object as a number of `classes`; they come as numbers of `named`."""
    outside = (objects.targets < 0) | (objects.targets >= len(named))
    if outside.any():
        row = int(outside.int().argmax())
        raise InputError(
            f"{objects.source}: targets[{row}] is {int(objects.targets[row])}; expected 0 to "
            f"{len(named) - 1}, for {len(named)} classes"
        )
    place = {name: i for i, name in enumerate(classes)}
    numbers = torch.tensor([place.get(name, -1) for name in named])[objects.targets]
    if (numbers < 0).any():
        name = named[int(objects.targets[int((numbers < 0).int().argmax())])]
        raise InputError(
            f"{objects.source}: has objects of the class {quote(name)}, which is none of the "
            f"{len(classes)} classes to choose from"
        )
    return numbers


def score_tables(
    ranks: Int64[np.ndarray, "N"],
    true: Int64[np.ndarray, "N"],
    classes: Sequence[str],
    *,
    scenes: Sequence[str] | None,
    seed: int,
    draws: int,
) -> list[Table]:
    """The tables "all" and "per class"."""
    levels = len(TOP) + 1
    shape = (len(classes), levels)
    # Objects of one class whose ranks lie between the same two of TOP count the same.
    cells = true * levels + np.searchsorted(TOP, ranks, side="right")
    counts = np.bincount(cells, minlength=len(classes) * levels)
    drawn = _drawn(cells, counts, scenes, seed, draws).reshape(-1, *shape).cumsum(axis=2)
    # Of each class, the objects that are right in each of TOP, and, last, all of them.
    hits = counts.reshape(shape).cumsum(axis=1)
    totals, drawn_totals = hits[:, -1], drawn[..., -1]
    present = np.flatnonzero(totals).tolist()
    micro, macro, chance = {}, {}, {}
    each: list[dict[str, Estimate]] = [{} for _ in present]
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, k in enumerate(TOP):
            name = f"top-{k}"
            if k > len(classes):
                lacking = Estimate.unavailable(f"only {len(classes)} classes")
                for scores in (micro, macro, chance, *each):
                    scores[name] = lacking
                continue
            shares = hits[present, i] / totals[present]
            drawn_shares = drawn[:, present, i] / drawn_totals[:, present]
            drawn_micro = drawn[..., i].sum(axis=1) / drawn_totals.sum(axis=1)
            drawn_macro = np.nansum(drawn_shares, axis=1) / np.isfinite(drawn_shares).sum(axis=1)
            micro[name] = estimate(float(hits[:, i].sum() / len(ranks)), drawn_micro)
            macro[name] = estimate(float(shares.mean()), drawn_macro)
            chance[name] = Estimate(k / len(classes))
            for j, share in enumerate(shares):
                some = drawn_shares[:, j] if totals[present[j]] > 1 else drawn_shares[:0, j]
                each[j][name] = estimate(float(share), some)
    scored = {"objects": len(ranks), "classes": len(present)}
    rows = [Row("micro", scored, micro), Row("macro", scored, macro), Row("chance", {}, chance)]
    per_class = [
        Row(classes[i], {"objects": int(totals[i])}, scores)
        for i, scores in zip(present, each, strict=True)
    ]
    return [Table("all", rows), Table("per class", per_class)]


def _drawn(
    cells: Int64[np.ndarray, "N"],
    counts: Integer[np.ndarray, "K"],
    scenes: Sequence[str] | None,
    seed: int,
    draws: int,
) -> Float64[np.ndarray, "S K"]:
    """How many objects fall in each cell, in each draw of the bootstrap.

    Objects drawn one by one fall in cells by the multinomial distribution, which is quicker.
    """
    if scenes is None:
        filled = np.flatnonzero(counts)
        drawn = np.zeros((draws, len(counts)))
        rng = np.random.default_rng(seed)
        drawn[:, filled] = rng.multinomial(len(cells), counts[filled] / len(cells), size=draws)
        return drawn
    numbers = {scene: i for i, scene in enumerate(dict.fromkeys(scenes))}
    table = np.zeros((len(numbers), len(counts)))
    np.add.at(table, (np.array([numbers[scene] for scene in scenes]), cells), 1)
    return draw_counts(list(numbers), seed=seed, draws=draws).astype(np.float64) @ table


def confusion_table(confusion: Int64[np.ndarray, "C C"], classes: Sequence[str]) -> Table:
    """The most frequent confusions; among equals those of lower numbers first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    rows = []
    for true, taken in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if count := int(wrong[true, taken]):
            share = Estimate(float(count / confusion[true].sum()))
            name = f"{classes[true]} taken for {classes[taken]}"
            rows.append(Row(name, {"objects": count}, {"share of the class": share}))
    return Table("most frequent confusions", rows)


def _notes(
    objects: ObjectFeatures,
    text: TextEmbeddings,
    ranking: Ranking,
    confusion: Int64[np.ndarray, "C C"],
) -> list[str]:
    notes = [*objects.notes, *text.notes]
    if objects.untrained:
        parts = ", ".join(objects.untrained)
        notes.insert(0, f"untrained: {parts}. These hold random numbers: the scores are by chance")
    empty = [text.classes[i] for i in np.flatnonzero(confusion.sum(axis=1) == 0)]
    if empty:
        notes.append(
            f"{len(empty)} classes have no objects. They can be predicted, and count nowhere in "
            f"the macro average: {', '.join(empty)}"
        )
    if ranking.tied:
        notes.append(
            f"{ranking.tied} objects: another class has the same cosine as the true one; of equal "
            "ones the class of lower number comes first"
        )
    return notes
