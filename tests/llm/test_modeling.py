"""SceneLM: what it computes, what it stores, and the mistakes of others that it must not make."""

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from fakes import byte_tokenizer, random_look, small_recipe
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Trainer,
    TrainingArguments,
)

from o2s.errors import InputError
from o2s.llm.answering import SceneAnswerer
from o2s.llm.lora_moe import LoraMoeModel
from o2s.llm.modeling import SceneLM
from o2s.llm.prompts import DESCRIBE_OBJECT
from o2s.llm.saved import load_encoder
from o2s.scene import RegionFeatures

LOOKS = [random_look(0, 3), random_look(1, 6), random_look(2, 0)]
QUESTIONS = ["How many?", "Is there a chair by the window or under the big table?", "Why so empty?"]
ANSWERS = ["three", "yes, one by the window", "no"]


@pytest.fixture(scope="module")
def answerer(language_model: str) -> SceneAnswerer:
    """Experts with something to say, so that routes matter."""
    answerer = SceneAnswerer.build(small_recipe(language_model))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in answerer.model.named_parameters():
        if "lora_moe_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return answerer


def batch_of(answerer: SceneAnswerer, rows: slice, *, answers: bool) -> dict[str, Tensor]:
    replies = ANSWERS[rows] if answers else None
    return dict(answerer.processor(QUESTIONS[rows], LOOKS[rows], replies))


def test_mixed_lengths_answer_as_singles(answerer: SceneAnswerer) -> None:
    together = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=12)
    for look, question, answer in zip(LOOKS, QUESTIONS, together, strict=True):
        alone = answerer.ask(look, question, max_new_tokens=12)
        assert alone.text == answer.text
        assert alone.route == pytest.approx(answer.route, abs=1e-6)


def test_answers_repeat_exactly(answerer: SceneAnswerer) -> None:
    first = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=12)
    torch.manual_seed(99)
    assert answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=12) == first


def test_generation_follows_the_greedy_path_of_forward(answerer: SceneAnswerer) -> None:
    """Step by step without a cache, the whole prompt again each time."""
    batch = batch_of(answerer, slice(1, 2), answers=False)
    generated = answerer.model.generate(**batch, max_new_tokens=5, do_sample=False)
    ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
    for _ in range(generated.shape[1] - ids.shape[1]):
        with torch.no_grad():
            logits = answerer.model(input_ids=ids, attention_mask=mask, **batch).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
        mask = torch.ones_like(ids)
    assert torch.equal(ids, generated)


def test_scene_and_question_both_matter(answerer: SceneAnswerer) -> None:
    batch = batch_of(answerer, slice(0, 2), answers=True)
    with torch.no_grad():
        logits = answerer.model(**batch).logits
        batch["region_features"] = batch["region_features"] + 1
        other_scene = answerer.model(**batch).logits
        batch["routing_weights"] = torch.eye(4)[:2]
        other_route = answerer.model(**batch).logits
    assert not torch.allclose(logits, other_scene)
    assert not torch.allclose(other_scene, other_route)


def test_loss_is_the_mean_over_answer_tokens_only(answerer: SceneAnswerer) -> None:
    batch = batch_of(answerer, slice(0, 2), answers=True)
    with torch.no_grad():
        output = answerer.model(**batch)
    log_probabilities = output.logits.log_softmax(dim=-1)
    losses = [
        -log_probabilities[row, t - 1, batch["labels"][row, t]]
        for row in range(2)
        for t in range(1, batch["labels"].shape[1])
        if batch["labels"][row, t] >= 0
    ]
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_neither_loss_nor_logits(answerer: SceneAnswerer, side: str) -> None:
    batch = batch_of(answerer, slice(0, 1), answers=True)
    with torch.no_grad():
        plain = answerer.model(**batch)
        fills = {"input_ids": answerer.processor.tokenizer.pad_token_id, "labels": -100}
        pads = (7, 0) if side == "left" else (0, 7)
        for name in ("input_ids", "attention_mask", "labels"):
            batch[name] = nn.functional.pad(batch[name], pads, value=fills.get(name, 0))
        padded = answerer.model(**batch)
    torch.testing.assert_close(padded.loss, plain.loss)
    real = slice(7, None) if side == "left" else slice(None, -7)
    torch.testing.assert_close(padded.logits[:, real], plain.logits, atol=1e-4, rtol=1e-4)


def test_only_bridge_and_adapter_learn_and_embeddings_keep_their_size(
    answerer: SceneAnswerer, language_model: str
) -> None:
    model = answerer.model
    assert model.get_input_embeddings().weight.shape == (259, 32)
    assert answerer.processor.scene_token_id >= 259
    assert not model.get_input_embeddings().weight.requires_grad
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {
        name
        for name, _ in model.named_parameters()
        if "lora_moe_" in name or name.startswith(("encoder.aggregator.", "projector."))
    }
    assert learning == expected


