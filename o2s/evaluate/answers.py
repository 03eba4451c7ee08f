"""Scores of answers to questions about scenes, as each public project counts them.

The same predictions score differently with each: they clean, tokenise and match differently. So a
score always names its variant. EM@1 is the part of answers that equal a reference; EM-refined also
counts answers that contain a reference or are contained in one, white space aside.

| variant | prediction | references | tokens |
| --- | --- | --- | --- |
| official | as it is | as they are | Penn Treebank |
| ll3da | single blanks | as they are | white space |
| leo | cleaned | cleaned | white space |
| chat-scene | no last ".", cleaned | as they are (SQA3D: cleaned) | Penn Treebank |
| llava-3d | cleaned | cleaned | Penn Treebank |
| video-3d-llm | no last "." (SQA3D: cleaned) | as they are (SQA3D: cleaned) | white space |

Sources: ATR-DBI/ScanQA scripts/score.py; Open3DA/LL3DA eval_utils/evaluate_qa.py;
embodied-generalist evaluator/scanqa_eval.py and sqa3d_eval.py; ZzZZCHS/Chat-Scene utils/eval.py;
ZCMax/LLaVA-3D llava/eval/scanqa_evaluator.py and sqa3d_evaluator.py; LaVi-Lab/Video-3D-LLM
llava/eval/eval_scanqa.py and eval_sqa3d.py.

"Cleaned" is `clean_answer`. Video-3D-LLM's EM@1 keeps the last ".", its n-grams lose all of them. A
metric that a project does not have is left out of its table.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32

from o2s.evaluate.answer_cleaning import clean_answer
from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.bootstrap import Sampled, sampled_mean
from o2s.evaluate.ngrams import METRICS, Meteor, Ngrams, NotAvailable, tokenize_ptb

DataSet = Literal["scanqa", "sqa3d"]


@dataclass(frozen=True)
class AnswerVariant:
    """How a project prepares and matches texts."""

    prediction: Callable[[str], str]
    reference: Callable[[str], str]
    exact: bool = True  # whether it has EM@1
    exact_prediction: Callable[[str], str] | None = None  # where EM reads it otherwise
    refined: bool = True  # whether it has EM-refined
    ngrams: bool = True  # whether it has BLEU, METEOR, ROUGE-L and CIDEr
    treebank: bool = False  # whether n-grams are of Penn Treebank tokens
    meteor_text: Callable[[str], str] = str  # what METEOR reads of a text
    faults: tuple[str, ...] = ()  # of FAULTS, which only `as_published` repeats


FAULTS = {
    "empty-matches": "an empty answer equals an empty reference, and EM-refined counts it as "
    "contained in every reference",
    "empty-reference-matches": "EM-refined counts a reference that cleaning left empty as "
    "contained in every answer",
    "first-containment-ends": "EM@1 stops at the first reference that contains the answer or is "
    "contained in it, though a later one equals it",
}


def _single_blanks(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word)


def _sentence_to_answer(text: str) -> str:
    """Without the final full stop and the capital of a sentence, then cleaned."""
    if len(text) > 1:
        text = text.removesuffix(".")
        text = text[0].lower() + text[1:] if text else text
    return clean_answer(text)


def _without_full_stops(text: str) -> str:
    return text.rstrip(".")


def _stripped(text: str) -> str:
    return text.replace("\n", " ").strip()


def without_line_ends(text: str) -> str:
    """What LL3DA's METEOR reads: words that a line end parted become one."""
    return text.replace("\n", "").replace("\r", "")


def with_blanks(text: str) -> str:
    """What LEO's METEOR reads: any white space is one blank."""
    return re.sub(r"\s+", " ", text)


VARIANTS: dict[str, AnswerVariant] = {
    "official": AnswerVariant(str, str, refined=False, treebank=True, faults=("empty-matches",)),
    "ll3da": AnswerVariant(
        _single_blanks, str, exact=False, refined=False, meteor_text=without_line_ends
    ),
    "leo": AnswerVariant(
        clean_answer,
        lambda text: clean_answer(text.strip()),
        meteor_text=with_blanks,
        faults=("empty-matches", "empty-reference-matches", "first-containment-ends"),
    ),
    "chat-scene": AnswerVariant(
        _sentence_to_answer, str, treebank=True, faults=("empty-reference-matches",)
    ),
    "llava-3d": AnswerVariant(
        clean_answer,
        clean_answer,
        treebank=True,
        faults=("empty-matches", "empty-reference-matches"),
    ),
    "video-3d-llm": AnswerVariant(
        _without_full_stops,
        str,
        exact_prediction=str,
        refined=False,
        faults=("empty-matches",),
    ),
}

_OF_SQA3D: dict[str, AnswerVariant] = {
    "chat-scene": replace(VARIANTS["chat-scene"], reference=clean_answer),
    "llava-3d": replace(VARIANTS["llava-3d"], ngrams=False),
    "video-3d-llm": AnswerVariant(
        clean_answer, clean_answer, refined=False, ngrams=False, faults=("empty-matches",)
    ),
}


