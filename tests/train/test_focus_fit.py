"""Pointers that are fitted to what records say."""

import math
import random
from typing import Any

import pytest
import torch
from fakes import save_language_model, small_recipe

from datasets import Dataset
from o2s.datasets.scan2inst import FEATURES
from o2s.encoded import EncodedScan
from o2s.llm.focus import COUNTS, Pointed
from o2s.llm.modeling import SceneLM
from o2s.llm.processing import SceneLMProcessor
from o2s.scene import Boxes, RegionFeatures
from o2s.train.focus_fit import (
    Looked,
    Pointing,
    begin_words,
    changed_look,
    fit_focus,
    measure_focus,
    pointings,
)
from o2s.words import SIDES

NAMES = ("bed", "chair", "desk", "lamp", "sofa", "oven")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneLM, SceneLMProcessor]:
    language_model = save_language_model(tmp_path_factory.mktemp("language_model"))
    return SceneLM.build(small_recipe(language_model, scene_tokens="objects", focus=True))


def look_of(names: list[str], places: list[tuple[float, float]]) -> RegionFeatures:
    count = len(names)
    boxes = Boxes(
        torch.tensor([[x, y, 0.5] for x, y in places]),
        torch.full((count, 3), 0.5),
        torch.zeros(count),
        torch.ones(count),
        tuple(names),
    )
    return RegionFeatures(boxes, torch.zeros(count, 32))


def made_up(seed: int) -> Looked:
    """A room of five things and up to three plants; questions about sides, colours and numbers."""
    generator = random.Random(seed)
    names = sorted(generator.sample(NAMES, 5)) + ["plant"] * generator.randrange(4)
    places = [(generator.uniform(0, 6), generator.uniform(0, 6)) for _ in names]
    questions = []
    for _ in range(8):
        stand, face, spoken = generator.sample(range(5), 3)
        (x, y), (fx, fy), (sx, sy) = (places[i] for i in (stand, face, spoken))
        angle = math.atan2(sy - y, sx - x) - math.atan2(fy - y, fx - x)
        side = round(angle / (math.pi / 2)) % 4
        text = f"Stand at the {names[stand]} facing the {names[face]}. Where is the {names[spoken]}"
        questions.append(Pointing(text, (spoken,), side))
        questions.append(Pointing(f"What colour has the {names[spoken]}?", (spoken,)))
    plants = tuple(range(5, len(names)))
    questions.append(Pointing("How many plants?", plants, counts=(len(plants),)))
    some = tuple(range(1, len(COUNTS))) if plants else (0,)
    questions.append(Pointing("Is there a plant?", plants, counts=some))
    return Looked(look_of(names, places), tuple(questions))


def record(text: str, answer: str, ids: list[str], kind: str = "VQA3D", **more: Any) -> Any:
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    empty = dict.fromkeys(FEATURES) | {"scene_id": "room", "question_id": text, "source": "scanqa"}
    said = {"task_type": kind, "conversations": turns, "answers": [answer], "object_ids": ids}
    return {**empty, **said, **more}


def test_what_records_say_of_where_they_point() -> None:
    names, places = ["bed", "desk", "lamp", "sofa"], [(0.0, 0.0), (4.0, 0.0), (1.0, 0.0), (4.0, 5)]
    rows = [
        record(f"{name}?", name, [name], "classification3d", object_id=name, object_name=name)
        | {"box": [x, y, 0.5, 0.5, 0.5, 0.5]}
        for name, (x, y) in zip(names, places, strict=True)
    ]
    rows += [
        record("What colour is the desk?", "brown", ["desk"]),
        record("What is nearest to the bed?", "lamp", ["lamp"]),
        record("You stand at the bed. Where is the sofa?", "left", ["sofa"]),
        record("What room is this?", "office", []),
        record("Is there a cup?", "yes", ["not described"]),
        record("Is there a cat?", "no", []),
        record("How many lamps and beds are there?", "two", ["bed", "lamp"]),
        record("Which is larger, the bed or the lamp?", "bed", ["bed", "lamp"]),
    ]
    scan = EncodedScan("room", look_of(names, places), torch.zeros(3, dtype=torch.float64), "", {})
    (found,) = pointings(Dataset.from_list(rows, FEATURES), {"room": scan}, 0.5)
    assert found.look.boxes.labels == tuple(names)
    assert found.questions == (
        Pointing("What colour is the desk?", (1,)),
        # The lamp is nearest to the bed and to the desk, and the bed to it.
        Pointing("What is nearest to the bed?", (0, 1)),
        Pointing("You stand at the bed. Where is the sofa?", (3,), SIDES.index("left")),
        Pointing("Is there a cup?", (), counts=tuple(range(1, 13))),
        Pointing("Is there a cat?", (), counts=(0,)),
        Pointing("How many lamps and beds are there?", (0, 2), counts=(2,)),
    )


