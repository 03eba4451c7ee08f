import random
import shutil

import pytest

from o2s.evaluate.answer_cleaning import clean_answer
from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.answers import FAULTS, VARIANTS, find_variant, match_exactly, score_answers
from o2s.evaluate.bootstrap import draw_counts

ANSWERS = (
    "brown",
    "Brown",
    "2",
    "two",
    "two chairs",
    "the brown chair.",
    "",
    ".",
    "椅子",
    " a tv ",
)


def ask(number: int, kind: str, *answers: str) -> AskedQuestion:
    return AskedQuestion(str(number), "scene0000_00", "What?", "What?", kind, answers)


def random_questions(seed: int, count: int) -> tuple[list[AskedQuestion], list[str]]:
    rng = random.Random(seed)
    questions = [
        ask(i, rng.choice(["place", "color"]), *rng.choices(ANSWERS[:6], k=rng.randint(1, 3)))
        for i in range(count)
    ]
    return questions, rng.choices(ANSWERS, k=count)


def plain_match(answer: str, references: list[str]) -> tuple[float, float]:
    """EM@1 and EM-refined by their definition."""
    if answer.split() == []:
        return 0.0, 0.0
    if answer in references:
        return 1.0, 1.0
    for reference in references:
        a, b = "".join(answer.split()), "".join(reference.split())
        if b and (a in b or b in a):
            return 0.0, 1.0
    return 0.0, 0.0


@pytest.mark.parametrize("seed", range(3))
def test_leo_matches_cleaned_texts(seed: int) -> None:
    questions, answers = random_questions(seed, 80)
    exact, refined = match_exactly([q.answers for q in questions], answers, VARIANTS["leo"])
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        expected = plain_match(clean_answer(answer), [clean_answer(a) for a in question.answers])
        assert (exact[i], refined[i]) == expected, (question.answers, answer)


@pytest.mark.parametrize(
    "variant, answer, references, exact, refined",
    [
        ("official", "Brown", ["brown"], 0, None),
        ("official", "brown", ["red", "brown"], 1, None),
        ("leo", "Brown.", ["brown"], 1, 1),
        ("leo", "2", ["two"], 1, 1),
        ("leo", "brown chair", ["the brown chair by the wall"], 0, 1),
        ("chat-scene", "Brown.", ["brown"], 1, 1),
        ("chat-scene", "two", ["2"], 0, 0),  # its references are not cleaned
        ("llava-3d", "two", ["2"], 1, 1),
        ("video-3d-llm", "brown.", ["brown"], 0, None),
        ("video-3d-llm", "brown.", ["brown."], 1, None),
    ],
)
def test_variants_differ_in_what_they_match(
    variant: str, answer: str, references: list[str], exact: int, refined: int | None
) -> None:
    found = match_exactly([references], [answer], VARIANTS[variant])
    assert found[0][0] == exact
    if refined is not None:
        assert found[1][0] == refined
    assert VARIANTS[variant].refined is (refined is not None)


def test_chat_scene_cleans_references_of_sqa3d_alone() -> None:
    for data_set, expected in (("scanqa", 0), ("sqa3d", 1)):
        variant = find_variant("chat-scene", data_set)
        assert match_exactly([["2"]], ["two"], variant)[0][0] == expected


def test_an_empty_answer_scores_nothing_unless_as_published() -> None:
    for name in ("leo", "llava-3d"):
        variant = VARIANTS[name]
        assert match_exactly([["brown"]], ["."], variant)[1][0] == 0
        assert match_exactly([["brown"]], ["."], variant, as_published=True)[1][0] == 1


def test_a_reference_that_cleaning_empties_matches_nothing_unless_as_published() -> None:
    for name in ("leo", "llava-3d"):
        variant = VARIANTS[name]
        assert match_exactly([["椅子"]], ["brown"], variant)[1][0] == 0
        assert match_exactly([["椅子"]], ["brown"], variant, as_published=True)[1][0] == 1


def test_leo_as_published_stops_at_the_first_containment() -> None:
    references = [["brown chair", "brown"]]
    assert match_exactly(references, ["brown"], VARIANTS["leo"])[0][0] == 1
    assert match_exactly(references, ["brown"], VARIANTS["leo"], as_published=True)[0][0] == 0
    swapped = [["brown", "brown chair"]]
    assert match_exactly(swapped, ["brown"], VARIANTS["leo"], as_published=True)[0][0] == 1


def test_every_fault_is_explained() -> None:
    variants = [find_variant(name, d) for name in VARIANTS for d in ("scanqa", "sqa3d")]
    assert {fault for variant in variants for fault in variant.faults} == set(FAULTS)


@pytest.mark.parametrize("name", ["ll3da", "leo", "video-3d-llm"])
def test_a_kind_is_scored_as_if_it_were_all(name: str) -> None:
    questions, answers = random_questions(3, 40)
    variant = VARIANTS[name]
    whole = score_answers(questions, answers, variant)
    for kind in ("place", "color"):
        part = [(q, a) for q, a in zip(questions, answers, strict=True) if q.kind == kind]
        alone = score_answers([q for q, _ in part], [a for _, a in part], variant)
        for metric, score in alone.all.items():
            assert whole.kinds[kind][metric].value == pytest.approx(score.value, abs=1e-12), metric


def test_a_variant_has_the_metrics_of_its_project() -> None:
    questions, answers = random_questions(4, 10)
    has = {
        name: set(score_answers(questions, answers, find_variant(name, "scanqa")).all)
        for name in ("ll3da", "leo", "video-3d-llm")
    }
    assert "EM@1" not in has["ll3da"]
    assert "EM-refined" in has["leo"]
    assert "EM-refined" not in has["video-3d-llm"]
    assert all({"BLEU-4", "CIDEr", "ROUGE-L", "METEOR"} <= names for names in has.values())
    sqa3d = score_answers(questions, answers, find_variant("llava-3d", "sqa3d"))
    assert set(sqa3d.all) == {"EM@1", "EM-refined"}


def test_draws_reach_every_metric() -> None:
    questions, answers = random_questions(5, 30)
    counts = draw_counts(range(30), seed=0, draws=20)
    scores = score_answers(questions, answers, VARIANTS["leo"], counts=counts)
    for metric, score in scores.all.items():
        if metric != "METEOR":
            assert score.draws is not None
            assert len(score.draws) == 20
            assert score.draws.min() <= score.draws.max()


def test_ll3da_takes_answers_with_single_blanks() -> None:
    questions = [ask(0, "color", "light brown"), ask(1, "color", "red wall")]
    several = score_answers(questions, [" light   brown", "red  wall "], VARIANTS["ll3da"])
    single = score_answers(questions, ["light brown", "red wall"], VARIANTS["ll3da"])
    assert several.all["ROUGE-L"].value == single.all["ROUGE-L"].value == 1.0


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_treebank_variants_see_neither_case_nor_full_stops_in_n_grams() -> None:
    questions = [ask(0, "color", "light brown"), ask(1, "color", "red wall")]
    scores = score_answers(questions, ["Light brown.", "Red wall."], VARIANTS["official"])
    assert scores.all["ROUGE-L"].value == 1.0
    assert scores.all["EM@1"].value == 0.0


def test_treebank_variants_without_java_keep_what_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from o2s.evaluate import ngrams

    monkeypatch.setattr(ngrams.shutil, "which", lambda name: None)
    questions, answers = random_questions(6, 8)
    scores = score_answers(questions, answers, VARIANTS["official"])
    assert scores.all["EM@1"].value is not None
    assert scores.all["CIDEr"].value is None
    assert "Java" in str(scores.all["CIDEr"].reason)
