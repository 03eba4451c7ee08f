"""The data card equals a plain recount of the records."""

import json
from collections import Counter
from pathlib import Path

import pytest
from instructions_fake import (
    TRAIN,
    ask,
    make,
    prepare_scenes,
    said,
    save,
)

from datasets import Dataset
from o2s.datasets.data_card import write_data_card
from o2s.datasets.instruction_tasks import (
    TASKS,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_scenes(tmp_path_factory.mktemp("prepared scans"))


@pytest.fixture(scope="module")
def records(scenes: Path) -> Dataset:
    return make(scenes)


def test_the_data_card_equals_a_plain_recount(records: Dataset, tmp_path: Path) -> None:
    save(records, tmp_path / "train", seed=5)
    save(records.select(range(4)), tmp_path / "val")
    card = write_data_card(tmp_path)
    assert card == json.loads((tmp_path / "data_card.json").read_text())
    assert list(card) == ["train", "val"]
    facts, rows = card["train"], records.to_list()
    assert (facts["records"], facts["scenes"], facts["unanswered"]) == (len(rows), 2, 0)
    for task in TASKS:
        recount = Counter(row["source"] for row in rows if row["task_type"] == task)
        assert facts["tasks"][task] == recount
    short = Counter(
        said(row, "gpt")[0]
        for row in rows
        if row["task_type"] in ("VQA3D", "classification3d", "object_counting")
    )
    assert len(facts["answers"]) == min(20, len(short))
    assert all(short[answer] == count for answer, count in facts["answers"])
    assert [count for _, count in facts["answers"]] == [n for _, n in short.most_common(20)]
    for key, speaker in (("question_words", "human"), ("answer_words", "gpt")):
        lengths = [len(str(text).split()) for row in rows for text in said(row, speaker)]
        for words, count in facts[key].items():
            first, _, last = words.replace(" or more", " to inf").partition(" to ")
            assert count == sum(int(first) <= n <= float(last or first) for n in lengths)
        assert sum(facts[key].values()) == len(lengths)
    text = (tmp_path / "data_card.md").read_text()
    assert f"{len(rows)} records of 2 scenes." in text
    assert "| VQA3D | sqa3d | 3 |" in text
    assert "Made with seed 5 from:" in text
    assert (tmp_path / "data_card.png").read_bytes().startswith(b"\x89PNG")


def test_the_data_card_survives_odd_answers(scenes: Path, tmp_path: Path) -> None:
    odd = ("$\\frac{", "a|b\nc", "椅子", "a very long answer that no row of a picture can hold")
    questions = [ask(TRAIN[0], n, answers=(text,)) for n, text in enumerate(odd)]
    save(make(scenes, questions=questions, descriptions=[], tasks=["VQA3D"]), tmp_path / "train")
    write_data_card(tmp_path)
    assert "| a\\|b c | 1 |" in (tmp_path / "data_card.md").read_text()
