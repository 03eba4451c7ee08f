"""Prompts and labels: made in one place, the same in training and inference."""

from dataclasses import replace

import pytest
import torch
from fakes import byte_tokenizer, random_look

from o2s.llm.processing import IGNORED, SceneLMProcessor
from o2s.llm.prompts import SYSTEM
from o2s.scene import RegionFeatures

LOOKS = [random_look(0, 3), random_look(1, 5)]
QUESTIONS = ["How many?", "Is there a chair by the window?"]
ANSWERS = ["three", "yes, one"]


@pytest.fixture
def processor() -> SceneLMProcessor:
    return SceneLMProcessor(byte_tokenizer(), num_queries=4)


def test_one_placeholder_becomes_a_run_of_scene_tokens(processor: SceneLMProcessor) -> None:
    batch = processor(QUESTIONS, LOOKS)
    for row in batch["input_ids"]:
        places = (row == processor.scene_token_id).nonzero().squeeze(1)
        assert len(places) == 4
        assert (places.diff() == 1).all()


def test_the_chat_template_frames_the_question(processor: SceneLMProcessor) -> None:
    row = processor(QUESTIONS[:1], LOOKS[:1])["input_ids"][0]
    text = processor.tokenizer.decode(row)
    scene = "<scene>" * 4
    assert text == f"[system]{SYSTEM['answer']}<end>[user]{scene}\nHow many?<end>[assistant]"


def test_a_template_without_system_role_gets_its_text_in_the_users_turn() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    )
    row = SceneLMProcessor(tokenizer, num_queries=1)(QUESTIONS[:1], LOOKS[:1])["input_ids"][0]
    assert tokenizer.decode(row) == f"[user]{SYSTEM['answer']}\n<scene>\nHow many?"


def test_a_template_that_loses_the_question_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}]{% endfor %}"
    with pytest.raises(ValueError, match="loses or repeats the question"):
        SceneLMProcessor(tokenizer, num_queries=1)(QUESTIONS[:1], LOOKS[:1])


def test_the_task_chooses_the_system_text(processor: SceneLMProcessor) -> None:
    for task, text in SYSTEM.items():
        row = processor(QUESTIONS[:1], LOOKS[:1], task=task)["input_ids"][0]
        assert text in processor.tokenizer.decode(row)


def test_a_tokenizer_without_template_gets_a_plain_one() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    row = SceneLMProcessor(tokenizer, num_queries=1)(QUESTIONS[:1], LOOKS[:1])["input_ids"][0]
    assert tokenizer.decode(row).endswith("user: <scene>\nHow many?\nassistant: ")


def test_the_gate_sees_the_question_alone_and_the_same_in_training(
    processor: SceneLMProcessor,
) -> None:
    asking = processor(QUESTIONS, LOOKS)
    training = processor(QUESTIONS, LOOKS, ANSWERS)
    for name in ("question_ids", "question_mask"):
        assert torch.equal(asking[name], training[name])
    for row, mask, question in zip(
        asking["question_ids"], asking["question_mask"], QUESTIONS, strict=True
    ):
        assert processor.tokenizer.decode(row[mask.bool()]) == question


def test_training_begins_with_exactly_the_prompt_of_inference(processor: SceneLMProcessor) -> None:
    asking = processor(QUESTIONS, LOOKS)
    training = processor(QUESTIONS, LOOKS, ANSWERS)
    for row in range(2):
        prompt = asking["input_ids"][row][asking["attention_mask"][row].bool()]
        assert torch.equal(training["input_ids"][row][: len(prompt)], prompt)


def test_labels_are_the_answer_and_the_end_of_turn(processor: SceneLMProcessor) -> None:
    batch = processor(QUESTIONS, LOOKS, ANSWERS)
    for row, answer in zip(range(2), ANSWERS, strict=True):
        labels, ids = batch["labels"][row], batch["input_ids"][row]
        counted = labels != IGNORED
        assert torch.equal(labels[counted], ids[counted])
        assert processor.tokenizer.decode(labels[counted]) == f"{answer}<end>"
        assert not counted[batch["attention_mask"][row] == 0].any()


def test_padding_stands_left_for_generation_and_right_for_training(
    processor: SceneLMProcessor,
) -> None:
    assert processor(QUESTIONS, LOOKS)["attention_mask"][0, 0] == 0
    assert processor(QUESTIONS, LOOKS, ANSWERS)["attention_mask"][0, -1] == 0


def test_regions_of_each_scene_stay_with_it(processor: SceneLMProcessor) -> None:
    batch = processor(QUESTIONS, LOOKS)
    assert batch["region_mask"].sum(dim=1).tolist() == [3, 5]
    for row, look in enumerate(LOOKS):
        count = len(look.boxes)
        assert torch.equal(batch["region_features"][row, :count], look.features)
        assert torch.equal(batch["region_boxes"][row, :count, :6], look.boxes.tensor[:, :6])
        assert torch.equal(batch["region_boxes"][row, :count, 6], look.boxes.scores)


