"""Scores of answers about images."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from o2s.errors import InputError
from o2s.evaluate import ngrams
from o2s.evaluate.images import FAULTS, _match, intersection_over_union, score_images

VOC = [
    {"id": 0, "object": [{"label": "cat", "bbox": [0, 0, 0.5, 0.5]}]},
    {"id": 1, "object": [{"label": "dog", "bbox": [0, 0, 1, 1]}] * 2},
]
SAID = ["A cat at [0, 0, 0.5, 0.5].", "A dog at [0, 0, 1, 1]. A cat at [0, 0, 1, 1]."]


def _score(folder: Path, task: str, reference: Any, said: list[str], **options: Any) -> Any:
    answers = [{"id": i, "answer": text} for i, text in enumerate(said)]
    (folder / "answers.json").write_text(json.dumps(answers), "utf-8")
    (folder / "reference.json").write_text(json.dumps(reference), "utf-8")
    paths = folder / "answers.json", folder / "reference.json"
    return score_images(*paths, task=task, **options).json()["tables"]


def _values(table: Any, row: str = "all") -> dict[str, float | None]:
    return {name: score["value"] for name, score in table[row]["scores"].items()}


def test_boxes_find_each_object_once(tmp_path: Path) -> None:
    [table] = _score(tmp_path, "voc", VOC, SAID).values()
    assert _values(table) == {
        "recall": 2 / 3,
        "precision": 2 / 3,
        "recall without classes": 1.0,
        "precision without classes": 1.0,
    }
    assert _values(table, "dog") == {"recall": 0.5, "precision": 1.0}
    assert _values(table, "cat") == {"recall": 1.0, "precision": 0.5}
    assert table["all"]["counts"] == {"objects": 3, "boxes": 3, "found": 2}


def test_one_box_said_twice_is_wrong_once(tmp_path: Path) -> None:
    [table] = _score(tmp_path, "voc", VOC[:1], [f"{SAID[0]} {SAID[0]}"]).values()
    assert (_values(table)["recall"], _values(table)["precision"]) == (1.0, 0.5)


def test_answers_without_boxes_have_no_precision(tmp_path: Path) -> None:
    [table] = _score(tmp_path, "voc", VOC, ["", "a dog"]).values()
    assert (_values(table)["recall"], _values(table)["precision"]) == (0.0, None)


def test_overlaps_equal_areas_counted_on_a_grid() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 6, (12, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 6, (12, 2))], axis=1)
    x, y = np.meshgrid(np.arange(12), np.arange(12))
    inside = [(x >= a) & (x < c) & (y >= b) & (y < d) for a, b, c, d in boxes]
    expected = [[(p & q).sum() / (p | q).sum() for q in inside] for p in inside]
    found = intersection_over_union(boxes.astype(np.float32), boxes.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_matching_finds_as_many_objects_as_any_assignment() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        fits = rng.random((4, 5)) < 0.3
        best = max(sum(fits[i, j] for i, j in enumerate(p)) for p in permutations(range(5), 4))
        match = _match(fits)
        taken = match[match >= 0]
        assert len(taken) == len(set(taken.tolist())) == best
        assert all(fits[i, j] for i, j in enumerate(match) if j >= 0)


def test_choices_are_scored_by_their_number(tmp_path: Path) -> None:
    reference = [
        {"id": 0, "gt_choices": ["x", "y"], "gt_choice": 1},
        {"id": 1, "gt_choices": ["x", "y", "z"], "gt_choice": 0},
    ]
    [table] = _score(tmp_path, "scienceqa", reference, ["(B)", "(B)"]).values()
    assert _values(table)["accuracy"] == 0.5
    assert _values(table, "2 choices")["accuracy"] == 1.0


def test_a_list_of_all_classes_is_right_only_as_lamm(tmp_path: Path) -> None:
    reference = [{"label": "cat"}, {"label": "dog"}]
    said = ["cat or dog or ship", "a dog"]
    [table] = _score(tmp_path, "cifar10", reference, said).values()
    [faulty] = _score(tmp_path, "cifar10", reference, said, as_lamm=True).values()
    [named] = _score(tmp_path, "cifar10", reference, said, faults=["names-any-mention"]).values()
    assert [_values(t)["accuracy"] for t in (table, faulty, named)] == [0.5, 1.0, 1.0]
    assert table["all"]["counts"] == {"images": 2, "answered": 1}


def test_faces_are_scored_by_hair_and_smile(tmp_path: Path) -> None:
    reference = [{"attr": "Black_Hair"}, {"attr": "1"}, {"attr": -1}]
    said = ["black hair", "Yes", "She isn't smiling"]
    tables = _score(tmp_path, "celeba", reference, said)
    assert [_values(table)["accuracy"] for table in tables.values()] == [1.0, 1.0]
    faulty = _score(tmp_path, "celeba", reference, said, as_lamm=True)
    assert _values(faulty["CelebA, smiles"])["accuracy"] == 0.5


def test_captions_without_java_have_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(texts: object) -> dict[str, list[str]]:
        raise ngrams.NotAvailable("no Java")

    monkeypatch.setattr(ngrams, "tokenize_ptb", refuse)
    monkeypatch.setattr(ngrams, "require_pycocoevalcap", lambda: None)
    [table] = _score(tmp_path, "flickr30k", [{"sentences": ["a dog"]}], ["a dog"]).values()
    assert table["all"]["scores"]["CIDEr"] == {"value": None, "reason": "no Java"}


def test_captions_are_scored_by_the_mean_of_their_cider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngrams, "require_pycocoevalcap", lambda: None)
    monkeypatch.setattr(
        ngrams, "tokenize_ptb", lambda texts: {k: list(v) for k, v in texts.items()}
    )
    monkeypatch.setattr(
        ngrams,
        "cider",
        lambda wanted, given: np.array([float(given[key] in wanted[key]) for key in wanted]),
    )
    reference = [{"sentences": ["a dog", "dogs"]}, {"sentences": ["a cat"]}]
    [table] = _score(tmp_path, "flickr30k", reference, ["dogs", "a dog"]).values()
    assert _values(table) == {"CIDEr": 0.5}
    assert table["all"]["counts"] == {"images": 2, "references": 3}


def test_notes_name_the_faults_that_were_applied(tmp_path: Path) -> None:
    _score(tmp_path, "voc", VOC, SAID)
    paths = tmp_path / "answers.json", tmp_path / "reference.json"
    assert score_images(*paths, task="voc").notes == []
    notes = score_images(*paths, task="voc", as_lamm=True).notes
    own = [name for name in FAULTS if name.startswith("voc-")]
    assert [any(name in note for note in notes) for name in own] == [True] * len(notes)


def test_lines_and_the_key_text_are_read(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(SAID))
    (tmp_path / "answers.jsonl").write_text(lines, "utf-8")
    (tmp_path / "reference.json").write_text(json.dumps(VOC), "utf-8")
    report = score_images(tmp_path / "answers.jsonl", tmp_path / "reference.json", task="voc")
    assert report.tables[0].rows[0].scores["recall"].value == 2 / 3


BOX = '[{"id": 0, "object": [{"label": "cat", "bbox": %s}]}]'
ONE = '[{"id": 0, "answer": ""}]'


@pytest.mark.parametrize(
    "answers, reference, expected",
    [
        ("[]", BOX % "[0, 0, 1, 1]", "empty"),
        (ONE, "[]", "empty"),
        ("{", BOX % "[0, 0, 1, 1]", "not JSON"),
        ("[3]", BOX % "[0, 0, 1, 1]", "[0]: '3'"),
        ('[{"id": 7, "answer": ""}]', BOX % "[0, 0, 1, 1]", "'7' is not in"),
        ('[{"answer": ""}]', BOX % "[0, 0, 1, 1]", ".id: missing"),
        ('[{"id": true, "answer": ""}]', BOX % "[0, 0, 1, 1]", ".id: 'True'"),
        ('[{"id": 0, "answer": 3}]', BOX % "[0, 0, 1, 1]", ".answer: '3'"),
        ('[{"id": 0, "said": ""}]', BOX % "[0, 0, 1, 1]", ".answer: missing"),
        ('[{"id": 0, "answer": "\\ud800"}]', BOX % "[0, 0, 1, 1]", ".answer"),
        ('[{"id": 0, "id": 0, "answer": ""}]', BOX % "[0, 0, 1, 1]", "comes twice"),
        ('[{"id": 0, "answer": ""}, {"id": "0", "answer": ""}]', BOX % "[0, 0, 1, 1]", "twice"),
        (ONE, '[{"object": []}, {"object": []}]', "no answer for '1'"),
        (ONE, '[{"id": 0}]', ".object: missing"),
        (ONE, '[{"id": 0, "object": [3]}]', ".object[0]: '3'"),
        (ONE, BOX % "[NaN, 0, 1, 1]", "four numbers"),
        (ONE, BOX % "[0, 0, 1e999, 1]", "four numbers"),
        (ONE, BOX % "[true, 0, 1, 1]", "four numbers"),
        (ONE, BOX % "[0, 0, 1]", "four numbers"),
        (ONE, BOX % "[1, 0, 0, 1]", "x1 up to x2"),
        (ONE, BOX % "3", ".bbox: '3'"),
    ],
)
def test_bad_files_are_one_line(
    tmp_path: Path, answers: str, reference: str, expected: str
) -> None:
    (tmp_path / "answers.json").write_text(answers, "utf-8")
    (tmp_path / "reference.json").write_text(reference, "utf-8")
    with pytest.raises(InputError) as caught:
        score_images(tmp_path / "answers.json", tmp_path / "reference.json", task="voc")
    assert expected in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "task, entry",
    [
        ("scienceqa", {"gt_choices": ["x"], "gt_choice": 1}),
        ("scienceqa", {"gt_choices": ["x"], "gt_choice": False}),
        ("scienceqa", {"gt_choices": [], "gt_choice": 0}),
        ("scienceqa", {"gt_choices": [""], "gt_choice": 0}),
        ("flickr30k", {"sentences": []}),
        ("cifar10", {"label": 3}),
        ("celeba", {"attr": None}),
    ],
)
def test_bad_entries_of_each_task_are_refused(
    tmp_path: Path, task: str, entry: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"\[0\]"):
        _score(tmp_path, task, [entry], [""])


def test_faults_of_other_tasks_and_impossible_overlaps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="voc has the faults voc-one-box"):
        _score(tmp_path, "voc", VOC, SAID, faults=["smile-any-no"])
    with pytest.raises(InputError, match="--iou"):
        _score(tmp_path, "voc", VOC, SAID, overlap=0.0)