def test_gradients_reach_everything_that_learns(answerer: SceneAnswerer) -> None:
    model = answerer.model
    model.zero_grad()
    model(**batch_of(answerer, slice(0, 3), answers=True)).loss.backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_saved_model_answers_the_same_and_holds_no_base_weights(
    answerer: SceneAnswerer, tmp_path: Path
) -> None:
    answerer.save(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert all("lora_moe_" in key for key in stored if key.startswith("language_model"))
    loaded = SceneAnswerer.load(tmp_path)
    assert loaded.ask_batch(LOOKS, QUESTIONS, max_new_tokens=8) == answerer.ask_batch(
        LOOKS, QUESTIONS, max_new_tokens=8
    )
    assert loaded.untrained == answerer.untrained
    encoder, untrained = load_encoder(tmp_path)
    assert untrained == answerer.untrained
    expected = answerer.model.encoder.gather(LOOKS)
    for got, want in zip(encoder.gather(LOOKS), expected, strict=True):
        assert torch.equal(got.tokens, want.tokens)


def test_the_experts_are_a_peft_adapter(
    answerer: SceneAnswerer, language_model: str, tmp_path: Path
) -> None:
    answerer.model.language_model.save_pretrained(str(tmp_path))
    base = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path))
    for key, value in adapted.state_dict().items():
        assert torch.equal(value, answerer.model.state_dict()[f"language_model.{key}"])


def test_training_that_was_interrupted_resumes_to_the_same_weights(
    language_model: str, tmp_path: Path
) -> None:
    rows = list(zip(QUESTIONS, LOOKS, ANSWERS, strict=True)) * 2

    def trained(steps: int, **options: object) -> SceneLM:
        answerer = SceneAnswerer.build(small_recipe(language_model))
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            save_steps=2,
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=answerer.model,
            args=arguments,
            train_dataset=rows,
            data_collator=lambda batch: dict(answerer.processor(*zip(*batch, strict=True))),
        )
        trainer.train(**options)
        return answerer.model

    whole = trained(4).state_dict()
    resumed = trained(4, resume_from_checkpoint=str(tmp_path / "checkpoint-2")).state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, msg=key)
    begun = SceneAnswerer.build(small_recipe(language_model)).model.state_dict()
    assert any(not torch.equal(whole[k], begun[k]) for k in whole if "lora_moe_B" in k)


def test_another_folder_for_the_base_model_wins(
    answerer: SceneAnswerer, tmp_path: Path, language_model: str
) -> None:
    answerer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["language_model"] = "nowhere/to-be-found"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="nowhere/to-be-found"):
        SceneAnswerer.load(tmp_path)
    loaded = SceneAnswerer.load(tmp_path, language_model)
    assert loaded.ask(LOOKS[0], "Why?") == answerer.ask(LOOKS[0], "Why?")


def test_untrained_parts_are_named(answerer: SceneAnswerer) -> None:
    parts = ["region encoder", "aggregator", "projector", "gate and LoRA experts"]
    assert answerer.untrained == parts


def test_without_experts_the_language_model_stays_as_it_is(language_model: str) -> None:
    answerer = SceneAnswerer.build(small_recipe(language_model, lora_moe=None))
    answer = answerer.ask(LOOKS[0], "How many?", max_new_tokens=4)
    assert answer.route == ()
    assert "gate and LoRA experts" not in answerer.untrained


def test_two_builds_are_the_same_model(answerer: SceneAnswerer, language_model: str) -> None:
    again = SceneAnswerer.build(small_recipe(language_model)).model.state_dict()
    for key, value in answerer.model.state_dict().items():
        if "lora_moe_B" not in key:
            assert torch.equal(value, again[key]), key


