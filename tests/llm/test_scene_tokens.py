"""Object tokens: what the language model reads of each region."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import random_look, save_language_model, small_recipe

from o2s import config
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.llm.answering import SceneAnswerer
from o2s.llm.configuration import SceneLMRecipe
from o2s.llm.prompts import DESCRIBE_OBJECT
from o2s.llm.saved import load_encoder
from o2s.llm.scene_tokens import REGION_INPUTS
from o2s.llm.trained_parts import (
    PRETRAINED,
    digests,
    load_trained_parts,
    write_trained_parts,
)
from o2s.own_weights import read_facts
from o2s.scene import Boxes, RegionFeatures

LOOKS = [random_look(0, 3), random_look(1, 5), random_look(2, 0)]
QUESTIONS = ["How many?", "Is there a chair by the window?", "What?"]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_language_model(tmp_path_factory.mktemp("language_model"))


@pytest.fixture(scope="module", params=["objects", "both"])
def answerer(language_model: str, request: pytest.FixtureRequest) -> SceneAnswerer:
    return answerer_of(language_model, request.param)


def answerer_of(language_model: str, kind: str, seed: int = 0) -> SceneAnswerer:
    answerer = SceneAnswerer.build(small_recipe(language_model, scene_tokens=kind, seed=seed))
    torch.manual_seed(seed)
    for name, parameter in answerer.model.named_parameters():
        if any(part in name for part in ("place", "mark", "nothing", "lora_moe_B")):
            torch.nn.init.normal_(parameter, std=0.1)
    return answerer


def tokens_of(answerer: SceneAnswerer, look: RegionFeatures) -> torch.Tensor:
    batch = answerer.processor(QUESTIONS[:1], [look])
    tokens, real = answerer.model.read_scene({name: batch[name] for name in REGION_INPUTS})
    assert real.all()
    return tokens[0]


def test_six_tokens_a_region_behind_the_queries(answerer: SceneAnswerer) -> None:
    queries = answerer.processor.num_queries
    assert tokens_of(answerer, LOOKS[0]).shape == (queries + 3 * 6, 32)
    assert tokens_of(answerer, LOOKS[2]).shape == (queries, 32)


def test_new_object_tokens_begin_with_the_label_in_the_models_own_words(
    language_model: str,
) -> None:
    answerer = SceneAnswerer.build(small_recipe(language_model, scene_tokens="objects"))
    look = replace(LOOKS[0], boxes=replace(LOOKS[0].boxes, labels=("chair", "a b", "chair")))
    names = tokens_of(answerer, look)[1::6]
    embed = answerer.model.get_input_embeddings()
    ids = [answerer.processor.tokenizer(f" {text}")["input_ids"] for text in ("a b", "chair")]
    means = [embed(torch.tensor(row)).mean(0) for row in ids]
    assert torch.allclose(names, torch.stack([means[0], means[1], means[1]]), atol=1e-6)


def test_answers_are_the_same_alone_and_in_a_batch(answerer: SceneAnswerer) -> None:
    together = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=6)
    alone = [
        answerer.ask(look, question, max_new_tokens=6)
        for look, question in zip(LOOKS, QUESTIONS, strict=True)
    ]
    assert [a.text for a in together] == [a.text for a in alone]
    assert together[0].text != answerer.ask(LOOKS[1], QUESTIONS[0], max_new_tokens=6).text


def test_near_and_on_are_the_names_of_other_regions(answerer: SceneAnswerer) -> None:
    look = replace(
        LOOKS[0],
        boxes=Boxes(  # the second stands on the first, the third is near both
            torch.tensor([[0.0, 0.0, 0.4], [0.4, 0.2, 1.0], [0.0, 1.0, 0.4]]),
            torch.tensor([[2.0, 1.0, 0.8], [0.3, 0.3, 0.4], [0.5, 0.5, 0.8]]),
            torch.zeros(3),
            torch.ones(3),
            ("a", "b", "c"),
        ),
    )
    batch = answerer.processor(QUESTIONS[:1], [look])
    assert batch["region_near"].tolist() == [[2, 2, 0]]
    assert batch["region_on"].tolist() == [[-1, 0, -1]]
    regions = {name: batch[name] for name in REGION_INPUTS}
    skip = answerer.processor.num_queries
    found = answerer.model.read_scene(regions)[0][0, skip:].unflatten(0, (3, 6))
    tokens = answerer.model.object_tokens
    assert tokens is not None
    own = (tokens.scale * tokens.place(regions["region_boxes"]))[0]
    said = found - own[:, None] - tokens.kind
    names = said[:, 2]
    assert torch.allclose(said[:, 4], names[[2, 2, 0]], atol=1e-5)
    on = torch.stack([tokens.nothing[1], names[0], tokens.nothing[1]])
    assert torch.allclose(said[:, 5], on, atol=1e-5)


@pytest.mark.parametrize("changed", ["features", "colors", "places", "scores", "labels", "mark"])
def test_whatever_is_known_of_a_region_reaches_its_tokens(
    answerer: SceneAnswerer, changed: str
) -> None:
    look, marked = replace(LOOKS[0], colors=torch.full((3, 9), 0.5)), None
    boxes = look.boxes
    changes = {
        "features": replace(look, features=look.features.flip(1)),
        "colors": replace(look, colors=torch.full((3, 9), 0.9)),
        "places": replace(look, boxes=replace(boxes, centres=boxes.centres + 1)),
        "scores": replace(look, boxes=replace(boxes, scores=boxes.scores * 0.5)),
        "labels": replace(look, boxes=replace(boxes, labels=("door",) * 3)),
        "mark": look,
    }
    if changed == "mark":
        marked = [2]
    before = answerer.processor(QUESTIONS[:1], [look])
    after = answerer.processor(QUESTIONS[:1], [changes[changed]], marked=marked)
    read = answerer.model.read_scene
    skip = answerer.processor.num_queries
    old, new = (read({n: b[n] for n in REGION_INPUTS})[0][0, skip:] for b in (before, after))
    assert not torch.allclose(old, new)


def test_captions_speak_of_the_marked_region(
    answerer: SceneAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    ask_batch = answerer.ask_batch

    def watched(*args: Any, marked: list[int], **kwargs: Any) -> Any:
        asked.append(marked)
        return ask_batch(*args, marked=marked, **kwargs)

    monkeypatch.setattr(answerer, "ask_batch", watched)
    said = answerer.caption(LOOKS[1], batch_size=3, max_new_tokens=4)
    assert asked == [[0, 1, 2], [3, 4]]
    alone = ask_batch([LOOKS[1]], [DESCRIBE_OBJECT], task="describe", marked=[4], max_new_tokens=4)
    assert said[4] == alone[0].text


def test_a_conversation_asks_each_question_after_what_was_said(answerer: SceneAnswerer) -> None:
    said = answerer.converse(LOOKS[0], QUESTIONS[:2], max_new_tokens=5)
    assert said[0].text == answerer.ask(LOOKS[0], QUESTIONS[0], max_new_tokens=5).text
    batch = answerer.processor([QUESTIONS[:2]], LOOKS[:1], history=[[said[0].text]])
    generated = answerer.model.generate(**batch, max_new_tokens=5, do_sample=False)
    length = batch["input_ids"].shape[1]
    assert answerer.processor.decode_answers(generated, length) == [said[1].text]


def test_a_saved_model_reads_the_same(answerer: SceneAnswerer, tmp_path: Path) -> None:
    answerer.save(tmp_path)
    restored = SceneAnswerer.load(tmp_path)
    assert restored.processor.objects
    assert torch.equal(tokens_of(restored, LOOKS[1]), tokens_of(answerer, LOOKS[1]))


def test_trained_parts_fill_a_new_model(language_model: str, tmp_path: Path) -> None:
    trained, file = answerer_of(language_model, "both", seed=3), tmp_path / "parts.safetensors"
    write_trained_parts(file, trained.model, {"scores": 1})
    new = SceneAnswerer.build(small_recipe(language_model, scene_tokens="both"))
    assert load_trained_parts(new.model, str(file))["scores"] == 1
    other = dict(trained.model.named_parameters())
    for name, parameter in new.model.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter, other[name], atol=2e-3)
    again = small_recipe(language_model, scene_tokens="both", weights=str(file))
    assert SceneAnswerer.build(again).untrained == ["region encoder"]


@pytest.mark.parametrize("changed", [False, True])
def test_another_region_encoder_than_the_parts_were_tuned_with_is_said(
    changed: bool, language_model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, file = answerer_of(language_model, "objects").model, tmp_path / "parts.safetensors"
    write_trained_parts(file, model, {})
    if changed:
        torch.nn.init.constant_(model.encoder.point_bert.norm.weight, 0.25)
    with caplog.at_level(logging.WARNING):
        load_trained_parts(model, str(file))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == changed
    assert all("tuned with another region encoder than this model has" in line for line in said)


def test_the_model_that_comes_with_o2s_has_what_it_was_tuned_with() -> None:
    encoder = SceneEncoder.build(config.load("o2s_tiny", SceneLMRecipe).encoder)
    facts = read_facts(PRETRAINED, "scene_lm")
    assert facts is not None
    assert facts["read"] == digests({f"encoder.{n}": v for n, v in encoder.state_dict().items()})


def test_the_weights_that_come_with_o2s_are_those_of_its_config() -> None:
    facts = read_facts(PRETRAINED, "scene_lm")
    assert facts is not None
    recipe, known = config.load("o2s_tiny", SceneLMRecipe), facts["recipe"]["model"]
    assert recipe.scene_tokens == known["scene_tokens"]
    assert recipe.lora_moe is not None
    for name in ("r", "lora_alpha", "num_experts", "top_k", "target_modules"):
        assert getattr(recipe.lora_moe, name) == known["lora_moe"][name], name
    assert recipe.language_model == known["language_model"]
    assert facts["scores"]["val"]["exact_classification3d"] > 0.5


def test_queries_that_are_not_read_are_untrained(language_model: str, tmp_path: Path) -> None:
    for kind, expected in (("objects", ["aggregator"]), ("both", [])):
        answerer = answerer_of(language_model, kind)
        answerer.model.config.untrained = []
        answerer.save(tmp_path / kind)
        assert load_encoder(tmp_path / kind)[1] == expected
        assert SceneAnswerer.load(tmp_path / kind).untrained == []


def test_trained_parts_of_another_recipe_are_refused(language_model: str, tmp_path: Path) -> None:
    file = tmp_path / "parts.safetensors"
    write_trained_parts(file, answerer_of(language_model, "both").model, {})
    with pytest.raises(InputError, match="made for a model of another recipe"):
        SceneAnswerer.build(small_recipe(language_model, scene_tokens="objects", weights=str(file)))