@pytest.mark.slow
def test_pointers_find_what_questions_speak_of_in_rooms_they_have_not_seen(
    built: tuple[SceneLM, SceneLMProcessor],
) -> None:
    model, processor = built
    before = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("focus.")}
    train, held_out = ([made_up(s) for s in seeds] for seeds in (range(200), range(300, 320)))
    first = measure_focus(model, processor, held_out)
    assert first.sided is not None
    assert first.counted is not None
    assert first.sided < 0.6
    assert first.counted < 0.6
    report = fit_focus(model, processor, train, held_out, steps=350)
    assert report.pointed is not None
    assert report.sided is not None
    assert report.counted is not None
    assert report.pointed > 0.95
    assert report.sided > 0.85
    assert report.counted > 0.9
    for name, parameter in model.named_parameters():
        if not name.startswith("focus."):
            assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None


def test_sides_and_counts_begin_as_the_words_for_them(
    built: tuple[SceneLM, SceneLMProcessor],
) -> None:
    model, processor = built
    begin_words(model, processor)
    embedding = model.get_input_embeddings()
    assert model.focus is not None
    for words, soft in ((SIDES, model.focus.sides), (COUNTS, model.focus.counts)):
        for word, begun in zip(words, soft, strict=True):
            ids = processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            assert torch.allclose(begun, embedding(torch.tensor(ids)).mean(dim=0))


def test_fitting_again_leaves_the_words_as_they_are(
    built: tuple[SceneLM, SceneLMProcessor],
) -> None:
    model, processor = built
    assert model.focus is not None
    before = [soft.clone() for soft in (model.focus.sides, model.focus.counts)]
    fit_focus(model, processor, [made_up(0)], [], steps=2)
    assert torch.equal(model.focus.sides, before[0])
    assert torch.equal(model.focus.counts, before[1])


def test_questions_follow_their_regions_into_a_changed_room() -> None:
    looked, other = made_up(0), made_up(1)
    seen: set[int] = set()
    for seed in range(20):
        changed = changed_look(looked, other, torch.Generator().manual_seed(seed))
        for before, after in zip(looked.questions, changed.questions, strict=True):
            assert (after.text, after.side) == (before.text, before.side)
            gone = len(before.regions) - len(after.regions)
            assert after.counts == tuple(c - gone for c in before.counts if c >= gone)
            if not before.counts:
                seen.add(len(after.regions))
            if after.regions and not gone:
                old, new = before.regions[0], after.regions[0]
                way = changed.look.boxes.centres[new] - looked.look.boxes.centres[old]
                assert way.norm() < 0.3
    assert seen == {0, 1}  # some are dropped


def test_words_are_left_out_only_while_fitting(
    built: tuple[SceneLM, SceneLMProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    asked: list[int] = []
    heard: list[int] = []
    ask, point = processor.pointing, model.point

    def words(inputs: dict[str, torch.Tensor]) -> int:
        return int((inputs["focus_ids"] >= 0).sum())

    def asking(*arguments: Any) -> dict[str, torch.Tensor]:
        inputs = ask(*arguments)
        asked.append(words(inputs))
        return inputs

    def pointing(inputs: dict[str, torch.Tensor]) -> Pointed:
        heard.append(words(inputs))
        return point(inputs)

    monkeypatch.setattr(processor, "pointing", asking)
    monkeypatch.setattr(model, "point", pointing)
    measure_focus(model, processor, [made_up(0)])
    assert heard == asked
    fit_focus(model, processor, [made_up(0)], [], steps=3)
    assert len(heard) == 4
    assert all(0.75 < h / a < 0.99 for h, a in zip(heard[1:], asked[1:], strict=True))


def test_nothing_is_fitted_to_nothing(built: tuple[SceneLM, SceneLMProcessor]) -> None:
    report = fit_focus(*built, [], [], steps=5)
    assert (report.pointed, report.sided, report.counted) == (None, None, None)
