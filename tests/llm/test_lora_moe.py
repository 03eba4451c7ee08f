"""The laws of LoRA-MoE as a PEFT tuner."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapted import IDS, MASK, QUESTIONS, adapted, as_lora, base_model, logits
from peft import get_peft_model
from torch import nn

from o2s.llm.lora_moe import LoraMoeConfig, LoraMoeLinear, Route
from o2s.llm.lora_moe.gate import Gate, RouteState, mean_of_question


def test_a_new_adapter_leaves_the_base_model(language_model: str) -> None:
    base = base_model(language_model)
    expected = logits(base)
    model = get_peft_model(base, LoraMoeConfig())
    got = logits(model, question_ids=QUESTIONS, question_mask=MASK)
    assert torch.equal(got, expected)


def test_every_expert_begins_as_wide_as_a_lora_does() -> None:
    """Kaiming over the 3-D tensor would make A about sqrt(r) times too small."""
    linear = nn.Linear(256, 64)
    layer = LoraMoeLinear(linear, "default", LoraMoeConfig(r=16), RouteState())
    bound = 256**-0.5  # uniform(-b, b) with b = 1 / sqrt(in_features)
    for expert in layer.lora_moe_A["default"].detach():
        assert float(expert.abs().max()) == pytest.approx(bound, rel=0.01)
        assert float(expert.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_layer_is_the_plain_sum_over_experts() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 7)
    state = RouteState()
    layer = LoraMoeLinear(linear, "default", LoraMoeConfig(r=3, lora_alpha=12.0), state)
    nn.init.normal_(layer.lora_moe_B["default"])
    weights = torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.6, 0.0, 0.4]])
    state.current = {"default": Route.from_weights(weights)}
    x = torch.randn(2, 5, 12)
    expected = linear(x)
    for row in range(2):
        for expert in range(4):
            a, b = layer.lora_moe_A["default"][expert], layer.lora_moe_B["default"][expert]
            expected[row] += 12 / 3 * weights[row, expert] * (x[row] @ a.T @ b.T)
    torch.testing.assert_close(layer(x), expected)


def test_one_expert_is_lora(language_model: str) -> None:
    """Also shows that alpha / r is applied."""
    ours = adapted(language_model, num_experts=1, top_k=1)
    theirs = as_lora(ours, language_model)
    got = logits(ours, question_ids=QUESTIONS, question_mask=MASK)
    torch.testing.assert_close(got, logits(theirs))


def test_a_question_takes_the_same_route_alone_padded_and_in_a_batch(language_model: str) -> None:
    model = adapted(language_model)
    tuner = model.base_model
    together = tuner.route(QUESTIONS, MASK).dense(4)
    alone = tuner.route(QUESTIONS[:1, :3]).dense(4)
    left = tuner.route(torch.tensor([[7, 8, 40, 41, 42]]), torch.tensor([[0, 0, 1, 1, 1]])).dense(4)
    torch.testing.assert_close(together[:1], alone)
    torch.testing.assert_close(left, alone)


def test_a_batch_equals_its_members(language_model: str) -> None:
    model = adapted(language_model)
    together = logits(model, question_ids=QUESTIONS, question_mask=MASK)
    for row in range(2):
        one = slice(row, row + 1)
        alone = logits(model, IDS[one], question_ids=QUESTIONS[one], question_mask=MASK[one])
        torch.testing.assert_close(together[one], alone)
    assert not torch.allclose(together, logits(model, routing_weights=torch.eye(4)[:2]))


def test_the_gate_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    gate = Gate(64, LoraMoeConfig(num_experts=8))
    questions = torch.randn(200, 64)
    expected = gate(questions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gate(questions)
    assert torch.equal(got.experts, expected.experts)
    assert torch.equal(got.weights, expected.weights)


def test_no_route_outlives_its_call(language_model: str) -> None:
    model = adapted(language_model)
    model(input_ids=IDS, labels=IDS, question_ids=QUESTIONS).loss.backward()
    with pytest.raises(RuntimeError, match="no route"):
        model.base_model.model(input_ids=IDS)


def test_gate_weights_sum_to_one_over_the_best_k() -> None:
    gate = Gate(8, LoraMoeConfig(num_experts=5, top_k=3))
    embeddings = torch.randn(4, 6, 8)
    route = gate(mean_of_question(embeddings, torch.ones(4, 6, dtype=torch.bool)))
    full = (embeddings.mean(dim=1) @ gate.weight.T).softmax(dim=-1)
    dense = route.dense(5)
    torch.testing.assert_close(dense.sum(dim=1), torch.ones(4))
    assert ((dense > 0).sum(dim=1) == 3).all()
    best = full.topk(3).indices
    torch.testing.assert_close(
        dense.gather(1, best), full.gather(1, best) / full.gather(1, best).sum(1, keepdim=True)
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_gate_and_active_experts(language_model: str, checkpointing: bool) -> None:
    model = adapted(language_model)
    reference = adapted(language_model)
    reference.load_state_dict(model.state_dict())
    if checkpointing:
        model.train()
        model.activation_checkpointing_enable()
    options = {"labels": IDS, "question_ids": QUESTIONS, "question_mask": MASK}
    model(input_ids=IDS, **options).loss.backward()
    reference(input_ids=IDS, **options).loss.backward()
    expected = dict(reference.named_parameters())
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert any("lora_moe_gate" in name for name in trainable)
    assert all("lora_moe_" in name for name in trainable)
    for name, parameter in trainable.items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name].grad)
        if "lora_moe_gate" in name:
            assert float(parameter.grad.abs().max()) > 0


def test_without_a_route_the_model_says_what_it_needs(language_model: str) -> None:
    model = adapted(language_model)
    model(input_ids=IDS, labels=IDS, question_ids=QUESTIONS).loss.backward()
    with pytest.raises(ValueError, match="question_ids"):
        model(input_ids=IDS)
    with pytest.raises(ValueError, match="not both"):
        model(input_ids=IDS, question_ids=QUESTIONS, routing_weights=torch.eye(4)[:2])


def test_disabled_adapter_is_the_base_model(language_model: str) -> None:
    expected = logits(base_model(language_model))
    model = adapted(language_model)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    assert not torch.allclose(logits(model, question_ids=QUESTIONS), expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_keeps_each_rows_route(language_model: str, beams: int) -> None:
    model = adapted(language_model)
    options = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False}
    ones = torch.ones_like(IDS)
    together = model.generate(
        input_ids=IDS, attention_mask=ones, question_ids=QUESTIONS, question_mask=MASK, **options
    )
    for row in range(2):
        route = model.base_model.route(QUESTIONS, MASK).dense(4)[row : row + 1]
        alone = model.generate(
            input_ids=IDS[row : row + 1],
            attention_mask=ones[:1],
            routing_weights=route,
            **options,
        )
        assert torch.equal(together[row], alone[0])


def test_saved_adapter_loads_equal_in_a_new_process(language_model: str, tmp_path: Path) -> None:
    model = adapted(language_model)
    model.save_pretrained(str(tmp_path))
    torch.save(logits(model, question_ids=QUESTIONS, question_mask=MASK), tmp_path / "expected.pt")
    script = f"""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
