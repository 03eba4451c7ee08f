"""`o2s routes`: which experts questions take."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import o2s
from fakes import save_language_model, small_recipe
from PIL import Image

from datasets import Dataset
from o2s.cli_routes import read_questions
from o2s.datasets.scan2inst import FEATURES, Skipped, save_records
from o2s.errors import InputError
from o2s.llm.answering import SceneAnswerer
from o2s.llm.route_use import use_by_group, use_of
from o2s.view.routes import draw_routes


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    language_model = save_language_model(folder / "language_model")
    SceneAnswerer.build(small_recipe(language_model)).save(folder / "saved")
    return folder / "saved"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_use_of_experts() -> None:
    routes = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    use = use_of("all", routes)
    assert use.weights == [0.75, 0.25, 0.0]
    assert use.used == [1.0, 0.5, 0.0]
    assert use.entropy == pytest.approx(0.5)
    assert use.spread == pytest.approx(-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25))
    assert use.dead == [2]


def test_an_expert_of_next_to_no_weight_is_dead() -> None:
    use = use_of("dense", torch.tensor([[0.6, 0.4 - 1e-6, 1e-6]]).repeat(5, 1))
    assert use.used == [1.0, 1.0, 0.0]
    assert use.dead == [2]


def test_groups_come_by_name_after_all() -> None:
    routes = torch.eye(2)[[0, 1, 1]]
    uses = use_by_group(routes, ["b", "a", "a"])
    assert [(use.name, use.questions) for use in uses] == [("all", 3), ("a", 2), ("b", 1)]
    assert uses[2].weights == [1.0, 0.0]
    assert [use.name for use in use_by_group(routes, ["x"] * 3)] == ["all"]


def test_weights_of_each_question_are_those_of_the_model(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = write(tmp_path / "asked.txt", "How many?\n\nWhat is on the table?\n")
    code, printed, _ = o2s(capsys, "routes", saved, "--questions", questions, "--json")
    assert code == 0
    found = json.loads(printed)
    answerer = SceneAnswerer.load(saved)
    for entry, text in zip(found["questions"], ("How many?", "What is on the table?"), strict=True):
        batch = answerer.processor([text], None)
        route = answerer.model.route(batch["question_ids"], batch["question_mask"])
        assert route is not None
        assert entry["question"] == text
        assert entry["weights"] == pytest.approx(route[0].tolist(), abs=1e-4)
        bits = -sum(w * math.log2(w) for w in route[0].tolist() if w > 0)
        assert entry["entropy"] == pytest.approx(bits, abs=1e-3)
    assert found["groups"][0]["questions"] == 2


def test_a_table_a_picture_and_a_warning(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"question": "How many?", "kind": "count"}, {"question": "Is it?", "kind": "yes"}]
    questions = write(tmp_path / "asked.json", json.dumps(entries))
    picture = tmp_path / "routes.png"
    options = ("--questions", questions, "--by", "kind", "--picture", picture)
    code, printed, said = o2s(capsys, "routes", saved, *options)
    assert code == 0
    assert [line.split()[:2] for line in printed.splitlines() if "%" in line] == [
        ["all", "2"],
        ["count", "1"],
        ["yes", "1"],
    ]
    assert "is dead" in said  # two questions take at most all but some experts
    with Image.open(picture) as image:
        assert image.width >= 330


def test_records_are_grouped_by_task(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for task, texts in (("VQA3D", ["What?", "a"]), ("conversation", ["A?", "b", "C?", "d"])):
        turns = [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)]
        empty = dict.fromkeys(FEATURES) | {"answers": [], "object_ids": []}
        rows.append({**empty, "task_type": task, "conversations": turns, "scene_id": "s"})
    dataset = Dataset.from_list(rows, FEATURES)
    save_records(dataset, tmp_path / "train", skipped=Skipped(), made_from={})
    expected = [(["What?"], "VQA3D"), (["A?", "C?"], "conversation")]
    assert read_questions(tmp_path / "train", "task") == expected
    assert {group for _, group in read_questions(tmp_path / "train", None)} == {"all"}
    code, printed, _ = o2s(capsys, "routes", saved, "--questions", tmp_path / "train", "--json")
    assert code == 0
    entry, answerer = json.loads(printed)["questions"][1], SceneAnswerer.load(saved)
    assert entry["question"] == "A? C?"
    batch = answerer.processor([["A?", "C?"]], None, history=[["b"]])
    route = answerer.model.route(batch["question_ids"], batch["question_mask"])
    assert route is not None
    assert entry["weights"] == pytest.approx(route[0].tolist(), abs=1e-4)
    with pytest.raises(InputError, match="records have groups of tasks alone"):
        read_questions(tmp_path / "train", "kind")


@pytest.mark.parametrize(
    "name, text, by, message",
    [
        ("a.txt", " \n", None, "holds no questions"),
        ("a.txt", "What?", "kind", "has no groups; give JSON or records"),
        ("a.json", "{", None, "not JSON"),
        ("a.json", "{}", None, "not a list"),
        ("a.json", "[]", None, "holds no questions"),
        ("a.json", "[1]", None, r"\[0\]: .1.; expected a question entry"),
        ("a.json", '[{"question": "a?"}, {"question": ""}]', None, r"\[1\].question"),
        ("a.json", '[{"question": "a?"}]', "kind", r"\[0\].kind: missing, expected a text"),
    ],
)
def test_what_holds_no_questions_is_named(
    tmp_path: Path, name: str, text: str, by: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_questions(write(tmp_path / name, text), by)


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, printed, said = o2s(capsys, "routes", "tiny", "--questions", tmp_path / "none.txt")
    assert (code, printed) == (2, "")
    assert "none.txt: No such file" in said


def test_a_model_without_experts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language_model = save_language_model(tmp_path / "language_model")
    recipe = small_recipe(language_model)
    recipe.lora_moe = None
    SceneAnswerer.build(recipe).save(tmp_path / "saved")
    questions = write(tmp_path / "asked.txt", "How many?")
    code, _, said = o2s(capsys, "routes", tmp_path / "saved", "--questions", questions)
    assert code == 2
    assert "no gate that gives a question one route" in said


def test_the_picture_wants_a_name_for_each_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 names for 2 groups"):
        draw_routes(np.zeros((2, 3)), ["a"], tmp_path / "a.png")