def test_any_decoder_takes_scene_tokens(tmp_path: Path) -> None:
    """OPT has learned absolute positions, so it would notice if padding were counted."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=400,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    OPTForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    answerer = SceneAnswerer.build(small_recipe(str(tmp_path)))
    together = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=6)
    alone = [
        answerer.ask(look, question, max_new_tokens=6)
        for look, question in zip(LOOKS, QUESTIONS, strict=True)
    ]
    assert [a.text for a in together] == [a.text for a in alone]


def test_a_bfloat16_language_model_with_float32_bridge(language_model: str, tmp_path: Path) -> None:
    answerer = SceneAnswerer.build(small_recipe(language_model, dtype="bfloat16"))
    dtypes = {p.dtype for p in answerer.model.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}
    assert answerer.model.get_input_embeddings().weight.dtype == torch.bfloat16
    batch = answerer.processor(QUESTIONS, LOOKS, ANSWERS)
    answerer.model(**batch).loss.backward()
    answers = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=4)
    answerer.save(tmp_path)
    loaded = SceneAnswerer.load(tmp_path)
    assert loaded.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert loaded.ask_batch(LOOKS, QUESTIONS, max_new_tokens=4) == answers


def test_training_mode_changes_neither_answers_nor_frozen_parts(answerer: SceneAnswerer) -> None:
    expected = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=8)
    tokens = answerer.tokens(LOOKS[0]).tokens
    answerer.model.train()
    try:
        assert not answerer.model.encoder.point_bert.training
        assert answerer.model.encoder.aggregator.training
        assert torch.equal(answerer.tokens(LOOKS[0]).tokens, tokens)
        assert answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=8) == expected
        assert answerer.model.encoder.aggregator.training
    finally:
        answerer.model.eval()


def test_greedy_whatever_the_language_model_was_set_to(answerer: SceneAnswerer) -> None:
    expected = answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=12)
    answerer.model.generation_config.do_sample = True
    answerer.model.generation_config.top_k = 50
    try:
        assert answerer.ask_batch(LOOKS, QUESTIONS, max_new_tokens=12) == expected
    finally:
        answerer.model.generation_config.do_sample = False
        answerer.model.generation_config.top_k = None


def test_the_gate_sees_the_same_in_training_and_in_generation(
    answerer: SceneAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    tuner = cast(LoraMoeModel, answerer.model.language_model.base_model)
    gate = tuner.lora_moe_gate["default"]
    forward = gate.forward

    def spy(question: Tensor) -> object:
        seen.append(question)
        return forward(question)

    monkeypatch.setattr(gate, "forward", spy)
    answerer.model(**batch_of(answerer, slice(0, 3), answers=True))
    batch = batch_of(answerer, slice(0, 3), answers=False)
    answerer.model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert len(seen) == 2  # once for the whole generation
    assert torch.allclose(seen[0], seen[1], atol=1e-6)


def test_a_gathered_state_dict_is_what_is_stored(answerer: SceneAnswerer, tmp_path: Path) -> None:
    """Where weights are sharded, Trainer hands the whole ones over."""
    state = {key: torch.full_like(v, 3) for key, v in answerer.model.state_dict().items()}
    answerer.model.save_pretrained(tmp_path / "other", state_dict=state, is_main_process=False)
    assert not (tmp_path / "other").exists()
    answerer.model.save_pretrained(tmp_path, state_dict=state)
    assert all((v == 3).all() for v in load_file(tmp_path / "model.safetensors").values())


def test_a_saved_model_cannot_make_itself_load_a_pickle(
    answerer: SceneAnswerer, tmp_path: Path
) -> None:
    answerer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoder"]["point_bert_weights"] = str(tmp_path / "nowhere.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert SceneAnswerer.load(tmp_path).ask(LOOKS[0], "Why?") == answerer.ask(LOOKS[0], "Why?")
    config["encoder"]["trust_pickle"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="trust_pickle: unknown key"):
        SceneAnswerer.load(tmp_path)


@pytest.mark.parametrize(
    "file, content",
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": "o2s_scene_lm"}'),
        ("tokenizer.json", "{"),
        ("processor_config.json", "{"),
        ("model.safetensors", "no"),
    ],
)
def test_a_damaged_saved_model_is_one_line(
    answerer: SceneAnswerer, tmp_path: Path, file: str, content: str
) -> None:
    answerer.save(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError) as raised:
        SceneAnswerer.load(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_captions_see_one_object_each(answerer: SceneAnswerer) -> None:
    look = LOOKS[1]
    done: list[tuple[int, int]] = []
    captions = answerer.caption(
        look, batch_size=4, max_new_tokens=6, progress=lambda n, of: done.append((n, of))
    )
    assert len(captions) == len(look.boxes)
    assert done == [(4, 6), (6, 6)]
    for i, caption in enumerate(captions):
        alone = RegionFeatures(look.boxes.select(torch.tensor([i])), look.features[i : i + 1])
        question = [DESCRIBE_OBJECT]
        (answer,) = answerer.ask_batch([alone], question, task="describe", max_new_tokens=6)
        assert caption == answer.text
    assert answerer.caption(LOOKS[2]) == []


def test_wrong_calls_say_what_is_wrong(answerer: SceneAnswerer, tmp_path: Path) -> None:
    batch = batch_of(answerer, slice(0, 1), answers=True)
    few = {**batch, "input_ids": batch["input_ids"].clone()}
    few["input_ids"][few["input_ids"] == answerer.processor.scene_token_id] = 5
    with pytest.raises(ValueError, match="0 places for scene tokens, expected 4"):
        answerer.model(**few)
    blind = {k: v for k, v in batch.items() if not k.startswith("region")}
    with pytest.raises(ValueError, match="no regions are given"):
        answerer.model(**blind)
    with pytest.raises(InputError, match="question is empty"):
        answerer.ask(LOOKS[0], " ")
    text = "x" * (2048 - batch["input_ids"].shape[1] + len(QUESTIONS[0]) + len(ANSWERS[0]) + 1)
    with pytest.raises(InputError, match="2148 tokens; the language model reads 2048"):
        answerer.ask(LOOKS[0], text, max_new_tokens=100)
    with pytest.raises(InputError, match="no such folder"):
        SceneAnswerer.build(small_recipe("/nowhere"))
    with pytest.raises(InputError, match=r"holds no config\.json"):
        SceneLM.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a language model that can be loaded"):
        SceneAnswerer.build(small_recipe(str(tmp_path)))