import o2s.llm.lora_moe
base = AutoModelForCausalLM.from_pretrained({language_model!r}, dtype=torch.float32)
model = PeftModel.from_pretrained(base, {str(tmp_path)!r}).eval()
ids, questions = torch.tensor({IDS.tolist()}), torch.tensor({QUESTIONS.tolist()})
with torch.no_grad():
    got = model(ids, question_ids=questions, question_mask=torch.tensor({MASK.tolist()})).logits
assert torch.equal(got, torch.load({str(tmp_path / "expected.pt")!r}))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_two_adapters_switch_and_one_is_deleted_with_its_gate(language_model: str) -> None:
    model = adapted(language_model)
    first = logits(model, question_ids=QUESTIONS)
    model.add_adapter("second", LoraMoeConfig(r=3, num_experts=2, top_k=1))
    assert torch.equal(logits(model, question_ids=QUESTIONS), first)
    model.set_adapter("second")
    assert torch.equal(logits(model, question_ids=QUESTIONS), logits(base_model(language_model)))
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all("second" in name for name in trainable)
    model.set_adapter("default")
    model.delete_adapter("second")
    assert not [name for name in model.state_dict() if "second" in name]
    assert torch.equal(logits(model, question_ids=QUESTIONS), first)


def test_merging_a_fixed_route_and_back(language_model: str) -> None:
    model = adapted(language_model)
    route = model.base_model.route(QUESTIONS[:1]).dense(4)
    expected = logits(model, IDS, routing_weights=route.repeat(2, 1))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="no route"):
        model.base_model.merge_adapter()
    model.base_model.fix_route(route[0])
    torch.testing.assert_close(logits(model), expected)
    model.base_model.merge_adapter()
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(base_model(language_model)))
    model.base_model.merge_adapter()
    model.base_model.unmerge_adapter()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=1e-5, rtol=0)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"top_k": 5}, r"top_k is 5, expected 1 to num_experts \(4\)"),
        ({"top_k": 0}, "top_k is 0"),
        ({"r": 0}, "r is 0, expected at least 1"),
        ({"num_experts": 0, "top_k": 1}, "num_experts is 0"),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraMoeConfig(**options)


def test_only_linear_layers_take_experts(language_model: str) -> None:
    with pytest.raises(ValueError, match="embed_tokens is a Embedding"):
        get_peft_model(base_model(language_model), LoraMoeConfig(target_modules=["embed_tokens"]))
