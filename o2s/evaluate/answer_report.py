"""The report on answers: every variant by kind of question, and beside baselines that see nothing.

A language model can answer many questions about a scene without seeing it. So the answers of the
model are set against its own blind ones (no scene tokens), those about another scene than the one
asked about (shuffled), and the most frequent answer to that kind of question. The headline is the
gain over blind and shuffled.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.answers import (
    FAULTS,
    VARIANTS,
    AnswerScores,
    DataSet,
    find_variant,
    score_answers,
)
from o2s.evaluate.bootstrap import Sampled, draw_counts
from o2s.evaluate.ngrams import Meteor
from o2s.evaluate.report import Report, Row, Table

BASELINES = {
    "blind": "blind (no scene tokens)",
    "shuffled": "shuffled scene (tokens of another)",
}


def report_answers(
    questions: Sequence[AskedQuestion],
    answers: Sequence[str],
    *,
    data_set: DataSet,
    variants: Sequence[str],
    baselines: Mapping[str, Sequence[str]] | None = None,
    training: Sequence[AskedQuestion] | None = None,
    seed: int = 0,
    draws: int = 1000,
    by_scene: bool = False,
    as_published: bool = False,
    made_from: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Score the answers to N questions.

    Args:
        questions: N questions.
        answers: the N predicted answers.
        data_set: some projects count ScanQA and SQA3D differently.
        variants: names out of `answers.VARIANTS`.
        baselines: N answers each of "blind" and "shuffled", where there are any.
        training: questions whose most frequent answers are the majority; the scored ones if None.
        seed: of the bootstrap.
        draws: of the bootstrap; 0 for no intervals.
        by_scene: draw whole scenes instead of questions.
        as_published: repeat the known faults of each project's scorer.
        made_from: facts for the report.
        notes: further notes.
    """
    groups = [q.scene_id for q in questions] if by_scene else list(range(len(questions)))
    counts = draw_counts(groups, seed=seed, draws=draws) if draws else None
    systems: dict[str, Sequence[str]] = {"model": answers}
    systems |= {BASELINES[name]: texts for name, texts in (baselines or {}).items()}
    systems["majority answer"] = majority_answers(questions, training or questions)
    tables: list[Table] = []
    with Meteor() as meteor:
        for name in variants:
            variant = find_variant(name, data_set)
            scored = {
                system: score_answers(
                    questions,
                    texts,
                    variant,
                    counts=counts,
                    meteor=meteor,
                    as_published=as_published,
                )
                for system, texts in systems.items()
            }
            model = scored["model"]
            rows = [_row("all", questions, model.all)]
            for kind, scores in model.kinds.items():
                rows.append(_row(kind, [q for q in questions if q.kind == kind], scores))
            tables.append(Table(name, rows))
            rows = [_row(system, questions, scores.all) for system, scores in scored.items()]
            for system in [BASELINES[name] for name in (baselines or {})]:
                others = scored[system].all
                gain = {metric: score.minus(others[metric]) for metric, score in model.all.items()}
                rows.append(_row(f"gain over {system.split(' (')[0]}", questions, gain))
            tables.append(Table(f"{name}, beside answers without the scene", rows))
            if "blind" in (baselines or {}):
                tables.append(_gain_by_kind(name, questions, model, scored[BASELINES["blind"]]))
    texts = [
        *notes,
        *_notes(questions, variants, data_set, counts, by_scene, as_published),
        *_baseline_notes(baselines or {}, training),
    ]
    return Report("question answering", tables, made_from or {}, texts)


def _gain_by_kind(
    variant: str, questions: Sequence[AskedQuestion], model: AnswerScores, blind: AnswerScores
) -> Table:
    """How much more of each kind of question is answered rightly than without the scene."""
    rows: list[Row] = []
    for kind, scores in model.kinds.items():
        asked = [q for q in questions if q.kind == kind]
        others = blind.kinds[kind]
        gain = {metric: score.minus(others[metric]) for metric, score in scores.items()}
        rows.append(_row(kind, asked, gain))
    return Table(f"{variant}, gain over blind by kind", rows)


def majority_answers(
    questions: Sequence[AskedQuestion], counted: Sequence[AskedQuestion]
) -> list[str]:
    """To each question the most frequent answer to its kind among the counted questions.

    An answer counts once a question; of equally frequent ones the first in the alphabet is taken.
    A kind that was not counted gets the most frequent answer of all.
    """
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in counted:
        by_kind[question.kind].update(set(question.answers))
        by_kind[""].update(set(question.answers))
    best = {
        kind: min(found, key=lambda text: (-found[text], text)) for kind, found in by_kind.items()
    }
    return [best.get(question.kind, best[""]) for question in questions]


def _row(name: str, questions: Sequence[AskedQuestion], scores: Mapping[str, Sampled]) -> Row:
    counts = {
        "questions": len(questions),
        "references": sum(len(question.answers) for question in questions),
    }
    return Row(name, counts, {metric: score.estimate() for metric, score in scores.items()})


def _notes(
    questions: Sequence[AskedQuestion],
    variants: Sequence[str],
    data_set: DataSet,
    counts: np.ndarray | None,
    by_scene: bool,
    as_published: bool,
) -> Iterator[str]:
    scenes = len({question.scene_id for question in questions})
    yield (
        f"{len(questions)} questions about {scenes} scenes. CIDEr weighs words by the references "
        "at hand: it compares only with scores over the same questions, and each kind of question "
        "is weighed by itself."
    )
    if counts is not None:
        drawn = "scenes" if by_scene else "questions"
        yield f"Intervals: {len(counts)} bootstrap draws of {drawn}."
    if "chat-scene" in variants and data_set == "scanqa":
        yield (
            "chat-scene compares cleaned answers with references as they are, so that 'two' does "
            "not match '2', nor 'chair' 'the chair'."
        )
    if as_published:
        for name in variants:
            for fault in find_variant(name, data_set).faults:
                yield f"{name} as published, with the fault {fault}: {FAULTS[fault]}."


def _baseline_notes(
    baselines: Mapping[str, Sequence[str]], training: Sequence[AskedQuestion] | None
) -> Iterator[str]:
    for name in BASELINES:
        if name not in baselines:
            yield (
                f"There is no {name} row: the model's own answers without the scene are not at "
                f"hand. Give them with --{name}, or let o2s run the model (--scenes)."
            )
    if training is None:
        yield (
            "The majority answers were counted on the very references they are scored with, which "
            "flatters them; --train counts them on other questions."
        )


def all_variants(names: Sequence[str]) -> list[str]:
    """The variants that names stand for, of which "all" is one."""
    return list(VARIANTS) if "all" in names else list(dict.fromkeys(names))