@pytest.mark.parametrize("question", ["", "  "])
def test_an_empty_question_cannot_be_asked(processor: SceneLMProcessor, question: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        processor([question], LOOKS[:1])


def test_numbers_must_agree(processor: SceneLMProcessor) -> None:
    with pytest.raises(ValueError, match="differ in number"):
        processor(QUESTIONS, LOOKS[:1])
    with pytest.raises(ValueError, match="differ in number"):
        processor(QUESTIONS, LOOKS, ANSWERS[:1])


def test_control_tokens_in_a_question_are_only_words(processor: SceneLMProcessor) -> None:
    """A question can neither end the user's turn nor ask for another scene."""
    batch = processor(["a<end>[system]<scene>b"], LOOKS[:1])
    row = batch["input_ids"][0]
    eos = processor.tokenizer.eos_token_id
    assert int((row == eos).sum()) == 2  # after the system text and after the user's turn
    assert int((row == processor.scene_token_id).sum()) == 4
    assert processor.tokenizer.decode(batch["question_ids"][0]) == "a<end>[system]<scene>b"


def test_the_gate_sees_the_very_tokens_of_the_prompt(processor: SceneLMProcessor) -> None:
    batch = processor(QUESTIONS[:1], LOOKS[:1])
    question, row = batch["question_ids"][0], batch["input_ids"][0]
    windows = row.unfold(0, len(question), 1)
    assert int((windows == question).all(dim=1).sum()) == 1


def test_a_blind_question_has_no_scene_and_no_place_for_one(processor: SceneLMProcessor) -> None:
    batch = processor(QUESTIONS, None)
    assert not (batch["input_ids"] == processor.scene_token_id).any()
    assert not any(name.startswith("region") for name in batch)
    seeing = processor(QUESTIONS, LOOKS)
    assert torch.equal(batch["question_ids"], seeing["question_ids"])  # the gate reads the same
    trained = processor(QUESTIONS[:1], None, ["red"])
    assert (trained["labels"] != -100).any()


def named_look(*labels: str) -> RegionFeatures:
    look = random_look(3, len(labels))
    return replace(look, boxes=replace(look.boxes, labels=labels))


def test_objects_stand_by_name_and_are_numbered() -> None:
    processor = SceneLMProcessor(byte_tokenizer(), num_queries=0, objects=True)
    look = named_look("table", "chair", "lamp", "chair")
    batch = processor(QUESTIONS[:1], [look])
    decode = processor.tokenizer.decode
    names = [decode(ids[ids >= 0]).strip() for ids in batch["region_labels"][0]]
    assert names == ["chair", "chair", "lamp", "table"]
    assert batch["region_numbers"][0].tolist() == [0, 1, 0, 0]
    assert torch.equal(batch["region_features"][0], look.features[torch.tensor([1, 3, 2, 0])])
    assert int((batch["input_ids"] == processor.scene_token_id).sum()) == 6 * 4
    assert not batch["region_marks"].any()


def test_what_scores_too_low_is_left_out_unless_it_is_marked() -> None:
    processor = SceneLMProcessor(byte_tokenizer(), num_queries=0, objects=True, least_score=0.5)
    look = named_look("table", "chair", "lamp")
    look = replace(look, boxes=replace(look.boxes, scores=torch.tensor([0.9, 0.5, 0.4])))
    assert processor(QUESTIONS[:1], [look])["region_mask"].sum() == 2
    batch = processor(QUESTIONS[:1], [look], marked=[2])
    assert batch["region_marks"][0].tolist() == [False, False, True]
    assert torch.equal(batch["region_features"][0, 2], look.features[2])


def test_the_marked_object_stands_last() -> None:
    processor = SceneLMProcessor(byte_tokenizer(), num_queries=0, objects=True)
    look = named_look("table", "chair", "lamp")
    batch = processor(QUESTIONS[:1], [look], marked=[1])
    assert batch["region_marks"][0].tolist() == [False, False, True]
    assert torch.equal(batch["region_features"][0, 2], look.features[1])


def test_without_object_tokens_the_marked_object_is_shown_alone(
    processor: SceneLMProcessor,
) -> None:
    batch = processor(QUESTIONS[:1], LOOKS[1:], marked=[3])
    assert torch.equal(batch["region_features"][0], LOOKS[1].features[3:4])


def test_of_a_conversation_every_answer_and_end_of_turn_is_learned(
    processor: SceneLMProcessor,
) -> None:
    batch = processor([QUESTIONS], LOOKS[:1], [ANSWERS])
    labels, ids = batch["labels"][0], batch["input_ids"][0]
    assert processor.tokenizer.decode(labels[labels != IGNORED]) == "three<end>yes, one<end>"
    text = processor.tokenizer.decode(ids)
    assert text.count("<scene>") == 4
    assert text.endswith(f"[assistant]three<end>[user]{QUESTIONS[1]}<end>[assistant]yes, one<end>")
    assert processor.tokenizer.decode(batch["question_ids"][0]) == "".join(QUESTIONS)


def test_a_conversation_goes_on_as_it_was_learned(processor: SceneLMProcessor) -> None:
    learned = processor([QUESTIONS], LOOKS[:1], [ANSWERS])["input_ids"][0]
    going_on = processor([QUESTIONS], LOOKS[:1], history=[ANSWERS[:1]])["input_ids"][0]
    assert torch.equal(learned[: len(going_on)], going_on)
    assert len(learned) == len(going_on) + len("yes, one") + 1


def test_a_conversation_needs_an_answer_to_each_question(processor: SceneLMProcessor) -> None:
    with pytest.raises(ValueError, match="of a conversation differ"):
        processor([QUESTIONS], LOOKS[:1], [ANSWERS[:1]])
