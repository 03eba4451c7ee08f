"""What a question speaks of, read again beside it."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import random_look, save_language_model, small_recipe

from o2s.llm.answering import SceneAnswerer, Spoken
from o2s.llm.focus import COUNTS, FOCUS_TOKENS, QuestionFocus, number_of
from o2s.llm.modeling import SceneLM
from o2s.llm.scene_tokens import SCENE_INPUTS, TOKENS_A_REGION

WIDTH = 16
LOOKS = [random_look(0, 3), random_look(1, 5), random_look(2, 0)]
QUESTIONS = ["How many?", "Is there a chair by the window?", "What?"]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_language_model(tmp_path_factory.mktemp("language_model"))


@pytest.fixture(scope="module")
def answerer(language_model: str) -> SceneAnswerer:
    answerer = SceneAnswerer.build(small_recipe(language_model, scene_tokens="objects", focus=True))
    torch.manual_seed(0)
    for name, parameter in answerer.model.named_parameters():
        if any(part in name for part in ("place", "focus.kind", "lora_moe_B")):
            torch.nn.init.normal_(parameter, std=0.1)
    return answerer


def new(seed: int = 0) -> QuestionFocus:
    torch.manual_seed(seed)
    return QuestionFocus(WIDTH, 1.0)


def inputs(scenes: int, questions: int, regions: int, words: int = 7) -> dict[str, torch.Tensor]:
    """Random questions and scenes."""
    return {
        "words": torch.randn(scenes, questions, words, WIDTH),
        "real": torch.ones(scenes, questions, words, dtype=torch.bool),
        "tokens": torch.randn(scenes, regions, TOKENS_A_REGION, WIDTH),
        "centres": torch.randn(scenes, regions, 3),
        "on": torch.full((scenes, regions), -1),
        "marks": torch.zeros(scenes, regions, dtype=torch.bool),
        "mask": torch.ones(scenes, regions, dtype=torch.bool),
    }


def pointing(focus: QuestionFocus, given: dict[str, torch.Tensor]) -> Any:
    return focus.point(*(given[n] for n in ("words", "real", "tokens", "centres", "marks", "mask")))


def expected_sides(
    regions: torch.Tensor, places: list[tuple[float, float]], sharpness: float
) -> list[float]:
    """By angles, one triple of regions after the other."""
    low, high = ([f(p[i] for p in places) for i in (0, 1)] for f in (min, max))
    every = [*places, ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)]
    total, found = 0.0, [0.0] * 4
    for spoken, stand, face in itertools.product(range(len(every)), repeat=3):
        if stand in (spoken, face):
            continue
        weight = float(regions[0, spoken] * regions[1, stand] * regions[2, face])
        (x, y), (fx, fy), (sx, sy) = every[stand], every[face], every[spoken]
        angle = math.atan2(sy - y, sx - x) - math.atan2(fy - y, fx - x)
        shares = [math.exp(sharpness * math.cos(angle - turn * math.pi / 2)) for turn in range(4)]
        found = [f + weight * s / sum(shares) for f, s in zip(found, shares, strict=True)]
        total += weight
    return [f / total for f in found]


@torch.no_grad()
def test_sides_are_the_expectation_over_all_triples() -> None:
    focus, given = new(), inputs(2, 3, 4)  # with the room fewer than the likely ones
    pointed = pointing(focus, given)
    assert torch.allclose(pointed.regions.sum(dim=3), torch.ones(2, 3, 3))
    for scene, question in itertools.product(range(2), range(3)):
        places = [(x, y) for x, y, _ in given["centres"][scene].tolist()]
        wanted = expected_sides(pointed.regions[scene, question], places, float(focus.sharpness))
        assert pointed.sides[scene, question].tolist() == pytest.approx(wanted, abs=1e-5)


def test_turned_rooms_have_the_same_sides_and_mirrored_ones_the_other() -> None:
    focus, given = new(), inputs(2, 3, 4)
    places = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0.5, 2, 0], [0.5, -2, 0]]]).expand(2, -1, -1)
    given["centres"] = places
    sides = pointing(focus, given).sides
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(pointing(focus, {**given, "centres": places @ quarter}).sides, sides)
    mirrored = pointing(focus, {**given, "centres": places * torch.tensor([1.0, -1.0, 1.0])}).sides
    assert torch.allclose(mirrored, sides[..., [0, 3, 2, 1]], atol=1e-6)


def test_before_any_training_a_question_points_at_what_it_names() -> None:
    torch.manual_seed(0)
    focus = QuestionFocus(256, 0.1)
    names = 0.1 * torch.randn(6, 256)
    tokens = names[None, :, None].expand(1, 6, TOKENS_A_REGION, 256)
    real = torch.ones(1, 6, 1, dtype=torch.bool)
    mask = torch.ones(1, 6, dtype=torch.bool)
    pointed = focus.point(names[None, :, None], real, tokens, torch.randn(1, 6, 3), ~mask, mask)
    assert pointed.regions[0, :, 0].argmax(dim=1).tolist() == list(range(6))


def test_what_is_spoken_of_is_read_again_with_what_is_on_it() -> None:
    focus, given = new(), inputs(1, 2, 3)
    torch.nn.init.normal_(focus.kind)
    given["on"] = torch.tensor([[-1, 0, 0]])
    pointed = pointing(focus, given)
    found = focus(**given)
    assert found.shape == (1, 2, FOCUS_TOKENS, WIDTH)
    names = given["tokens"][0, :, 2]
    for question in range(2):
        spoken = pointed.regions[0, question, 0]
        again = (spoken[:3, None, None] * given["tokens"][0]).sum(dim=0)
        carried = spoken[0] * (names[1] + names[2]) / 2
        side = (pointed.sides[0, question][:, None] * focus.sides).sum(dim=0)
        count = (pointed.counts[0, question][:, None] * focus.counts).sum(dim=0)
        wanted = torch.cat([again, carried[None], side[None], count[None]]) + focus.kind
        assert torch.allclose(found[0, question], wanted, atol=1e-5)


def test_how_many_are_spoken_of_is_the_sum_over_all_that_may_be() -> None:
    trials = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    found = number_of(trials)
    assert found.shape == (2, 3, len(COUNTS))
    for scene, question in itertools.product(range(2), range(3)):
        wanted = [0.0] * len(COUNTS)
        for among in itertools.product((False, True), repeat=5):
            each = zip(trials[scene, question].tolist(), among, strict=True)
            wanted[sum(among)] += math.prod(p if one else 1 - p for p, one in each)
        assert found[scene, question].tolist() == pytest.approx(wanted, abs=1e-6)
    assert number_of(torch.ones(1, 1, 20)).sum() == 0  # more than there are words for


def test_a_region_counts_where_it_is_more_likely_spoken_of_than_the_room() -> None:
    focus, given = new(), inputs(2, 3, 4)
    given["mask"][1, 2:] = False
    pointed = pointing(focus, given)
    spoken = pointed.regions[:, :, 0]
    trials = spoken[..., :-1] / (spoken[..., :-1] + spoken[..., -1:])
    assert torch.allclose(pointed.counts, number_of(trials), atol=1e-5)
    assert not pointed.counts[1, :, 3:].any()


def test_one_scene_alone_is_the_same_as_in_a_batch() -> None:
    focus, given = new(), inputs(2, 2, 5)
    given["real"][0, 0, 4:] = given["real"][1, 1, 5:] = False
    given["mask"][1, 3:] = False
    given["on"] = torch.tensor([[-1, 0, -1, 2, 2], [1, -1, 1, -1, -1]])
    together = focus(**given)
    first = {n: x[1:, :1] if n in ("words", "real") else x[1:, :3] for n, x in given.items()}
    assert torch.allclose(focus(**first), together[1:, :1], atol=1e-5)
    short = {n: x[:1, :1, :4] if n in ("words", "real") else x[:1] for n, x in given.items()}
    assert torch.allclose(focus(**short), together[:1, :1], atol=1e-5)


def test_a_scene_without_regions_is_only_a_room() -> None:
    focus = new()
    found = focus(**inputs(2, 2, 0))
    assert torch.equal(found[:, :, :-1], torch.zeros(2, 2, FOCUS_TOKENS - 1, WIDTH))
    assert torch.equal(found[:, :, -1], focus.counts[COUNTS.index("no")].expand(2, 2, -1))
    assert not pointing(focus, inputs(1, 1, 0)).sides.any()


def test_every_parameter_learns_from_what_is_read() -> None:
    focus, given = new(), inputs(2, 2, 5)
    given["on"] = torch.tensor([[-1, 0, -1, 2, 2], [1, -1, 1, -1, -1]])
    focus(**given).square().sum().backward()
    for name, parameter in focus.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert name == "kind" or parameter.grad.any(), name


def test_what_is_marked_is_what_is_spoken_of() -> None:
    focus, given = new(), inputs(2, 2, 5)
    free = pointing(focus, given)
    given["marks"][1, 3] = True
    pointed = pointing(focus, given)
    assert torch.equal(pointed.regions[0], free.regions[0])
    assert torch.equal(pointed.sides[0], free.sides[0])
    assert torch.equal(pointed.counts[0], free.counts[0])
    assert (pointed.regions[1, :, 0].argmax(dim=1) == 3).all()
    assert (pointed.regions[1, :, 0].amax(dim=1) == 1).all()
    assert torch.equal(pointed.regions[1, :, 1:], free.regions[1, :, 1:])
    assert not pointed.sides[1].any()
    assert not pointed.counts[1].any()
    again = focus(**given)[1, :, :TOKENS_A_REGION]
    assert torch.allclose(again, given["tokens"][1, 3] + focus.kind[:TOKENS_A_REGION])


def test_each_question_of_a_conversation_is_followed_by_its_focus(answerer: SceneAnswerer) -> None:
    asked = ["Is it?", "What is left of the chair?"]
    batch = answerer.processor([asked, asked[:1]], LOOKS[:2], [["yes", "it"], ["no"]])
    assert batch["focus_ids"].shape == (2, 2, len(asked[1]))
    assert batch["focus_ids"][1, 1].unique().tolist() == [-1]
    places = (batch["input_ids"] == answerer.processor.scene_token_id).sum(dim=1).tolist()
    assert places == [3 * TOKENS_A_REGION + 2 * FOCUS_TOKENS, 5 * TOKENS_A_REGION + FOCUS_TOKENS]
    tokens, real = answerer.model.read_scene({name: batch[name] for name in SCENE_INPUTS})
    assert real.sum(dim=1).tolist() == places
    # The first question is the same in both, with the scene of each.
    first = answerer.processor(asked[:1], LOOKS[:1], ["yes"])
    alone, _ = answerer.model.read_scene({name: first[name] for name in SCENE_INPUTS})
    end = -2 * FOCUS_TOKENS
    assert torch.allclose(tokens[0, end:-FOCUS_TOKENS], alone[0, -FOCUS_TOKENS:], atol=1e-5)


def test_answers_are_the_same_alone_and_in_a_batch(answerer: SceneAnswerer) -> None:
    together = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=6)
    alone = [
        answerer.ask(look, question, max_new_tokens=6)
        for look, question in zip(LOOKS, QUESTIONS, strict=True)
    ]
    assert [a.text for a in together] == [a.text for a in alone]
    assert answerer.ask_batch(None, QUESTIONS[:1], max_new_tokens=2)  # blind


@torch.no_grad()
def test_what_a_question_is_taken_to_speak_of(answerer: SceneAnswerer, language_model: str) -> None:
    turned = torch.arange(4, -1, -1)
    look = LOOKS[1].select(turned)  # the worst first: the language model reads them by score
    batch = answerer.processor([QUESTIONS], [look], [["?"] * 3])
    pointed = answerer.model.point({name: batch[name] for name in SCENE_INPUTS}).regions[0, :, 0]
    found = answerer.spoken_of(look, QUESTIONS)
    assert found is not None
    for spoken, shares in zip(found, pointed, strict=True):
        assert spoken.probability == pytest.approx(float(shares.max()))
        best = int(shares.argmax())
        expected = (None, "the room") if best == 5 else (4 - best, "object")
        assert (spoken.region, spoken.label) == expected
    assert str(Spoken(3, "bed", 0.5)) == "#4 bed (50%)"
    assert str(Spoken(None, "the room", 1.0)) == "the room (100%)"
    assert answerer.spoken_of(LOOKS[2], QUESTIONS) is None
    plain = SceneAnswerer.build(small_recipe(language_model, scene_tokens="objects"))
    assert plain.spoken_of(look, QUESTIONS) is None


def test_it_is_stored_with_the_model(answerer: SceneAnswerer, tmp_path: Path) -> None:
    answerer.save(tmp_path)
    again = SceneAnswerer.load(tmp_path)
    said, same = (a.ask_batch(LOOKS, QUESTIONS, max_new_tokens=6) for a in (answerer, again))
    assert [a.text for a in said] == [a.text for a in same]


def test_there_is_no_focus_without_object_tokens(language_model: str) -> None:
    with pytest.raises(ValueError, match="expected false where scene_tokens is octavius"):
        small_recipe(language_model, scene_tokens="octavius", focus=True)
    model, _ = SceneLM.build(small_recipe(language_model, scene_tokens="objects"))
    with pytest.raises(ValueError, match="built without focus"):
        model.point({})
