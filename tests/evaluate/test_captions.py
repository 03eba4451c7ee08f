import shutil

import numpy as np
import pytest

from o2s.evaluate.bootstrap import draw_counts
from o2s.evaluate.captions import VARIANTS, DescribedObject, score_captions
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes

WORDS = {
    "0": "the brown chair is near the window .",
    "1": "this is a red table , it is big .",
    "2": "a white door .",
}


def box(x: float) -> list[float]:
    return [x, 0, 0, 1, 1, 1, 0]


def described(
    scene: str, *ids: str, name: str = "", names: tuple[str, ...] = ()
) -> list[DescribedObject]:
    return [
        DescribedObject(
            scene,
            i,
            name or f"class_{i}",
            (WORDS[i],),
            (tuple(WORDS[i].split()),),
            names or (name or f"class_{i}",),
        )
        for i in ids
    ]


def true_boxes(scene: str, count: int = 3) -> TrueBoxes:
    boxes = np.array([box(2.0 * i) for i in range(count)])
    return TrueBoxes(scene, tuple(map(str, range(count))), boxes, ("",) * count)


def predicted(scene: str, *pairs: tuple[float, str]) -> PredictedBoxes:
    return PredictedBoxes(
        scene,
        np.array([box(x) for x, _ in pairs], float).reshape(-1, 7),
        np.ones(len(pairs)),
        ("",) * len(pairs),
        tuple(text for _, text in pairs),
    )


OBJECTS = described("a", "0", "1", "2")
TRUTH = {"a": true_boxes("a")}
PLAIN = [name for name, variant in VARIANTS.items() if not variant.treebank]
AS_WORDS = [name for name in PLAIN if name != "leo"]  # which splits a final full stop off
RIGHT = {"a": predicted("a", (0, WORDS["0"]), (2, WORDS["1"]), (4, WORDS["2"]))}


@pytest.mark.parametrize("variant", AS_WORDS)
def test_right_boxes_and_words_score_all_there_is(variant: str) -> None:
    scores = score_captions(OBJECTS, TRUTH, RIGHT, variant, 0.5)
    assert scores.all["ROUGE-L"].value == pytest.approx(1)
    assert scores.all["BLEU-4"].value == pytest.approx(1, abs=1e-6)
    assert scores.all["ROUGE-L F"].value == pytest.approx(1)
    assert scores.found == [True] * 3


@pytest.mark.parametrize("variant", AS_WORDS)
def test_a_missed_object_counts_as_an_empty_caption(variant: str) -> None:
    two = {"a": predicted("a", (0, WORDS["0"]), (2, WORDS["1"]))}
    scores = score_captions(OBJECTS, TRUTH, two, variant, 0.5)
    assert scores.found == [True, True, False]
    missed = scores.classes["class_2"]
    assert missed["CIDEr"].value == pytest.approx(0)
    assert 0 < (missed["ROUGE-L"].value or 0) < 0.7  # "sos" and "eos" are matched
    assert scores.all["ROUGE-L F"].value == pytest.approx(2 * 2 / (2 + 3))


def test_surplus_boxes_cost_f_scores_alone() -> None:
    more = {"a": predicted("a", (0, WORDS["0"]), (2, WORDS["1"]), (4, WORDS["2"]), (9, "x"))}
    scores = score_captions(OBJECTS, TRUTH, more, "ll3da", 0.5)
    assert scores.all["ROUGE-L"].value == pytest.approx(1)
    assert scores.all["ROUGE-L F"].value == pytest.approx(2 * 3 / (4 + 3))
    assert scores.predicted == 4


def test_classes_average_to_the_whole() -> None:
    half = {"a": predicted("a", (0, "a chair"), (2, WORDS["1"]), (4, "a door ."))}
    scores = score_captions(OBJECTS, TRUTH, half, "scan2cap", 0.5)
    for metric in ("CIDEr", "ROUGE-L"):
        values = [scores.classes[name][metric].value for name in scores.classes]
        assert np.mean(values) == pytest.approx(scores.all[metric].value)


