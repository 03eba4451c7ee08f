import random
import shutil

import numpy as np
import pytest

from o2s.evaluate import ngrams
from o2s.evaluate.bootstrap import draw_counts
from o2s.evaluate.ngrams import Meteor, Ngrams, NotAvailable, bleu, tokenize_ptb

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
WORDS = [*("a", "the", "chair", "chairs", "table", "of", "is", "near", "brown", "red")]
WORDS += ["two", "sofa", "left", "big", "large", ".", ",", "to"]


def random_texts(seed: int, count: int) -> tuple[list[list[str]], list[str]]:
    """References and candidates with empty, equal and overlapping ones among them."""
    rng = random.Random(seed)

    def text(least: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(least, 9)))

    references = [[text(1) for _ in range(rng.randint(1, 3))] for _ in range(count)]
    candidates = [text(0) for _ in range(count)]
    candidates[:3] = [references[0][0], references[1][-1], ""]
    return references, candidates


def public_scores(references: list[list[str]], candidates: list[str]) -> dict[str, float]:
    """The same by pycocoevalcap's own corpus scores."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    gts = dict(enumerate(references))
    res = {i: [text] for i, text in enumerate(candidates)}
    found = {f"BLEU-{n + 1}": v for n, v in enumerate(Bleu(4).compute_score(gts, res, 0)[0])}
    found["ROUGE-L"] = Rouge().compute_score(gts, res)[0]
    found["CIDEr"] = Cider().compute_score(gts, res)[0]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_corpus_scores_equal_those_of_pycocoevalcap(seed: int) -> None:
    references, candidates = random_texts(seed, 60)
    ours = Ngrams(references, candidates, None).scores(None)
    for name, value in public_scores(references, candidates).items():
        assert ours[name].value == pytest.approx(value, abs=1e-12), name


def test_a_part_is_scored_as_if_it_were_the_whole() -> None:
    references, candidates = random_texts(5, 40)
    chosen = np.array([1, 4, 6, 9, 20, 21, 30])
    ours = Ngrams(references, candidates, None).scores(None, chosen)
    part = public_scores([references[i] for i in chosen], [candidates[i] for i in chosen])
    for name, value in part.items():
        assert ours[name].value == pytest.approx(value, abs=1e-12), name


def test_parts_weighed_by_the_whole_corpus_average_to_it() -> None:
    references, candidates = random_texts(6, 30)
    counted = Ngrams(references, candidates, None)
    parts = [np.arange(10), np.arange(10, 30)]
    values = [counted.scores(None, part, own_corpus=False)["CIDEr"].value or 0 for part in parts]
    whole = counted.scores(None)["CIDEr"].value or 0
    assert 10 * values[0] + 20 * values[1] == pytest.approx(30 * whole)


def test_each_draw_has_the_score_of_its_items() -> None:
    references, candidates = random_texts(7, 25)
    counts = draw_counts(range(25), seed=0, draws=6)
    drawn = Ngrams(references, candidates, None).scores(counts)
    for number, row in enumerate(counts):
        items = np.repeat(np.arange(25), row)
        expected = public_scores([references[i] for i in items], [candidates[i] for i in items])
        for name in ("BLEU-1", "BLEU-4", "ROUGE-L"):  # CIDEr keeps the weights of the whole
            draws = drawn[name].draws
            assert draws is not None
            assert draws[number] == pytest.approx(expected[name], abs=1e-12), name


@needs_java
def test_meteor_equals_its_java_program_for_each_item_and_for_sums() -> None:
    from pycocoevalcap.meteor.meteor import Meteor as Process

    references, candidates = random_texts(8, 120)
    with Meteor() as meteor:
        counted = Ngrams(references, candidates, meteor)
        score = counted.scores(None)["METEOR"].value
        part = counted.scores(None, np.arange(40))["METEOR"].value
    process = Process()
    gts, res = dict(enumerate(references)), {i: [t] for i, t in enumerate(candidates)}
    total, each = process.compute_score(gts, res)
    first = {i: gts[i] for i in range(40)}
    total_first, _ = process.compute_score(first, {i: res[i] for i in range(40)})
    for name in ("stdin", "stdout", "stderr"):
        getattr(process.meteor_p, name).close()
    assert score == pytest.approx(total, abs=1e-12)
    assert part == pytest.approx(total_first, abs=1e-12)
    ours = counted.item_scores()["METEOR"]
    assert ours is not None
    assert np.abs(ours - each).max() < 1e-12
    assert max(each) == pytest.approx(1.0)


@needs_java
def test_a_line_break_ends_no_request_to_meteor() -> None:
    with Meteor() as meteor:
        broken = meteor.statistics([["a red\nchair"], ["two"]], ["a red\r\nchair", "two"])
        whole = meteor.statistics([["a red chair"], ["two"]], ["a red chair", "two"])
    assert (broken == whole).all()


@needs_java
def test_treebank_tokens_equal_those_of_pycocoevalcap() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rng = random.Random(0)
    words = [
        "don't",
        "(here)",
        "...",
        "Café",
        "椅子",
        "\u2019",
        "$5",
        "U.S.",
        "x-y",
        "",
        "--",
        "The",
        "'",
    ]
    texts = {
        f"key {i}": [" ".join(rng.choices(words, k=rng.randint(0, 6))) for _ in range(1 + i % 3)]
        for i in range(80)
    }
    captions = {key: [{"caption": t} for t in held] for key, held in texts.items()}
    assert tokenize_ptb(texts) == PTBTokenizer().tokenize(captions)


@needs_java
@pytest.mark.parametrize("end", ["\r", "\n", "\v", "\f", "\u2028", "\u2029"])
def test_a_line_end_in_a_text_shifts_no_other(end: str) -> None:
    texts = {"a": [f"one{end}two"], "b": ["three"], "c": [""], "d": ["four", ""]}
    assert tokenize_ptb(texts) == {"a": ["one two"], "b": ["three"], "c": [""], "d": ["four", ""]}


def test_without_java_nothing_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams.shutil, "which", lambda name: None)
    with pytest.raises(NotAvailable, match="Java"):
        tokenize_ptb({"a": ["b"]})
    with Meteor() as meteor:
        scores = Ngrams([["a chair"], ["red"]], ["a chair", "blue"], meteor).scores(None)
    assert scores["METEOR"].value is None
    assert "Java" in str(scores["METEOR"].reason)
    assert scores["BLEU-1"].value == pytest.approx(2 / 3)


def test_bleu_of_nothing_said_is_nearly_zero() -> None:
    counted = Ngrams([["a chair"]], [""], None)
    assert bleu(counted.bleu)[0] == pytest.approx([0, 0, 0, 0], abs=1e-6)