@dataclass(frozen=True)
class AnswerScores:
    """The scores of one variant over all questions and over each kind of question."""

    all: Mapping[str, Sampled]
    kinds: Mapping[str, Mapping[str, Sampled]]


def find_variant(name: str, data_set: DataSet) -> AnswerVariant:
    """A variant as its project counts a data set."""
    return _OF_SQA3D.get(name, VARIANTS[name]) if data_set == "sqa3d" else VARIANTS[name]


def score_answers(
    questions: Sequence[AskedQuestion],
    answers: Sequence[str],
    variant: AnswerVariant,
    *,
    counts: Int32[np.ndarray, "S N"] | None = None,
    meteor: Meteor | None = None,
    as_published: bool = False,
) -> AnswerScores:
    """Score one answer a question.

    CIDEr, whose weights depend on the references at hand, is computed for each kind among the
    questions of that kind, as ScanQA's own script does.

    Args:
        questions: N questions with their references.
        answers: the N predicted answers.
        variant: how to count.
        counts: bootstrap draws of the questions (`bootstrap.draw_counts`).
        meteor: a METEOR process; without one METEOR is not available.
        as_published: repeat the faults of the project, `variant.faults`.
    """
    references = [q.answers for q in questions]
    exact, refined = match_exactly(references, answers, variant, as_published=as_published)
    ngrams = _count_ngrams(references, answers, variant, meteor) if variant.ngrams else None

    def score(chosen: np.ndarray | None) -> dict[str, Sampled]:
        rows = np.arange(len(questions)) if chosen is None else chosen
        drawn = None if counts is None else counts[:, rows]
        found: dict[str, Sampled] = {}
        if variant.exact:
            found["EM@1"] = sampled_mean(exact[rows], drawn)
        if variant.refined:
            found["EM-refined"] = sampled_mean(refined[rows], drawn)
        if isinstance(ngrams, Ngrams):
            found |= ngrams.scores(counts, chosen)
        elif ngrams is not None:
            found |= {name: Sampled(None, reason=str(ngrams)) for name in METRICS}
        return found

    kinds = sorted({q.kind for q in questions})
    rows_of = {
        kind: np.array([i for i, q in enumerate(questions) if q.kind == kind]) for kind in kinds
    }
    return AnswerScores(score(None), {kind: score(rows) for kind, rows in rows_of.items()})


def match_exactly(
    references: Sequence[Sequence[str]],
    answers: Sequence[str],
    variant: AnswerVariant,
    *,
    as_published: bool = False,
) -> tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "N"]]:
    """EM@1 and EM-refined of each of N answers, 0 or 1."""
    clean = variant.exact_prediction or variant.prediction
    faults = variant.faults if as_published else ()
    matches = [
        _match(clean(answer), [variant.reference(text) for text in texts], faults)
        for texts, answer in zip(references, answers, strict=True)
    ]
    exact, refined = np.array(matches, dtype=np.float64).reshape(-1, 2).T
    return exact, refined


def _match(answer: str, references: Sequence[str], faults: Sequence[str]) -> tuple[bool, bool]:
    """Whether an answer equals a reference, and whether one contains the other."""
    if not answer.split() and "empty-matches" not in faults:
        return False, False
    contained = []
    for reference in references:
        short, long = sorted(("".join(answer.split()), "".join(reference.split())), key=len)
        countable = bool(short) or (
            ("empty-matches" in faults and not answer.split())
            or ("empty-reference-matches" in faults and not "".join(reference.split()))
        )
        contained.append(countable and short in long)
    if "first-containment-ends" in faults:
        first = contained.index(True) if True in contained else len(references)
        return answer in references[: first + 1], any(contained)
    exact = answer in references
    return exact, exact or any(contained)


def _count_ngrams(
    references: Sequence[Sequence[str]],
    answers: Sequence[str],
    variant: AnswerVariant,
    meteor: Meteor | None,
) -> Ngrams | NotAvailable:
    """N-gram statistics of prepared texts, or why there are none."""
    candidates = [variant.prediction(answer) for answer in answers]
    prepared = [[variant.reference(text) for text in texts] for texts in references]
    if variant.treebank:
        prepared = [[_stripped(text) for text in texts] for texts in prepared]
        try:
            tokenized = tokenize_ptb(
                {f"answer {i}": [text] for i, text in enumerate(candidates)}
                | {f"references {i}": texts for i, texts in enumerate(prepared)}
            )
        except NotAvailable as reason:
            return reason
        candidates = [tokenized[f"answer {i}"][0] for i in range(len(candidates))]
        prepared = [tokenized[f"references {i}"] for i in range(len(prepared))]
    return Ngrams(prepared, candidates, meteor, meteor_text=variant.meteor_text)