def test_references_are_cut_after_30_words_but_not_in_the_benchmark() -> None:
    words = tuple(f"w{i}" for i in range(40))
    long = DescribedObject("a", "0", "c", (" ".join(words),), (words,), ("c",))
    for variant, limit in (("scan2cap", 30), ("ll3da", 30), ("leo", 30), ("benchmark", 40)):
        [text] = VARIANTS[variant].descriptions(long)
        assert text == " ".join(["sos", *words[:limit], "eos"])


def test_captions_are_written_as_each_project_does() -> None:
    caption = "It is red. It is  big, too."
    assert VARIANTS["ll3da"].caption("") == "sos eos"
    assert VARIANTS["ll3da"].caption(caption) == "sos It is red. It is big, too. eos"
    assert VARIANTS["leo"].caption(caption) == "sos It is red . It is  big, too . eos"
    expected = "sos it is red .  it is  big ,  too .  eos"
    assert VARIANTS["video-3d-llm"].caption(caption) == expected
    assert VARIANTS["video-3d-llm"].missed == "sos  eos"


def test_an_object_with_two_names_goes_by_what_its_project_takes() -> None:
    names = ("chair", "seat", "chair", "seat")
    both = [o for name in names[:2] for o in described("a", "0", name=name, names=names)]
    one = {"a": predicted("a", (0, WORDS["0"]))}
    found = {
        name: score_captions(both, TRUTH, one, name, 0.5).found for name in (*PLAIN, "benchmark")
    }
    assert found["scan2cap"] == [True, False]
    assert found["ll3da"] == [False, True]
    assert found["leo"] == found["video-3d-llm"] == [True, True]
    assert found["benchmark"] == [True]


def test_a_scene_without_boxes_is_missed() -> None:
    objects = OBJECTS + described("b", "0")
    scores = score_captions(objects, TRUTH | {"b": true_boxes("b")}, RIGHT, "leo", 0.25)
    assert scores.found == [True, True, True, False]


def test_draws_take_boxes_and_objects_of_a_scene_together() -> None:
    objects = OBJECTS + described("b", "0", "1", "2")
    truth = TRUTH | {"b": true_boxes("b")}
    held = RIGHT | {"b": predicted("b", (0, "nothing of it"), (20, "x"), (21, "y"))}
    scores = score_captions(
        objects, truth, held, "ll3da", 0.5, counts=lambda g: draw_counts(g, seed=0, draws=50)
    )
    draws = scores.all["ROUGE-L F"].draws
    assert draws is not None
    # A draw holds scene a twice, scene b twice, or both: three different scores.
    assert len(np.unique(draws.round(9))) == 3
    assert draws.max() == pytest.approx(1)


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_chat_scene_sees_no_case_and_no_punctuation() -> None:
    held = {"a": predicted("a", (0, WORDS["0"].upper()), (2, WORDS["1"]), (4, "A white door!"))}
    scores = score_captions(OBJECTS, TRUTH, held, "chat-scene", 0.5)
    assert scores.all["ROUGE-L"].value == pytest.approx(1)


def test_without_java_chat_scene_has_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    from o2s.evaluate import ngrams

    monkeypatch.setattr(ngrams.shutil, "which", lambda name: None)
    scores = score_captions(OBJECTS, TRUTH, RIGHT, "chat-scene", 0.5)
    assert scores.all["CIDEr"].value is None
    assert scores.found == [True] * 3


def test_ll3da_without_a_known_object_has_no_scores() -> None:
    unknown = described("a", "0", name="unknown")
    scores = score_captions(unknown, TRUTH, RIGHT, "ll3da", 0.5)
    assert scores.all["CIDEr"].value is None
    assert "unknown" in str(scores.all["CIDEr"].reason)
    assert score_captions(unknown, TRUTH, RIGHT, "leo", 0.5).found == [True]
